"""`python -m worldgen`, the same as the command `worldgen`."""

from __future__ import annotations

import sys

from worldgen.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())

"""The command line: `worldgen VERB ...`, one module a verb.

Each verb's module has a dataclass `Arguments`, from which its options are made, and a function
`run`. It is imported only when the verb is asked for, so that `worldgen --help` is quick.
"""

from __future__ import annotations

from worldgen.cli.application import main

__all__ = ["main"]

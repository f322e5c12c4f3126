"""What every benchmark does with its results: where they came from, and keeping them.

Classes:
    Parts: finished pieces of a long benchmark, each a JSON file, which are not done twice.

Functions:
    one_line_errors: what goes wrong, said as a command does.
    provenance: commit, versions, hardware and command.
    write_json: a file that is whole or not there.
    markdown_table: rows of text as a table.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from worldgen.checkpoint import write_json
from worldgen.errors import WorldgenError
from worldgen.interrupts import reader_is_gone

__all__ = ["Parts", "markdown_table", "one_line_errors", "provenance", "write_json"]

_PACKAGES = ("worldgen", "torch", "numpy", "gymnasium", "minigrid", "stable-baselines3")


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with one line where the library or the system says what is wrong."""
    try:
        yield
    except (WorldgenError, OSError) as error:
        sys.exit(1 if reader_is_gone(error) else f"error: {error}")


def provenance() -> dict[str, Any]:
    """Describe commit, versions, hardware and command, as plain JSON values."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in _PACKAGES},
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _git(*arguments: str) -> str:
    root = Path(__file__).parents[1]
    result = subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    return result.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


class Parts:
    """Finished pieces of a benchmark in a folder.

    A piece is known by its name and its settings: asked for again with the same ones, it is
    read and not done anew.

    Args:
        folder: Made when the first piece is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def get(
        self, name: str, settings: Mapping[str, Any], make: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Give the piece, made by `make` if it is not there yet."""
        text = json.dumps(settings, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        path = self._folder / f"{name}-{digest}.json"
        if path.exists():
            found: dict[str, Any] = json.loads(path.read_text())
            return found
        piece = {"settings": dict(settings), "provenance": provenance(), **make()}
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(path, piece)
        return piece

    def finished(self) -> list[dict[str, Any]]:
        """Read every piece that is there, by name."""
        return [json.loads(path.read_text()) for path in sorted(self._folder.glob("*.json"))]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay rows of text out as a Markdown table.

    >>> print(markdown_table(["a", "b"], [["1", "2"]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

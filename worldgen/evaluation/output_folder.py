"""Whether a folder may be written that a user named.

Functions:
    check_output: refuse what is somebody else's, before any work.
"""

from __future__ import annotations

from pathlib import Path

from worldgen.errors import CheckpointError

__all__ = ["check_output"]


def check_output(output: Path, overwrite: bool, *, marker: str, holds: str) -> None:
    """Make sure that a folder of one kind may be written.

    Args:
        output: The folder; it need not be there.
        overwrite: Whether a folder of this kind may be replaced.
        marker: File that every folder of this kind has.
        holds: What such a folder holds, for the error message.

    Raises:
        CheckpointError: If it holds something and `overwrite` is not set, or something else.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise CheckpointError(f"{output} is a file: choose another --output")
    present = any(output.iterdir())
    if present and not (output / marker).is_file():
        raise CheckpointError(
            f"{output} holds no {holds} and is not empty: choose another --output"
        )
    if present and not overwrite:
        raise CheckpointError(f"{output} exists already: pass --overwrite, or another --output")

"""Model folders: config.json and safetensors files, written whole or not at all.

Classes:
    Folder: a folder that was read, ready to restore modules from.

Functions:
    save_folder, load_folder: write and read one.
    folder_kind: which kind of model a folder holds.
    write_atomically: flush to a temporary name, then rename.
    write_json, write_text: likewise, for JSON and for text.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save_file as save_tensors
from torch import Tensor, nn

from worldgen.errors import CheckpointError
from worldgen.version import __version__

__all__ = [
    "FORMAT_VERSION",
    "Folder",
    "folder_kind",
    "load_folder",
    "save_folder",
    "write_atomically",
    "write_json",
    "write_text",
]

FORMAT_VERSION = 1
_CONFIG = "config.json"
_REPORT = "report.json"
"""What was measured of the weights; true of these alone."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary path beside `path`, flush it to disk and rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    """Write JSON to a temporary file, flush it and rename it."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text, as UTF-8, to a temporary file, flush it and rename it."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(path, write)


@dataclass(frozen=True)
class Folder:
    """A model folder in memory."""

    path: Path
    description: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]

    def field(self, name: str) -> Any:
        """Give a field of config.json.

        Raises:
            CheckpointError: If it is not there.
        """
        if name not in self.description:
            raise CheckpointError(f"{self.path / _CONFIG} is damaged: it lacks {name!r}")
        return self.description[name]

    def restore(self, name: str, module: nn.Module) -> None:
        """Load the tensors of `name` into `module`.

        Raises:
            CheckpointError: If a name or a shape does not match; the message lists them.
        """
        expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
        found = {key: tuple(value.shape) for key, value in self.tensors[name].items()}
        wrong = [
            f"{key} is {found.get(key, 'missing')} and must be {expected.get(key, 'absent')}"
            for key in sorted(expected.keys() | found.keys())
            if expected.get(key) != found.get(key)
        ]
        if wrong:
            raise CheckpointError(
                f"{self.path / name}.safetensors does not fit its config.json: "
                f"{'; '.join(wrong[:5])}"
            )
        module.load_state_dict(self.tensors[name])


def save_folder(
    path: str | Path,
    kind: str,
    description: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]],
    *,
    overwrite: bool = False,
) -> None:
    """Write a model folder; an interrupted write leaves the old folder as it was.

    Args:
        path: The folder.
        kind: "tokenizer" or "world_model"; checked on loading.
        description: JSON values for config.json.
        tensors: File stem -> state dictionary.
        overwrite: Replace an existing model folder. Other files in it stay, but for its
            report.json, which was measured on the old weights.

    Raises:
        CheckpointError: If the path exists and is not to be, or may not be, replaced.
    """
    path = Path(path)
    _check_target(path, overwrite)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for name, state in tensors.items():
            contiguous = {key: value.detach().cpu().contiguous() for key, value in state.items()}
            write_atomically(
                temporary / f"{name}.safetensors",
                partial(save_tensors, contiguous),
            )
        header = {"kind": kind, "format_version": FORMAT_VERSION, "worldgen_version": __version__}
        write_json(temporary / _CONFIG, {**header, **description})
        _replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_target(path: Path, overwrite: bool) -> None:
    if not path.exists():
        return
    if not overwrite:
        raise CheckpointError(f"{path} exists already; pass overwrite=True to replace it")
    if not path.is_dir() or (any(path.iterdir()) and not (path / _CONFIG).exists()):
        raise CheckpointError(f"{path} is no model folder, so it is not replaced; choose another")


def _replace(temporary: Path, path: Path) -> None:
    """Put the new folder in the old one's place; files that are not ours move along.

    A report does not: it is about the old weights.
    """
    if not path.exists():
        temporary.rename(path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    path.rename(old)
    try:
        temporary.rename(path)
    except BaseException:
        old.rename(path)
        raise
    for file in old.iterdir():
        if file.name != _REPORT and not (path / file.name).exists():
            file.rename(path / file.name)
    shutil.rmtree(old, ignore_errors=True)


def load_folder(path: str | Path, kind: str, names: tuple[str, ...]) -> Folder:
    """Read what `save_folder` wrote.

    Raises:
        CheckpointError: If something is missing, damaged, of another kind or too new.
    """
    path = Path(path)
    config = path / _CONFIG
    if not config.is_file():
        raise CheckpointError(f"{path} must be a folder with {_CONFIG}, as `save` writes it")
    try:
        description = json.loads(config.read_text(encoding="utf-8"))
        tensors = {name: load_file(path / f"{name}.safetensors") for name in names}
    except (json.JSONDecodeError, SafetensorError, OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged or incomplete: {error}") from error
    found = description.get("kind") if isinstance(description, dict) else None
    if found != kind:
        raise CheckpointError(f"{path} must hold a {kind}, got {found!r}")
    if description.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {description.get('format_version')!r}, this version of "
            f"worldgen reads {FORMAT_VERSION}"
        )
    return Folder(path, description, tensors)


def folder_kind(path: str | Path) -> str | None:
    """Read which kind of model a folder holds; None where `load_folder` will say what is wrong."""
    try:
        description = json.loads((Path(path) / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return description.get("kind") if isinstance(description, dict) else None

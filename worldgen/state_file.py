"""Nested states of tensors and plain values in one safetensors file; never a pickle.

Functions:
    save_state, load_state: write and read one.

Tensors are stored by number. What lies around them (dictionaries, lists, tuples, numbers,
strings) is JSON in the file's metadata, so that integer keys, tuples and the difference between
1 and 1.0 come back as they were.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from worldgen.checkpoint import write_atomically
from worldgen.errors import CheckpointError
from worldgen.version import __version__

__all__ = ["load_state", "save_state"]

_FORMAT_VERSION = "1"


def save_state(path: str | Path, kind: str, state: Any) -> None:
    """Write a state; an interrupted write leaves the old file as it was.

    Args:
        path: The file.
        kind: What it is; checked on loading.
        state: Tensors, None, booleans, integers, floats and strings in dictionaries, lists and
            tuples. Keys of dictionaries are strings or integers.

    Raises:
        TypeError: If there is anything else in it.
    """
    tensors: dict[str, Tensor] = {}
    metadata = {
        "kind": kind,
        "format_version": _FORMAT_VERSION,
        "worldgen_version": __version__,
        "state": json.dumps(_pack(state, tensors)),
    }
    write_atomically(Path(path), lambda file: save_file(tensors, file, metadata))


def load_state(path: str | Path, kind: str) -> Any:
    """Read what `save_state` wrote; tensors are on the CPU.

    Raises:
        CheckpointError: If the file is missing, damaged, of another kind or too new.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} must be a file that worldgen wrote, and there is none")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _check(path, metadata, kind)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _unpack(json.loads(metadata["state"]), tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _check(path: Path, metadata: dict[str, str], kind: str) -> None:
    found, version = metadata.get("kind"), metadata.get("format_version")
    if found != kind:
        raise CheckpointError(f"{path} must hold a {kind}, got {found!r}")
    if version != _FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version!r}, this version of worldgen reads "
            f"{_FORMAT_VERSION!r}"
        )


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Turn a value into JSON; its tensors go to `tensors`."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # A copy, since the same memory may occur twice.
        tensors[name] = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, dict):
        wrong = [key for key in value if type(key) not in (str, int)]
        if wrong:
            raise TypeError(f"keys of a state must be strings or integers, got {wrong[0]!r}")
        return {"items": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_pack(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_pack(item, tensors) for item in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"a state holds tensors and plain values, got {type(value).__name__}")


def _unpack(packed: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(packed, list):
        return [_unpack(item, tensors) for item in packed]
    if not isinstance(packed, dict):
        return packed
    ((form, content),) = packed.items()
    if form == "tensor":
        return tensors[content]
    if form == "tuple":
        return tuple(_unpack(item, tensors) for item in content)
    if form == "items":
        return {key: _unpack(item, tensors) for key, item in content}
    raise ValueError(f"unknown form {form!r}")

"""Nested states of training as one safetensors file: no pickle, written whole or not at all.

Functions:
    save_state, load_state: dictionaries, lists and tuples of tensors and plain values.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from worldgen.checkpoint import write_atomically
from worldgen.errors import CheckpointError

__all__ = ["load_state", "save_state"]

_STRUCTURE = "structure"


def save_state(path: str | Path, state: Any) -> None:
    """Write a nested state; a file that is there is replaced at once or not at all.

    Args:
        path: The file; its folder is made.
        state: Dictionaries (keys of any plain type), lists and tuples of tensors, None, booleans,
            numbers and strings.

    Raises:
        TypeError: If it holds something else.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_pack(state, tensors))
    write = partial(save_file, tensors, metadata={_STRUCTURE: structure})
    write_atomically(path, write)


def load_state(path: str | Path) -> Any:
    """Read what `save_state` wrote, onto the CPU.

    Raises:
        CheckpointError: If the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            structure = json.loads((file.metadata() or {})[_STRUCTURE])
            return _unpack(structure, file)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged or no state of a training: {error}") from error


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Give JSON for the structure; tensors go to `tensors`, under their number."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # A copy: safetensors refuses tensors that share memory.
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_pack(k, tensors), _pack(v, tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(part, tensors) for part in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(f"a state must be made of tensors and plain values, got {type(value).__name__}")


def _unpack(node: Any, file: Any) -> Any:
    ((kind, value),) = node.items()
    if kind == "tensor":
        return file.get_tensor(value)
    if kind == "dict":
        return {_unpack(k, file): _unpack(v, file) for k, v in value}
    if kind == "list":
        return [_unpack(part, file) for part in value]
    if kind == "tuple":
        return tuple(_unpack(part, file) for part in value)
    return value

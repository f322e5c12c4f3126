"""What is refused before it is encoded or decoded.

Functions:
    check_batch: the shapes and types of a flat batch.
    check_pixels: symbols that are declared as a picture.
    check_tokens: the shape, type and range of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from worldgen.errors import ShapeError, SpaceError
from worldgen.tokenizer.image import Image
from worldgen.tokenizer.modality import Modality

__all__ = ["check_batch", "check_pixels", "check_tokens"]

_LARGEST_SYMBOL = 15


def check_batch(
    leaves: Mapping[str, spaces.Space[Any]], observations: Mapping[str, np.ndarray]
) -> int:
    """Check a flat batch, path -> (B, ...), against the leaves; give B.

    Raises:
        ShapeError: If an array is missing, has another shape behind the batch, another length
            than the others, or real numbers in place of whole ones.
    """
    batch = None
    for path, leaf in leaves.items():
        shape = leaf.shape or ()
        actual = np.shape(observations[path]) if path in observations else None
        if not actual or actual[1:] != shape:
            found = "nothing" if actual is None else f"{actual}"
            if actual == shape:
                found = f"one of shape {shape}: add a batch dimension, `observation[None]`"
            raise ShapeError(
                f"`observations` must hold {path!r} as a batch of shape "
                f"({', '.join(['B', *map(str, shape)])}), got {found}"
            )
        if batch not in (None, actual[0]):
            raise ShapeError(
                f"`observations` must hold equally many of each part, got {batch} and, of "
                f"{path!r}, {actual[0]}"
            )
        batch = actual[0]
        dtype: Any = getattr(observations[path], "dtype", leaf.dtype)
        if leaf.dtype is not None and leaf.dtype.kind in "iub" and dtype.kind == "f":
            raise ShapeError(
                f"`observations` must hold {path!r} as whole numbers, {leaf.dtype}, got {dtype}"
            )
    return batch or 0


def check_tokens(tokens: Tensor | np.ndarray, sizes: np.ndarray) -> Tensor:
    """Check tokens (B, K), of `sizes` (K,) codes at each position; give them as a tensor.

    Raises:
        ShapeError: If they have another shape, are no whole numbers, or out of range.
    """
    if not isinstance(tokens, Tensor | np.ndarray):
        raise ShapeError(f"`tokens` must be a tensor or an array, got {type(tokens).__name__}")
    checked = torch.as_tensor(tokens)
    if checked.ndim != 2 or checked.shape[1] != len(sizes):
        raise ShapeError(
            f"`tokens` must have the shape (B, {len(sizes)}), got {tuple(checked.shape)}"
        )
    if checked.is_floating_point() or checked.dtype == torch.bool:
        raise ShapeError(f"`tokens` must be whole numbers, got {checked.dtype}")
    limits = torch.from_numpy(sizes).to(checked.device)
    wrong = (checked < 0) | (checked >= limits)
    if bool(wrong.any()):
        row, position = wrong.nonzero()[0].tolist()
        raise ShapeError(
            f"`tokens` must be in [0, {sizes[position]}) at position {position}, got "
            f"{int(checked[row, position])}"
        )
    return checked.long()


def check_pixels(path: str, modality: Modality, chunks: list[dict[str, np.ndarray]]) -> None:
    """Refuse "pictures" whose values are all tiny: those are symbols.

    Raises:
        SpaceError: If they are.
    """
    if isinstance(modality, Image):
        largest = max(int(chunk[path].max()) for chunk in chunks)
        if 0 < largest <= _LARGEST_SYMBOL:
            raise SpaceError(
                f"{path!r} is declared as pixels in 0..255, but its largest value is {largest}: "
                f"these look like symbols; say `modalities={{{path!r}: 'symbolic'}}` or give the "
                "space its true bounds"
            )

"""What comes back from a tokenizer, in the terms of each kind of observation.

Functions:
    measure_reconstruction: shares, recalls, PSNR and R2 over held-out frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from worldgen.spaces import flatten, leaves, unflatten
from worldgen.tokenizer import Tokenizer
from worldgen.tokenizer.modality import modality_name

__all__ = ["measure_reconstruction"]

_BATCH = 4096
_TILE = 8
"""Pixels on the side of MiniGrid's tiles."""
_DOOR = 4


def measure_reconstruction(
    tokenizer: Tokenizer, training: Mapping[str, np.ndarray], held_out: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Compare flat held-out frames, path -> (N, ...), with what their tokens give back.

    Returns:
        "exact" share of frames whose symbols, categories and texts are all right; "recall" by
        kind of object, and its worst; "tiles" and "psnr" of pictures; "worst_r_squared" of
        vectors; "codes", and the share of them that the training frames use.
    """
    decoded = _reconstruct(tokenizer, held_out)
    found: dict[str, Any] = _codes(tokenizer, training)
    exact = None
    for path, leaf in leaves(tokenizer.space).items():
        real, back = np.asarray(held_out[path]), decoded[path]
        name = modality_name(path, leaf, tokenizer.config.modalities.get(path))
        if name == "vector":
            found["worst_r_squared"] = float(_r_squared(real, back).min())
        elif name == "image":
            found |= _pictures(np.asarray(training[path]), real, back)
        else:
            same = (real == back).reshape(len(real), -1).all(1)
            found[f"exact_{path}"] = float(same.mean())
            exact = same if exact is None else exact & same
        if name == "symbolic" and real.shape[-1] == 3:
            found["recall"] = _recall(real, back)
            found["worst_recall"] = min(found["recall"].values())
    found["exact"] = None if exact is None else float(exact.mean())
    return found


def _reconstruct(tokenizer: Tokenizer, frames: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    count = len(next(iter(frames.values())))
    parts = []
    for first in range(0, count, _BATCH):
        piece = {path: values[first : first + _BATCH] for path, values in frames.items()}
        back = tokenizer.reconstruct(unflatten(tokenizer.space, piece))
        parts.append(flatten(tokenizer.space, back))
    return {path: np.concatenate([part[path] for part in parts]) for path in frames}


def _codes(tokenizer: Tokenizer, frames: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Count the codes of learned codebooks that frames use; categories and texts apart."""
    if not tokenizer.is_discrete:
        return {}
    size = tokenizer.config.quantizer.codebook_size
    learned = {
        path
        for path, leaf in leaves(tokenizer.space).items()
        if modality_name(path, leaf, tokenizer.config.modalities.get(path))
        in ("symbolic", "image", "vector")
    }
    tokens = tokenizer.encode(unflatten(tokenizer.space, dict(frames))).cpu().numpy()
    shares = []
    for codebook in tokenizer.codebooks:
        if any(_within(codebook.tokens, tokenizer.token_slices[path]) for path in learned):
            used = len(np.unique(tokens[:, codebook.tokens]))
            shares.append(used / size)
    return {"codes": size, "codes_in_use_share": float(np.mean(shares))} if shares else {}


def _within(inner: slice, outer: slice) -> bool:
    return bool(outer.start <= inner.start and inner.stop <= outer.stop)


def _recall(real: np.ndarray, back: np.ndarray) -> dict[str, float]:
    """Share of cells that come back whole, by object; doors by their state too."""
    right = (real == back).all(-1)
    kinds = real[..., 0].astype(int) * 10 + np.where(real[..., 0] == _DOOR, real[..., 2], 0)
    return {
        f"object {kind // 10}" + (f" state {kind % 10}" if kind // 10 == _DOOR else ""): float(
            right[kinds == kind].mean()
        )
        for kind in np.unique(kinds)
    }


def _r_squared(real: np.ndarray, back: np.ndarray) -> np.ndarray:
    errors = ((back - real) ** 2).sum(0)
    spread = ((real - real.mean(0)) ** 2).sum(0)
    found: np.ndarray = 1 - errors / np.maximum(spread, 1e-12)
    return found


def _pictures(training: np.ndarray, real: np.ndarray, back: np.ndarray) -> dict[str, float]:
    """PSNR of the mean squared error, and the share of tiles nearest to the true tile."""
    squared = ((back.astype(np.float32) - real) ** 2).mean()
    known = np.unique(np.concatenate([_tiles(training[::5]), _tiles(real)]), axis=0)
    known = known.astype(np.float32)
    half_norms = 0.5 * (known**2).sum(1)
    right = []
    for first in range(0, len(real), 256):
        tiles = _tiles(back[first : first + 256]).astype(np.float32)
        nearest = (half_norms - tiles @ known.T).argmin(1)
        right.append((known[nearest] == _tiles(real[first : first + 256])).all(1))
    return {
        "psnr": float(10 * np.log10(255**2 / max(float(squared), 1e-9))),
        "tiles": float(np.concatenate(right).mean()),
    }


def _tiles(pictures: np.ndarray) -> np.ndarray:
    count, height, width, channels = pictures.shape
    cut = pictures.reshape(count, height // _TILE, _TILE, width // _TILE, _TILE, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(-1, _TILE * _TILE * channels)

"""Codes of the symbol patches that were met before, and patches of codes.

Classes:
    PatchMemory.

An environment that is stepped one frame at a time shows the same patches again and again. To
look them up costs a tenth of a pass through the encoder for so few.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from worldgen.tokenizer.modality import Modality

__all__ = ["PatchMemory"]

_MOST_PATCHES = 65_536


class PatchMemory:
    """Encode a few frames of symbols by looking their patches up.

    Args:
        modality: Cuts frames into patches; made of cells of symbols.
        shape: Of a frame.
        encode: The encoder, (B, ...) observations to codes (B, R, patches), which is asked
            where a frame has an unknown patch.
    """

    def __init__(
        self, modality: Modality, shape: tuple[int, ...], encode: Callable[[Tensor], Tensor]
    ) -> None:
        size = int(np.prod(shape))
        # Where each value of a patch is in the flat frame; 0, the padding, is put in front.
        numbered = torch.arange(1, size + 1).reshape(1, *shape)
        self._places = modality.patchify(numbered)[0].numpy()  # (patches, P)
        # And back: where each value of a frame is among those of its patches.
        self._values = self._places.ravel().argsort(kind="stable")[-size:]
        self._shape, self._encode = shape, encode
        self._codes: dict[bytes, tuple[int, ...]] = {}

    def clear(self) -> None:
        """Forget everything; to be called whenever the encoder has changed."""
        self._codes.clear()

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Give the codes (B, R, patches) int64 of frames (B, ...)."""
        flat = np.zeros((len(frames), 1 + frames[0].size), frames.dtype)
        flat[:, 1:] = frames.reshape(len(frames), -1)
        patches = flat[:, self._places]  # (B, patches, P)
        width = patches.shape[-1] * patches.itemsize
        data = patches.tobytes()
        keys = [data[first : first + width] for first in range(0, len(data), width)]
        try:
            found = [self._codes[key] for key in keys]
        except KeyError:
            found = self._learn(frames, keys)
        by_patch = np.array(found, np.int64).reshape(len(frames), len(self._places), -1)
        return by_patch.transpose(0, 2, 1)

    def decode(self, codes: np.ndarray, table: np.ndarray) -> np.ndarray:
        """Give the frames (B, ...) of codes (B, patches) by a table (V, P) of their patches."""
        values = table[codes].reshape(len(codes), self._places.size)[:, self._values]
        frames: np.ndarray = values.reshape(len(codes), *self._shape)
        return frames

    def _learn(self, frames: np.ndarray, keys: list[bytes]) -> list[tuple[int, ...]]:
        if len(self._codes) > _MOST_PATCHES:
            self._codes.clear()
        codes = self._encode(torch.from_numpy(np.ascontiguousarray(frames)))
        found = [tuple(each) for each in codes.transpose(1, 2).flatten(0, 1).tolist()]
        self._codes.update(zip(keys, found, strict=True))
        return found

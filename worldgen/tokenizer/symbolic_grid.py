"""Grids of category indices, such as MiniGrid's object, colour and state.

Classes:
    SymbolicGrid: strip-of-cells modality with a cross-entropy per cell and channel.

Functions:
    patch_shape: rows and columns of a patch for a grid.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional

from worldgen.errors import SpaceError
from worldgen.tokenizer.plausible_patches import plausible_patches

__all__ = ["SymbolicGrid", "patch_shape"]

_STRIP = 4
_LONG_STRIP = 8


def patch_shape(height: int, width: int, max_tokens: int) -> tuple[int, int]:
    """Choose the patch of a (height, width) grid: a strip along its second axis.

    The strips are equal and at most 4 cells long. Where the grid would have more than
    `max_tokens` of them, they are at most 8 cells long.

    >>> patch_shape(7, 7, 14), patch_shape(8, 8, 14), patch_shape(6, 6, 14)
    ((1, 4), (1, 8), (1, 3))
    """
    strips = math.ceil(width / _STRIP)
    if height * strips > max_tokens:
        strips = math.ceil(width / _LONG_STRIP)
    return 1, math.ceil(width / strips)


class SymbolicGrid:
    """Non-overlapping patches of an integer grid (H, W) or (H, W, channels).

    The grid is padded with zeros at the bottom and the right to whole patches.

    Args:
        space: Integer Box; channel c has `high[..., c].max() + 1` categories.
        shape: Rows and columns of a patch.
    """

    shared_codebook = True
    linear_skip = False
    shared_scale = False
    features_describe = True
    unseen_error = 0.0

    def __init__(self, space: spaces.Box, shape: tuple[int, int]) -> None:
        self._shape = space.shape
        height, width, channels = (*space.shape, 1)[:3]
        self.patch_shape: tuple[int, ...] = shape
        self.cell_size = channels
        self.grid = (math.ceil(height / shape[0]), math.ceil(width / shape[1]))
        self.num_patches = self.grid[0] * self.grid[1]
        categories = space.high.reshape(-1, channels).max(0).astype(np.int64) + 1
        # Each of a patch's values (row, column, channel order) has its own slice of one-hots.
        self._sizes = torch.from_numpy(np.tile(categories, shape[0] * shape[1]))
        self._offsets = self._sizes.cumsum(0) - self._sizes
        self._widest = int(categories.max())
        self.num_features = self.num_outputs = int(self._sizes.sum())

    def check(self, observations: Tensor) -> None:
        """Refuse values that are no category of their channel."""
        if not len(observations):
            return
        cells = observations.reshape(-1, self.cell_size)
        low, high = int(cells.min()), cells.amax(0).tolist()
        most = (self._sizes[: self.cell_size] - 1).tolist()
        if low < 0 or any(value > limit for value, limit in zip(high, most, strict=True)):
            raise SpaceError(f"must be in 0..{most} by channel, got {low}..{high}")

    def patchify(self, observations: Tensor) -> Tensor:
        """Cut (B, H, W[, channels]) into (B, K, P) int64."""
        batch = len(observations)
        grid = observations.reshape(batch, *(*self._shape, 1)[:3])
        (rows, columns), (down, right) = self.grid, self.patch_shape
        pad_bottom, pad_right = rows * down - grid.shape[1], columns * right - grid.shape[2]
        grid = functional.pad(grid, (0, 0, 0, pad_right, 0, pad_bottom))
        patches = grid.reshape(batch, rows, down, columns, right, -1)
        return patches.transpose(2, 3).reshape(batch, self.num_patches, -1).long()

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Undo `patchify`."""
        (rows, columns), (down, right) = self.grid, self.patch_shape
        height, width, channels = (*self._shape, 1)[:3]
        grid = patches.reshape(-1, rows, columns, down, right, channels)
        grid = grid.transpose(2, 3).reshape(-1, rows * down, columns * right, channels)
        return grid[:, :height, :width].reshape(-1, *self._shape)

    def features(self, patches: Tensor) -> Tensor:
        """One-hot every value: (N, G, P) -> (N, G, sum of categories)."""
        positions = patches + self._offsets.to(patches.device)
        zeros = torch.zeros(*patches.shape[:-1], self.num_features, device=patches.device)
        return zeros.scatter_(-1, positions, 1.0)

    def loss(self, outputs: Tensor, patches: Tensor) -> Tensor:
        """Sum of the cross-entropies of a patch's values."""
        logits = self._by_value(outputs)
        return -logits.log_softmax(-1).gather(-1, patches.unsqueeze(-1)).sum((-1, -2))

    def values(self, outputs: Tensor) -> Tensor:
        """Most likely category of each value."""
        return self._by_value(outputs).argmax(-1)

    def plausible(self, patches: Tensor, room: int, generator: torch.Generator) -> Tensor:
        """Unseen patches that differ in one cell from many seen ones."""
        return plausible_patches(patches.squeeze(1), self.cell_size, room).unsqueeze(1)

    def errors(self, values: Tensor, patches: Tensor) -> Tensor:
        """Count the wrong values of each patch."""
        return (values != patches).sum(-1).float()

    def _by_value(self, outputs: Tensor) -> Tensor:
        """Spread the outputs to (N, G, P, widest), with -inf where there is no category."""
        category = torch.arange(self._widest, device=outputs.device)
        sizes = self._sizes.to(outputs.device).unsqueeze(-1)
        index = (self._offsets.to(outputs.device).unsqueeze(-1) + category).clamp(
            max=self.num_outputs - 1
        )
        return outputs[..., index].masked_fill(category >= sizes, -torch.inf)

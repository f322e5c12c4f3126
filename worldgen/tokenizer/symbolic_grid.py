"""Grids of category indices, such as MiniGrid's object, colour and state.

Classes:
    SymbolicGrid: 2x2-patch modality with a cross-entropy per cell and channel.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional

__all__ = ["SymbolicGrid"]


class SymbolicGrid:
    """Non-overlapping square patches of an integer grid (H, W) or (H, W, channels).

    The grid is padded with zeros at the bottom and the right to whole patches.

    Args:
        space: Integer Box; channel c has `high[..., c].max() + 1` categories.
        patch_size: Cells on a patch's side.
    """

    shared_codebook = True
    linear_skip = False
    features_describe = True

    def __init__(self, space: spaces.Box, patch_size: int) -> None:
        self._shape = space.shape
        height, width, channels = (*space.shape, 1)[:3]
        self._grid = (math.ceil(height / patch_size), math.ceil(width / patch_size))
        self._patch = patch_size
        self.num_tokens = self._grid[0] * self._grid[1]
        categories = space.high.reshape(-1, channels).max(0).astype(np.int64) + 1
        # Each of a patch's values (row, column, channel order) has its own slice of one-hots.
        self._sizes = torch.from_numpy(np.tile(categories, patch_size * patch_size))
        self._offsets = self._sizes.cumsum(0) - self._sizes
        self._widest = int(categories.max())
        self.num_features = self.num_outputs = int(self._sizes.sum())

    def patchify(self, observations: Tensor) -> Tensor:
        """Cut (B, H, W[, channels]) into (B, K, P) int64."""
        batch = len(observations)
        grid = observations.reshape(batch, *(*self._shape, 1)[:3])
        rows, columns = self._grid
        pad_bottom = rows * self._patch - grid.shape[1]
        pad_right = columns * self._patch - grid.shape[2]
        grid = functional.pad(grid, (0, 0, 0, pad_right, 0, pad_bottom))
        patches = grid.reshape(batch, rows, self._patch, columns, self._patch, -1)
        return patches.transpose(2, 3).reshape(batch, self.num_tokens, -1).long()

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Undo `patchify`."""
        rows, columns = self._grid
        height, width, channels = (*self._shape, 1)[:3]
        grid = patches.reshape(-1, rows, columns, self._patch, self._patch, channels)
        grid = grid.transpose(2, 3).reshape(-1, rows * self._patch, columns * self._patch, channels)
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

"""Pictures: uint8 arrays of any size.

Classes:
    Image: square-patch modality with a squared-error loss.
"""

from __future__ import annotations

import math

import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional

__all__ = ["Image"]

_PATCH_MULTIPLE = 8
_RIGHT = 1.0


class Image:
    """Non-overlapping square patches of an (H, W, channels) picture.

    The patch is the smallest multiple of 8 pixels that gives at most `max_tokens` patches, so
    that MiniGrid's 8-pixel tiles are never cut. Channels-first pictures (channels, H, W) and
    grey ones (H, W) are taken too.

    Args:
        space: uint8 Box.
        max_tokens: Largest number of patches K.
    """

    shared_codebook = True
    linear_skip = False
    shared_scale = False
    features_describe = False
    unseen_error = 4.0
    cell_size = 0

    def __init__(self, space: spaces.Box, max_tokens: int) -> None:
        self._shape = space.shape
        self._channels_first = len(space.shape) == 3 and space.shape[0] < space.shape[2]
        height, width, self._channels = self._size()
        patch = _PATCH_MULTIPLE
        while math.ceil(height / patch) * math.ceil(width / patch) > max_tokens:
            patch += _PATCH_MULTIPLE
        self._patch = patch
        self.patch_shape: tuple[int, ...] = (patch, patch)
        self._grid = (math.ceil(height / patch), math.ceil(width / patch))
        self.num_patches = self._grid[0] * self._grid[1]
        self.num_features = self.num_outputs = patch * patch * self._channels

    def _size(self) -> tuple[int, int, int]:
        if len(self._shape) == 2:
            return self._shape[0], self._shape[1], 1
        if self._channels_first:
            return self._shape[1], self._shape[2], self._shape[0]
        return self._shape[0], self._shape[1], self._shape[2]

    def check(self, observations: Tensor) -> None:
        """Take all pixels."""

    def patchify(self, observations: Tensor) -> Tensor:
        """Cut (B, ...) pictures into (B, K, P) uint8, edges repeated as padding."""
        batch = len(observations)
        height, width, channels = self._size()
        picture = observations.movedim(1, -1) if self._channels_first else observations
        picture = picture.reshape(batch, height, width, channels)
        rows, columns = self._grid
        bottom, right = rows * self._patch - height, columns * self._patch - width
        if bottom or right:
            planes = picture.movedim(-1, 1).float()
            planes = functional.pad(planes, (0, right, 0, bottom), mode="replicate")
            picture = planes.to(observations.dtype).movedim(1, -1)
        patches = picture.reshape(batch, rows, self._patch, columns, self._patch, channels)
        return patches.transpose(2, 3).reshape(batch, self.num_patches, -1)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Undo `patchify`."""
        rows, columns = self._grid
        height, width, channels = self._size()
        picture = patches.reshape(-1, rows, columns, self._patch, self._patch, channels)
        picture = picture.transpose(2, 3).reshape(
            -1, rows * self._patch, columns * self._patch, channels
        )[:, :height, :width]
        picture = picture.movedim(-1, 1) if self._channels_first else picture
        return picture.reshape(-1, *self._shape)

    def features(self, patches: Tensor) -> Tensor:
        """Pixels in [-1, 1]."""
        return patches.float() / 127.5 - 1

    def loss(self, outputs: Tensor, patches: Tensor) -> Tensor:
        """Squared error of the pixels, summed in units of a tenth of the range."""
        return (outputs - self.features(patches)).square().sum(-1) * 5.0

    def values(self, outputs: Tensor) -> Tensor:
        """Pixels in 0..255."""
        return ((outputs + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def plausible(self, patches: Tensor, room: int, generator: torch.Generator) -> Tensor:
        """None."""
        return patches[:0]

    def errors(self, values: Tensor, patches: Tensor) -> Tensor:
        """Mean absolute error of the pixels, in grey levels; one under 1 counts as 0."""
        error = (values.float() - patches.float()).abs().mean(-1)
        return torch.where(error < _RIGHT, 0.0, error)

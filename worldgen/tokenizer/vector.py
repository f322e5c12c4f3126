"""Vectors of real numbers, such as positions and velocities.

Classes:
    Vector: groups of entries as patches, each with a codebook of its own.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional

from worldgen.tokenizer.modality import check_finite

__all__ = ["Vector"]

_RIGHT = 0.02
_OUTER_SHARE = 0.01
"""Part of the seen values from which values beyond them are made."""


class Vector:
    """Neighbouring entries of a flattened Box, at most `max_tokens` groups of equal size.

    Entries are standardised by the autoencoder that owns this modality; up to `max_tokens`
    entries have a token each, which is a learned scalar quantizer.

    Args:
        space: Box of any shape.
        max_tokens: Largest number of groups K.
    """

    shared_codebook = False
    linear_skip = True
    shared_scale = False
    features_describe = True
    unseen_error = 0.0
    cell_size = 0

    def __init__(self, space: spaces.Box, max_tokens: int) -> None:
        self._shape = space.shape
        self._size = int(np.prod(space.shape))
        self._bounds = tuple(
            torch.from_numpy(np.asarray(bound, np.float32)).unsqueeze(0)
            for bound in (space.low, space.high)
        )
        group = math.ceil(self._size / max_tokens)
        self.num_patches = math.ceil(self._size / group)
        self.num_features = self.num_outputs = group
        self.patch_shape: tuple[int, ...] = (group,)

    def check(self, observations: Tensor) -> None:
        """Refuse NaN and infinity."""
        check_finite(observations)

    def patchify(self, observations: Tensor) -> Tensor:
        """Cut (B, ...) vectors into (B, K, P) float32."""
        flat = observations.reshape(len(observations), self._size).float()
        padding = self.num_patches * self.num_features - self._size
        return functional.pad(flat, (0, padding)).reshape(
            len(observations), self.num_patches, self.num_features
        )

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Undo `patchify`."""
        flat = patches.flatten(1)[:, : self._size]
        return flat.reshape(len(patches), *self._shape)

    def features(self, patches: Tensor) -> Tensor:
        """Give the values as they are."""
        return patches

    def loss(self, outputs: Tensor, patches: Tensor) -> Tensor:
        """Squared error, summed over the group."""
        return (outputs - patches).square().sum(-1)

    def values(self, outputs: Tensor) -> Tensor:
        """Give the outputs as they are."""
        return outputs

    def plausible(self, patches: Tensor, room: int, generator: torch.Generator) -> Tensor:
        """Values up to twice as far out as the outermost seen ones, within the bounds."""
        center = patches.mean(0)
        distances = (patches - center).norm(dim=-1)  # (M, G)
        count = max(1, int(_OUTER_SHARE * len(patches)))
        outer = distances.topk(count, dim=0).indices.unsqueeze(-1).expand(-1, -1, patches.shape[-1])
        stretch = 1 + torch.rand(count, 1, 1, generator=generator).to(patches.device)
        stretched = center + stretch * (patches.gather(0, outer) - center)
        low, high = (self.patchify(bound)[0].to(patches.device) for bound in self._bounds)
        return stretched.clamp(low, high)

    def errors(self, values: Tensor, patches: Tensor) -> Tensor:
        """Mean absolute error of the group; one under a fiftieth of a deviation counts as 0."""
        error = (values - patches).abs().mean(-1)
        return torch.where(error < _RIGHT, 0.0, error)

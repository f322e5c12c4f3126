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

__all__ = ["Vector"]

_RIGHT = 0.02


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
    features_describe = True

    def __init__(self, space: spaces.Box, max_tokens: int) -> None:
        self._shape = space.shape
        self._size = int(np.prod(space.shape))
        group = math.ceil(self._size / max_tokens)
        self.num_tokens = math.ceil(self._size / group)
        self.num_features = self.num_outputs = group

    def patchify(self, observations: Tensor) -> Tensor:
        """Cut (B, ...) vectors into (B, K, P) float32."""
        flat = observations.reshape(len(observations), self._size).float()
        padding = self.num_tokens * self.num_features - self._size
        return functional.pad(flat, (0, padding)).reshape(
            len(observations), self.num_tokens, self.num_features
        )

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Undo `patchify`."""
        return patches.reshape(len(patches), -1)[:, : self._size].reshape(-1, *self._shape)

    def features(self, patches: Tensor) -> Tensor:
        """Give the values as they are."""
        return patches

    def loss(self, outputs: Tensor, patches: Tensor) -> Tensor:
        """Squared error, summed over the group."""
        return (outputs - patches).square().sum(-1)

    def values(self, outputs: Tensor) -> Tensor:
        """Give the outputs as they are."""
        return outputs

    def errors(self, values: Tensor, patches: Tensor) -> Tensor:
        """Mean absolute error of the group; one under a fiftieth of a deviation counts as 0."""
        error = (values - patches).abs().mean(-1)
        return torch.where(error < _RIGHT, 0.0, error)

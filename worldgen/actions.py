"""Actions as tensors that the dynamics can read.

Classes:
    ActionCodec: arrays in the action space to tensors.
    ActionEmbedding: those tensors to vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from worldgen.errors import ShapeError, SpaceError
from worldgen.spaces import category_sizes

__all__ = ["ActionCodec", "ActionEmbedding"]

_NONE = 0
"""Code of "no action led here" in every discrete dimension."""
_BOX_CHOICES = 21
"""Values of an entry of a Box between which is chosen, evenly spaced, the bounds among them."""


class ActionCodec:
    """Encode actions of a Discrete, MultiDiscrete, MultiBinary or bounded Box space.

    Discrete dimensions become int64 codes from 1 on, 0 being "no action"; Box entries become
    float32 in [-1, 1], NaN being "no action".

    Attributes:
        num_dims: A, entries of an encoded action.
        sizes: Number of codes of each discrete dimension, or None for a Box.
        num_choices: (A,), between how many values is chosen where actions are drawn: all of a
            discrete dimension, 21 evenly spaced ones of an entry of a Box.

    Raises:
        SpaceError: If the space is another, or a Box without finite bounds.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.space = space
        self.sizes: tuple[int, ...] | None = None
        self._start: np.ndarray = np.zeros(())
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            sizes, self._start = category_sizes(space)
            self.sizes = tuple(int(size) for size in sizes)
            self.num_dims = len(sizes)
        elif isinstance(space, spaces.Box):
            if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
                raise SpaceError(
                    f"a Box action space must have finite bounds, got {space}: wrap the "
                    "environment in gymnasium.wrappers.TransformAction with a Box that has them"
                )
            self.num_dims = int(np.prod(space.shape))
        else:
            raise SpaceError(
                f"action space {space} is not supported; supported: Discrete, MultiDiscrete, "
                "MultiBinary, Box with finite bounds"
            )
        self.num_choices = self.sizes or (_BOX_CHOICES,) * self.num_dims

    @property
    def dtype(self) -> torch.dtype:
        """Type of encoded actions."""
        return torch.float32 if self.sizes is None else torch.int64

    def encode(self, actions: Any, device: torch.device | str = "cpu") -> Tensor:
        """Encode a batch of actions (..., *action shape) to (..., A).

        Raises:
            ShapeError: If the shape does not end in the action's, or a value is outside.
        """
        shape = self.space.shape or ()
        array = np.asarray(actions)
        if array.shape[array.ndim - len(shape) :] != shape or array.ndim < len(shape):
            raise ShapeError(f"`actions` must end in shape {shape}, got {array.shape}")
        array = array.reshape(*array.shape[: array.ndim - len(shape)], self.num_dims)
        if self.sizes is None:
            return self._encode_box(array, device)
        codes = array.astype(np.int64) - self._start
        if (codes < 0).any() or (codes >= np.array(self.sizes)).any():
            raise ShapeError(
                f"`actions` must lie in {self.space}, got {array.min()}..{array.max()}"
            )
        return torch.from_numpy(codes + 1).to(device)

    def _encode_box(self, array: np.ndarray, device: torch.device | str) -> Tensor:
        assert isinstance(self.space, spaces.Box)
        low, high = self.space.low.ravel(), self.space.high.ravel()
        width = np.where(high > low, high - low, 1.0)
        scaled = np.clip((array - low) / width * 2 - 1, -1, 1)
        return torch.from_numpy(scaled.astype(np.float32)).to(device)

    def decode(self, actions: Tensor) -> np.ndarray:
        """Turn encoded actions (..., A) back into the action space: (..., *action shape)."""
        values: np.ndarray = actions.cpu().numpy()
        if isinstance(self.space, spaces.Box):
            low, high = (b.ravel().astype(np.float64) for b in (self.space.low, self.space.high))
            values = low + (values.astype(np.float64) + 1) / 2 * (high - low)
            if self.space.dtype.kind in "iu":
                values = values.round()
        else:
            values = values - 1 + self._start
        return values.astype(self.space.dtype).reshape(
            *actions.shape[:-1], *(self.space.shape or ())
        )

    def to_choices(self, actions: Tensor) -> Tensor:
        """Say which of `num_choices` encoded actions (..., A) are: int64, from 0.

        "No action" is the first of a discrete dimension, and the middle of a Box.
        """
        if self.sizes is not None:
            return (actions - 1).clamp(min=0)
        return ((actions.nan_to_num() + 1) / 2 * (_BOX_CHOICES - 1)).round().long()

    def from_choices(self, choices: Tensor) -> Tensor:
        """Encode what `to_choices` gave, or what was chosen: (..., A)."""
        if self.sizes is not None:
            return choices + 1
        return choices.float() / (_BOX_CHOICES - 1) * 2 - 1

    def none(self, *batch: int, device: torch.device | str = "cpu") -> Tensor:
        """Give the code of "no action led here": (*batch, A)."""
        value = _NONE if self.sizes is not None else float("nan")
        return torch.full((*batch, self.num_dims), value, dtype=self.dtype, device=device)


class ActionEmbedding(nn.Module):
    """Embed encoded actions (..., A) as vectors (..., D)."""

    offsets: Tensor

    def __init__(self, codec: ActionCodec, width: int) -> None:
        super().__init__()
        self._discrete = codec.sizes is not None
        self.num_dims = codec.num_dims
        self.none = nn.Parameter(torch.randn(width) * 0.02)
        if codec.sizes is not None:
            sizes = torch.tensor(codec.sizes) + 1
            self.register_buffer("offsets", sizes.cumsum(0) - sizes, persistent=False)
            self.table = nn.Embedding(int(sizes.sum()), width)
            nn.init.normal_(self.table.weight, std=0.5)
        else:
            self.perceptron = nn.Sequential(
                nn.Linear(codec.num_dims, width), nn.SiLU(), nn.Linear(width, width)
            )

    def forward(self, actions: Tensor) -> Tensor:
        """Embed; "no action" has a learned vector of its own."""
        if self._discrete:
            embedded: Tensor = self.table(actions + self.offsets).sum(-2)
            missing = actions[..., :1] == _NONE
        else:
            missing = actions[..., :1].isnan()
            embedded = self.perceptron(actions.nan_to_num())
        return torch.where(missing, self.none, embedded)

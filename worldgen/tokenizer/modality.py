"""What a tokenizer must know of a kind of observation, and which kind a space is.

Classes:
    Modality: protocol of the patch modalities (symbolic grid, image, vector, waveform).
    ModalityName: the kinds that a space can be declared to be.

Functions:
    modality_name: recognise a leaf space.
    check_finite: refuse NaN and infinity.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from worldgen.errors import SpaceError
from worldgen.spaces import in_short

__all__ = ["SUPPORTED", "Modality", "ModalityName", "check_finite", "modality_name"]

ModalityName = Literal["symbolic", "image", "vector", "waveform", "category", "text"]

SUPPORTED = (
    "image (Box uint8 0..255 of at least 16x16), symbolic grid (integer Box of 2 or 3 "
    "dimensions with a maximum under 255), waveform (float Box of 1 dimension and at least 256 "
    "entries), vector (Box), Discrete, MultiDiscrete, MultiBinary, Text, and Dict and Tuple of "
    "these"
)
_SMALLEST_IMAGE = 16
_LARGEST_VECTOR = 4096
_SHORTEST_WAVEFORM = 256


class Modality(Protocol):
    """How one leaf of an observation is cut into patches, scored and put together again.

    A frame's patches have the shape (B, K, P): K patches of P values each. Modalities without
    trainable state; N below is any number of patches, G the number of codebooks.
    """

    num_patches: int
    """Patches of a frame."""
    shared_codebook: bool
    """True: one codebook and network for all patches; False: one each."""
    num_features: int
    """Width of `features`."""
    num_outputs: int
    """Width of the decoder's output."""
    linear_skip: bool
    """True: encoder and decoder start as a linear embedding of the values."""
    shared_scale: bool
    """With `linear_skip`: True to standardise all values by one deviation, False by its own."""
    features_describe: bool
    """True: the features of its decoded patch say what a code stands for; False: its code
    vector has to."""
    patch_shape: tuple[int, ...]
    """Shape of a patch, without channels: rows and columns of cells or pixels, or numbers."""
    unseen_error: float
    """Error of a patch, in the unit of `errors`, up to which it does not look wrong."""
    cell_size: int
    """Values of a cell, for patches that are made of cells of symbols; 0 for others."""

    def check(self, observations: Tensor) -> None:
        """Raise SpaceError if (B, ...) observations hold what the modality cannot tell apart."""

    def patchify(self, observations: Tensor) -> Tensor:
        """Cut (B, ...) observations into (B, K, P) patches of the observation's own values."""

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Undo `patchify`, padding removed."""

    def features(self, patches: Tensor) -> Tensor:
        """Network input: (N, G, P) -> (N, G, num_features) float32."""

    def loss(self, outputs: Tensor, patches: Tensor) -> Tensor:
        """Reconstruction loss of each patch: (N, G, num_outputs), (N, G, P) -> (N, G)."""

    def values(self, outputs: Tensor) -> Tensor:
        """Most likely patch values: (N, G, num_outputs) -> (N, G, P)."""

    def plausible(self, patches: Tensor, room: int, generator: torch.Generator) -> Tensor:
        """Make up to about `room` patches (S, G, P) that data (M, G, P) may come to hold."""

    def errors(self, values: Tensor, patches: Tensor) -> Tensor:
        """How wrong each patch is, 0 for right: (N, G, P) twice -> (N, G) float32."""


def modality_name(
    path: str, space: spaces.Space[Any], declared: ModalityName | None = None
) -> ModalityName:
    """Recognise which modality a leaf space is, or check what it was declared to be.

    Raises:
        SpaceError: If the space is not supported, or could be both symbols and a picture.

    >>> modality_name("image", spaces.Box(0, 10, (7, 7, 3), np.uint8))
    'symbolic'
    >>> modality_name("image", spaces.Box(0, 255, (7, 7, 3), np.uint8))
    Traceback (most recent call last):
    ...
    worldgen.errors.SpaceError: 'image' Box(0, 255, (7, 7, 3), uint8) could be symbols or a small \
picture: say which with `modalities={'image': 'symbolic'}` (or 'image', 'vector')
    """
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        if declared not in (None, "category"):
            raise SpaceError(f"{path!r} {in_short(space)} can only be 'category', got {declared!r}")
        return "category"
    if isinstance(space, spaces.Text):
        if declared not in (None, "text"):
            raise SpaceError(f"{path!r} {in_short(space)} can only be 'text', got {declared!r}")
        return "text"
    if not isinstance(space, spaces.Box):
        raise SpaceError(f"{path!r} {in_short(space)} is not supported; supported: {SUPPORTED}")
    return _check_declared(path, space, declared) if declared else _recognise_box(path, space)


def check_finite(observations: Tensor) -> None:
    """Refuse NaN and infinity.

    Raises:
        SpaceError: If there are any.
    """
    if not bool(observations.isfinite().all()):
        raise SpaceError("must be finite, got NaN or infinity")


def _recognise_box(path: str, space: spaces.Box) -> ModalityName:
    integer = _is_integer(space)
    dimensions = len(space.shape)
    if integer and dimensions in (2, 3) and space.high.max() < 255:
        if space.low.min() < 0:
            raise SpaceError(
                f"{path!r} {in_short(space)} has negative integers, which are no symbols' indices: "
                f"shift them to 0.. in a wrapper, or say `modalities={{{path!r}: 'vector'}}`"
            )
        return "symbolic"
    if space.dtype == np.uint8 and dimensions in (2, 3):
        if min(sorted(space.shape)[-2:]) >= _SMALLEST_IMAGE:
            return "image"
        raise SpaceError(
            f"{path!r} {in_short(space)} could be symbols or a small picture: say which with "
            f"`modalities={{{path!r}: 'symbolic'}}` (or 'image', 'vector')"
        )
    if not integer and dimensions == 1 and space.shape[0] >= _SHORTEST_WAVEFORM:
        return "waveform"
    if int(np.prod(space.shape)) > _LARGEST_VECTOR:
        raise SpaceError(
            f"{path!r} {in_short(space)} is too large for a vector ({_LARGEST_VECTOR} entries) and "
            f"is not uint8, as an image must be; supported: {SUPPORTED}"
        )
    return "vector"


def _check_declared(path: str, space: spaces.Box, declared: ModalityName) -> ModalityName:
    integer = _is_integer(space)
    fits = {
        "symbolic": integer
        and len(space.shape) in (2, 3)
        and space.high.max() < 4096
        and space.low.min() >= 0,
        "image": space.dtype == np.uint8 and len(space.shape) in (2, 3),
        "vector": True,
        "waveform": len(space.shape) == 1,
        "category": False,
    }
    if declared not in fits or not fits[declared]:
        raise SpaceError(
            f"{path!r} {in_short(space)} cannot be {declared!r}; supported: {SUPPORTED}"
        )
    return declared


def _is_integer(space: spaces.Box) -> bool:
    return np.issubdtype(space.dtype, np.integer) or space.dtype == np.bool_

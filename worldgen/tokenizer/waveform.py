"""Waveforms: sound and other long runs of samples.

Classes:
    Waveform: frames of a lapped transform as patches.

The transform is the modified discrete cosine transform (Princen, Johnson and Bradley 1987,
https://doi.org/10.1109/ICASSP.1987.1169405) with a sine window. Neighboring frames overlap by
half a window, so nothing clicks where two patches meet; the transform is orthonormal, so a
squared error of coefficients is the same squared error of samples.
"""

from __future__ import annotations

import math

import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional

from worldgen.tokenizer.modality import check_finite

__all__ = ["Waveform"]

_SHORTEST_HOP = 16
_RIGHT = 0.02


class Waveform:
    """Frames of the coefficients of a sound (S,), at most `max_patches` of them.

    S samples give F = ceil(S / N) frames of N coefficients, N the smallest power of 2 for which
    there are few enough. The outer edges of the first and last frame have no neighbor to
    overlap with: their windows are square there, so that every sample comes back and no frame
    is spent on the edges.

    All coefficients are standardised by one deviation, so that the tokens go where the energy
    is and the squared error of the samples is least.

    Args:
        space: Box of one dimension.
        max_patches: Largest number of frames F.

    Attributes:
        hop: N, samples from one frame to the next and coefficients of a frame.
    """

    shared_codebook = True
    linear_skip = True
    shared_scale = True
    features_describe = False
    unseen_error = 0.0
    cell_size = 0

    def __init__(self, space: spaces.Box, max_patches: int) -> None:
        (self._size,) = space.shape
        self.hop = _SHORTEST_HOP
        while math.ceil(self._size / self.hop) > max_patches:
            self.hop *= 2
        self.num_patches = math.ceil(self._size / self.hop)
        self.num_features = self.num_outputs = self.hop
        self.patch_shape: tuple[int, ...] = (self.hop,)
        self._cosines = _cosines(self.hop)
        self._windows = _windows(self.num_patches, self.hop)

    def check(self, observations: Tensor) -> None:
        """Refuse NaN and infinity."""
        check_finite(observations)

    def patchify(self, observations: Tensor) -> Tensor:
        """Transform samples (B, S) to frames of coefficients (B, F, N) float32."""
        self._to(observations.device)
        half = self.hop // 2
        after = self.num_patches * self.hop - self._size + half
        padded = functional.pad(observations.float(), (half, after))
        frames = padded.unfold(-1, 2 * self.hop, self.hop)  # (B, F, 2N)
        return (frames * self._windows) @ self._cosines

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Undo `patchify`: window the frames' samples again, and add where they overlap."""
        self._to(patches.device)
        frames = (patches @ self._cosines.T) * self._windows  # (B, F, 2N)
        first, second = torch.split(frames, self.hop, dim=-1)
        samples = functional.pad(first, (0, 0, 0, 1)) + functional.pad(second, (0, 0, 1, 0))
        half = self.hop // 2
        return samples.flatten(1)[:, half : half + self._size]

    def features(self, patches: Tensor) -> Tensor:
        """Give the coefficients as they are."""
        return patches

    def loss(self, outputs: Tensor, patches: Tensor) -> Tensor:
        """Squared error, summed over the frame."""
        return (outputs - patches).square().sum(-1)

    def values(self, outputs: Tensor) -> Tensor:
        """Give the outputs as they are."""
        return outputs

    def plausible(self, patches: Tensor, room: int, generator: torch.Generator) -> Tensor:
        """None."""
        return patches[:0]

    def errors(self, values: Tensor, patches: Tensor) -> Tensor:
        """Root mean square error of the frame; one under a fiftieth counts as 0."""
        error = (values - patches).square().mean(-1).sqrt()
        return torch.where(error < _RIGHT, 0.0, error)

    def _to(self, device: torch.device) -> None:
        """Bring the transform to where the samples are; after the first call, nothing to do."""
        self._cosines = self._cosines.to(device)
        self._windows = self._windows.to(device)


def _cosines(hop: int) -> Tensor:
    """Give the (2N, N) cosines of the transform, scaled to be orthonormal."""
    time = torch.arange(2 * hop, dtype=torch.float64).unsqueeze(1) + 0.5 + hop / 2
    frequency = torch.arange(hop, dtype=torch.float64) + 0.5
    return (torch.cos(math.pi / hop * time * frequency) * math.sqrt(2 / hop)).float()


def _windows(frames: int, hop: int) -> Tensor:
    """Give each frame's window (F, 2N): sine slopes, square at the two outer edges."""
    slope = torch.sin(math.pi / 2 / hop * (torch.arange(hop, dtype=torch.float64) + 0.5))
    square = (torch.arange(hop) >= hop // 2).double()
    rise, fall = slope.repeat(frames, 1), slope.flip(0).repeat(frames, 1)
    rise[0], fall[-1] = square, square.flip(0)
    return torch.cat([rise, fall], dim=1).float()

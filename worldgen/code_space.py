"""Code vectors as points among which Gaussian diffusion moves.

Classes:
    CodeSpace: the points of all codebooks.
    NoiseModulation: how a network's layers are told the noise level.

Functions:
    as_guess: a guess from moments.

A codebook's vectors may lie on a line or in a corner. So each codebook is whitened: the codes
that occur in the data have mean 0 and unit variance in each of the directions in which they
differ at all, the *live* entries of a point; the others are 0, and get no noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from worldgen.codes import Codebook
from worldgen.diffusion.gaussian_diffusion import Guess, precondition

__all__ = ["CodeSpace", "NoiseModulation", "as_guess"]

_SMALLEST_VARIANCE = 1e-5
"""Directions with less of the largest direction's variance are dead: rounding is all there is."""
_SMALLEST_STD = 1e-3
"""Of a guess."""
_NOISE_WIDTH = 64
_FREQUENCIES = 16
_HEAD_STD = 0.02


class CodeSpace(nn.Module):
    """Points of all codes, and the layers that read and write them.

    Args:
        codebooks: In the order of a frame's positions.
        num_entries: E, of a code vector.
        width: D.
    """

    points: Tensor
    seen: Tensor
    live: Tensor

    def __init__(self, codebooks: Sequence[Codebook], num_entries: int, width: int) -> None:
        super().__init__()
        self._codebooks = tuple(codebooks)
        num_codes = sum(codebook.size for codebook in codebooks)
        num_tokens = sum(codebook.num_tokens for codebook in codebooks)
        self.register_buffer("points", torch.zeros(num_codes, num_entries))
        self.register_buffer("seen", torch.ones(num_codes))
        self.register_buffer("live", torch.zeros(num_tokens, num_entries))
        self.read = nn.ModuleList(nn.Linear(3 * num_entries, width) for _ in codebooks)
        self.write = nn.ModuleList(nn.Linear(width, num_entries) for _ in codebooks)
        for layer in self.write:
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=_HEAD_STD)
            nn.init.zeros_(layer.bias)

    @torch.no_grad()
    def set_vectors(self, vectors: Sequence[Tensor], seen: Sequence[Tensor]) -> None:
        """Take the tokenizer's code vectors.

        Args:
            vectors: (V, E) of each codebook.
            seen: (v,) int64 of each, the codes that occur in the data.
        """
        first = 0
        for codebook, table, codes in zip(self._codebooks, vectors, seen, strict=True):
            points, num_live = _whitened(table, codes)
            self.points[first : first + codebook.size] = points
            self.seen[first : first + codebook.size] = 0.0
            self.seen[first + codes] = 1.0
            live = torch.arange(points.shape[1], device=points.device) < num_live
            self.live[codebook.tokens] = live.to(points.dtype)
            first += codebook.size

    def guess(self, probabilities: Tensor) -> Guess:
        """Give the moments of the points of seen codes with probabilities (..., K, V)."""
        means, squares, first = [], [], 0
        for codebook in self._codebooks:
            codes = slice(first, first + codebook.size)
            part = probabilities[..., codebook.tokens, : codebook.size].float() * self.seen[codes]
            with torch.autocast(part.device.type, enabled=False):
                part = part / part.sum(-1, keepdim=True)
                means.append(part @ self.points[codes])
                squares.append(part @ self.points[codes].square())
            first += codebook.size
        return as_guess(torch.cat(means, -2), torch.cat(squares, -2))

    def embed(self, noisy: Tensor, sigma: Tensor, guess: Guess) -> Tensor:
        """Embed noisy points (..., K, E) with noise levels (...), and a guess: (..., K, D).

        The guess beside them is self-conditioning (Analog Bits, Chen et al. 2022,
        https://arxiv.org/abs/2208.04202).
        """
        c_in = precondition(sigma[..., None, None], guess.std).c_in
        inputs = [c_in * (noisy - guess.mean), guess.mean, guess.std]
        return self._each(self.read, torch.cat(inputs, -1))

    def denoise(self, hidden: Tensor, noisy: Tensor, sigma: Tensor, guess: Guess) -> Tensor:
        """Turn outputs (..., K, D) for noisy points (..., K, E) into denoised ones, float32.

        EDM's preconditioning around the guess: where the first pass is sure, its mean stays.
        """
        c_skip, c_out, _, _ = precondition(sigma[..., None, None], guess.std)
        change = c_skip * (noisy - guess.mean) + c_out * self._each(self.write, hidden)
        return (guess.mean + change) * self.live

    def _each(self, layers: nn.ModuleList, inputs: Tensor) -> Tensor:
        """Apply each codebook's layer to its positions, in float32: numbers need the digits."""
        with torch.autocast(inputs.device.type, enabled=False):
            parts = [
                layer(inputs[..., codebook.tokens, :].float())
                for layer, codebook in zip(layers, self._codebooks, strict=True)
            ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -2)


def as_guess(mean: Tensor, mean_square: Tensor) -> Guess:
    """Turn first and second moments into mean and standard deviation."""
    variance = mean_square - mean.square()
    return Guess(mean, variance.clamp(min=_SMALLEST_STD**2).sqrt())


def _whitened(vectors: Tensor, seen: Tensor) -> tuple[Tensor, int]:
    """Give points (V, E) and the number of live entries, which come first."""
    exact = vectors.double().cpu()
    chosen = exact[seen.cpu()]
    mean = chosen.mean(0)
    centred = chosen - mean
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(chosen))
    variances, directions = variances.flip(0), directions.flip(1)
    live = variances > max(_SMALLEST_VARIANCE * float(variances[0]), 1e-12)
    points = (exact - mean) @ directions[:, live] / variances[live].sqrt()
    padded = nn.functional.pad(points, (0, vectors.shape[1] - points.shape[1]))
    return padded.to(vectors.device, vectors.dtype), int(live.sum())


class NoiseModulation(nn.Module):
    """Shifts, scales and gates of each layer from the noise level.

    adaLN-Zero of Scalable Diffusion Models with Transformers (DiT), Peebles and Xie 2022,
    https://arxiv.org/abs/2212.09748, but for the gates, which begin at 1 and not at 0: the layers
    are shared with clean frames, and begin as they are for those.

    Args:
        num_layers: Of the transformer.
        width: D.
    """

    def __init__(self, num_layers: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * _FREQUENCIES, _NOISE_WIDTH)
        self.layers = nn.ModuleList(nn.Linear(_NOISE_WIDTH, 6 * width) for _ in range(num_layers))
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, sigma: Tensor) -> list[Tensor]:
        """Give, for noise levels (M,), a tensor (M, 1, 6 D) a layer."""
        exponents = torch.linspace(-1, 3, _FREQUENCIES, device=sigma.device)
        angles = precondition(sigma).c_noise.unsqueeze(-1) * (math.pi * 2**exponents)
        waves = torch.cat([angles.sin(), angles.cos()], -1)
        hidden = nn.functional.silu(self.hidden(waves))
        return [layer(hidden).unsqueeze(1) for layer in self.layers]

"""Vector quantization with codebooks learned by exponential moving averages.

Classes:
    VectorQuantizer: one stage of `ResidualQuantizer`.

Neural Discrete Representation Learning, van den Oord et al. 2017,
https://arxiv.org/abs/1711.00937 (Eq. 3; the moving-average codebook is its appendix A.1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldgen.errors import ShapeError

__all__ = ["VectorQuantizer"]

_KMEANS_ITERATIONS = 5
_MOST_MOVES = 20
"""Iterations of `settle` in which codes may go elsewhere."""
_MOST_ITERATIONS = 100
"""Of those that follow."""
_SETTLED = 1e-3
"""Share of the error that an iteration still has to take away for another one to follow."""
_UNEVEN = 2.5
"""How far a code's share of the error may be from the mean one. Without a code the error of its
latents grows by about 4 times that, and halving a cell takes 3 quarters of its error away."""
_SLICE, _WIDE_SLICE = 512, 4096
"""Latents whose distances stay in the cache of a core, and those that are worth sharing out."""
_SEEDING_POINTS = 4
"""Points that the seeding looks at, in units of V."""


class VectorQuantizer(nn.Module):
    """G independent codebooks of V vectors each.

    Args:
        num_codebooks: G; latents of different codebooks are never compared.
        num_codes: V.
        dim: E, entries of a code vector.
        decay: Share of the moving average that an update keeps.
    """

    codebook: Tensor
    ema_count: Tensor
    ema_sum: Tensor

    def __init__(self, num_codebooks: int, num_codes: int, dim: int, decay: float) -> None:
        super().__init__()
        self._decay = decay
        shape = (num_codebooks, num_codes, dim)
        self.register_buffer("codebook", torch.zeros(shape))
        self.register_buffer("ema_count", torch.zeros(shape[:2]))
        self.register_buffer("ema_sum", torch.zeros(shape))

    @torch.no_grad()
    def encode(self, latents: Tensor) -> Tensor:
        """Give the nearest code of each latent: (N, G, E) -> (N, G) int64.

        Raises:
            ShapeError: If the last two dimensions are not (G, E).
        """
        expected = (self.codebook.shape[0], self.codebook.shape[2])
        if latents.shape[-2:] != expected:
            raise ShapeError(
                f"`latents` must end in (codebooks, dim) = {expected}, got {tuple(latents.shape)}"
            )
        # |z - e|^2 without the |z|^2 that no code changes.
        half_norms = self.codebook.square().sum(-1).mul(0.5)
        if len(self.codebook) == 1:
            norms, vectors = half_norms[0], self.codebook[0].T
            length = _SLICE if torch.get_num_threads() == 1 else _WIDE_SLICE
            slices = torch.split(latents[:, 0], length)
            nearest = [_smallest(torch.addmm(norms, part, vectors, alpha=-1)) for part in slices]
            return torch.cat(nearest).unsqueeze(-1)
        grouped = latents.transpose(0, 1)  # (G, N, E)
        distances = torch.baddbmm(half_norms.unsqueeze(1), grouped, self.codebook.mT, alpha=-1)
        return _smallest(distances).T  # (N, G)

    def decode(self, codes: Tensor) -> Tensor:
        """Look the code vectors up: (N, G) int64 -> (N, G, E)."""
        groups = torch.arange(self.codebook.shape[0], device=codes.device)
        return self.codebook[groups, codes]

    @torch.no_grad()
    def update(self, latents: Tensor, codes: Tensor) -> None:
        """Move each code in use towards the mean of its latents (appendix A.1)."""
        count, total = self._assignments(latents, codes)
        self.ema_count.lerp_(count, 1 - self._decay)
        self.ema_sum.lerp_(total, 1 - self._decay)
        used = self.ema_count > 1e-6
        means = self.ema_sum / self.ema_count.clamp(min=1e-6).unsqueeze(-1)
        self.codebook.copy_(torch.where(used.unsqueeze(-1), means, self.codebook))

    @torch.no_grad()
    def initialize(self, latents: Tensor, generator: torch.Generator) -> None:
        """Start the codebooks by k-means++ seeding and a few Lloyd iterations.

        Args:
            latents: (N, G, E) from the untrained encoder, N of any size.
            generator: Draws the seeds; on the CPU.
        """
        num_codes = self.codebook.shape[1]
        most = _SEEDING_POINTS * num_codes
        some = torch.randperm(len(latents), generator=generator)[:most].to(latents.device)
        self.codebook.copy_(_spread(latents[some], num_codes, generator))
        for _ in range(_KMEANS_ITERATIONS):
            self._take_means(latents, self.encode(latents))

    @torch.no_grad()
    def settle(self, latents: Tensor) -> None:
        """Move the codes to where the squared error to all latents is smallest.

        Iterations of Lloyd (1982) from where the codebooks are, until the error hardly falls.
        Before that, codes that hardly lower it go to where it is large (compare Patane and Russo
        2001): by means alone no code ever leaves a crowd.

        Args:
            latents: (N, G, E), all that there are.
        """
        for _ in range(_MOST_MOVES):
            codes, squares = self._scored(latents)
            self._take_means(latents, codes)
            if not self._even_out(latents, codes, squares):
                break
        before = float("inf")
        for _ in range(_MOST_ITERATIONS):
            codes, squares = self._scored(latents)
            error = float(squares.sum())
            if error >= (1 - _SETTLED) * before:
                break
            self._take_means(latents, codes)
            before = error
        self._set_aside(latents)

    def _set_aside(self, latents: Tensor) -> None:
        """Put codes that nothing chooses beyond all latents, where they are no other's double.

        Between doubles rounding would choose, which is not the same for a batch as for one latent.
        """
        codes, _ = self._scored(latents)
        for group in range(len(self.codebook)):
            chosen = torch.bincount(codes[:, group], minlength=self.codebook.shape[1]) > 0
            unused = (~chosen).nonzero().flatten()
            center = latents[:, group].mean(0)
            offsets = latents[:, group] - center
            reach = offsets[offsets.square().sum(-1).argmax()]
            if not bool(reach.any()):
                reach = torch.ones_like(reach)
            steps = 2 + torch.arange(len(unused), device=latents.device) / max(1, len(unused))
            self.codebook[group, unused] = center + steps.unsqueeze(1) * reach

    def _scored(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Give the codes (N, G) of latents and their squared errors, (N, G)."""
        parts = torch.split(latents, _WIDE_SLICE)
        codes = torch.cat([self.encode(part) for part in parts])
        return codes, (latents - self.decode(codes)).square().sum(-1)

    def _take_means(self, latents: Tensor, codes: Tensor) -> None:
        """Move each code in use to the mean of its latents."""
        count, total = self._assignments(latents, codes)
        means = total / count.clamp(min=1).unsqueeze(-1)
        self.codebook.copy_(torch.where(count.unsqueeze(-1) > 0, means, self.codebook))
        self.ema_count.copy_(count)
        self.ema_sum.copy_(self.codebook * count.unsqueeze(-1))

    def _even_out(self, latents: Tensor, codes: Tensor, squares: Tensor) -> int:
        """Move codes of small error each to the outermost latent of a code of large error.

        Returns:
            How many were moved.
        """
        moved = 0
        for group, (code, square) in enumerate(zip(codes.T, squares.T, strict=True)):
            error = torch.zeros_like(self.ema_count[group]).index_add_(0, code, square)
            share = error * len(error) / error.sum().clamp(min=1e-30)
            poor = error.argsort(stable=True)[: int((share < 1 / _UNEVEN).sum())]
            rich = error.argsort(descending=True, stable=True)[: int((share > _UNEVEN).sum())]
            count = min(len(poor), len(rich))
            largest = torch.zeros_like(error).scatter_reduce_(0, code, square, "amax")
            outermost = (square == largest[code]).nonzero().flatten()
            first = torch.full_like(self.ema_count[group], len(code), dtype=torch.int64)
            first.scatter_reduce_(0, code[outermost], outermost, "amin")
            self.codebook[group, poor[:count]] = latents[first[rich[:count]], group]
            moved += count
        return moved

    @torch.no_grad()
    def restart_dead(self, latents: Tensor, errors: Tensor) -> int:
        """Move codes that no latent chose to the worst reconstructed latents.

        Codes in use are left as they are.

        Args:
            latents: (N, G, E), a wide sample.
            errors: (N, G) reconstruction error of each latent; those at 0 need no new code.

        Returns:
            How many codes were moved.
        """
        moved = 0
        codes = self.encode(latents)
        for group in range(self.codebook.shape[0]):
            used = torch.bincount(codes[:, group], minlength=self.codebook.shape[1]) > 0
            dead = (~used).nonzero().flatten()
            worst = errors[:, group].argsort(descending=True, stable=True)[: len(dead)]
            worst = worst[errors[worst, group] > 0]
            dead = dead[: len(worst)]
            self.codebook[group, dead] = latents[worst, group]
            self.ema_count[group, dead] = 1.0
            self.ema_sum[group, dead] = latents[worst, group]
            moved += len(dead)
        return moved

    def _assignments(self, latents: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Count the latents of each code (G, V) and sum them (G, V, E)."""
        groups, num_codes, dim = self.codebook.shape
        offset = torch.arange(groups, device=codes.device) * num_codes
        flat = (codes + offset).flatten()
        count = torch.bincount(flat, minlength=groups * num_codes).to(latents.dtype)
        total = torch.zeros(groups * num_codes, dim, device=latents.device, dtype=latents.dtype)
        total.index_add_(0, flat, latents.reshape(-1, dim))
        return count.view(groups, num_codes), total.view(groups, num_codes, dim)


def _smallest(distances: Tensor) -> Tensor:
    """Give the position of the smallest entry of each row; on a CPU NumPy is 9 times faster."""
    if distances.device.type != "cpu":
        return distances.argmin(-1)
    return torch.from_numpy(distances.numpy().argmin(-1))


def _spread(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Choose `count` points of each group far from each other (k-means++, Arthur 2007).

    Where there are fewer distinct points, the rest are copies, which nothing chooses.

    Args:
        points: (N, G, E).
        count: How many of the N.
        generator: On the CPU.

    Returns:
        (G, count, E).
    """
    groups = torch.arange(points.shape[1], device=points.device)
    uniform = torch.rand(count, points.shape[1], 1, generator=generator, dtype=torch.float64)
    uniform = uniform.to(points.device)
    chosen = points.new_empty(count, *points.shape[1:])
    distance = torch.ones(points.shape[1], len(points), dtype=torch.float64, device=points.device)
    for position in range(count):
        mass = distance.cumsum(1)
        draw = torch.searchsorted(mass, uniform[position] * mass[:, -1:], right=True)
        chosen[position] = points[draw.clamp(max=len(points) - 1).squeeze(1), groups]
        squares = (points - chosen[position]).square().sum(-1).T.double()
        distance = squares if position == 0 else torch.minimum(distance, squares)
    return chosen.transpose(0, 1)

"""Gaussian diffusion of real vectors, as pure functions.

Classes:
    Preconditioning: the factors around the network.
    Guess: mean and standard deviation of what is to be denoised.

Functions:
    precondition: those factors at a noise level.
    loss_weight: of the squared error at a noise level.
    draw_noise_levels: noise levels for training.
    rho_schedule: noise levels of a sampler.
    euler_step, heun_step: from one noise level to the next.
    cosine_alphas, linear_alphas: the textbook's noise schedules.
    ddpm_step, ddim_step: the textbook's steps, to compare with.

Elucidating the Design Space of Diffusion-Based Generative Models (EDM), Karras et al. 2022,
https://arxiv.org/abs/2206.00364; DDPM, Ho et al. 2020, https://arxiv.org/abs/2006.11239; DDIM,
Song et al. 2021, https://arxiv.org/abs/2010.02502. A noisy vector is x = y + sigma n in EDM, and
x = sqrt(a) y + sqrt(1 - a) n in the other two, which write a-bar or alpha for our a.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from worldgen.config import require

__all__ = [
    "Guess",
    "Preconditioning",
    "cosine_alphas",
    "ddim_step",
    "ddpm_step",
    "draw_noise_levels",
    "euler_step",
    "heun_step",
    "linear_alphas",
    "loss_weight",
    "precondition",
    "rho_schedule",
]


class Preconditioning(NamedTuple):
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), Eq. 7 of EDM; F is the network."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


class Guess(NamedTuple):
    """What is known of clean vectors without their noisy ones."""

    mean: Tensor
    """(..., K, E)."""
    std: Tensor
    """(..., K, E), over 0."""


def precondition(sigma: Tensor, sigma_data: float | Tensor = 1.0) -> Preconditioning:
    """Give the factors at noise levels of any shape (column "Ours" of EDM's Table 1).

    Args:
        sigma: Noise levels.
        sigma_data: Standard deviation of the clean vectors; broadcast with `sigma`.
    """
    total = sigma.square() + sigma_data**2
    return Preconditioning(
        sigma_data**2 / total,
        sigma * sigma_data / total.sqrt(),
        total.rsqrt(),
        sigma.log() / 4,
    )


def loss_weight(sigma: Tensor, sigma_data: float = 1.0) -> Tensor:
    """Weight of the denoiser's squared error, which makes the network's target of unit variance.

    lambda(sigma) of EDM's Table 1: 1 / c_out^2.
    """
    return (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()


def draw_noise_levels(
    shape: tuple[int, ...], mean: float, std: float, generator: torch.Generator
) -> Tensor:
    """Draw noise levels for training: ln(sigma) is normal (EDM's Table 1, P_mean and P_std)."""
    noise = torch.randn(shape, generator=generator, device=generator.device)
    return (mean + std * noise).exp()


def rho_schedule(count: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> list[float]:
    """Noise levels from the largest to the smallest, and 0 behind them (EDM's Eq. 5).

    A single level is the largest.

    >>> [round(sigma, 3) for sigma in rho_schedule(3, 0.1, 20.0)]
    [20.0, 2.308, 0.1, 0.0]
    """
    require(count >= 1, "count", "be at least 1", count)
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    ramp = [index / max(count - 1, 1) for index in range(count)]
    return [*((first + part * (last - first)) ** rho for part in ramp), 0.0]


def euler_step(noisy: Tensor, denoised: Tensor, sigma: float, next_sigma: float) -> Tensor:
    """Go from one noise level to the next along the slope here (EDM's Algorithm 1, lines 4-5)."""
    slope = (noisy - denoised) / sigma
    return noisy + (next_sigma - sigma) * slope


def heun_step(
    noisy: Tensor,
    denoised: Tensor,
    ahead: Tensor,
    denoised_ahead: Tensor,
    sigma: float,
    next_sigma: float,
) -> Tensor:
    """Repeat an Euler step with the mean slope of its two ends (EDM's Algorithm 1, lines 7-8).

    Args:
        noisy: Where the step began.
        denoised: The denoiser's answer there.
        ahead: Where the Euler step led.
        denoised_ahead: The denoiser's answer there.
        sigma: Noise level of `noisy`.
        next_sigma: Noise level of `ahead`, over 0.
    """
    slope = (noisy - denoised) / sigma
    slope_ahead = (ahead - denoised_ahead) / next_sigma
    return noisy + (next_sigma - sigma) * 0.5 * (slope + slope_ahead)


def linear_alphas(count: int, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """Give a of each of T times, from betas on a line (DDPM's section 4), float64."""
    return (1 - torch.linspace(first, last, count, dtype=torch.float64)).cumprod(0)


def cosine_alphas(count: int, offset: float = 0.008, most: float = 0.999) -> Tensor:
    """Give a of each of T times, from a squared cosine, float64.

    Eq. 17 of Improved DDPM, Nichol and Dhariwal 2021, https://arxiv.org/abs/2102.09672.
    """
    times = torch.linspace(0, 1, count + 1, dtype=torch.float64)
    curve = ((times + offset) / (1 + offset) * math.pi / 2).cos().square()
    betas = (1 - curve[1:] / curve[:-1]).clamp(max=most)
    return (1 - betas).cumprod(0)


def ddpm_step(
    noisy: Tensor, noise: Tensor, alpha: float, previous_alpha: float, fresh: Tensor
) -> Tensor:
    """Draw from q(x_{t-1} | x_t, x_0) at the x_0 that the predicted noise says (DDPM's Eq. 6-7).

    Args:
        noisy: x_t.
        noise: The network's prediction of the noise in it.
        alpha: a of time t.
        previous_alpha: a of the time to go to; 1 is no noise.
        fresh: Standard normal, like `noisy`.
    """
    clean = (noisy - math.sqrt(1 - alpha) * noise) / math.sqrt(alpha)  # Eq. 15
    beta = 1 - alpha / previous_alpha
    share_clean = math.sqrt(previous_alpha) * beta / (1 - alpha)
    share_noisy = math.sqrt(1 - beta) * (1 - previous_alpha) / (1 - alpha)
    variance = beta * (1 - previous_alpha) / (1 - alpha)
    return share_clean * clean + share_noisy * noisy + math.sqrt(variance) * fresh


def ddim_step(
    noisy: Tensor,
    noise: Tensor,
    alpha: float,
    previous_alpha: float,
    *,
    eta: float = 0.0,
    fresh: Tensor | None = None,
) -> Tensor:
    """Make one step of DDIM (Eq. 12); `eta` 1 is DDPM, 0 draws nothing.

    Args:
        noisy: x_t.
        noise: The network's prediction of the noise in it.
        alpha: a of time t.
        previous_alpha: a of the time to go to; 1 is no noise.
        eta: Scale of the fresh noise, Eq. 16.
        fresh: Standard normal, like `noisy`; needed where `eta` is not 0.
    """
    clean = (noisy - math.sqrt(1 - alpha) * noise) / math.sqrt(alpha)
    variance = eta**2 * (1 - previous_alpha) / (1 - alpha) * (1 - alpha / previous_alpha)
    towards = math.sqrt(max(1 - previous_alpha - variance, 0.0)) * noise
    result = math.sqrt(previous_alpha) * clean + towards
    if eta == 0:
        return result
    require(fresh is not None, "fresh", "be given where `eta` is not 0", fresh)
    assert fresh is not None
    return result + math.sqrt(variance) * fresh

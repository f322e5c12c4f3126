"""Schedules by golden numbers, and steps against diffusers' schedulers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EDMEulerScheduler, HeunDiscreteScheduler

from worldgen.diffusion.gaussian_diffusion import (
    cosine_alphas,
    ddim_step,
    ddpm_step,
    draw_noise_levels,
    euler_step,
    heun_step,
    linear_alphas,
    loss_weight,
    precondition,
    rho_schedule,
)
from worldgen.errors import ConfigError

SHAPE = (4, 3)


def draw(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def denoise(noisy: torch.Tensor, sigma: float) -> torch.Tensor:
    """Give the best denoiser of normal data of mean 2 and variance 1."""
    return (noisy + 2 * sigma**2) / (1 + sigma**2)


def test_golden_schedule() -> None:
    # EDM's Eq. 5 with the settings of its Table 1, 18 levels and 0.
    sigmas = rho_schedule(18, 0.002, 80.0, 7.0)
    assert len(sigmas) == 19
    assert sigmas[0] == pytest.approx(80.0)
    assert sigmas[1] == pytest.approx(57.58598, abs=1e-4)
    assert sigmas[9] == pytest.approx(1.923340, abs=1e-4)
    assert sigmas[17:] == [pytest.approx(0.002), 0.0]
    assert rho_schedule(1, 0.1, 20.0) == [pytest.approx(20.0), 0.0]
    with pytest.raises(ConfigError, match="`count` must be at least 1, got 0"):
        rho_schedule(0, 0.1, 20.0)


def test_golden_alphas() -> None:
    assert linear_alphas(1000)[[0, 499, 999]].tolist() == pytest.approx(
        [0.9999, 0.0786, 4.0358e-05], rel=1e-3
    )
    assert cosine_alphas(1000)[[0, 499, 999]].tolist() == pytest.approx(
        [0.99995874, 0.49384359, 2.4288e-09], rel=1e-3
    )


def test_preconditioning_by_hand_and_against_diffusers() -> None:
    sigma = torch.tensor([0.5, 3.0])
    # At sigma = sigma_data: c_skip 1/2, c_out 0.5/sqrt(2), c_in sqrt(2), c_noise ln(0.5)/4.
    factors = [float(part[0]) for part in precondition(sigma, 0.5)]
    assert factors == pytest.approx([0.5, 0.353553, 1.414214, -0.173287], abs=1e-6)
    assert loss_weight(sigma, 0.5)[0] == pytest.approx(8.0)
    assert torch.allclose(loss_weight(sigma, 0.5), precondition(sigma, 0.5).c_out ** -2)
    scheduler = EDMEulerScheduler(sigma_data=0.5)
    noisy, output = draw(0), draw(1)
    c_skip, c_out, c_in, c_noise = (part[1] for part in precondition(sigma, 0.5))
    theirs = scheduler.precondition_outputs(noisy, output, sigma[1])
    assert torch.allclose(c_skip * noisy + c_out * output, theirs)
    assert torch.allclose(c_in * noisy, scheduler.precondition_inputs(noisy, sigma[1]))
    assert torch.allclose(c_noise, scheduler.precondition_noise(sigma[1]))


def test_the_network_s_input_and_target_have_unit_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 100_000, generator=generator)
    for level in (0.05, 1.0, 20.0):
        sigma = torch.tensor(level)
        factors = precondition(sigma)
        noisy = clean + sigma * noise
        target = (clean - factors.c_skip * noisy) / factors.c_out
        assert (factors.c_in * noisy).std() == pytest.approx(1, abs=0.02)
        assert target.std() == pytest.approx(1, abs=0.02)


def test_training_noise_levels_are_log_normal() -> None:
    levels = draw_noise_levels((50_000,), 0.3, 1.2, torch.Generator().manual_seed(0)).log()
    assert levels.mean() == pytest.approx(0.3, abs=0.02)
    assert levels.std() == pytest.approx(1.2, abs=0.02)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_euler_equals_diffusers(count: int) -> None:
    scheduler = EDMEulerScheduler(sigma_min=0.1, sigma_max=20.0, sigma_data=1.0, rho=7.0)
    scheduler.set_timesteps(count)
    sigmas = rho_schedule(count, 0.1, 20.0, 7.0)
    assert scheduler.sigmas.tolist() == pytest.approx(sigmas, rel=1e-5)
    ours = theirs = 20.0 * draw(0)
    for index, time in enumerate(scheduler.timesteps):
        sigma, after = sigmas[index], sigmas[index + 1]
        ours = euler_step(ours, denoise(ours, sigma), sigma, after)
        scheduler.scale_model_input(theirs, time)
        c_skip, c_out, _, _ = precondition(torch.tensor(sigma))
        output = (denoise(theirs, sigma) - c_skip * theirs) / c_out
        theirs = scheduler.step(output, time, theirs).prev_sample
    assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers'
def test_heun_equals_diffusers() -> None:
    scheduler = HeunDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, timestep_spacing="linspace"
    )
    scheduler.set_timesteps(6)
    sigmas = scheduler.sigmas.double()
    levels = [float(sigma) for sigma in sigmas[:1]] + [float(sigma) for sigma in sigmas[1::2]]
    ours = theirs = levels[0] * draw(0).double()
    for sigma, after in itertools.pairwise(levels):
        start, denoised = ours, denoise(ours, sigma)
        ours = euler_step(start, denoised, sigma, after)
        if after > 0:
            ours = heun_step(start, denoised, ours, denoise(ours, after), sigma, after)
    for index, time in enumerate(scheduler.timesteps):
        sigma = float(scheduler.sigmas[index])
        output = (theirs - denoise(theirs, sigma)) / sigma
        theirs = scheduler.step(output, time, theirs).prev_sample
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_heun_is_exacter_than_euler() -> None:
    # The exact path of normal data of unit variance: x = mean + n sqrt(1 + sigma^2).
    noise, sigma_max = draw(0), 20.0
    exact = 2 + noise
    errors = []
    for heun in (False, True):
        point = 2 + noise * math.sqrt(1 + sigma_max**2)
        sigmas = rho_schedule(20, 0.01, sigma_max)
        for sigma, after in itertools.pairwise(sigmas):
            ahead = euler_step(point, denoise(point, sigma), sigma, after)
            if heun and after > 0:
                denoised = denoise(point, sigma), denoise(ahead, after)
                ahead = heun_step(point, denoised[0], ahead, denoised[1], sigma, after)
            point = ahead
        errors.append(float((point - exact).abs().max()))
    assert errors[1] < errors[0] / 5


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_alphas_equal_diffusers(kind: str) -> None:
    name = {"linear": "linear", "cosine": "squaredcos_cap_v2"}[kind]
    theirs = DDPMScheduler(num_train_timesteps=1000, beta_schedule=name).alphas_cumprod
    ours = linear_alphas(1000) if kind == "linear" else cosine_alphas(1000)
    assert torch.allclose(ours.float(), theirs, rtol=1e-3, atol=1e-8)


def test_ddpm_equals_diffusers() -> None:
    scheduler = DDPMScheduler(num_train_timesteps=50, clip_sample=False)
    alphas = scheduler.alphas_cumprod
    for time in (49, 20, 1, 0):
        noisy, noise = draw(1), draw(2)
        result = scheduler.step(noise, time, noisy, generator=torch.Generator().manual_seed(3))
        before = float(alphas[time - 1]) if time else 1.0
        ours = ddpm_step(noisy, noise, float(alphas[time]), before, draw(3))
        assert torch.allclose(ours, result.prev_sample, atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_equals_diffusers(eta: float) -> None:
    scheduler = DDIMScheduler(num_train_timesteps=1000, clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(10)
    alphas = scheduler.alphas_cumprod
    for time in scheduler.timesteps.tolist():
        noisy, noise, fresh = draw(1), draw(2), draw(3)
        result = scheduler.step(noise, time, noisy, eta=eta, variance_noise=fresh)
        before = float(alphas[time - 100]) if time >= 100 else 1.0
        ours = ddim_step(noisy, noise, float(alphas[time]), before, eta=eta, fresh=fresh)
        assert torch.allclose(ours, result.prev_sample, atol=1e-5)


def test_ddim_with_eta_1_is_ddpm() -> None:
    noisy, noise, fresh = draw(1), draw(2), draw(3)
    one = ddim_step(noisy, noise, 0.3, 0.4, eta=1.0, fresh=fresh)
    assert torch.allclose(one, ddpm_step(noisy, noise, 0.3, 0.4, fresh), atol=1e-6)
    with pytest.raises(ConfigError, match="`fresh` must be given where `eta` is not 0"):
        ddim_step(noisy, noise, 0.3, 0.4, eta=1.0)

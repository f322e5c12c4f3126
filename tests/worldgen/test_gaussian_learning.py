"""A world of chance whose distribution is known is learned by Gaussian diffusion."""

from __future__ import annotations

import pytest
import torch
from gymnasium import spaces

from worldgen.actions import ActionCodec
from worldgen.codes import Codebook
from worldgen.data.token_dataset import Context, Windows
from worldgen.diffusion.sampler_config import SamplerConfig
from worldgen.dynamics import Dynamics, DynamicsConfig, NoisyPoints
from worldgen.dynamics_loss import denoising_loss, dynamics_loss
from worldgen.imagination import Imagination
from worldgen.transformer import TransformerConfig

CODES, ENTRIES = 6, 8


def coin_worlds(batch: int, generator: torch.Generator) -> Windows:
    """Draw two frames each; action 2 throws a coin that sets both tokens to 4, or both to 5."""
    first = torch.randint(0, 4, (batch, 1, 2), generator=generator)
    action = torch.randint(1, 3, (batch, 2, 1), generator=generator)
    coin = torch.randint(4, 6, (batch, 1, 1), generator=generator).expand(-1, -1, 2)
    second = torch.where(action[:, 1:] == 2, coin, first)
    tokens = torch.cat([first, second], 1)
    flags = torch.zeros(batch, 2, dtype=torch.bool)
    return Windows(tokens, action, flags.float(), flags, flags.long(), flags.long())


@pytest.fixture(scope="module")
def dynamics() -> Dynamics:
    torch.manual_seed(0)
    config = DynamicsConfig(
        transformer=TransformerConfig(width=32, layers=2, heads=2),
        context=1,
        precision="float32",
        process="gaussian",
    )
    codebook = Codebook(CODES, 0, 2, num_features=ENTRIES, numbers=False)
    network = Dynamics(config, [codebook], ActionCodec(spaces.Discrete(2)), ENTRIES)
    vectors = torch.randn(CODES, ENTRIES)
    network.set_code_contents([vectors])
    network.set_seen_codes(torch.arange(CODES).view(-1, 1).expand(-1, 2))
    network.set_code_vectors([vectors])
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=400)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        windows = coin_worlds(64, generator)
        points = network.points_of(windows.tokens[:, 1:])
        sigma = torch.randn(64, 1, generator=generator).mul(1.2).exp()
        noise = torch.randn(points.shape, generator=generator) * network.code_space.live
        noisy = NoisyPoints(points + sigma[..., None, None] * noise, sigma)
        first, drafts = network(windows, windows.tokens, None, noisy)
        loss = dynamics_loss(first, None, windows, None, network.two_hot).total
        loss = loss + denoising_loss(drafts, windows, noisy, network, 64)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def dream(network: Dynamics, steps: int, solver: str, action: int) -> torch.Tensor:
    rows = 400
    sampler = SamplerConfig(denoising_steps=steps, solver=solver)
    imagination = Imagination(network, rows, sampler, torch.Generator().manual_seed(1))
    tokens = torch.randint(0, 4, (rows, 1, 2), generator=torch.Generator().manual_seed(2))
    actions = torch.zeros(rows, 1, 1, dtype=torch.int64)
    imagination.reset(Context(tokens, actions, torch.ones(rows, 1, dtype=torch.bool)))
    after = imagination.step(torch.full((rows, 1), action)).tokens
    return torch.cat([tokens, after.unsqueeze(1)], 1)


@pytest.mark.parametrize(("solver", "steps"), [("euler", 1), ("euler", 3), ("heun", 8)])
def test_what_is_determined_is_exact(dynamics: Dynamics, solver: str, steps: int) -> None:
    frames = dream(dynamics, steps, solver, action=1)
    assert (frames[:, 0] == frames[:, 1]).all(1).float().mean() > 0.98


@pytest.mark.parametrize(("solver", "steps"), [("euler", 8), ("heun", 12)])
def test_chance_is_drawn_and_both_tokens_agree(dynamics: Dynamics, solver: str, steps: int) -> None:
    # Drawn independently, as by one denoising step of masked diffusion, half would agree.
    after = dream(dynamics, steps, solver, action=2)[:, 1]
    assert (after >= 4).all(1).float().mean() > 0.98
    assert (after[:, 0] == after[:, 1]).float().mean() > 0.95
    assert (after[:, 0] == 4).float().mean() == pytest.approx(0.5, abs=0.15)

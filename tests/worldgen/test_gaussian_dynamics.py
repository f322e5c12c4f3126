"""Gaussian diffusion in the dynamics: the cached engine against full recomputation."""

from __future__ import annotations

import pytest
import torch
from gymnasium import spaces

from worldgen.actions import ActionCodec
from worldgen.codes import Codebook
from worldgen.data.token_dataset import Context, Windows
from worldgen.diffusion.gaussian_diffusion import euler_step, heun_step, rho_schedule
from worldgen.diffusion.sampler_config import SamplerConfig
from worldgen.dynamics import Dynamics, DynamicsConfig, NoisyPoints
from worldgen.errors import ConfigError
from worldgen.imagination import Imagination
from worldgen.transformer import TransformerConfig

TOKENS, CODES, ENTRIES, ROWS, CONTEXT = 3, 7, 5, 4, 3


def make_dynamics(*, path: bool = False) -> Dynamics:
    """Build a small network in float32 whose random heads and noise levels say something."""
    torch.manual_seed(0)
    config = DynamicsConfig(
        transformer=TransformerConfig(width=16, layers=2, heads=2, path_integration=path),
        context=CONTEXT,
        precision="float32",
        pointer=path,
        process="gaussian",
    )
    codebooks = [
        Codebook(CODES, 0, 2, num_features=4, numbers=False),
        Codebook(5, 2, 1, num_features=2, numbers=True),
    ]
    dynamics = Dynamics(config, codebooks, ActionCodec(spaces.Discrete(4)), ENTRIES)
    dynamics.set_code_contents([torch.randn(CODES, 4), torch.randn(5, 2)])
    dynamics.set_seen_codes(torch.tensor([[0, 1, 0], [2, 3, 1], [5, 4, 2]]))
    dynamics.set_code_vectors([torch.randn(CODES, ENTRIES), torch.randn(5, ENTRIES)])
    dynamics.two_hot.restrict(torch.tensor([-1.0, 1.0]))
    names, numbers = dynamics.ports
    heads = [names.write, numbers.change, dynamics.reward_head, dynamics.termination_head]
    for head in [*heads, *dynamics.code_space.write]:
        torch.nn.init.normal_(head.weight, std=1.0)
    for layer in dynamics.noise_modulation.layers:
        torch.nn.init.normal_(layer.weight, std=0.3)
    if path:
        torch.nn.init.normal_(dynamics.pointer.weight, std=0.5)
    return dynamics.eval()


def make_windows(length: int, seed: int = 0) -> Windows:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 5, (ROWS, length, TOKENS), generator=generator)
    return as_windows(tokens, torch.randint(1, 5, (ROWS, length, 1), generator=generator))


def as_windows(tokens: torch.Tensor, actions: torch.Tensor) -> Windows:
    flags = torch.zeros(tokens.shape[:2], dtype=torch.bool)
    return Windows(tokens, actions, flags.float(), flags, flags.long(), flags.long())


def context_of(windows: Windows) -> Context:
    valid = torch.ones(windows.tokens.shape[:2], dtype=torch.bool)
    return Context(windows.tokens, windows.actions, valid)


def engine(dynamics: Dynamics, rows: int = ROWS, **settings: object) -> Imagination:
    sampler = SamplerConfig(**settings)
    return Imagination(dynamics, rows, sampler, torch.Generator().manual_seed(3))


class Recomputation:
    """The sampler written out, with a full pass over all frames for each network pass."""

    def __init__(self, dynamics: Dynamics, windows: Windows) -> None:
        self.dynamics, self.windows = dynamics, windows
        self.passes = 0
        self.reward = torch.zeros(ROWS)

    def denoised(self, points: torch.Tensor | None, sigma: float) -> torch.Tensor:
        """Denoise the last frame of the windows, all noise where `points` is None."""
        self.passes += 1
        space, tokens = self.dynamics.code_space, self.windows.tokens
        noisy = None
        if points is not None:
            shape = (*tokens[:, 1:].shape, ENTRIES)
            every = torch.zeros(shape)
            every[:, -1] = points
            noisy = NoisyPoints(every, torch.full(shape[:2], sigma))
        with torch.no_grad():
            first, drafts = self.dynamics(self.windows, tokens, None, noisy)
        prediction = first if drafts is None else drafts
        self.reward = self.dynamics.two_hot.decode(prediction.reward_logits[:, -1])
        if drafts is not None:
            return drafts.denoised[:, -1]
        probabilities = first.token_logits[:, -1].softmax(-1)
        probabilities[:, :2, 6] = 0  # does not occur in the data
        kept = probabilities / probabilities.sum(-1, keepdim=True)
        table = torch.zeros(TOKENS, CODES, ENTRIES)
        table[:2], table[2, :5] = space.points[:CODES], space.points[CODES:]
        return (kept.unsqueeze(-1) * table).sum(2)

    def snapped(self, points: torch.Tensor) -> torch.Tensor:
        """Snap to the nearest code that occurs in the data."""
        result = torch.zeros(ROWS, TOKENS, dtype=torch.int64)
        for place in range(TOKENS):
            names = place < 2
            codes = torch.arange(6) if names else torch.arange(5)
            candidates = self.dynamics.code_space.points[codes + (0 if names else CODES)]
            result[:, place] = codes[torch.cdist(points[:, place], candidates).argmin(1)]
        return result


@pytest.mark.parametrize(
    ("steps", "path"), [*((steps, False) for steps in (1, 2, 3, 4, 5, 8)), (3, True)]
)
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_cached_imagination_equals_full_recomputation(solver: str, steps: int, path: bool) -> None:
    dynamics = make_dynamics(path=path)
    windows = make_windows(CONTEXT)
    imagination = engine(dynamics, denoising_steps=steps, solver=solver, min_probability_ratio=0.0)
    imagination.reset(context_of(windows))
    tokens, actions = windows.tokens, windows.actions
    generator = torch.Generator().manual_seed(3)
    for _ in range(2 * CONTEXT + 1):  # the ring turns twice
        action = torch.randint(1, 5, (ROWS, 1), generator=torch.Generator().manual_seed(4))
        step = imagination.step(action)
        actions = torch.cat([actions, action.unsqueeze(1)], 1)
        tokens = torch.cat([tokens, torch.zeros(ROWS, 1, TOKENS, dtype=torch.int64)], 1)
        full = Recomputation(dynamics, as_windows(tokens, actions))
        denoised = full.denoised(None, 20.0)
        if steps > 1:
            count = steps if solver == "euler" else steps // 2 + 1 + steps % 2
            sigmas = rho_schedule(count, 0.1, 20.0)
            noise = torch.randn(denoised.shape, generator=generator)
            points = 20.0 * noise * dynamics.code_space.live
            for index in range(count - 1):
                sigma, after = sigmas[index : index + 2]
                ahead = euler_step(points, denoised, sigma, after)
                there = full.denoised(ahead, after)
                if solver == "heun" and index > steps % 2:
                    ahead = heun_step(points, denoised, ahead, there, sigma, after)
                    there = full.denoised(ahead, after)
                points, denoised = ahead, there
        assert full.passes == steps
        assert torch.equal(step.tokens, full.snapped(denoised))
        assert torch.allclose(step.reward, full.reward, rtol=1e-4, atol=1e-5)
        tokens[:, -1] = step.tokens


def test_only_codes_of_the_data_are_dreamed() -> None:
    imagination = engine(make_dynamics(), denoising_steps=3)
    imagination.reset(context_of(make_windows(CONTEXT)))
    for _ in range(20):
        tokens = imagination.step(torch.ones(ROWS, 1, dtype=torch.int64)).tokens
        assert (tokens < torch.tensor([6, 6, 5])).all()


def test_a_row_restarts_without_touching_the_others() -> None:
    # Without noise, since rows would draw different numbers alone.
    dynamics = make_dynamics()
    first, second = make_windows(CONTEXT), make_windows(CONTEXT, seed=5)
    settings = {"denoising_steps": 3, "temperature": 0.0}
    undisturbed, restarted = engine(dynamics, **settings), engine(dynamics, **settings)
    alone = engine(dynamics, rows=1, **settings)
    undisturbed.reset(context_of(first))
    restarted.reset(context_of(first))
    one = context_of(second).rows(torch.tensor([0]))
    others = torch.tensor([0, 1, 3])
    for time in range(8):
        action = torch.randint(1, 5, (ROWS, 1), generator=torch.Generator().manual_seed(time))
        if time == 4:
            restarted.reset_rows(torch.tensor([2]), one)
            alone.reset(one)
        expected, step = undisturbed.step(action), restarted.step(action)
        assert torch.allclose(step.reward[others], expected.reward[others], rtol=1e-5)
        assert torch.equal(step.tokens[others], expected.tokens[others])
        if time >= 4:
            single = alone.step(action[2:3])
            assert torch.allclose(step.reward[2:3], single.reward, rtol=1e-4)
            assert torch.equal(step.tokens[2:3], single.tokens)


def test_equal_seeds_give_equal_dreams_and_noise_gives_different_ones() -> None:
    dreams = []
    for temperature in (1.0, 1.0, 0.0):
        imagination = engine(make_dynamics(), denoising_steps=3, temperature=temperature)
        imagination.reset(context_of(make_windows(CONTEXT)))
        steps = [imagination.step(torch.ones(ROWS, 1, dtype=torch.int64)) for _ in range(10)]
        dreams.append(torch.stack([step.tokens for step in steps]))
    assert torch.equal(dreams[0], dreams[1])
    assert not torch.equal(dreams[0], dreams[2])


def test_wrong_settings_are_explained() -> None:
    with pytest.raises(ConfigError, match="`process` must be 'masked' or 'gaussian', got 'other'"):
        DynamicsConfig(process="other")
    with pytest.raises(ConfigError, match="`solver` must be 'euler' or 'heun', got 'rk4'"):
        SamplerConfig(solver="rk4")
    with pytest.raises(ConfigError, match="`sigma_max` must be over sigma_min"):
        SamplerConfig(sigma_min=2.0, sigma_max=1.0)

"""`FrozenDynamics`, where it does more than repeat `Dynamics`."""

from __future__ import annotations

import shutil
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch._inductor.exc import InductorError

from worldgen.actions import ActionCodec
from worldgen.codes import Codebook
from worldgen.compiling import compiled
from worldgen.data.token_dataset import Context
from worldgen.diffusion.sampler_config import SamplerConfig
from worldgen.dynamics import Dynamics, DynamicsConfig
from worldgen.errors import ConfigError
from worldgen.frozen_dynamics import FrozenDynamics
from worldgen.imagination import Imagination
from worldgen.transformer import TransformerConfig

NAMES = Codebook(4, 0, 2, num_features=3, numbers=False)
NUMBERS = Codebook(9, 2, 2, num_features=2, numbers=True)
ROWS = 5


def make_dynamics() -> Dynamics:
    torch.manual_seed(0)
    config = DynamicsConfig(
        context=2, precision="float32", transformer=TransformerConfig(width=16, layers=1, heads=2)
    )
    dynamics = Dynamics(config, (NAMES, NUMBERS), ActionCodec(spaces.Discrete(3)))
    dynamics.set_code_contents([torch.randn(4, 3), torch.randn(9, 2) * 0.05])
    dynamics.set_seen_codes(torch.stack([torch.arange(9) % 3, *[torch.arange(9) % 3] * 3], 1))
    return dynamics.eval()


def engine(dynamics: Dynamics, seed: int, **settings: object) -> Imagination:
    generator = torch.Generator().manual_seed(seed)
    imagination = Imagination(dynamics, ROWS, SamplerConfig(**settings), generator)
    tokens = torch.zeros(ROWS, 2, 4, dtype=torch.int64)
    actions = torch.ones(ROWS, 2, 1, dtype=torch.int64)
    imagination.reset(Context(tokens, actions, torch.ones(ROWS, 2, dtype=torch.bool)))
    return imagination


def test_numbers_are_put_at_the_mean_and_names_are_left_alone() -> None:
    dynamics = make_dynamics()
    network = FrozenDynamics(dynamics, torch.float32)
    codes = torch.randint(3, (ROWS, 4))
    weights = torch.rand(ROWS, 4, 9)
    settled = network.with_mean_numbers(codes, weights)
    assert torch.equal(settled[:, :2], codes[:, :2])
    contents = list(dynamics.each_port())[1].contents.numpy()
    for row in range(ROWS):
        for position in (2, 3):
            mean = np.average(contents, axis=0, weights=weights[row, position].numpy())
            nearest = np.square(contents - mean).sum(1).argmin()
            assert int(settled[row, position]) == nearest


def test_dreams_of_mean_numbers_have_no_scatter_in_them() -> None:
    dynamics = make_dynamics()
    actions = torch.ones(ROWS, 1, dtype=torch.int64)
    drawn, mean = (
        [engine(dynamics, seed, numbers=numbers).step(actions).tokens for seed in range(3)]
        for numbers in ("drawn", "mean")
    )
    assert not torch.equal(drawn[0][:, 2:], drawn[1][:, 2:])
    assert torch.equal(mean[0][:, 2:], mean[1][:, 2:])
    assert torch.equal(mean[1][:, 2:], mean[2][:, 2:])
    assert not torch.equal(mean[0][:, :2], mean[1][:, :2]), "names are drawn as before"


def test_mean_numbers_go_with_more_denoising_steps() -> None:
    dynamics = make_dynamics()
    actions = torch.ones(ROWS, 1, dtype=torch.int64)
    tokens = engine(dynamics, 0, numbers="mean", denoising_steps=3).step(actions).tokens
    assert tokens.shape == (ROWS, 4)
    assert int(tokens[:, 2:].max()) < 9


def test_a_dream_goes_on_with_the_weights_that_it_began_with() -> None:
    dynamics = make_dynamics()
    actions = torch.ones(ROWS, 1, dtype=torch.int64)
    begun, undisturbed = engine(dynamics, 0), engine(dynamics, 0)
    whole = undisturbed.step(actions)
    restarted = Context(
        torch.ones(2, 2, 4, dtype=torch.int64),
        torch.ones(2, 2, 1, dtype=torch.int64),
        torch.ones(2, 2, dtype=torch.bool),
    )
    undisturbed.reset_rows(torch.arange(2), restarted)
    after = undisturbed.step(actions)
    with torch.no_grad():
        for weights in dynamics.parameters():
            weights.add_(1.0)
    step = begun.step(actions)
    assert torch.equal(step.tokens, whole.tokens)
    assert torch.equal(step.reward, whole.reward)
    begun.reset_rows(torch.arange(2), restarted)
    assert torch.equal(begun.step(actions).reward, after.reward)
    assert torch.equal(begun.summary, undisturbed.summary)
    assert not torch.equal(engine(dynamics, 0).step(actions).reward, whole.reward)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # torch's own
def test_layers_that_went_through_a_c_compiler_give_the_same_dream() -> None:
    _assert_equal_dreams()


def test_compiled_layers_give_the_same_dream(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the C++ compiler, which takes half a minute; the graphs are the same.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    compiled.cache_clear()
    _assert_equal_dreams()
    compiled.cache_clear()


def _assert_equal_dreams() -> None:
    dynamics = make_dynamics()
    actions = torch.ones(ROWS, 1, dtype=torch.int64)
    plain, fast = (engine(dynamics, 0, compiled=compiles) for compiles in (False, True))
    for _ in range(3):
        first, second = plain.step(actions), fast.step(actions)
        assert torch.equal(first.tokens, second.tokens)
        for one, other in zip(first[1:3], second[1:3], strict=True):
            assert torch.allclose(one, other, atol=1e-5)
    assert torch.allclose(plain.summary, fast.summary, atol=1e-5)


def test_a_compiler_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(function: object, **_: object) -> object:
        def call(*_: object) -> None:
            raise InductorError(RuntimeError("no g++"), None)

        return call

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(
        ConfigError, match=r"`compiled` must be False .* C\+\+ compiler .* no g\+\+"
    ):
        compiled(lambda tensor: tensor)(torch.ones(1))

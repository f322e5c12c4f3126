"""The network's summary of the past: the engine's equals full recomputation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from worldgen.actions import ActionCodec
from worldgen.codes import Codebook
from worldgen.data.token_dataset import Context
from worldgen.diffusion.frame_sampler import Process
from worldgen.diffusion.sampler_config import SamplerConfig
from worldgen.dynamics import Dynamics, DynamicsConfig, summary_of
from worldgen.errors import ConfigError, ShapeError
from worldgen.imagination import Imagination
from worldgen.transformer import TransformerConfig

ROWS, TOKENS, CODES, LAYERS, WIDTH = 4, 3, 7, 2, 16


def make_dynamics(
    context: int = 3, process: Process = "masked", flight: int = 1, *, path: bool = False
) -> Dynamics:
    torch.manual_seed(0)
    config = DynamicsConfig(
        transformer=TransformerConfig(width=WIDTH, layers=LAYERS, heads=2, path_integration=path),
        context=context,
        precision="float32",
        process=process,
        frames_in_flight=flight,
    )
    codebooks = [Codebook(CODES, 0, TOKENS, num_features=4, numbers=False)]
    dynamics = Dynamics(config, codebooks, ActionCodec(spaces.Discrete(4)), 5)
    dynamics.set_code_contents([torch.randn(CODES, 4)])
    dynamics.set_code_vectors([torch.randn(CODES, 5)])
    torch.nn.init.normal_(dynamics.transformer.norm.weight, std=1.0)
    return dynamics.eval()


def make_engine(dynamics: Dynamics, rows: int = ROWS, **sampler: int) -> Imagination:
    generator = torch.Generator().manual_seed(0)
    return Imagination(dynamics, rows, SamplerConfig(**sampler), generator)


def make_context(frames: int, rows: int = ROWS, seed: int = 0) -> Context:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, CODES, (rows, frames, TOKENS), generator=generator)
    actions = torch.randint(1, 5, (rows, frames, 1), generator=generator)
    return Context(tokens, actions, torch.ones(rows, frames, dtype=torch.bool))


def drawn_actions(count: int) -> Tensor:
    return torch.randint(1, 5, (count, ROWS, 1), generator=torch.Generator().manual_seed(3))


def longer(context: Context, tokens: Tensor, actions: Tensor) -> Context:
    return Context(
        torch.cat([context.tokens, tokens.unsqueeze(1)], 1),
        torch.cat([context.actions, actions.unsqueeze(1)], 1),
        torch.cat([context.valid, torch.ones(len(tokens), 1, dtype=torch.bool)], 1),
    )


def assert_close(given: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("process", ["masked", "gaussian"])
@pytest.mark.parametrize("denoising_steps", [1, 3])
@pytest.mark.parametrize(("context", "path"), [(1, False), (2, False), (2, True), (5, False)])
def test_cached_summaries_equal_full_recomputation(context, path, denoising_steps, process):
    dynamics = make_dynamics(context, process, path=path)
    engine, seen = make_engine(dynamics, denoising_steps=denoising_steps), make_context(context)
    engine.reset(seen)
    assert_close(engine.summary, dynamics.summarise(seen))
    for action in drawn_actions(3 * context + 2):  # the ring turns more than twice
        seen = longer(seen, engine.step(action).tokens, action)
        assert engine.summary.shape == (ROWS, WIDTH)
        assert_close(engine.summary, dynamics.summarise(seen))


@pytest.mark.parametrize("path", [False, True])
def test_rows_that_restart_on_their_own_summarise_their_own_past(path):
    dynamics = make_dynamics(path=path)
    engine, seen = make_engine(dynamics), make_context(3)
    engine.reset(seen)
    new, rows = make_context(3, rows=2, seed=1), torch.tensor([1, 2])
    new.valid[1, :2] = False  # the first frame of an episode
    for time, action in enumerate(drawn_actions(12)):
        if time == 5:
            before = engine.summary
            engine.reset_rows(rows, new)
            assert torch.equal(engine.summary[[0, 3]], before[[0, 3]])
            assert_close(engine.summary[rows], dynamics.summarise(new))
            assert not engine.summary[2].any()
            assert engine.summary[1].any()
        tokens = engine.step(action).tokens
        seen = longer(seen, tokens, action)
        others = torch.tensor([0, 3])
        assert_close(engine.summary[others], dynamics.summarise(seen)[others])
        if time >= 5:
            new = longer(new, tokens[rows], action[rows])
            assert_close(engine.summary[rows], dynamics.summarise(new))


@pytest.mark.parametrize("reset", ["all", "each"])
def test_a_first_frame_has_zeros(reset):
    engine = make_engine(make_dynamics())
    engine.reset(make_context(3))
    engine.step(drawn_actions(1)[0])
    assert engine.summary.any(1).all()
    if reset == "all":
        engine.reset(make_context(1))
    else:
        engine.reset_rows(torch.arange(ROWS), make_context(1))
    assert torch.equal(engine.summary, torch.zeros(ROWS, WIDTH))
    assert torch.equal(engine.dynamics.summarise(make_context(1)), torch.zeros(ROWS, WIDTH))


def test_to_follow_frames_is_to_have_imagined_them():
    dynamics = make_dynamics()
    dreamer, follower = make_engine(dynamics), make_engine(dynamics, denoising_steps=2)
    for engine in (dreamer, follower):
        engine.reset(make_context(3))
    for action in drawn_actions(9):
        follower.follow(action, dreamer.step(action).tokens)
        assert torch.equal(follower.tokens, dreamer.tokens)
        assert torch.equal(follower.summary, dreamer.summary)
    assert follower.network_passes == dreamer.network_passes


def test_a_reset_takes_the_weights_as_they_are_or_keeps_the_last_ones():
    engine, summaries = make_engine(make_dynamics()), []
    for same_weights in (False, True, False):
        engine.reset(make_context(1), same_weights=same_weights)
        engine.step(drawn_actions(1)[0])
        summaries.append(engine.summary)
        with torch.no_grad():
            for block in engine.dynamics.transformer.each_block():
                block.project_in.weight.mul_(-2)
    assert torch.equal(summaries[0], summaries[1])
    assert (summaries[0] - summaries[2]).abs().max() > 1e-3


def changes(alter: Callable[[Context, int], None], frames: int) -> list[bool]:
    """Say of each frame of a context whether the summary changes with it."""
    dynamics = make_dynamics(context=3)
    before = dynamics.summarise(make_context(frames))
    changed = []
    for frame in range(frames):
        context = make_context(frames)
        alter(context, frame)
        changed.append(bool((dynamics.summarise(context) - before).abs().max() > 1e-6))
    return changed


def test_a_summary_knows_the_frames_and_actions_within_reach():
    reach = LAYERS * (3 - 1) + 2
    assert make_dynamics(context=3).reach == reach

    def other_tokens(context: Context, frame: int) -> None:
        context.tokens[:, frame] = (context.tokens[:, frame] + 1) % CODES

    def other_actions(context: Context, frame: int) -> None:
        context.actions[:, frame] = context.actions[:, frame] % 4 + 1

    # Not the newest frame's tokens, but the action that led to it.
    assert changes(other_tokens, reach + 2) == [False, False, *[True] * (reach - 1), False]
    assert changes(other_actions, reach + 2) == [False, False, False, *[True] * (reach - 1)]


def test_a_context_within_reach_starts_where_one_who_saw_all_is():
    dynamics = make_dynamics()
    whole = make_context(12)
    witness, short, started = (make_engine(dynamics) for _ in range(3))
    witness.reset(Context(*(part[:, :1] for part in vars(whole).values())))
    for time in range(1, 12):
        witness.follow(whole.actions[:, time], whole.tokens[:, time])
    started.reset(Context(*(part[:, -dynamics.reach :] for part in vars(whole).values())))
    short.reset(Context(*(part[:, -3:] for part in vars(whole).values())))
    assert_close(started.summary, witness.summary)
    assert (short.summary - witness.summary).abs().max() > 1e-3
    for action in drawn_actions(7):
        tokens = witness.step(action).tokens
        started.follow(action, tokens)
        assert_close(started.summary, witness.summary)


def test_a_network_for_two_frames_in_flight_summarises_single_steps():
    dynamics = make_dynamics(flight=2)
    engine, seen = make_engine(dynamics, frames_in_flight=2), make_context(6)
    engine.reset(seen)
    for action in drawn_actions(8):
        seen = longer(seen, engine.step(action).tokens, action)
        assert_close(engine.summary, dynamics.summarise(seen))
    engine.step_twice(action, action)
    with pytest.raises(ConfigError, match="no `summary` after `step_twice`"):
        _ = engine.summary
    engine.step(action)
    assert engine.summary.isfinite().all()


def test_entries_are_of_order_1():
    outputs = torch.randn(5, 9, WIDTH) * torch.tensor([0.1, 1, 30, 1, 1]).view(-1, 1, 1) + 2
    outputs[3] = 0
    summary = summary_of(outputs)
    assert not summary[3].any()
    rest = summary[[0, 1, 2, 4]]
    torch.testing.assert_close(rest.mean(1), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(rest.std(1, correction=0), torch.ones(4), atol=0.01, rtol=0)
    assert summary_of(outputs.bfloat16()).dtype == torch.float32


def test_wrong_use_is_explained():
    engine = make_engine(make_dynamics())
    with pytest.raises(ConfigError, match="or before the first `reset`"):
        _ = engine.summary
    with pytest.raises(ShapeError, match="call `reset`"):
        engine.follow(drawn_actions(1)[0], engine.tokens)
    engine.reset(make_context(6))
    with pytest.raises(ShapeError, match="`tokens` must have shape"):
        engine.follow(drawn_actions(1)[0], engine.tokens[:2])
    with pytest.raises(ShapeError, match="of at most 6 frames"):
        engine.reset(make_context(7))

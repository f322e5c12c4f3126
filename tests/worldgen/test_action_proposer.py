"""Scores of actions: who sees what, the engine against full recomputation, aims by hindsight."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from killed_fits import new_model, some_episodes
from torch import Tensor

from worldgen import Episode, Episodes
from worldgen.action_proposer import GOAL, NOTHING, RETURN, Aim, guided
from worldgen.actions import ActionCodec
from worldgen.codes import Codebook
from worldgen.data.token_dataset import Context, TokenDataset, Windows
from worldgen.diffusion.sampler_config import SamplerConfig
from worldgen.dynamics import Dynamics, DynamicsConfig
from worldgen.dynamics_trainer import DynamicsTrainer
from worldgen.errors import ConfigError, ShapeError
from worldgen.hindsight import action_loss, draw_aims
from worldgen.imagination import Imagination
from worldgen.training_state import load_state, save_state
from worldgen.transformer import TransformerConfig

TOKENS, CODES, ROWS, HORIZON = 3, 7, 4, 6


def make_dynamics(
    context: int = 3, space: Any = None, *, path: bool = False, **settings: Any
) -> Dynamics:
    torch.manual_seed(0)
    config = DynamicsConfig(
        transformer=TransformerConfig(width=16, layers=2, heads=2, path_integration=path),
        context=context,
        precision="float32",
        pointer=path,
        **{"goal_horizon": HORIZON, **settings},
    )
    codebooks = [
        Codebook(CODES, 0, 2, num_features=4, numbers=False),
        Codebook(CODES, 2, 1, num_features=2, numbers=True),
    ]
    space = space or spaces.MultiDiscrete([4, 2])
    dynamics = Dynamics(config, codebooks, ActionCodec(space), 5)
    dynamics.set_code_contents([torch.randn(CODES, 4), torch.randn(CODES, 2)])
    dynamics.set_code_vectors([torch.randn(CODES, 5), torch.randn(CODES, 5)])
    dynamics.two_hot.restrict(torch.tensor([-1.0, 1.0]))
    if config.goal_horizon:
        torch.nn.init.normal_(dynamics.proposer.head.weight, std=1.0)
        torch.nn.init.normal_(dynamics.proposer.read_return.weight, std=1.0)
    if path:
        torch.nn.init.normal_(dynamics.pointer.weight, std=0.5)
    return dynamics.eval()


def make_windows(length: int, num_dims: int = 2) -> Windows:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, CODES, (ROWS, length, TOKENS), generator=generator)
    actions = torch.randint(1, 3, (ROWS, length, num_dims), generator=generator)
    flags = torch.zeros(tokens.shape[:2], dtype=torch.bool)
    return Windows(tokens, actions, flags.float(), flags, flags.long(), flags.long())


def make_aims(length: int) -> Aim:
    generator = torch.Generator().manual_seed(1)
    shape = (ROWS, length)
    return Aim(
        torch.randint(0, 3, shape, generator=generator),
        torch.randint(0, CODES, (*shape, TOKENS), generator=generator),
        torch.rand(shape, generator=generator),
        torch.randint(1, HORIZON + 1, shape, generator=generator),
    )


def at(aim: Aim, time: int) -> Aim:
    return Aim(*(part[:, time] for part in vars(aim).values()))


@torch.no_grad()
def changed_by(
    dynamics: Dynamics, windows: Windows, aim: Aim, other: Windows, other_aim: Aim
) -> list[bool]:
    """Of which frames the scores change."""
    first = dynamics.propose(windows, windows.tokens, aim).softmax(-1)
    second = dynamics.propose(other, other.tokens, other_aim).softmax(-1)
    return ((first - second).abs().amax((0, 2, 3)) > 1e-6).tolist()


@pytest.mark.parametrize("path", [False, True])
def test_an_action_is_scored_without_itself_and_what_comes_after_it(path: bool) -> None:
    dynamics, windows, aim = make_dynamics(path=path), make_windows(6), make_aims(5)
    tokens, actions = windows.tokens.clone(), windows.actions.clone()
    tokens[:, 2] = (tokens[:, 2] + 1) % CODES
    other = dataclasses.replace(windows, tokens=tokens)
    assert changed_by(dynamics, windows, aim, other, aim) == [False, False, True, True, True]
    actions[:, 2] = 3 - actions[:, 2]  # it leads to frame 2, so it is taken in frame 1
    other = dataclasses.replace(windows, actions=actions)
    assert changed_by(dynamics, windows, aim, other, aim) == [False, False, True, True, True]


def test_only_what_belongs_to_an_aim_counts_and_only_at_its_frame() -> None:
    dynamics, windows, aim = make_dynamics(), make_windows(4), make_aims(3)
    for kind, counts in ((NOTHING, ""), (GOAL, "goal steps_left"), (RETURN, "wanted steps_left")):
        aim = dataclasses.replace(aim, kind=torch.full_like(aim.kind, kind))
        for name in ("goal", "wanted", "steps_left"):
            value = getattr(aim, name).clone()
            value[:, 1] = value[:, 1] + 0.5 if name == "wanted" else value[:, 1] % 6 + 1
            other = dataclasses.replace(aim, **{name: value})
            changed = changed_by(dynamics, windows, aim, windows, other)
            assert changed == [False, name in counts, False], (kind, name)


@pytest.mark.parametrize("process", ["masked", "gaussian"])
@pytest.mark.parametrize(
    ("context", "flight", "path"), [(1, 1, False), (3, 1, False), (3, 2, False), (3, 2, True)]
)
def test_scores_in_a_dream_equal_full_recomputation(
    process: Any, context: int, flight: int, path: bool
) -> None:
    dynamics = make_dynamics(context, path=path, process=process, frames_in_flight=flight)
    steps = 3 * context + 2
    windows, aims = make_windows(context + steps + 1), make_aims(context + steps)
    sampler = SamplerConfig(temperature=0.0, frames_in_flight=flight)
    engine = Imagination(dynamics, ROWS, sampler, torch.Generator().manual_seed(0))
    valid = torch.ones(ROWS, context, dtype=torch.bool)
    engine.reset(Context(windows.tokens[:, :context], windows.actions[:, :context], valid))
    tokens = windows.tokens.clone()
    for time in range(context - 1, context - 1 + steps):  # the ring turns more than twice
        with torch.no_grad():
            full = dynamics.propose(windows, tokens, aims)[:, time]
        for _ in range(2):  # asking changes nothing
            assert torch.allclose(engine.propose(at(aims, time)), full, atol=1e-4)
        tokens[:, time + 1] = engine.step(windows.actions[:, time + 1]).tokens


def test_a_dream_at_an_episodes_beginning_sees_nothing_before_it() -> None:
    dynamics, windows, aims = make_dynamics(), make_windows(5), make_aims(4)
    episode = torch.tensor([0, 0, 1, 1, 1]).expand(ROWS, -1)  # it begins at frame 2
    windows = dataclasses.replace(windows, episode=episode)
    engine = Imagination(dynamics, ROWS, SamplerConfig(), torch.Generator().manual_seed(0))
    engine.reset(Context(windows.tokens[:, 1:3], windows.actions[:, 1:3], episode[:, 1:3] == 1))
    with torch.no_grad():
        full = dynamics.propose(windows, windows.tokens, aims)[:, 2]
    assert torch.allclose(engine.propose(at(aims, 2)), full, atol=1e-4)


def test_guidance_weighs_the_aim_against_what_is_likely_anyway() -> None:
    plain = torch.randn(5, 2, 4, dtype=torch.float64)
    plain[:, 1, 2:] = -torch.inf  # a dimension with two choices
    aimed = torch.where(plain.isinf(), plain, torch.randn(5, 2, 4, dtype=torch.float64))
    assert torch.equal(guided(plain, aimed, 0.0), plain)
    torch.testing.assert_close(guided(plain, aimed, 1.0), aimed)
    p, q = plain.softmax(-1), aimed.softmax(-1)
    expected = torch.where(p > 0, q**3 / p.clamp(min=1e-300) ** 2, 0.0)  # p (q / p)^3
    expected = expected / expected.sum(-1, keepdim=True)
    torch.testing.assert_close(guided(plain, aimed, 3.0).softmax(-1), expected)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=-1),
        spaces.MultiDiscrete([2, 5]),
        spaces.MultiBinary(3),
        spaces.Box(-2, 5, (2, 2)),
        spaces.Box(np.float32([0, 7]), np.float32([1, 7])),  # one entry cannot change
        spaces.Box(0, 9, (2,), np.int64),
    ],
)
def test_every_action_space_is_scored_chosen_and_decoded(space: spaces.Space[Any]) -> None:
    codec = ActionCodec(space)
    space.seed(0)
    actions = np.stack([np.stack([space.sample() for _ in range(5)]) for _ in range(ROWS)])
    encoded = codec.encode(actions)
    decoded = codec.decode(encoded)
    assert decoded.shape == actions.shape
    assert decoded.dtype == space.dtype
    assert np.allclose(decoded, actions, atol=1e-5)
    choices = codec.to_choices(encoded)
    assert (choices >= 0).all()
    assert (choices < torch.tensor(codec.num_choices)).all()
    again = codec.from_choices(choices)
    assert torch.equal(codec.to_choices(again), choices)
    width = 0.0 if codec.sizes else 2 / 20
    assert (again - encoded).abs().max() <= width / 2 + 1e-6
    for row in codec.decode(again).reshape(-1, *(space.shape or ())):
        assert space.contains(row if space.shape else row.item())

    dynamics = make_dynamics(space=space)
    windows = dataclasses.replace(make_windows(5), actions=encoded)
    logits = dynamics.propose(windows, windows.tokens, make_aims(4))
    assert logits.shape == (ROWS, 4, codec.num_dims, max(codec.num_choices))
    assert torch.equal(logits.isfinite()[0, 0].sum(-1), torch.tensor(codec.num_choices))
    known = torch.ones(ROWS, 4, dtype=torch.bool)
    loss = action_loss(logits, codec.to_choices(encoded[:, 1:]), known)
    loss.backward()
    assert loss.isfinite()
    learns = {n for n, p in dynamics.named_parameters() if p.grad is not None}
    assert learns == {n for n, _ in dynamics.named_parameters() if n.startswith("proposer.")}


def some_dataset() -> TokenDataset:
    """Episodes of 1 to 9 environment steps: terminated, truncated and cut ones."""
    random = np.random.default_rng(0)
    episodes = []
    for length in (1, 9, 4, 2, 7, 5):
        ends = np.arange(length) == length - 1
        kind = length % 3
        episodes.append(
            Episode(
                observations={"observation": np.zeros(length + 1)},
                actions=random.integers(0, 3, length),
                rewards=random.normal(size=length).astype(np.float32),
                terminated=ends & (kind == 1),
                truncated=ends & (kind == 2),
            )
        )
    count = sum(len(episode) + 1 for episode in episodes)
    tokens = torch.arange(count).unsqueeze(1)  # every frame is another one
    return TokenDataset(tokens, episodes, ActionCodec(spaces.Discrete(3)), 1)


def test_aims_are_what_came_of_the_actions() -> None:
    dataset, generator = some_dataset(), torch.Generator().manual_seed(0)
    first = torch.arange(dataset.num_frames - 4).repeat(60)
    windows = dataset.windows_at(first, 4)
    aim, known = draw_aims(dataset, windows, HORIZON, (0.25, 0.5), generator)
    lasts = (dataset.first_frames + dataset.lengths - 1).tolist()
    last = dict(zip(dataset.first_frames.tolist(), lasts, strict=True))
    begins = sorted(last)
    seen = set()
    for row, column in np.ndindex(*known.shape):
        frame = int(windows.index[row, column])
        end = last[max(begin for begin in begins if begin <= frame)]
        kind, steps = int(aim.kind[row, column]), int(aim.steps_left[row, column])
        assert 1 <= steps <= HORIZON
        if frame == end:
            assert not known[row, column]
        elif kind == NOTHING:
            assert known[row, column]
        elif kind == GOAL and known[row, column]:
            goal = int(aim.goal[row, column, 0])
            assert frame < goal <= min(end, frame + steps)
            seen.add((steps, goal - frame))
        elif kind == RETURN:
            over = bool(dataset.terminated[end])
            assert bool(known[row, column]) == (frame + steps <= end or over)
            total = float(dataset.rewards[frame + 1 : min(end, frame + steps) + 1].sum())
            if known[row, column]:
                assert float(aim.wanted[row, column]) == pytest.approx(total, abs=1e-5)
    assert seen == {(m, k) for m in range(1, HORIZON + 1) for k in range(1, m + 1)}
    shares = [(aim.kind == kind).float().mean().item() for kind in (NOTHING, GOAL, RETURN)]
    assert shares == pytest.approx([0.25, 0.375, 0.375], abs=0.03)


@cache
def episodes_of_a_small_world() -> Episodes:
    return some_episodes()


def trained(steps: int = 6, **options: Any) -> DynamicsTrainer:
    model, episodes = new_model(**options), episodes_of_a_small_world()
    model.fit(episodes, tokenizer_steps=3, dynamics_steps=0, progress=False)
    generator = torch.Generator().manual_seed(7)
    dataset = model.dataset(episodes)
    trainer = DynamicsTrainer(model.dynamics, dataset, model.config.training, steps, generator)
    while not trainer.is_finished:
        trainer.step()
    return trainer


def test_what_is_learned_of_actions_changes_no_other_weight() -> None:
    """So that the option costs nothing in exactness, and off it costs nothing at all."""
    off, on = trained(), trained(goal_horizon=HORIZON)
    without, learned = off.dynamics.state_dict(), on.dynamics.state_dict()
    assert not any("proposer" in name for name in without)
    assert {n for n in learned if not n.startswith("proposer.")} == set(without)
    assert all(torch.equal(value, learned[name]) for name, value in without.items())
    assert torch.equal(off.dataset.priority, on.dataset.priority)
    assert off.finish() == {n: v for n, v in on.finish().items() if n != "action_loss"}
    assert "aim_generator" not in off.state_dict()


def test_a_trainer_that_was_saved_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, fresh = trained(goal_horizon=HORIZON), trained(steps=0, goal_horizon=HORIZON)
    broken = trained(steps=0, goal_horizon=HORIZON)
    broken.gradient_steps = fresh.gradient_steps = 6
    for _ in range(3):
        broken.step()
    save_state(tmp_path / "state", broken.state_dict())
    fresh.load_state_dict(load_state(tmp_path / "state"))
    while not fresh.is_finished:
        fresh.step()
    weights: list[dict[str, Tensor]] = [t.dynamics.state_dict() for t in (whole, fresh)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_wrong_use_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"`goal_horizon` must be in \[0, 512\], got -1"):
        DynamicsConfig(goal_horizon=-1)
    windows, aim = make_windows(3), at(make_aims(3), 0)
    context = Context(windows.tokens, windows.actions, torch.ones(ROWS, 3, dtype=torch.bool))
    for horizon, message in ((0, "`propose` needs a network that has learned actions"), (6, "4 a")):
        dynamics = make_dynamics(goal_horizon=horizon)
        engine = Imagination(dynamics, ROWS, SamplerConfig(), torch.Generator())
        engine.reset(context)
        error: Any = ShapeError if horizon else ConfigError
        with pytest.raises(error, match=message):
            engine.propose(aim.rows(slice(2)))

"""Dreams that lead to goals and returns, with their actions, and what comes of these for real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from worlds import DictWorld, RoomWorld, VectorWorld

import worldgen
from worldgen import SamplerConfig, WorldModel, WorldModelConfig
from worldgen.action_proposer import GOAL, Aim
from worldgen.dynamics import DynamicsConfig
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.errors import ConfigError, ShapeError
from worldgen.filling import AimedRollout
from worldgen.tokenizer import QuantizerConfig, TokenizerConfig
from worldgen.transformer import TransformerConfig

HORIZON, SIZE, NUM_ACTIONS = 8, RoomWorld.SIZE, 5
PLACES = [(row, column) for row in range(SIZE) for column in range(SIZE)]
STARTS = [place for place in PLACES if place not in RoomWorld.PAYS]


def config(**settings: Any) -> WorldModelConfig:
    return WorldModelConfig(
        tokenizer=TokenizerConfig(hidden=32, quantizer=QuantizerConfig(num_codes=16)),
        dynamics=DynamicsConfig(
            context=1,
            transformer=TransformerConfig(width=64, layers=1),
            **{"goal_horizon": HORIZON, **settings},
        ),
        training=DynamicsTrainingConfig(
            batch_size=128, window=2, learning_rate=1e-2, draft_share=0.0, corrupted_share=0.0
        ),
    )


def short_fit(world: Any, **settings: Any) -> WorldModel:
    model = WorldModel.for_env(world, config=config(**settings), device="cpu")
    episodes = worldgen.collect(world, 100, seed=0, progress=False)
    model.fit(episodes, tokenizer_steps=5, dynamics_steps=1, progress=False)
    return model


@pytest.fixture(scope="module")
def model() -> WorldModel:
    """Learned from random play, of which few episodes are the shortest way to anywhere."""
    model = WorldModel.for_env(RoomWorld, config=config(), device="cpu")
    episodes = worldgen.collect("worlds/Room-v0", 6_000, seed=0, progress=False)
    model.fit(episodes, dynamics_steps=200, progress=False)
    return model


@pytest.fixture(scope="module")
def untrained() -> WorldModel:
    return short_fit(RoomWorld)


def frames(places: list[tuple[int, int]]) -> np.ndarray:
    return np.stack([RoomWorld.observation(place) for place in places])


def pairs() -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    both = [(start, goal) for start in STARTS for goal in PLACES if start != goal]
    starts, goals = zip(*both, strict=True)
    return list(starts), list(goals)


def played(start: tuple[int, int], actions: np.ndarray) -> list[tuple[tuple[int, int], float]]:
    """Places and rewards of the real room, up to the end."""
    env = RoomWorld()
    env.place = start
    found = []
    for action in actions:
        _, reward, terminated, _, _ = env.step(action)
        found.append((env.place, reward))
        if terminated:
            break
    return found


def reached_for_real(dream: AimedRollout, starts: Any, goals: Any) -> np.ndarray:
    """(B,) after how many environment steps, or 0."""
    after = []
    for start, goal, actions in zip(starts, goals, dream.actions, strict=True):
        places = [place for place, _ in played(start, actions)]
        after.append(places.index(goal) + 1 if goal in places else 0)
    return np.array(after)


def test_guidance_reaches_goals_in_the_dream_and_for_real(model: WorldModel) -> None:
    starts, goals = pairs()
    shares = []
    for weight in (0.0, 1.0, 2.0):
        dream = model.fill_in(frames(starts), frames(goals), horizon=HORIZON, guidance=weight)
        real = reached_for_real(dream, starts, goals)
        agree = dream.reached_after == real
        assert agree[dream.reached].mean() > 0.95
        assert dream.actions.shape == dream.rewards.shape == (len(starts), HORIZON)
        shares.append(real.astype(bool).mean())
    assert shares[0] < 0.4, "few are reached by chance"
    assert shares[1] > 2 * shares[0]
    assert shares[2] > 0.8


def test_candidates_and_a_longer_horizon_reach_more(model: WorldModel) -> None:
    starts, goals = pairs()
    shares = {
        (horizon, count): model.fill_in(
            frames(starts), frames(goals), horizon=horizon, guidance=1.0, num_candidates=count
        ).reached.mean()
        for horizon, count in ((4, 1), (8, 1), (8, 8))
    }
    assert shares[4, 1] < shares[8, 1] < shares[8, 8]
    assert shares[8, 8] > 0.95


def test_the_kept_candidate_is_the_soonest(model: WorldModel) -> None:
    starts, goals = (frames(places) for places in pairs())
    single = model.fill_in(starts, goals, horizon=HORIZON)
    best = model.fill_in(starts, goals, horizon=HORIZON, num_candidates=8)
    shortest = np.abs(np.subtract(*pairs())).sum(1)
    for dream, least, most in ((single, 0.1, 0.7), (best, 0.7, 1.0)):
        assert (dream.reached_after >= shortest)[dream.reached].mean() > 0.98
        assert least < (dream.reached_after == shortest)[dream.reached].mean() <= most


def test_returns_are_obtained_when_asked_for(model: WorldModel) -> None:
    starts = STARTS * 8
    found: dict[Any, np.ndarray] = {}
    for wanted, weight in ((1.0, 0.0), (1.0, 2.0), (0.3, 2.0)):
        dream = model.fill_in(
            frames(starts), desired_return=wanted, horizon=HORIZON, guidance=weight
        )
        assert not dream.reached.any()
        plays = zip(starts, dream.actions, strict=True)
        real = np.array([sum(reward for _, reward in played(*each)) for each in plays])
        assert np.abs(real - dream.returns).mean() < 0.1
        found[wanted, weight] = real
    assert found[1.0, 2.0].mean() > 3 * found[1.0, 0.0].mean()
    assert (found[0.3, 2.0] == 0.3).mean() > 2 * (found[1.0, 0.0] == 0.3).mean()
    mixed = np.where(np.arange(len(starts)) % 2, 1.0, 0.3)
    each = model.fill_in(frames(starts), desired_return=mixed, horizon=HORIZON).returns
    assert each[mixed == 1.0].mean() > 2 * each[mixed == 0.3].mean()


def test_scores_are_the_exact_posterior_of_random_play(model: WorldModel) -> None:
    """p(action | place, goal, m) is in proportion to how often the goal is seen within m."""
    index = {place: number for number, place in enumerate(PLACES)}
    visits = np.zeros((HORIZON + 1, len(PLACES), len(PLACES)))  # m, from, goal
    by_action = np.zeros((HORIZON + 1, len(PLACES), NUM_ACTIONS, len(PLACES)))
    for m in range(1, HORIZON + 1):
        for place in STARTS:
            for action in range(NUM_ACTIONS):
                target = index[RoomWorld.target(place, action)]
                seen = by_action[m, index[place], action]
                seen += visits[m - 1, target]
                seen[target] += 1
        visits[m] = by_action[m].mean(1)
    tokens = model.encode(frames(PLACES))
    engine = model.imagination(len(STARTS))
    rows = [index[place] for place in STARTS]
    engine.reset(model.first_frames(tokens[rows]))
    distances, to_even = [], []
    for m in (1, 3, 5, 8):
        for goal in range(len(PLACES)):
            possible = visits[m, rows, goal] > 0.02
            batch = torch.Size((len(rows),))
            kind, left = torch.full(batch, GOAL), torch.full(batch, m)
            aim = Aim(kind, tokens[goal].expand(len(rows), -1), torch.zeros(batch), left)
            learned = engine.propose(aim)[:, 0].softmax(-1).numpy()[possible]
            exact = by_action[m, rows, :, goal][possible]
            exact = exact / exact.sum(-1, keepdims=True)
            distances.append(np.abs(learned - exact).sum(-1) / 2)
            to_even.append(np.abs(1 / NUM_ACTIONS - exact).sum(-1) / 2)
    assert np.concatenate(distances).mean() < 0.2
    assert np.concatenate(to_even).mean() > 0.35


def test_without_weight_the_aim_does_not_matter(untrained: WorldModel) -> None:
    starts = frames(STARTS)
    aims: list[dict[str, Any]] = [
        {"goal": frames([(0, 0)] * len(STARTS))},
        {"goal": frames([(3, 0)] * len(STARTS))},
        {"desired_return": 1.0},
    ]
    dreams = [untrained.fill_in(starts, horizon=4, guidance=0.0, **aim) for aim in aims]
    for dream in dreams[1:]:
        assert torch.equal(dream.tokens, dreams[0].tokens)
        assert np.array_equal(dream.actions, dreams[0].actions)
    again = untrained.fill_in(starts, horizon=4, guidance=0.0, seed=1, **aims[0])
    assert not np.array_equal(again.actions, dreams[0].actions)


def test_frames_are_those_of_an_ordinary_dream(model: WorldModel) -> None:
    starts, goals = pairs()
    likeliest = SamplerConfig(temperature=0.0)
    filled = model.fill_in(frames(starts), frames(goals), horizon=HORIZON, sampler=likeliest)
    dream = model.imagine(frames(starts), filled.actions, sampler=likeliest)
    assert torch.equal(filled.tokens, dream.tokens)
    assert np.array_equal(filled.rewards, dream.rewards)


def test_a_saved_model_fills_in_the_same(untrained: WorldModel, tmp_path: Path) -> None:
    untrained.save(tmp_path / "model")
    loaded = WorldModel.load(tmp_path / "model", device="cpu")
    dreams = [
        each.fill_in(frames(STARTS), desired_return=1.0, horizon=4) for each in (untrained, loaded)
    ]
    assert torch.equal(dreams[0].tokens, dreams[1].tokens)
    assert np.array_equal(dreams[0].actions, dreams[1].actions)


@pytest.mark.parametrize("world", [DictWorld, VectorWorld])
def test_every_kind_of_world_is_filled_in(world: Any) -> None:
    model = short_fit(world)
    episode = max(worldgen.collect(world, 100, seed=1, progress=False), key=len)
    dataset = model.dataset([episode])
    context = dataset.contexts_to(torch.tensor([0, 1]))
    goal = worldgen.spaces.unflatten(
        model.observation_space, {path: part[2:4] for path, part in episode.observations.items()}
    )
    dream = model.fill_in(context, goal, horizon=3, num_candidates=2, guidance=3.0)
    assert dream.reached_after.shape == (2,)
    assert repr(dream) == "<AimedRollout of 2 dreams of 3 environment steps>"
    space = model.action_space
    assert dream.actions.dtype == space.dtype
    assert all(space.contains(action) for row in dream.actions for action in row)


def test_wrong_use_is_explained(untrained: WorldModel) -> None:
    starts, goal = frames(STARTS), frames([(3, 3)] * len(STARTS))
    for options, error, message in (
        ({}, ConfigError, "must be given either `goal` or `desired_return`, got neither"),
        ({"goal": goal, "desired_return": 1.0}, ConfigError, "got both"),
        ({"goal": goal, "horizon": 9}, ConfigError, r"`horizon` must be in \[1, 8\].*, got 9"),
        ({"goal": goal, "horizon": 0}, ConfigError, r"`horizon` must be in \[1, 8\].*, got 0"),
        ({"goal": goal, "guidance": -1.0}, ConfigError, "`guidance` must be at least 0"),
        ({"goal": goal, "guidance": float("nan")}, ConfigError, "`guidance` must be at least 0"),
        ({"goal": goal, "num_candidates": 0}, ConfigError, "`num_candidates` must be at least 1"),
        ({"goal": goal[:3]}, ShapeError, "one frame for each of 14 starts, got 3"),
        ({"goal": goal[0]}, ShapeError, r"\(B, 4, 4, 1\)"),
        ({"goal": goal[..., 0]}, ShapeError, r"\(B, 4, 4, 1\)"),
        ({"desired_return": np.zeros(3)}, ShapeError, r"`desired_return` must be a finite number"),
        ({"desired_return": np.nan}, ShapeError, r"`desired_return` must be a finite number"),
    ):
        with pytest.raises(error, match=message):
            untrained.fill_in(starts, **{"horizon": 4, **options})
    plain = short_fit(RoomWorld, goal_horizon=0)
    with pytest.raises(ConfigError, match="`fill_in` needs a model that has learned actions"):
        plain.fill_in(starts, goal, horizon=4)
    pairwise = short_fit(RoomWorld, frames_in_flight=2)
    with pytest.raises(ConfigError, match="`frames_in_flight` must be 1 where actions are dreamt"):
        pairwise.fill_in(starts, goal, horizon=4, sampler=SamplerConfig(frames_in_flight=2))

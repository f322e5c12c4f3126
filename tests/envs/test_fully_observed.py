"""MiniGrid's whole state: nothing that the next observation depends on is left out."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from minigrid.core.constants import COLOR_NAMES, COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.world_object import Ball, Box, Door, Key, WorldObj
from minigrid.wrappers import FullyObsWrapper, ImgObsWrapper
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from tests.envs.checker_advice import OF_RENDERING, OF_SPACES
from worldgen import WorldModel, WorldModelConfig, collect
from worldgen.agents import SymbolicExtractor
from worldgen.data import EnvironmentSpec
from worldgen.data.environment import environment_spec, prepare_env
from worldgen.dynamics import DynamicsConfig
from worldgen.envs import FullyObservedMiniGrid
from worldgen.errors import SpaceError
from worldgen.evaluation import dream_film
from worldgen.minigrid_state import carried_symbols
from worldgen.render import leaf_kind, render
from worldgen.spaces import flatten
from worldgen.transformer import TransformerConfig

IDS = (
    "MiniGrid-DoorKey-6x6-v0",
    "MiniGrid-KeyCorridorS3R3-v0",
    "MiniGrid-Unlock-v0",
    "MiniGrid-ObstructedMaze-1Dlh-v0",
)
WRAPPER = "worldgen.envs:FullyObservedMiniGrid"
PICK_UP, DROP, TOGGLE, FORWARD = 3, 4, 5, 2
pytestmark = [*OF_SPACES, *OF_RENDERING]


@functools.cache
def make(env_id: str, copy: int = 0) -> FullyObservedMiniGrid:
    """One of several environments of the same kind that share nothing."""
    env = FullyObservedMiniGrid(gym.make(env_id, disable_env_checker=True))
    env.reset(seed=1000 + copy)
    return env


def set_state(env: FullyObservedMiniGrid, observation: dict[str, Any], inside: dict) -> None:
    """Put the simulator into the state that an observation and the boxes' contents say."""
    base = env.unwrapped
    base.grid, _ = Grid.decode(observation["image"])
    for cell, item in inside.items():
        box = base.carrying if cell is None else base.grid.get(*cell)
        if cell is not None:
            box.contains = item
    x, y, base.agent_dir = (int(entry) for entry in observation["agent"])
    base.agent_pos = (x, y)
    carried = carried_symbols(int(observation["carrying"]))
    base.carrying = None if carried is None else WorldObj.decode(*carried, 0)
    if None in inside:
        base.carrying.contains = inside[None]
    base.step_count = 0


def hidden(env: FullyObservedMiniGrid) -> dict[tuple[int, int] | None, Any]:
    """What is in the boxes: by cell, None for the one that is carried."""
    grid = env.unwrapped.grid
    places: dict[tuple[int, int] | None, Any] = {
        (x, y): grid.get(x, y) for x in range(grid.width) for y in range(grid.height)
    }
    places[None] = env.unwrapped.carrying
    return {cell: item.contains for cell, item in places.items() if isinstance(item, Box)}


def play(env: FullyObservedMiniGrid, seed: int, steps: int) -> dict[str, Any]:
    """Random play that often uses what lies ahead; gives the last observation."""
    generator = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    likely = [0.15, 0.15, 0.35, 0.15, 0.04, 0.15, 0.01]
    for action in generator.choice(7, steps, p=likely):
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            observation, _ = env.reset()
    return observation


@pytest.mark.parametrize("env_id", IDS)
@settings(max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    steps=st.integers(0, 300),
    actions=st.lists(st.integers(0, 6), min_size=1, max_size=12),
)
def test_the_next_observation_follows_from_this_one_and_the_action(env_id, seed, steps, actions):
    played, first, second = (make(env_id, copy) for copy in range(3))
    observation = play(played, seed, steps)
    inside = hidden(played)
    for env, other_past in ((first, seed + 1), (second, seed + 2)):
        play(env, other_past, 20)
        set_state(env, observation, inside)
        shown = env.observation(None)
        np.testing.assert_equal(shown, observation)
    for action in actions:
        after, _, terminated, truncated, _ = played.step(action)
        for env in (first, second):
            again, *_ = env.step(action)
            np.testing.assert_equal(again, after)
        if terminated or truncated:
            break


def test_the_wrapper_of_minigrid_is_not_markov():
    """The reason for a wrapper of our own: the same cells, the key is held or it is gone."""
    env = FullyObsWrapper(gym.make("MiniGrid-DoorKey-6x6-v0"))
    env.reset(seed=0)
    base = env.unwrapped
    before = env.observation(base.gen_obs())["image"]
    base.carrying = Key("yellow")
    np.testing.assert_array_equal(env.observation(base.gen_obs())["image"], before)


def arranged(item: WorldObj) -> FullyObservedMiniGrid:
    """An environment whose agent stands before `item`, which is at (2, 1)."""
    env = FullyObservedMiniGrid(gym.make("MiniGrid-Empty-6x6-v0"))
    env.reset(seed=0)
    env.unwrapped.grid.set(2, 1, item)
    env.unwrapped.agent_pos, env.unwrapped.agent_dir = (1, 1), 0
    return env


def test_an_open_door_stays_visible_under_the_agent():
    env = arranged(Door("red"))
    closed = env.observation(None)["image"][2, 1].tolist()
    opened = env.step(TOGGLE)[0]["image"][2, 1].tolist()
    observation, *_ = env.step(FORWARD)
    assert observation["agent"].tolist() == [2, 1, 0]
    assert observation["image"][2, 1].tolist() == opened == [OBJECT_TO_IDX["door"], 0, 0]
    assert closed == [OBJECT_TO_IDX["door"], 0, 1]


@pytest.mark.parametrize("color", COLOR_NAMES)
@pytest.mark.parametrize(("index", "kind"), list(enumerate([Key, Ball, Box])))
def test_what_is_carried_is_seen(index, kind, color):
    env = arranged(kind(color))
    before = env.observation(None)
    held, *_ = env.step(PICK_UP)
    dropped, *_ = env.step(DROP)
    expected = 1 + 6 * index + COLOR_TO_IDX[color]
    assert [int(o["carrying"]) for o in (before, held, dropped)] == [0, expected, 0]
    assert held["image"][2, 1].tolist() == [OBJECT_TO_IDX["empty"], 0, 0]
    np.testing.assert_equal(dropped, before)
    assert carried_symbols(expected) == (OBJECT_TO_IDX[kind.__name__.lower()], COLOR_TO_IDX[color])


def test_what_is_in_a_box_stays_hidden():
    empty, full = arranged(Box("blue")), arranged(Box("blue", contains=Key("red")))
    np.testing.assert_equal(empty.observation(None), full.observation(None))
    key = full.step(TOGGLE)[0]["image"][2, 1]
    assert key.tolist() == [OBJECT_TO_IDX["key"], 0, 0]


def test_the_cells_are_minigrids_and_within_true_bounds():
    for env_id in IDS:
        env = make(env_id)
        observation = play(env, 3, 100)
        np.testing.assert_array_equal(observation["image"], env.unwrapped.grid.encode())
        assert observation in env.observation_space
        space: Any = env.observation_space
        assert list(space) == ["image", "agent", "carrying"]
        assert space["image"].high[0, 0].tolist() == [9, 5, 2]


@pytest.mark.parametrize("env_id", IDS)
def test_the_checkers_pass(env_id):
    check_env(FullyObservedMiniGrid(gym.make(env_id)), skip_render_check=True)
    check_env_for_sb3(FullyObservedMiniGrid(gym.make(env_id)))


def test_it_is_ready_for_a_world_model_and_can_be_made_again():
    env = FullyObservedMiniGrid(ImgObsWrapper(gym.make(IDS[0])))
    assert prepare_env(env) is env
    spec = environment_spec(FullyObservedMiniGrid(gym.make(IDS[0])))
    assert spec is not None
    made = spec.make()
    assert made.observation_space == env.observation_space
    assert made.has_wrapper_attr("agent_view_size")
    assert isinstance(EnvironmentSpec(id=IDS[0], wrappers=(WRAPPER,)).make(), FullyObservedMiniGrid)


def test_sb3_learns_from_it():
    agent = PPO(
        "MultiInputPolicy",
        FullyObservedMiniGrid(gym.make("MiniGrid-Empty-5x5-v0")),
        n_steps=16,
        batch_size=16,
        n_epochs=1,
        policy_kwargs={"features_extractor_class": SymbolicExtractor},
        device="cpu",
    ).learn(32)
    assert agent.policy.features_extractor.features_dim == 5 * 5 * (10 + 6 + 3) + 5 + 5 + 4 + 19


def test_a_world_model_dreams_it_and_the_film_shows_the_agent(tmp_path):
    spec = EnvironmentSpec(id="MiniGrid-DoorKey-5x5-v0", wrappers=(WRAPPER,))
    episodes = collect(spec, 300, seed=0, num_envs=4, progress=False)
    assert episodes.environment == spec
    transformer = TransformerConfig(width=32, layers=1, heads=2)
    config = WorldModelConfig(dynamics=DynamicsConfig(transformer=transformer, context=2))
    model = WorldModel.for_env(spec, config=config, device="cpu")
    model.fit(episodes, tokenizer_steps=30, dynamics_steps=5, progress=False)
    observation, _ = spec.make().reset(seed=5)
    batch = {key: np.asarray(part)[None] for key, part in observation.items()}
    decoded = model.decode(model.encode(batch))
    assert {key: part[0] for key, part in decoded.items()} in model.observation_space
    film = dream_film(model, episodes[0], tmp_path / "film.gif", horizon=5, size=64)
    assert film.num_frames == 6


def red_cells(pixels: np.ndarray, tile: int) -> list[tuple[int, int]]:
    """The cells (x, y) in which MiniGrid's red agent is drawn."""
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 50) & (pixels[..., 2] < 50)
    whole = red[: len(red) // tile * tile, : red.shape[1] // tile * tile]
    cells = whole.reshape(len(whole) // tile, tile, -1, tile).any((1, 3))
    return [(int(x), int(y)) for y, x in np.argwhere(cells)]


def test_the_picture_shows_the_agent_and_what_it_carries():
    env = make(IDS[0])
    observation = {**play(env, 4, 0), "agent": np.array([2, 3, 1]), "carrying": np.int64(0)}
    space: Any = env.observation_space
    tile = 120 // 6
    empty_handed = render(space, flatten(space, observation), size=120)
    assert red_cells(empty_handed[:120], tile) == [(2, 3)]
    observation["carrying"] = np.int64(1 + COLOR_TO_IDX["yellow"])
    holding = render(space, flatten(space, observation), size=120)
    assert np.array_equal(holding[:120], empty_handed[:120])
    held = holding[124 : 124 + tile, :tile].reshape(-1, 3)
    assert ((held[:, :2] > 200).all(1) & (held[:, 2] < 50)).any()
    assert leaf_kind(space["image"]) == "minigrid"
    alone = render(space["image"], {"observation": observation["image"]}, size=120)
    assert red_cells(alone, tile) == []


def test_errors():
    with pytest.raises(SpaceError, match="`env` must be a MiniGrid environment, got CartPoleEnv"):
        FullyObservedMiniGrid(gym.make("CartPole-v1"))
    env = arranged(Door("red"))
    env.unwrapped.carrying = Door("red")
    with pytest.raises(SpaceError, match=r"may carry keys, balls and boxes .* got a red door"):
        env.observation(None)

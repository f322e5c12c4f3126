from __future__ import annotations

import logging
import subprocess
import sys

import gymnasium as gym
import minigrid.wrappers
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from worldgen.data import prepared_observation
from worldgen.data.environment import make_env
from worldgen.data.prepared_observation import prepare_env, prepared_observation_space
from worldgen.envs import FullyObservedMiniGrid, NumberedMission
from worldgen.errors import SpaceError
from worldgen.spaces import leaves

DOOR_KEY = "MiniGrid-DoorKey-6x6-v0"
TRUE_HIGH = [10, 5, 3]


def highs(space):
    return space.high.reshape(-1, space.shape[-1]).max(0).tolist()


def play(env, count=60):
    """Give the observations of some random environment steps."""
    env.action_space.seed(1)
    observations = [env.reset(seed=1)[0]]
    for _ in range(count):
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        observations.append(observation)
        if terminated or truncated:
            observations.append(env.reset()[0])
    return observations


def test_minigrid_gets_true_bounds_and_loses_its_mission():
    env = prepare_env(gym.make(DOOR_KEY))
    space = env.observation_space
    assert isinstance(space, spaces.Dict)
    assert set(space) == {"direction", "image"}
    assert space["image"].shape == (7, 7, 3)
    assert highs(space["image"]) == TRUE_HIGH
    assert space["image"].low.max() == 0
    assert space["direction"] == spaces.Discrete(4)
    with pytest.warns(UserWarning, match="different from the unwrapped version"):
        check_env(env, skip_render_check=True)


def test_values_are_not_touched():
    plain, prepared = play(gym.make(DOOR_KEY)), play(prepare_env(gym.make(DOOR_KEY)))
    for before, after in zip(plain, prepared, strict=True):
        assert set(after) == {"direction", "image"}
        assert np.array_equal(before["image"], after["image"])
        assert before["direction"] == after["direction"]


SYMBOLS = {
    "partial": lambda env: env,
    "smaller view": lambda env: minigrid.wrappers.ViewSizeWrapper(env, 3),
    "full": minigrid.wrappers.FullyObsWrapper,
    "full, already prepared": lambda env: minigrid.wrappers.FullyObsWrapper(prepare_env(env)),
    "image alone": minigrid.wrappers.ImgObsWrapper,
    "with a time limit": lambda env: gym.wrappers.TimeLimit(env, 9),
}


@pytest.mark.parametrize("wrap", SYMBOLS.values(), ids=SYMBOLS)
def test_cells_are_found_under_wrappers_and_lie_within_their_bounds(wrap):
    env = prepare_env(wrap(gym.make(DOOR_KEY)))
    space = env.observation_space
    image = space["image"] if isinstance(space, spaces.Dict) else space
    assert highs(image) == TRUE_HIGH
    assert all(space.contains(observation) for observation in play(env))


PICTURES = {
    "partial": minigrid.wrappers.RGBImgPartialObsWrapper,
    "one pixel a cell": lambda env: minigrid.wrappers.RGBImgPartialObsWrapper(env, 1),
    "full": minigrid.wrappers.RGBImgObsWrapper,
    "image alone": lambda env: minigrid.wrappers.ImgObsWrapper(
        minigrid.wrappers.RGBImgObsWrapper(env)
    ),
    "places of objects": minigrid.wrappers.SymbolicObsWrapper,
}


@pytest.mark.parametrize("wrap", PICTURES.values(), ids=PICTURES)
def test_what_holds_no_cells_keeps_its_bounds(wrap):
    wrapped = wrap(gym.make(DOOR_KEY))
    before, after = wrapped.observation_space, prepared_observation_space(wrapped)
    if isinstance(before, spaces.Dict) and isinstance(after, spaces.Dict):
        assert before["image"] == after["image"]
    else:
        assert before == after


@pytest.mark.parametrize("env_id", [DOOR_KEY, "CartPole-v1", "worlds:worlds/Dict-v0"])
def test_preparing_twice_is_preparing_once(env_id):
    env = prepare_env(gym.make(env_id))
    assert prepare_env(env) is env


def test_an_environment_that_is_ready_is_given_back():
    env = gym.make("CartPole-v1")
    assert prepare_env(env) is env


class Texts(gym.Env):
    """Text at two depths, and keys that are not in alphabetical order."""

    observation_space = spaces.Dict(
        [
            ("z", spaces.Discrete(2)),
            ("note", spaces.Text(5)),
            ("a", spaces.Dict([("words", spaces.Text(5)), ("x", spaces.Discrete(3))])),
        ]
    )
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"z": 1, "note": "abc", "a": {"words": "xyz", "x": 2}}, {}


def test_text_is_left_out_at_every_depth_and_the_log_says_so_once(caplog):
    prepared_observation._log_dropped.cache_clear()
    with caplog.at_level(logging.INFO, "worldgen"):
        env = prepare_env(Texts())
        prepare_env(Texts())
    expected = spaces.Dict(z=spaces.Discrete(2), a=spaces.Dict(x=spaces.Discrete(3)))
    assert env.observation_space == expected
    assert list(leaves(env.observation_space)) == ["z", "a/x"]
    assert env.reset()[0] == {"z": 1, "a": {"x": 2}}
    messages = [record.getMessage() for record in caplog.records]
    for name in ("note", "words"):
        said = f"text in its observations is left out: {name}"
        assert sum(message.endswith(said) for message in messages) == 1


@pytest.mark.parametrize(
    ("env_id", "wrap", "told"),
    [
        (DOOR_KEY, lambda env: env, ""),
        ("MiniGrid-GoToDoor-5x5-v0", lambda env: env, "NumberedMission"),
        ("MiniGrid-GoToDoor-5x5-v0", FullyObservedMiniGrid, "NumberedMission"),
        ("MiniGrid-GoToDoor-5x5-v0", minigrid.wrappers.ImgObsWrapper, "NumberedMission"),
        (
            "MiniGrid-GoToDoor-5x5-v0",
            lambda env: FullyObservedMiniGrid(NumberedMission(env)),
            "behind all other wrappers",
        ),
        ("MiniGrid-GoToDoor-5x5-v0", NumberedMission, ""),
        ("BabyAI-GoToLocal-v0", lambda env: env, "cannot read it yet"),
    ],
)
def test_missions_that_differ_are_not_left_out_in_silence(env_id, wrap, told, caplog):
    prepared_observation._warn_of_mission.cache_clear()
    prepare_env(wrap(gym.make(env_id)))
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == bool(told)
    assert not told or told in warned[0]


def test_babyai_missions_are_text_too():
    env = prepare_env(gym.make("BabyAI-GoToRedBallGrey-v0"))
    assert set(env.observation_space.spaces) == {"direction", "image"}


def test_an_observation_of_text_alone_is_left_for_others_to_refuse():
    env = gym.Env()
    env.observation_space, env.action_space = spaces.Text(5), spaces.Discrete(2)
    assert prepare_env(env) is env
    env.observation_space = spaces.Dict(words=spaces.Text(5))
    assert prepare_env(env) is env


def test_other_environments_need_no_minigrid():
    program = (
        "import sys, worldgen.data.environment as e; e.make_env('CartPole-v1').reset();"
        "print([n for n in ('minigrid', 'torch', 'stable_baselines3') if n in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\n"


def test_a_vector_of_spelt_text_is_refused() -> None:
    """Trap 3: FlatObsWrapper is mission text for the most part."""
    with pytest.raises(SpaceError, match="FlatObsWrapper is not supported"):
        make_env("MiniGrid-Empty-5x5-v0", wrappers=["minigrid.wrappers:FlatObsWrapper"])

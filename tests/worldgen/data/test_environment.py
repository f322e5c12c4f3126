from __future__ import annotations

import subprocess
import sys

import gymnasium as gym
import minigrid.wrappers
import numpy as np
import pytest
import worlds
from gymnasium import spaces

from worldgen.config import Config
from worldgen.data.environment import (
    EnvironmentSpec,
    environment_spec,
    episode_success,
    make_env,
)
from worldgen.data.prepared_observation import PrepareObservation
from worldgen.errors import ConfigError, EnvironmentIdError, MissingDependencyError

DOOR_KEY = "MiniGrid-DoorKey-5x5-v0"
RGB = "minigrid.wrappers:RGBImgPartialObsWrapper"
IMAGE = "minigrid.wrappers:ImgObsWrapper"


def test_wrappers_are_applied_in_their_order():
    env = EnvironmentSpec(id=DOOR_KEY, wrappers=(RGB, IMAGE)).make()
    assert env.observation_space == spaces.Box(0, 255, (56, 56, 3), np.uint8)
    assert make_env(DOOR_KEY, wrappers=[RGB, IMAGE]).observation_space == env.observation_space
    spec = EnvironmentSpec(id=DOOR_KEY, wrappers=(RGB,))
    assert make_env(spec, wrappers=[IMAGE]).observation_space == env.observation_space


def test_every_kind_of_argument_gives_a_prepared_environment():
    env = gym.make(DOOR_KEY)
    for given in (DOOR_KEY, EnvironmentSpec(id=DOOR_KEY), env, lambda: gym.make(DOOR_KEY)):
        assert isinstance(make_env(given), PrepareObservation)
    assert make_env(env).unwrapped is env.unwrapped


def test_a_spec_comes_back_from_a_dictionary():
    spec = EnvironmentSpec(id=DOOR_KEY, wrappers=(RGB, IMAGE))
    assert isinstance(spec, Config)
    assert EnvironmentSpec.from_dict(spec.to_dict()) == spec


def test_the_render_mode_is_passed_on():
    env = EnvironmentSpec(id=DOOR_KEY).make(render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().ndim == 3


@pytest.mark.parametrize(
    ("env_id", "guess"),
    [
        ("MiniGrid-DorKey-5x5-v0", "MiniGrid-DoorKey-5x5-v0"),
        ("minigrid-doorkey-5x5-v0", "MiniGrid-DoorKey-5x5-v0"),
        ("MiniGrid-MultiRoom-N4-S5-v7", "MiniGrid-MultiRoom-N4-S5-v1"),
        ("CartPool-v1", "CartPole-v1"),
        ("worlds/Gird-v0", "worlds/Grid-v0"),
    ],
)
def test_an_unknown_id_gets_a_guess(env_id, guess):
    with pytest.raises(EnvironmentIdError) as caught:
        make_env(env_id)
    message = str(caught.value)
    assert message.startswith(f"environment {env_id!r} is not registered: did you mean ")
    assert guess in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("Qwxyzzz-v0", "'Qwxyzzz-v0' is not registered: an id that a package .* 'package:Name-v0'"),
        ("nomodule:Env-v0", "'nomodule:Env-v0' cannot be made: there is no module 'nomodule'"),
        ("worlds.no:Env-v0", "there is no module 'worlds.no'"),
        ("not an id", "'not an id' cannot be made: Malformed environment ID"),
    ],
)
def test_an_id_that_cannot_be_made_says_why(env_id, message):
    with pytest.raises(EnvironmentIdError, match=message):
        make_env(env_id)


def test_an_id_that_moved_to_a_new_version_is_made_with_gymnasiums_warning():
    with pytest.warns(DeprecationWarning, match="upgrading to version `v1`"):
        env = make_env("MiniGrid-MultiRoom-N4-S5-v0")
    assert environment_spec(env) == EnvironmentSpec(id="MiniGrid-MultiRoom-N4-S5-v0")


def _needs_more():
    raise gym.error.DependencyNotInstalled("it is not installed, run `pip install it`")


def test_a_missing_dependency_passes_on_how_to_install_it():
    gym.register("worlds/Needy-v0", _needs_more)
    with pytest.raises(MissingDependencyError, match=r"'worlds/Needy-v0' needs more.*pip install"):
        make_env("worlds/Needy-v0")


@pytest.mark.parametrize("wrapper", ["ImgObsWrapper", "a:b:c", ":B", "a:"])
def test_a_wrapper_is_named_with_its_module(wrapper):
    with pytest.raises(ConfigError, match=r"`wrappers` must be named like 'minigrid.wrappers:Img"):
        EnvironmentSpec(id="CartPole-v1", wrappers=(wrapper,))


@pytest.mark.parametrize("wrapper", ["no.module:Wrapper", "minigrid.wrappers:NoSuchWrapper"])
def test_a_wrapper_that_is_not_there_is_named(wrapper):
    with pytest.raises(ConfigError, match=f"must name classes to import, got '{wrapper}'"):
        make_env("CartPole-v1", wrappers=[wrapper])


@pytest.mark.parametrize("env", [3, None, lambda: "CartPole-v1"])
def test_anything_else_is_no_environment(env):
    with pytest.raises(
        ConfigError, match=r"`env` must be an id, an EnvironmentSpec, a gymnasium.E"
    ):
        make_env(env)


def test_minigrid_writes_nothing_to_stdout():
    program = "from worldgen.data.environment import make_env; make_env('MiniGrid-Empty-5x5-v0')"
    environment = {"PATH": "", "PYTHONPATH": ":".join(filter(None, sys.path))}
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, env=environment
    )
    assert run.stdout == b""


def test_the_spec_of_names_is_theirs():
    assert environment_spec("CartPole-v1") == EnvironmentSpec(id="CartPole-v1")
    spec = EnvironmentSpec(id=DOOR_KEY, wrappers=(RGB,))
    assert environment_spec(spec) is spec


REMADE = {
    "plain": lambda: gym.make("CartPole-v1"),
    "prepared": lambda: make_env(DOOR_KEY),
    "wrapped": lambda: make_env(DOOR_KEY, wrappers=[RGB, IMAGE]),
    "recorded": lambda: gym.wrappers.RecordEpisodeStatistics(gym.make(DOOR_KEY)),
    "drawn": lambda: gym.make("CartPole-v1", render_mode="rgb_array"),
    "of another package": lambda: gym.make("worlds/Grid-v0"),
}


@pytest.mark.parametrize("make", REMADE.values(), ids=REMADE)
def test_an_object_is_made_again_from_its_spec(make):
    env = make()
    spec = environment_spec(env)
    assert spec is not None
    again = spec.make()
    assert again.observation_space == make_env(env).observation_space
    assert again.action_space == env.action_space
    assert again.unwrapped.spec.id == env.unwrapped.spec.id
    assert environment_spec(again) == spec


def test_a_function_is_asked_once_and_its_environment_closed():
    closed = []

    class Closing(gym.Wrapper):
        def close(self):
            closed.append(self)
            super().close()

    assert environment_spec(lambda: gym.make("CartPole-v1")) == EnvironmentSpec(id="CartPole-v1")
    assert environment_spec(lambda: Closing(gym.make("CartPole-v1"))) is None
    assert len(closed) == 1


class _Unnamed(gym.Wrapper):
    """Found under its own name, unlike a class in a function."""

    def __init__(self, env, size=3):
        super().__init__(env)


UNSURE = {
    "without an id": worlds.GridWorld,
    "own arguments": lambda: gym.make("MiniGrid-DoorKey-5x5-v0", size=6),
    "own time limit": lambda: gym.make("CartPole-v1", max_episode_steps=9),
    "two time limits": lambda: gym.wrappers.TimeLimit(gym.make("CartPole-v1"), 9),
    "no time limit": lambda: gym.make("CartPole-v1").env,
    "wrapper with arguments": lambda: minigrid.wrappers.RGBImgPartialObsWrapper(
        gym.make(DOOR_KEY), tile_size=4
    ),
    "recorded arguments": lambda: gym.wrappers.RescaleObservation(gym.make("MountainCar-v0"), 0, 1),
    "unknown arguments": lambda: _Unnamed(gym.make("CartPole-v1")),
}


@pytest.mark.parametrize("make", UNSURE.values(), ids=UNSURE)
def test_an_object_that_may_not_come_back_the_same_has_no_spec(make):
    assert environment_spec(make()) is None


@pytest.mark.parametrize(
    ("terminated", "last_reward", "success"),
    [(True, 0.9, True), (True, 0.0, False), (True, -1.0, False), (False, 0.9, False)],
)
def test_success_in_minigrid_is_an_end_with_a_reward(terminated, last_reward, success):
    for env in (EnvironmentSpec(id=DOOR_KEY), gym.make(DOOR_KEY)):
        assert episode_success(env, 0.9, last_reward, terminated, {}) is success


def test_success_elsewhere_is_what_the_info_says():
    spec = EnvironmentSpec(id="CartPole-v1")
    assert episode_success(spec, 9.0, 1.0, True, {}) is None
    assert episode_success(None, 9.0, 1.0, True) is None
    assert episode_success(spec, 9.0, 1.0, True, {"is_success": 0}) is False
    assert episode_success(gym.make(DOOR_KEY), 0.0, 0.0, True, {"is_success": True}) is True

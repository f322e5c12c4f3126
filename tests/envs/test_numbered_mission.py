"""MiniGrid's mission as numbers: every sentence is told from every other."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from minigrid.wrappers import ImgObsWrapper
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from tests.agents.small_agents import make_agent
from tests.envs.checker_advice import OF_RENDERING, OF_SPACES
from worldgen import WorldModel, WorldModelConfig, collect, make_env
from worldgen.data import EnvironmentSpec
from worldgen.data.environment import environment_spec
from worldgen.dynamics import DynamicsConfig
from worldgen.envs import FullyObservedMiniGrid, NumberedMission
from worldgen.errors import SpaceError
from worldgen.evaluation import dream_film
from worldgen.transformer import TransformerConfig

DOORS, FETCH = "MiniGrid-GoToDoor-5x5-v0", "MiniGrid-Fetch-5x5-N2-v0"
WRAPPER = "worldgen.envs:NumberedMission"
WHOLE = "worldgen.envs:FullyObservedMiniGrid"
SIZES = {
    DOORS: [6],
    FETCH: [5, 6, 2],
    "MiniGrid-KeyCorridorS3R1-v0": [6],
    "MiniGrid-PutNear-6x6-N2-v0": [6, 3, 6, 3],
}
pytestmark = [*OF_SPACES, *OF_RENDERING]


@pytest.mark.parametrize("env_id", SIZES)
def test_the_numbers_say_what_the_sentence_says(env_id):
    env = NumberedMission(gym.make(env_id))
    space: Any = env.observation_space
    assert space["mission"] == spaces.MultiDiscrete(SIZES[env_id])
    missions = set()
    for seed in range(30):
        observation, _ = env.reset(seed=seed)
        assert observation in space
        said = [env.words[blank][word] for blank, word in enumerate(observation["mission"])]
        mission = env.unwrapped.mission
        assert all(word in mission for word in said)
        missions.add((mission, tuple(said)))
        after, *_ = env.step(0)
        np.testing.assert_array_equal(after["mission"], observation["mission"])
    sentences, numbers = zip(*missions, strict=True)
    assert len(set(sentences)) == len(set(numbers)) == len(missions) > 3


def test_where_all_missions_are_the_same_there_is_none():
    env = NumberedMission(gym.make("MiniGrid-DoorKey-5x5-v0"))
    space: Any = env.observation_space
    assert list(space) == ["direction", "image"]
    assert set(env.reset(seed=0)[0]) == {"direction", "image"}


def test_the_rest_of_the_observation_is_as_it_was():
    plain, numbered = gym.make(DOORS), NumberedMission(gym.make(DOORS))
    before, after = plain.reset(seed=3)[0], numbered.reset(seed=3)[0]
    np.testing.assert_equal({**after, "mission": before["mission"]}, before)


@pytest.mark.parametrize("wrappers", [(WRAPPER,), (WHOLE, WRAPPER)])
def test_it_is_ready_for_a_world_model_and_can_be_made_again(wrappers):
    spec = EnvironmentSpec(id=DOORS, wrappers=wrappers)
    env = spec.make()
    check_env(env, skip_render_check=True)
    check_env_for_sb3(env)
    assert make_env(env) is env
    again = environment_spec(env)
    assert again is not None
    assert again.make().observation_space == env.observation_space
    assert "mission" in again.make().reset(seed=0)[0]


@pytest.mark.parametrize("wrappers", [(WRAPPER,), (WHOLE, WRAPPER)])
def test_a_world_model_dreams_it(wrappers, tmp_path):
    spec = EnvironmentSpec(id=FETCH, wrappers=wrappers)
    episodes = collect(spec, 300, seed=0, num_envs=4, progress=False)
    transformer = TransformerConfig(width=32, layers=1, heads=2)
    config = WorldModelConfig(dynamics=DynamicsConfig(transformer=transformer, context=2))
    model = WorldModel.for_env(spec, config=config, device="cpu")
    model.fit(episodes, tokenizer_steps=200, dynamics_steps=5, progress=False)
    batch = {path: values[:5] for path, values in episodes[0].observations.items()}
    decoded = model.decode(model.encode(batch))
    np.testing.assert_array_equal(decoded["mission"], batch["mission"])
    film = dream_film(model, episodes[0], tmp_path / "film.gif", horizon=5, size=64)
    assert film.num_frames == 6


def test_an_agent_sees_it_in_its_dream():
    doors = EnvironmentSpec(id=DOORS, wrappers=(WRAPPER,))
    agent = make_agent(doors, "MultiInputPolicy").learn(64)
    seen: Any = agent.observation_space
    assert seen["mission"] == spaces.MultiDiscrete([6])
    assert "mission" in agent.episodes[0].observations


class Nameless(gym.Wrapper):
    """Changes the mission to one that is not in its space."""

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        self.unwrapped.mission = "go home"
        return observation, info


def test_errors():
    with pytest.raises(SpaceError, match=r"`env` must be a MiniGrid environment .* CartPoleEnv"):
        NumberedMission(gym.make("CartPole-v1"))
    with pytest.raises(SpaceError, match="or the wrapper that takes the Dict apart"):
        NumberedMission(ImgObsWrapper(gym.make(DOORS)))
    with pytest.raises(SpaceError, match="the missions of a BabyAIMissionSpace cannot be counted"):
        NumberedMission(gym.make("BabyAI-GoToRedBallGrey-v0"))
    with pytest.raises(SpaceError, match="got 'go home'"):
        NumberedMission(Nameless(gym.make(DOORS))).reset(seed=0)
    assert "mission" not in FullyObservedMiniGrid(gym.make(DOORS)).observation_space.spaces

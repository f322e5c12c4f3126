"""Real environments seen through a world model's tokens."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tests.envs.checker_advice import OF_RENDERING, OF_SHAPES, OF_SPACES
from worldgen import Tokenizer, WorldModel, collect
from worldgen.envs import ImaginedVecEnv, TokenObservation, VecTokenObservation
from worldgen.envs.observation_view import standardised_vectors
from worldgen.errors import ConfigError, SpaceError

MODES = ("tokens", "embeddings", "decoded")
pytestmark = [*OF_SPACES, *OF_RENDERING, *OF_SHAPES]


def batch_of_one(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: np.asarray(part)[None] for key, part in observation.items()}
    return observation[None]


@pytest.mark.parametrize("mode", MODES)
def test_the_checkers_pass(world, mode):
    check_env(TokenObservation(world.make(), world.model, mode))
    check_env_for_sb3(TokenObservation(world.make(), world.model, mode))


def test_it_shows_the_models_tokens(world):
    raw, tokens = world.make(), TokenObservation(world.make(), world.model)
    vectors = TokenObservation(world.make(), world.model.tokenizer, mode="embeddings")
    decoded = TokenObservation(world.make(), world.model, mode="decoded")
    observation = raw.reset(seed=3)[0]
    expected = world.model.encode(batch_of_one(observation))
    np.testing.assert_array_equal(tokens.reset(seed=3)[0], expected[0])
    tokenizer = world.model.tokenizer
    books = zip(tokenizer.codebooks, standardised_vectors(tokenizer), strict=True)
    by_position = [part for book, part in books for _ in range(book.num_tokens)]
    looked_up = [part[code] for part, code in zip(by_position, expected[0], strict=True)]
    np.testing.assert_allclose(
        vectors.reset(seed=3)[0], torch.cat(looked_up).numpy(), rtol=1e-4, atol=1e-5
    )
    shown = batch_of_one(decoded.reset(seed=3)[0])
    np.testing.assert_equal(shown, world.model.decode(expected))


@pytest.mark.parametrize("mode", MODES)
def test_the_vector_wrapper_shows_the_same(world, mode):
    limit = 4

    def make() -> gym.Env:
        return gym.make(world.id, max_episode_steps=limit)

    single = TokenObservation(make(), world.model, mode)
    vec = VecTokenObservation(DummyVecEnv([make, make]), world.model, mode)
    vec.seed(5)
    single.action_space.seed(0)
    expected, _ = single.reset(seed=6)
    shown = vec.reset()
    for _ in range(limit):
        np.testing.assert_equal(row(shown, 1), expected)
        action = single.action_space.sample()
        expected, _, terminated, truncated, _ = single.step(action)
        shown, _, dones, infos = vec.step(np.stack([action, action]))
        assert dones[1] == (terminated or truncated)
        if dones[1]:
            np.testing.assert_equal(infos[1]["terminal_observation"], expected)
            assert infos[1]["terminal_observation"] in vec.observation_space
            break
    assert dones[1]


def row(observations: Any, index: int) -> Any:
    if isinstance(observations, dict):
        return {key: part[index] for key, part in observations.items()}
    return observations[index]


def test_an_agent_moves_from_dreamt_to_real_tokens(grid):
    dream = ImaginedVecEnv(grid.model, 4, 4, starts=grid.episodes, observation="tokens")
    agent = PPO("MlpPolicy", dream, n_steps=4, batch_size=8, n_epochs=1, device="cpu").learn(16)
    real = TokenObservation(grid.make(), grid.model)
    assert real.observation_space == dream.observation_space
    action, _ = agent.predict(real.reset(seed=0)[0])
    assert real.step(action)[0] in real.observation_space


def test_a_raw_minigrid_environment_is_prepared():
    env_id = "MiniGrid-Empty-5x5-v0"
    episodes = collect(env_id, 40, num_envs=2, progress=False)
    tokenizer = Tokenizer.for_space(episodes.observation_space, device="cpu")
    tokenizer.fit(episodes, gradient_steps=5)
    env = TokenObservation(gym.make(env_id), tokenizer)  # the raw one has a mission
    assert isinstance(env.observation_space, spaces.MultiDiscrete)
    assert env.reset(seed=0)[0] in env.observation_space
    assert env.get_wrapper_attr("max_steps") > 0


def test_models_and_tokenizers_may_be_in_folders(grid, tmp_path):
    grid.model.save(tmp_path / "model")
    grid.model.tokenizer.save(tmp_path / "tokenizer")
    shown = [
        TokenObservation(grid.make(), source).reset(seed=1)[0]
        for source in (grid.model, tmp_path / "model", str(tmp_path / "tokenizer"))
    ]
    np.testing.assert_array_equal(shown[0], shown[1])
    np.testing.assert_array_equal(shown[0], shown[2])


def test_the_tokenizer_is_left_as_it_was(grid):
    before = {name: value.clone() for name, value in grid.model.state_dict().items()}
    env = TokenObservation(grid.make(), grid.model)
    env.reset(seed=0)
    env.step(0)
    after = grid.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_errors(grid, vector):
    for make in (
        lambda: TokenObservation(vector.make(), grid.model),
        lambda: VecTokenObservation(DummyVecEnv([vector.make]), grid.model),
    ):
        with pytest.raises(SpaceError, match="the model was built for the observation space"):
            make()
    with pytest.raises(ConfigError, match=r"`mode` must be one of .*, got 'latent'"):
        TokenObservation(grid.make(), grid.model, "latent")
    with pytest.raises(ConfigError, match="has not been trained"):
        TokenObservation(grid.make(), WorldModel.for_env(grid.id, device="cpu"))
    with pytest.raises(ConfigError, match="`model` must be a WorldModel, a Tokenizer or a path"):
        TokenObservation(grid.make(), 3)
    rows = DummyVecEnv([grid.make])
    with pytest.raises(ConfigError, match="got DummyVecEnv: put `VecTokenObservation` around"):
        TokenObservation(rows, grid.model)
    with pytest.raises(ConfigError, match=r"got str: make it by `worldgen.make_env"):
        TokenObservation(grid.id, grid.model)
    with pytest.raises(ConfigError, match="must be a Stable-Baselines3 VecEnv"):
        VecTokenObservation(grid.make(), grid.model)


def test_rows_whose_numbers_were_standardised_are_refused(vector):
    rows = DummyVecEnv([vector.make, vector.make])
    with pytest.raises(ConfigError, match="put VecNormalize around this"):
        VecTokenObservation(VecNormalize(rows), vector.model)
    VecTokenObservation(VecNormalize(rows, norm_obs=False), vector.model).reset()
    shown = VecNormalize(VecTokenObservation(rows, vector.model, mode="embeddings"))
    assert len(shown.reset()) == 2

"""The model's summary of the past beside observations: the dream's and the real one's are one."""

from __future__ import annotations

import copy
import functools
import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

from tests.envs.checker_advice import OF_RENDERING, OF_SHAPES, OF_SPACES
from worldgen import Episodes, Tokenizer, WorldModel, WorldModelConfig
from worldgen.data.token_dataset import Context
from worldgen.dynamics import DynamicsConfig
from worldgen.envs import ImaginedEnv, ImaginedVecEnv, TokenObservation, VecTokenObservation
from worldgen.envs.observation_view import ObservationView
from worldgen.errors import ConfigError, SpaceError
from worldgen.transformer import TransformerConfig

MODES = ("decoded", "tokens", "embeddings")
CONTEXT, LAYERS = 3, 2
pytestmark = [*OF_SPACES, *OF_RENDERING, *OF_SHAPES]


@functools.cache
def _exact(world: Any) -> WorldModel:
    """A model of a world in float32, of two layers."""
    dynamics = DynamicsConfig(
        transformer=TransformerConfig(width=32, layers=LAYERS, heads=2),
        context=CONTEXT,
        precision="float32",
    )
    config = WorldModelConfig(dynamics=dynamics)
    model = WorldModel.for_env(world.id, config=config, seed=0, device="cpu")
    model.fit(world.episodes, tokenizer_steps=50, dynamics_steps=5, progress=False)
    return model


@pytest.fixture
def exact(grid: Any) -> WorldModel:
    return _exact(grid)


def part(observations: Any, row: int) -> Any:
    return {name: values[row] for name, values in observations.items()}


def longest(episodes: Episodes) -> int:
    return max(range(len(episodes)), key=lambda index: len(episodes[index]))


@pytest.mark.parametrize("mode", MODES)
def test_dream_and_real_have_one_space(world, mode):
    plain = ObservationView(world.model.tokenizer, mode).space
    known = dict(plain) if isinstance(plain, spaces.Dict) else {"observation": plain}
    expected = spaces.Dict({**known, "memory": spaces.Box(-np.inf, np.inf, (32,), np.float32)})
    dream = ImaginedVecEnv(world.model, 2, starts=world.episodes, observation=mode, memory=True)
    one = ImaginedEnv(world.model, world.episodes, observation=mode, memory=True)
    real = TokenObservation(world.make(), world.model, mode, memory=True)
    rows = VecTokenObservation(DummyVecEnv([world.make]), world.model, mode, memory=True)
    for env in (dream, one, real, rows):
        assert env.observation_space == expected
    for env in (one, real):
        assert env.reset(seed=0)[0] in expected
        assert env.step(env.action_space.sample())[0] in expected
    assert part(dream.reset(), 1) in expected
    assert part(rows.reset(), 0) in expected


@pytest.mark.parametrize("mode", MODES)
def test_the_checkers_pass(world, mode):
    check_env(TokenObservation(world.make(), world.model, mode, memory=True))
    check_env_for_sb3(TokenObservation(world.make(), world.model, mode, memory=True))
    dream = ImaginedEnv(world.model, world.episodes, observation=mode, memory=True)
    check_env(dream, skip_render_check=True)
    check_env_for_sb3(dream)


@pytest.mark.parametrize("mode", MODES)
def test_what_was_shown_before_is_shown_as_before(world, mode):
    plain, beside = (
        TokenObservation(world.make(), world.model, mode, memory=memory) for memory in (False, True)
    )
    plain.action_space.seed(0)
    shown, both = plain.reset(seed=1)[0], beside.reset(seed=1)[0]
    for _ in range(6):
        known = shown if isinstance(shown, dict) else {"observation": shown}
        np.testing.assert_equal({key: both[key] for key in known}, known)
        assert both.keys() == {*known, "memory"}
        action = plain.action_space.sample()
        shown, both = plain.step(action)[0], beside.step(action)[0]


def test_the_real_memory_is_that_of_all_frames_so_far(grid, exact):
    env = TokenObservation(grid.make(), exact, memory=True)
    env.action_space.seed(3)
    observation, _ = env.reset(seed=2)
    assert not observation["memory"].any()
    frames, actions = [observation["observation"]], [exact.action_codec.none(1)[0]]
    for _ in range(4 * CONTEXT):
        action = env.action_space.sample()
        observation, _, terminated, _, _ = env.step(action)
        frames.append(observation["observation"])
        actions.append(exact.encode_actions(np.array([action]))[0])
        tokens = torch.from_numpy(np.stack(frames)).unsqueeze(0)
        valid = torch.ones(1, len(frames), dtype=torch.bool)
        expected = exact.summarise(Context(tokens, torch.stack(actions).unsqueeze(0), valid))
        np.testing.assert_allclose(observation["memory"], expected[0], atol=1e-4)
        assert not terminated


@pytest.mark.parametrize("start", [0, 1, 4, 12])
def test_a_dream_of_what_happens_has_the_memory_of_what_happened(grid, exact, start, monkeypatch):
    number = longest(grid.episodes)
    episode, dataset = grid.episodes[number], exact.dataset(grid.episodes)
    first = int(dataset.first_frames[number])
    real = TokenObservation(_Replay(grid, episode), exact, memory=True)
    memories = [real.reset()[0], *(real.step(action)[0] for action in episode.actions[:20])]
    dream = ImaginedVecEnv(exact, 1, 100, starts=dataset, observation="tokens", memory=True)
    monkeypatch.setattr(dream._rows._starts, "draw", lambda count: torch.tensor([first + start]))
    now = iter(range(start + 1, 21))

    def what_happens(frame: Any) -> torch.Tensor:
        frame.first()
        return dataset.tokens[first + next(now)].unsqueeze(0)

    monkeypatch.setattr(dream._rows._imagination._sampler, "sample", what_happens)
    shown: Any = dream.reset()
    for time in range(start, 20):
        np.testing.assert_array_equal(shown["observation"][0], memories[time]["observation"])
        np.testing.assert_allclose(shown["memory"][0], memories[time]["memory"], atol=1e-4)
        shown, _, dones, _ = dream.step(episode.actions[time : time + 1])
        assert not dones.any()


class _Replay(gym.Wrapper):
    """Play an episode again, whatever is done."""

    def __init__(self, world: Any, episode: Any) -> None:
        super().__init__(world.make())
        self._frames = episode.observations["observation"]

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self._time = 0
        return self._frames[0], self.env.reset(**kwargs)[1]

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._time += 1
        return self._frames[self._time], 0.0, False, False, {}


def test_a_dreams_memory_belongs_to_its_row(fickle, grid):
    dream = ImaginedVecEnv(fickle, 8, 5, starts=grid.episodes, observation="tokens", memory=True)
    dream.action_space.seed(0)
    engine = dream._rows._imagination
    shown: Any = dream.reset()
    np.testing.assert_array_equal(shown["memory"], engine.summary)
    ended = 0
    for _ in range(20):
        passes = engine.network_passes
        shown, _, dones, infos = dream.step(np.array([dream.action_space.sample()] * 8))
        assert engine.network_passes == passes + 1  # it costs none
        np.testing.assert_array_equal(shown["memory"], engine.summary)
        for row in np.flatnonzero(dones):
            last = infos[row]["terminal_observation"]
            assert last in dream.observation_space
            assert not np.array_equal(last["memory"], shown["memory"][row])
            assert last["memory"].any()
            ended += 1
    assert ended > 20


def test_what_a_dream_gave_stays_as_it_was(endless, grid):
    dream = ImaginedVecEnv(endless, 4, 3, starts=grid.episodes, memory=True)
    kept = [dream.reset()]
    copies = [copy.deepcopy(kept[0])]
    for _ in range(7):
        kept.append(dream.step(np.zeros(4, np.int64))[0])
        copies.append(copy.deepcopy(kept[-1]))
    for given, copied in zip(kept, copies, strict=True):
        np.testing.assert_equal(given, copied)


@pytest.mark.parametrize("mode", MODES)
def test_the_vector_wrapper_remembers_as_the_single_one(world, mode):
    limits, model = (5, 3), _exact(world)

    def make(limit: int) -> gym.Env:
        return gym.make(world.id, max_episode_steps=limit)

    rows = DummyVecEnv([functools.partial(make, limit) for limit in limits])
    vec = VecTokenObservation(rows, model, mode, memory=True)
    singles = [TokenObservation(make(limit), model, mode, memory=True) for limit in limits]
    singles[0].action_space.seed(0)
    vec.seed(5)
    shown: Any = vec.reset()
    expected = [env.reset(seed=5 + row)[0] for row, env in enumerate(singles)]
    ended = np.zeros(2, int)
    for _ in range(12):
        for row in range(2):
            assert_same(part(shown, row), expected[row])
        action = singles[0].action_space.sample()
        shown, _, dones, infos = vec.step(np.stack([action, action]))
        for row, env in enumerate(singles):
            expected[row], _, terminated, truncated, _ = env.step(action)
            assert dones[row] == (terminated or truncated)
            if dones[row]:
                last = infos[row]["terminal_observation"]
                assert last in vec.observation_space
                assert_same(last, expected[row])
                assert last["memory"].any()
                assert not shown["memory"][row].any()
                expected[row], ended[row] = env.reset()[0], ended[row] + 1
    assert (ended >= 2).all()


def assert_same(given: Any, expected: Any) -> None:
    assert given.keys() == expected.keys()
    for name, values in given.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-4)


def test_the_memory_follows_a_model_that_is_fitted_further_from_the_next_reset(grid):
    model = WorldModel.for_env(grid.id, config=grid.model.config, device="cpu")
    model.fit(grid.episodes, tokenizer_steps=50, dynamics_steps=2, progress=False)
    env = TokenObservation(grid.make(), model, memory=True)
    memories = []
    for _ in range(2):
        env.reset(seed=0)
        memories.append(env.step(0)[0]["memory"])
        model.fit(grid.episodes, dynamics_steps=20, progress=False)
    assert np.abs(memories[0] - memories[1]).max() > 1e-3


def test_plain_arguments_and_folders_do(grid, tmp_path):
    grid.model.save(tmp_path / "model")
    arguments = json.loads(json.dumps({"model": str(tmp_path / "model"), "memory": True}))
    single = {"wrapper_class": TokenObservation, "wrapper_kwargs": arguments}
    wrapped = make_vec_env(grid.make, n_envs=2, seed=0, **single)
    whole = VecTokenObservation(make_vec_env(grid.make, n_envs=2, seed=0), **arguments)
    numbers = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "device": "cpu"}
    agent = PPO("MultiInputPolicy", wrapped, **numbers).learn(16)
    dream = ImaginedVecEnv(
        tmp_path / "model", 2, starts=grid.episodes, observation="tokens", memory=True
    )
    for env in (whole, dream):  # the same spaces, so that the agent may move
        agent.set_env(env)
        assert agent.learn(16).num_timesteps == 16


def test_errors(grid, vector, tmp_path):
    tokenizer = grid.model.tokenizer
    tokenizer.save(tmp_path / "tokenizer")
    for source in (tokenizer, tmp_path / "tokenizer"):
        for make in (
            lambda source=source: TokenObservation(grid.make(), source, memory=True),
            lambda source=source: VecTokenObservation(
                DummyVecEnv([grid.make]), source, memory=True
            ),
        ):
            with pytest.raises(ConfigError, match=r"with `memory=True`.* got a Tokenizer alone"):
                make()
    with pytest.raises(ConfigError, match="`model` must be a WorldModel or a path, got int"):
        TokenObservation(grid.make(), 3, memory=True)
    with pytest.raises(SpaceError, match="the model was built for the observation space"):
        TokenObservation(vector.make(), grid.model, memory=True)
    other = gym.wrappers.TransformAction(grid.make(), lambda a: 0, spaces.Discrete(2))
    with pytest.raises(SpaceError, match="the model was built for the action space"):
        TokenObservation(other, grid.model, memory=True)
    TokenObservation(other, grid.model)  # without memory it does not matter
    taken = spaces.Dict(memory=spaces.Discrete(2))
    alone = Tokenizer.for_space(taken, device="cpu")
    alone.fit({"memory": np.arange(8) % 2}, gradient_steps=1)
    with pytest.raises(SpaceError, match="`memory` adds a part 'memory'"):
        ObservationView(alone, "decoded", memory=4)
    with pytest.raises(gym.error.ResetNeeded):
        TokenObservation(grid.make(), grid.model, memory=True).step(0)

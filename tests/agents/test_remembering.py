"""`DreamPPO` with memory: what its policy sees of the past, in dreams and in reality."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecTransposeImage
from worlds import GridWorld

from tests.agents.small_agents import (
    DICT,
    GRID,
    IMAGE,
    VECTOR,
    Diary,
    assert_equal_weights,
    gone_on_with,
    make_agent,
    some_episodes,
)
from worldgen import WorldModelConfig, collect
from worldgen.agents import DreamPPO, evaluate_agent, train_offline
from worldgen.dynamics import DynamicsConfig
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.envs import ImaginedVecEnv
from worldgen.errors import ConfigError, ShapeError, SpaceError
from worldgen.transformer import TransformerConfig

EXACT = WorldModelConfig(
    dynamics=DynamicsConfig(
        transformer=TransformerConfig(width=32, layers=2, heads=2), context=3, precision="float32"
    ),
    training=DynamicsTrainingConfig(batch_size=8),
)
"""In float32, so that what is computed in two ways is the same."""


def remembering(env: Any = GRID, policy: str | None = None, **arguments: Any) -> DreamPPO:
    return make_agent(env, policy, **{"memory": True, "model_config": EXACT, **arguments})


class Notes:
    """Notes what an agent's policy is shown."""

    def __init__(self, agent: DreamPPO, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[dict[str, np.ndarray]] = []
        predict = agent.policy.predict

        def listening(observation: Any, *args: Any, **kwargs: Any) -> Any:
            self.shown.append(copy.deepcopy(observation))
            return predict(observation, *args, **kwargs)

        monkeypatch.setattr(agent.policy, "predict", listening)

    def memory(self, time: int = -1) -> np.ndarray:
        return self.shown[time]["memory"]


def dream_memories(agent: DreamPPO) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Give the frames of each recorded episode, and what a dream from them would remember."""
    model, episodes = agent.world_model, agent.episodes
    dataset = model.dataset(episodes)
    frames, memories = [], []
    for number, episode in enumerate(episodes):
        first = int(dataset.first_frames[number])
        moments = torch.arange(first, first + len(episode) + 1)
        engine = model.imagination(len(moments))
        engine.reset(dataset.contexts_to(moments, model.dynamics.reach))
        frames.append(episode.observations["observation"])
        memories.append(engine.summary.numpy())
    return frames, memories


def played(agent: DreamPPO, seeds: range, steps: int) -> list[tuple[Any, np.ndarray]]:
    """Play the grid world side by side, each row once; gives (actions, begun) of each step."""
    envs = [gym.make(GRID) for _ in seeds]
    shown = [env.reset(seed=seed)[0] for env, seed in zip(envs, seeds, strict=True)]
    begun, state, taken = np.ones(len(envs), bool), None, []
    for _ in range(steps):
        actions, state = agent.predict(np.stack(shown), state, begun, deterministic=True)
        taken.append((actions, begun))
        ends = []
        for row, env in enumerate(envs):
            shown[row], _, *over, _ = env.step(actions[row])
            ends.append(any(over))
            if any(over):
                shown[row] = env.reset()[0]
        begun = np.array(ends)
    return taken


@pytest.mark.parametrize("fresh", [True, False])
def test_what_is_remembered_in_a_collection_is_what_a_dream_of_it_remembers(fresh, monkeypatch):
    agent = remembering(n_envs=1, steps_per_round=40, fresh_rounds=fresh).learn(64)
    notes = Notes(agent, monkeypatch)
    agent.learn(40, Diary((1, "collect")), reset_num_timesteps=False)  # no fit after it
    frames, memories = dream_memories(agent)
    for part, known in (("observation", frames), ("memory", memories)):
        shown = np.concatenate([step[part] for step in notes.shown])
        expected = np.concatenate([rows[:-1] for rows in known])[64:]
        np.testing.assert_allclose(shown, expected, atol=1e-4)
    assert np.mean([step["memory"].any() for step in notes.shown]) > 0.7


def test_dreams_are_shown_what_the_real_rows_are_shown():
    agent = remembering().learn(64)
    dream = ImaginedVecEnv(agent.world_model, 2, starts=agent.episodes, memory=True)
    assert agent.policy.observation_space == dream.observation_space
    assert agent.observation_space == agent.env.observation_space == GridWorld().observation_space


def test_each_fit_changes_what_is_remembered(monkeypatch):
    agent = remembering().learn(64)
    notes = Notes(agent, monkeypatch)
    frames = agent.episodes[0].observations["observation"]
    _, state = agent.predict(frames[0], deterministic=True)
    for part in pickle.loads(pickle.dumps(state)), state, state:
        agent.predict(frames[1], part)  # read anew, by the engine, and anew
        np.testing.assert_allclose(notes.memory(), notes.memory(1), atol=1e-5)
    agent.predict(frames[0], deterministic=True)
    _, state = agent.predict(frames[0], deterministic=True)
    agent.world_model.fit(agent.episodes, tokenizer_steps=0, dynamics_steps=5, progress=False)
    agent.predict(frames[1], state)
    assert np.abs(notes.memory() - notes.memory(1)).max() > 1e-3


def test_rows_are_remembered_one_by_one(monkeypatch):
    agent = remembering().learn(64)
    notes = Notes(agent, monkeypatch)
    together, begun = zip(*played(agent, range(5), 70), strict=True)
    memories = np.stack([step["memory"] for step in notes.shown])
    for row in range(5):
        notes.shown.clear()
        alone = [actions[0] for actions, _ in played(agent, range(row, row + 1), 70)]
        np.testing.assert_array_equal(alone, np.stack(together)[:, row])
        np.testing.assert_allclose(
            np.concatenate([step["memory"] for step in notes.shown]), memories[:, row], atol=1e-4
        )
    firsts = np.stack(begun)
    assert firsts.sum() > 5  # some rows began again while others went on
    np.testing.assert_array_equal(memories.any(-1), ~firsts)


def test_a_part_of_the_rows_goes_on_from_its_part_of_the_state(monkeypatch):
    agent = remembering().learn(64)
    notes = Notes(agent, monkeypatch)
    frames = np.stack([e.observations["observation"][:3] for e in agent.episodes if len(e) > 2][:4])
    state = None
    for time in range(2):
        _, state = agent.predict(frames[:, time], state, deterministic=True)
    part = tuple(array[:, [2, 0]] for array in state)
    agent.predict(frames[[2, 0], 2], part)
    agent.predict(frames[:, 2], state)
    np.testing.assert_allclose(notes.memory(-2), notes.memory()[[2, 0]], atol=1e-5)


def test_a_state_is_not_changed_in_place():
    agent = make_agent(memory=True).learn(32)
    frames = np.stack([gym.make(GRID).reset(seed=seed)[0] for seed in range(2)])
    _, state = agent.predict(frames)
    assert state is not None
    with pytest.raises(ValueError, match="read-only"):
        state[2][:, 0] = False
    forgetful = tuple(part.copy() for part in state)
    forgetful[2][:, 0] = False
    assert agent.predict(frames, forgetful)[0].shape == (2,)


def test_a_single_observation_and_a_batch_of_one_are_the_same():
    for env_id in (GRID, DICT, IMAGE, VECTOR):
        agent = remembering(env_id).learn(64)
        one = gym.make(env_id).reset(seed=1)[0]
        batch = (
            {key: np.asarray(part)[None] for key, part in one.items()}
            if isinstance(one, dict)
            else one[None]
        )
        action, state = agent.predict(one, deterministic=True)
        actions, states = agent.predict(batch, deterministic=True)
        assert np.shape(action) == agent.action_space.shape
        np.testing.assert_array_equal(actions, action[None])
        for left, right in zip(state, states, strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("pause", [(0, "fit"), (0, "dream"), (1, "collect")])
def test_going_on_equals_never_having_stopped(pause, tmp_path):
    whole = remembering().learn(96)
    part = remembering().learn(96, Diary(stop_after=pause))
    loaded = gone_on_with(part, tmp_path / "agent.zip", 96)
    assert_equal_weights(whole, loaded)


def test_a_loaded_agent_plays_alike_and_goes_on_elsewhere(tmp_path):
    agent = remembering().learn(64)
    agent.save(tmp_path / "agent.zip")
    loaded = DreamPPO.load(tmp_path / "agent.zip", device="cpu")
    assert evaluate_agent(loaded, GRID, 5) == evaluate_agent(agent, GRID, 5)
    loaded.set_episodes(agent.episodes)
    loaded.set_env(DummyVecEnv([GridWorld] * 8))
    assert loaded.learn(32, reset_num_timesteps=False).num_timesteps == 96


@pytest.mark.parametrize("env_id", [GRID, IMAGE])
def test_sb3_evaluates_without_disturbing_the_training(env_id):
    rows = DummyVecEnv([lambda: Monitor(gym.make(env_id))] * 2)
    watched, alone = remembering(env_id), remembering(env_id)
    as_trained = VecTransposeImage(rows) if env_id == IMAGE else rows
    callback = EvalCallback(as_trained, eval_freq=3, n_eval_episodes=2, verbose=0)
    watched.learn(96, callback)
    assert callback.last_mean_reward > -np.inf
    assert_equal_weights(watched, alone.learn(96))
    for env in (alone.get_env(), rows):  # pictures with channels first, and last
        assert len(evaluate_policy(alone, env, 3, return_episode_rewards=True)[0]) == 3


def test_evaluation_and_collection_hand_the_memory_on(monkeypatch):
    agent = remembering().learn(64)
    results = [
        evaluate_agent(agent, GRID, 6, deterministic=True, max_parallel=parallel)
        for parallel in (1, 4)
    ]
    assert results[0] == results[1]
    notes = Notes(agent, monkeypatch)
    episodes = collect(GRID, 50, agent, num_envs=1, progress=False)
    first = np.cumsum([0, *(len(episode) for episode in episodes)])[:-1]
    without = [step for step, seen in enumerate(notes.shown) if not seen["memory"].any()]
    assert without == first.tolist()


def test_a_dream_by_the_agent_knows_the_frames_before_it(monkeypatch):
    agent = remembering(tokenizer_steps=200).learn(64)  # decoded and encoded, frames are the same
    model, other = agent.world_model, copy.deepcopy(agent.world_model)
    dataset = model.dataset(agent.episodes)
    for length in (2, 4, model.dynamics.reach):
        context = dataset.contexts_to(torch.arange(3, 60, 7), length)
        for dreaming in (model, other):
            with monkeypatch.context() as patch:
                notes = Notes(agent, patch)
                dreaming.imagine(context, policy=agent, horizon=3)
            assert len(notes.shown) == 3
            np.testing.assert_allclose(notes.memory(0), model.summarise(context), atol=1e-4)
    first = {"observation": agent.episodes[0].observations["observation"][:1]}
    with monkeypatch.context() as patch:
        notes = Notes(agent, patch)
        model.imagine(first["observation"], policy=agent, horizon=2)
    assert [step["memory"].any() for step in notes.shown] == [False, True]


def test_offline_training_has_memory():
    episodes = some_episodes()
    agent = remembering(None, "MlpPolicy", episodes=episodes, initial_steps=0)
    train_offline(agent, rounds=1)
    assert "memory" in agent.policy.observation_space.spaces
    assert len(evaluate_agent(agent, GRID, 3).returns) == 3


def test_without_memory_everything_is_as_before():
    agent = make_agent().learn(64)
    assert agent.policy.observation_space == agent.observation_space
    frames = agent.episodes[0].observations["observation"][:2]
    assert agent.predict(frames, deterministic=True)[1] is None
    assert agent.state_before(agent.world_model, None) is None


@pytest.mark.parametrize("policy", ["MlpPolicy", "MultiInputPolicy"])
def test_both_names_are_the_policy_of_a_dict(policy):
    assert "memory" in remembering(GRID, policy).policy.observation_space.spaces
    assert "memory" in remembering(DICT, policy).policy.observation_space.spaces


@pytest.mark.parametrize(
    ("policy", "arguments", "message"),
    [
        ("CnnPolicy", {}, "`policy` must be \"MultiInputPolicy\" with `memory=True`.* 'CnnPolicy'"),
        ("NoPolicy", {}, "`policy` must be \"MultiInputPolicy\" with `memory=True`.* 'NoPolicy'"),
        (ActorCriticPolicy, {}, '`policy` must be "MultiInputPolicy" with `memory=True`'),
        (
            "MlpPolicy",
            {"policy_kwargs": {"features_extractor_class": FlattenExtractor}},
            r"`policy_kwargs\['features_extractor_class'\]` must read a Dict .* 'FlattenExtractor'",
        ),
    ],
)
def test_policies_that_read_no_dict_are_refused(policy, arguments, message):
    with pytest.raises(ConfigError, match=message):
        remembering(GRID, policy, **arguments)


def test_what_does_not_fit_is_named():
    agent = remembering().learn(64)
    frames = agent.episodes[0].observations["observation"]
    _, state = agent.predict(frames[:2])
    assert state is not None
    with pytest.raises(ShapeError, match="`state` must be what `predict` gave for as many"):
        agent.predict(frames[:1], state)
    with pytest.raises(ShapeError, match="`state` must be what `predict` gave for as many"):
        agent.predict(frames[:2], state[:2])
    with pytest.raises(ShapeError, match=r"`episode_start` must have shape \(2,\), got \(3,\)"):
        agent.predict(frames[:2], state, np.zeros(3, bool))
    with pytest.raises(ShapeError, match=r"'observation' must have shape \(5, 5, 2\), or a batch"):
        agent.predict(frames[:2, :4])

    class Taken(gym.Env):
        observation_space = spaces.Dict(memory=spaces.Discrete(2))
        action_space = spaces.Discrete(2)

    with pytest.raises(SpaceError, match="`memory` adds a part 'memory'"):
        remembering(Taken(), "MultiInputPolicy")

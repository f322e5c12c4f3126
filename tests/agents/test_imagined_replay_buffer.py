"""`ImaginedReplayBuffer` in SB3's own DQN, SAC and TD3."""

from __future__ import annotations

import logging
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
import worlds  # registers the ids
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tests.agents.small_agents import DICT, GRID, IMAGE, TINY, VECTOR
from worldgen import WorldModelConfig
from worldgen.agents import (
    ImaginedReplayBuffer,
    ImaginedReplayCallback,
    ImaginedReplayConfig,
    replay_model_config,
)
from worldgen.agents.replay_store import ReplayView
from worldgen.agents.rollout_actions import rollout_actions
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.errors import ConfigError, DatasetError, SpaceError

SHORT = {
    "first_fit": 40,
    "fit_every": 30,
    "tokenizer_steps": 10,
    "first_model_steps": 3,
    "model_steps_per_fit": 2,
    "imagine_every": 8,
    "rollouts": 8,
    "horizon": 2,
    "imagined_size": 64,
    "model_config": TINY,
}
POINT = spaces.Box(-2, 2, (1,), np.float32)
WIDE = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))


def rows_of(env_id, n_envs=1):
    return DummyVecEnv([partial(gym.make, env_id)] * n_envs)


def make_agent(kind=SAC, env=VECTOR, policy="MlpPolicy", seed=0, n_envs=1, kwargs=None, **buffer):
    if isinstance(env, str):
        env = rows_of(env, n_envs)
    return kind(
        policy,
        env,
        seed=seed,
        device="cpu",
        learning_starts=20,
        batch_size=10,
        buffer_size=200,
        policy_kwargs={"net_arch": [8]},
        replay_buffer_class=ImaginedReplayBuffer,
        replay_buffer_kwargs={**SHORT, **buffer},
        **(kwargs or {}),
    )


def make_buffer(observations=POINT, actions=WIDE, size=50, n_envs=1, **arguments):
    return ImaginedReplayBuffer(
        size, observations, actions, "cpu", n_envs, **{**SHORT, "seed": 0, **arguments}
    )


def walk(buffer, steps, *, done=(), timeout=(), start=0):
    """Add transitions from t to t + 1 (in hundredths) for t from `start` on."""
    for time in range(start, start + steps):
        over = time in done or time in timeout
        buffer.add(
            np.full((buffer.n_envs, 1), time / 100, np.float32),
            np.full((buffer.n_envs, 1), (time + 1) / 100, np.float32),
            np.zeros((buffer.n_envs, *buffer.action_space.shape), np.float32),
            np.full(buffer.n_envs, time, np.float32),
            np.full(buffer.n_envs, over),
            [{"TimeLimit.truncated": time in timeout}] * buffer.n_envs,
        )


# The contract with SB3.


@pytest.mark.parametrize("kind", [SAC, TD3])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_continuous_agents_learn_from_it(kind, n_envs):
    agent = make_agent(kind, n_envs=n_envs).learn(80, callback=ImaginedReplayCallback())
    buffer = agent.replay_buffer
    assert buffer.real_steps == 80
    assert buffer.world_model.num_fits == 2
    assert buffer.is_imagining
    stored = buffer.imagined.actions[: buffer.imagined.size()]
    assert -1 <= stored.min() < stored.max() <= 1
    assert agent._n_updates > 0


@pytest.mark.parametrize(
    ("env", "policy"),
    [(GRID, "MlpPolicy"), (DICT, "MultiInputPolicy"), ("CartPole-v1", "MlpPolicy")],
)
def test_dqn_learns_from_it(env, policy):
    agent = make_agent(DQN, env, policy).learn(80, callback=ImaginedReplayCallback())
    buffer = agent.replay_buffer
    assert buffer.is_imagining
    assert isinstance(buffer.imagined, DictReplayBuffer if env == DICT else ReplayBuffer)
    batch = buffer.sample(10)
    assert batch.actions.shape == (10, 1)
    assert batch.actions.dtype == torch.int64
    if env == DICT:
        for observations in (batch.observations, batch.next_observations):
            assert {key: value.shape for key, value in observations.items()} == {
                "grid": (10, 3, 3, 1),
                "hour": (10, 1),
                "place": (10, 2),
            }


def test_pictures_are_turned_for_the_model_and_back():
    agent = make_agent(DQN, IMAGE, kwargs={"learning_rate": 1e-3}).learn(50)
    buffer = agent.replay_buffer
    assert buffer.observation_space.shape == (3, 16, 16)
    assert buffer.world_model.observation_space.shape == (16, 16, 3)
    assert buffer.is_imagining
    green_corner = buffer.imagined.observations[0, 0, :, 12:, 12:]
    assert green_corner[1].mean() > max(green_corner[0].mean(), green_corner[2].mean())
    episode = ReplayView(buffer.observation_space, buffer.action_space).episodes(buffer.real, 5)[-1]
    np.testing.assert_array_equal(
        np.moveaxis(episode.observations["observation"][-1], -1, 0),
        buffer.next_observations[buffer.pos - 1, 0],
    )


def test_without_a_callback_it_works_and_says_what_is_missing(caplog):
    agent = make_agent().learn(60)
    assert agent.replay_buffer.is_imagining
    (said,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "pass ImaginedReplayCallback() to `learn`" in said.getMessage()
    caplog.clear()
    make_agent().learn(60, callback=ImaginedReplayCallback())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_saved_agent_is_loaded_with_an_empty_buffer_of_the_same_kind(tmp_path):
    make_agent().learn(50, callback=ImaginedReplayCallback()).save(tmp_path / "agent")
    agent = SAC.load(tmp_path / "agent", rows_of(VECTOR), device="cpu")
    assert isinstance(agent.replay_buffer, ImaginedReplayBuffer)
    assert agent.replay_buffer.config.rollouts == 8
    agent.learn(50, callback=ImaginedReplayCallback())
    assert agent.replay_buffer.is_imagining


def test_the_callback_logs_what_the_fit_found():
    agent = make_agent()
    agent.learn(45, callback=ImaginedReplayCallback(), log_interval=1000)
    logged = agent.logger.name_to_value
    assert logged["imagined/transitions"] == 8 * 2
    assert logged["imagined/horizon"] == 2
    assert "imagined/dynamics/reward_loss" in logged


def test_the_buffer_shows_its_real_transitions_as_sb3s_does():
    buffer = make_buffer()
    walk(buffer, 7, timeout={3})
    assert (buffer.size(), buffer.pos, buffer.full) == (7, 7, False)
    assert buffer.timeouts[:, 0].nonzero()[0].tolist() == [3]
    assert buffer.observations is buffer.real.observations
    walk(buffer, 60, start=7)
    assert (buffer.size(), buffer.full) == (50, True)
    buffer.reset()
    assert buffer.size() == 0
    assert not buffer.is_imagining


# What is mixed.


@pytest.mark.parametrize(("share", "imagined"), [(0.0, 0), (0.25, 2), (0.8, 8), (1.0, 10)])
def test_the_share_of_a_batch_is_imagined(share, imagined):
    buffer = make_buffer(imagined_share=share)
    walk(buffer, 39)
    assert not buffer.is_imagining
    assert (buffer.sample(10).rewards >= 0).all()
    walk(buffer, 1, start=39)
    assert buffer.world_model.is_fitted == (share > 0)
    buffer.imagined.rewards[:] = -1
    for _ in range(20):
        batch = buffer.sample(10)
        assert int((batch.rewards == -1).sum()) == imagined
        assert all(len(part) == 10 for part in batch[:5])


def test_fits_and_rollouts_come_when_they_are_due():
    buffer = make_buffer(n_envs=2, rollouts=4, horizon=1, imagined_size=400)
    counts = []
    for time in range(50):
        walk(buffer, 1, start=time)
        counts.append((buffer.real_steps, buffer.world_model.num_fits, buffer.imagined.pos))
    assert [count[0] for count in counts] == list(range(2, 102, 2))
    fits = [
        steps
        for (steps, now, _), (_, then, _) in zip(counts[1:], counts, strict=False)
        if now > then
    ]
    assert fits == [40, 70, 100]
    filled = [
        steps
        for (steps, _, now), (_, _, then) in zip(counts[1:], counts, strict=False)
        if now > then
    ]
    assert filled == [40, 48, 56, 64, 70, 78, 86, 94, 100]


def test_rollouts_grow():
    config = ImaginedReplayConfig(horizon=2, final_horizon=6, first_fit=100, horizon_growth=400)
    assert [config.horizon_at(n) for n in (0, 100, 199, 200, 499, 500, 9999)] == [
        2,
        2,
        2,
        3,
        5,
        6,
        6,
    ]
    assert ImaginedReplayConfig(horizon=3).horizon_at(10**6) == 3


def test_rollouts_go_on_where_they_were_and_end_without_a_done():
    buffer = make_buffer(horizon=3)
    walk(buffer, 40)
    imagined = buffer.imagined
    assert imagined.pos == 3
    for step in range(2):
        np.testing.assert_array_equal(
            imagined.next_observations[step], imagined.observations[step + 1]
        )
    assert not imagined.dones.any()


def test_a_predicted_end_is_a_done_and_begins_anew(monkeypatch):
    buffer = make_buffer(horizon=3)
    walk(buffer, 40)
    rows = buffer._dream_rows()
    advance = rows.advance
    first_row = np.arange(8) == 0
    monkeypatch.setattr(rows, "advance", lambda a: advance(a)._replace(terminated=first_row))
    buffer.imagined.reset()
    buffer.imagine()
    np.testing.assert_array_equal(buffer.imagined.dones[:3], np.tile(first_row, (3, 1)))
    assert not buffer.imagined.timeouts.any()
    before, after = buffer.imagined.next_observations[:2], buffer.imagined.observations[1:3]
    np.testing.assert_array_equal(before[:, 1:], after[:, 1:])
    assert (before[:, 0] != after[:, 0]).any()


def test_normalised_environments():
    env = VecNormalize(rows_of(VECTOR))
    agent = make_agent(env=env).learn(60, callback=ImaginedReplayCallback())
    buffer = agent.replay_buffer
    kept = buffer.imagined.observations[: buffer.imagined.pos]
    assert np.abs(kept).max() <= 2  # as the environment has them
    shown = buffer.sample(200, env)
    np.random.seed(0)  # noqa: NPY002
    plain = buffer.sample(50)
    np.random.seed(0)  # noqa: NPY002
    normalised = buffer.sample(50, env)
    expected = env.normalize_obs(plain.observations.numpy())
    np.testing.assert_allclose(normalised.observations.numpy(), expected, atol=1e-5)
    expected = env.normalize_reward(plain.rewards.numpy())
    np.testing.assert_allclose(normalised.rewards.numpy(), expected, atol=1e-5)
    assert len(shown.rewards) == 200


# What the world model is told.


def test_episodes_end_at_dones_resets_and_the_buffers_ends():
    buffer = make_buffer(imagined_share=0.0, size=20)
    walk(buffer, 10, done={3}, timeout={6})
    walk(buffer, 4, start=40)  # a reset that nobody told of
    view = ReplayView(POINT, WIDE)
    episodes = view.episodes(buffer.real, 1000)
    assert [(len(e), bool(e.terminated[-1]), bool(e.truncated[-1])) for e in episodes] == [
        (4, True, False),
        (3, False, True),
        (3, False, False),
        (4, False, False),
    ]
    times = [np.round(100 * e.observations["observation"][:, 0]).tolist() for e in episodes]
    assert times == [[0, 1, 2, 3, 4], [4, 5, 6, 7], [7, 8, 9, 10], [40, 41, 42, 43, 44]]
    assert [e.rewards.tolist() for e in episodes][1] == [4, 5, 6]
    walk(buffer, 12, start=44)  # over the ring's end
    episodes = view.episodes(buffer.real, 1000)
    assert [len(e) for e in episodes] == [1, 3, 16]
    assert episodes[-1].rewards.tolist() == list(range(40, 56))
    assert [len(e) for e in view.episodes(buffer.real, 5)] == [5]


def test_the_rows_of_an_environment_are_kept_apart():
    buffer = make_buffer(imagined_share=0.0, n_envs=3)
    walk(buffer, 5, done={1})
    episodes = ReplayView(POINT, WIDE).episodes(buffer.real, 1000)
    assert [len(e) for e in episodes] == [2, 3] * 3


def test_the_model_sees_actions_as_the_environment_does():
    env = rows_of("Pendulum-v1")
    taken = []
    step = env.step

    def noting(actions):
        taken.append(actions.copy())
        return step(actions)

    env.step = noting
    agent = make_agent(env=env).learn(39)
    episode = agent.replay_buffer._view.episodes(agent.replay_buffer.real, 1000)[0]
    np.testing.assert_allclose(episode.actions, np.concatenate(taken), atol=1e-5)
    assert np.abs(episode.actions).max() > 1


def test_actions_are_scaled_there_and_back():
    view = ReplayView(POINT, WIDE)
    actions = np.array([[-2, 0], [2, 10], [0, 5], [1, 2.5]], np.float32)
    stored = view.stored_actions(actions)
    np.testing.assert_allclose(stored, [[-1, -1], [1, 1], [0, 0], [0.5, -0.5]])
    np.testing.assert_allclose(view.real_actions(stored), actions)
    assert WIDE.contains(view.real_actions(np.full((1, 2), 1.0000001, np.float32))[0])


# Whose actions are imagined.


@pytest.mark.parametrize("kind", [SAC, TD3])
def test_rollouts_follow_the_policy(kind):
    agent = make_agent(kind, env="Pendulum-v1", imagined_share=0.0)
    observations = np.tile(np.array([[1, 0, 0]], np.float32), (5, 1))

    def choose(agent, exploration=0.0):
        generator = np.random.default_rng(3)
        return rollout_actions(agent, agent.action_space, observations, 5, exploration, generator)

    before = torch.random.get_rng_state()
    best, _ = agent.predict(observations, deterministic=True)
    chosen = choose(agent)
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(chosen, choose(agent))
    assert np.allclose(chosen, best) == (kind is TD3)
    noisy = choose(agent, 0.1)
    assert np.allclose(noisy, best) is False
    assert np.abs(noisy).max() <= 2


def test_dqn_explores_in_each_row_for_itself():
    agent = make_agent(DQN, GRID, imagined_share=0.0)
    observations = np.tile(agent.env.reset(), (400, 1, 1, 1))
    best, _ = agent.predict(observations, deterministic=True)
    generator = np.random.default_rng(0)
    for share, expected in ((0.0, 1.0), (0.5, 0.6), (1.0, 0.2)):  # one in five is the best one
        actions = rollout_actions(agent, agent.action_space, observations, 400, share, generator)
        assert (actions == best).mean() == pytest.approx(expected, abs=0.08)


def test_without_a_policy_actions_are_random():
    generator = np.random.default_rng(0)
    drawn = rollout_actions(None, WIDE, None, 500, 0.1, generator)
    assert drawn.shape == (500, 2)
    np.testing.assert_allclose(drawn.mean(0), [0, 5], atol=0.4)
    assert set(rollout_actions(None, spaces.Discrete(3), None, 50, 0.1, generator)) == {0, 1, 2}


# Learning, determinism, saving.


def test_the_default_model_learns_a_world_of_numbers():
    rng = np.random.default_rng(0)
    space = spaces.Box(-2, 2, (2,), np.float32)
    buffer = make_buffer(
        space,
        spaces.Box(-1, 1, (1,), np.float32),
        size=400,
        model_config=None,
        first_fit=400,
        tokenizer_steps=200,
        first_model_steps=250,
        rollouts=64,
        imagined_size=1_000,
    )
    for _ in range(400):
        state, push = rng.uniform(-1, 1, 2).astype(np.float32), rng.uniform(-1, 1, (1, 1))
        following = state + 0.2 * np.array([state[1], push[0, 0]])
        reward = np.array([-np.square(state).sum()])
        buffer.add(state[None], following[None], push, reward, np.zeros(1), [{}])
    imagined = buffer.imagined
    assert imagined.pos == 2
    state, push = imagined.observations[0], imagined.actions[0]
    following = state + 0.2 * np.stack([state[:, 1], push[:, 0]], 1)
    assert np.abs(imagined.next_observations[0] - following).mean() < 0.02
    assert np.abs(imagined.rewards[0] + np.square(state).sum(1)).mean() < 0.15


def test_codes_follow_numbers_that_come_later():
    buffer = make_buffer(tokenizer_steps=200, imagined_share=0.0, size=1_000)
    walk(buffer, 40)
    buffer.fit()
    walk(buffer, 100, start=40)
    far = np.array([[1.3]], np.float32)
    assert buffer.world_model.decode(buffer.world_model.encode(far)).max() < 1.25
    buffer.fit()
    assert buffer.world_model.decode(buffer.world_model.encode(far)) == pytest.approx(1.3, abs=0.02)


def assert_equal_buffers(left, right):
    for store in ("real", "imagined"):
        for name in ("observations", "actions", "rewards", "dones"):
            np.testing.assert_array_equal(
                getattr(getattr(left, store), name), getattr(getattr(right, store), name)
            )
    ours, theirs = left.world_model.state_dict(), right.world_model.state_dict()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_equal_seeds_give_equal_results():
    first, second, other = (
        make_agent(seed=seed).learn(60, callback=ImaginedReplayCallback()) for seed in (1, 1, 2)
    )
    assert_equal_buffers(first.replay_buffer, second.replay_buffer)
    for ours, theirs in zip(first.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert first.replay_buffer.seed != other.replay_buffer.seed


def test_a_loaded_buffer_goes_on_as_if_nothing_had_happened(tmp_path):
    agent = make_agent().learn(50)
    agent.save_replay_buffer(tmp_path / "buffer")
    kept = agent.replay_buffer
    agent.load_replay_buffer(tmp_path / "buffer")
    loaded = agent.replay_buffer
    assert loaded is not kept
    assert_equal_buffers(kept, loaded)
    assert loaded.observations is loaded.real.observations
    assert loaded._agent is None
    for buffer in (kept, loaded):
        walk_vector(buffer, 25)  # rollouts, a fit, and rollouts
    assert loaded.world_model.num_fits == 2
    assert_equal_buffers(kept, loaded)
    agent.learn(30, callback=ImaginedReplayCallback(), reset_num_timesteps=False)
    assert loaded._agent is agent


def walk_vector(buffer, steps):
    for time in range(steps):
        state = np.full((1, 4), time / 100, np.float32)
        action, reward = np.zeros((1, 2), np.float32), np.ones(1, np.float32)
        buffer.add(state, state + np.float32(0.01), action, reward, np.zeros(1), [{}])


# Errors.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"imagined_share": 1.5}, r"`imagined_share` must be in \[0, 1\], got 1.5"),
        ({"fit_every": 0}, "`fit_every` must be at least 1, got 0"),
        ({"model_steps_per_fit": -1}, "`model_steps_per_fit` must be at least 0, got -1"),
        (
            {"horizon": 3, "final_horizon": 2},
            "`final_horizon` must be None or at least `horizon`, 3",
        ),
        ({"rollouts": 128}, "`imagined_size` must be at least `rollouts`, 128, got 64"),
        ({"share": 1}, "`ImaginedReplayBuffer` has no argument share; `ImaginedReplayConfig` has"),
        ({"optimize_memory_usage": True}, "`optimize_memory_usage` must be False"),
        ({"handle_timeout_termination": False}, "`handle_timeout_termination` must be True"),
        (
            {"model_config": WorldModelConfig(training=DynamicsTrainingConfig(gradient_steps=3))},
            "`model_config.training.gradient_steps` must be left out.*`first_model_steps`",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_buffer(**arguments)


def test_wrong_spaces_are_refused():
    with pytest.raises(SpaceError, match="actions must be Discrete or Box"):
        make_buffer(actions=spaces.MultiBinary(3))
    with pytest.raises(SpaceError, match="shift it to begin at 0"):
        make_buffer(actions=spaces.Discrete(3, start=1))
    with pytest.raises(SpaceError, match="finite bounds"):
        make_buffer(actions=spaces.Box(-np.inf, np.inf, (1,)))


def test_imagining_needs_a_fit_and_a_fit_needs_transitions():
    buffer = make_buffer()
    with pytest.raises(DatasetError, match="call `fit` first"):
        buffer.imagine()
    with pytest.raises(DatasetError, match="must hold a real transition"):
        buffer.fit()


def test_the_callback_refuses_other_agents():
    with pytest.raises(ConfigError, match=r"replay_buffer_class.*got ReplayBuffer"):
        SAC("MlpPolicy", rows_of(VECTOR), device="cpu").learn(1, callback=ImaginedReplayCallback())
    with pytest.raises(ConfigError, match=r"must be DQN, SAC, TD3.*got PPO"):
        PPO("MlpPolicy", rows_of(GRID), n_steps=2, batch_size=2, device="cpu").learn(
            2, callback=ImaginedReplayCallback()
        )


def test_the_default_model_fits_the_observations():
    numbers = replay_model_config(spaces.Dict(a=POINT, b=WIDE))
    assert (numbers.dynamics.process, numbers.dynamics.context) == ("gaussian", 1)
    mixed = replay_model_config(spaces.Dict(a=POINT, b=spaces.Discrete(3)))
    assert (mixed.dynamics.process, mixed.dynamics.context) == ("masked", 1)


assert worlds

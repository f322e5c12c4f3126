"""`ImaginedVecEnv` as Stable-Baselines3 sees it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from worldgen import Episodes, WorldModel
from worldgen.envs import ImaginedVecEnv
from worldgen.envs.dream_rows import Advance
from worldgen.errors import CheckpointError, ConfigError, DatasetError, SpaceError
from worldgen.spaces import flatten

MODES = ("decoded", "tokens", "embeddings")


def actions(env: ImaginedVecEnv, seed: int = 0) -> np.ndarray:
    env.action_space.seed(seed)
    return np.stack([env.action_space.sample() for _ in range(env.num_envs)])


def rows_of(observations: Any, count: int) -> list[Any]:
    if isinstance(observations, dict):
        return [{key: part[row] for key, part in observations.items()} for row in range(count)]
    return [observations[row] for row in range(count)]


def assert_equal(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_equal(left[key], right[key])
    else:
        np.testing.assert_array_equal(left, right)


def dataset_tokens(world: Any) -> torch.Tensor:
    return world.model.dataset(world.episodes).tokens


def frame_bytes(flat: dict[str, np.ndarray], row: int) -> tuple[bytes, ...]:
    return tuple(part[row].tobytes() for part in flat.values())


class Tape:
    """Keeps what the engine gave in each environment step."""

    def __init__(self, env: ImaginedVecEnv, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[Advance] = []
        advance = env._rows.advance

        def recorded(chosen: Any) -> Advance:
            step = advance(chosen)
            self.steps.append(
                step._replace(tokens=step.tokens.clone(), rewards=step.rewards.copy())
            )
            return step

        monkeypatch.setattr(env._rows, "advance", recorded)


@pytest.mark.parametrize("mode", MODES)
def test_observations_lie_in_the_space_and_are_fresh_copies(world, mode):
    env = ImaginedVecEnv(world.model, 3, 2, starts=world.episodes, observation=mode)
    first = env.reset()
    kept = [(first, copy.deepcopy(first))]
    for index in range(5):
        observations, rewards, dones, infos = env.step(actions(env, index))
        assert rewards.dtype == np.float32
        assert dones.dtype == bool
        assert rewards.shape == dones.shape == (3,)
        assert len(infos) == 3
        kept.append((observations, copy.deepcopy(observations)))
    for given, copied in kept:  # SB3 keeps what it was given by reference
        assert_equal(given, copied)
        for observation in rows_of(given, 3):
            assert observation in env.observation_space


def test_the_agents_space_is_the_environments_own(world):
    env = ImaginedVecEnv(world.model, 2, starts=world.episodes)
    with world.make() as real:
        assert env.observation_space == real.observation_space
        assert env.action_space == real.action_space


def test_token_and_embedding_spaces(grid):
    tokenizer = grid.model.tokenizer
    tokens = ImaginedVecEnv(grid.model, 2, starts=grid.episodes, observation="tokens")
    assert tokens.observation_space == spaces.MultiDiscrete(tokenizer.token_nvec)
    vectors = ImaginedVecEnv(grid.model, 2, starts=grid.episodes, observation="embeddings")
    size = tokenizer.num_tokens * tokenizer.embedding_size
    assert vectors.observation_space == spaces.Box(-np.inf, np.inf, (size,), np.float32)


def test_changing_what_was_given_changes_nothing_inside(grid):
    left = ImaginedVecEnv(grid.model, 4, 3, starts=grid.episodes)
    right = ImaginedVecEnv(grid.model, 4, 3, starts=grid.episodes)
    spoilt: Any = left.reset()
    whole: Any = right.reset()
    for index in range(6):
        assert_equal(spoilt, whole)
        spoilt[:] = 0
        spoilt = left.step(actions(left, index))[0]
        whole = right.step(actions(right, index))[0]


def test_dreams_begin_at_real_observations(world):
    env = ImaginedVecEnv(world.model, 8, 1, starts=world.episodes)
    decoded = flatten(env.observation_space, world.model.decode(dataset_tokens(world)))
    real = {frame_bytes(decoded, index) for index in range(len(dataset_tokens(world)))}
    for observations in (env.reset(), env.step(actions(env))[0]):
        shown = flatten(env.observation_space, observations)
        assert {frame_bytes(shown, row) for row in range(8)} <= real


def test_horizon_truncates_with_terminal_observation(endless, grid, monkeypatch):
    env = ImaginedVecEnv(endless, 4, 3, starts=grid.episodes)
    tape = Tape(env, monkeypatch)
    env.reset()
    for _ in range(2):
        *_, dones, infos = env.step(actions(env))
        assert not dones.any()
        assert infos == [{"TimeLimit.truncated": False}] * 4
    observations, _, dones, infos = env.step(actions(env))
    assert dones.all()
    last = endless.decode(tape.steps[-1].tokens)
    for row, info in enumerate(infos):
        assert info["TimeLimit.truncated"] is True
        np.testing.assert_array_equal(info["terminal_observation"], last[row])
        assert info["terminal_observation"] in env.observation_space
        assert not np.shares_memory(info["terminal_observation"], observations)
    np.testing.assert_array_equal(endless.decode(env._rows.tokens), observations)


def test_termination_is_no_truncation_even_at_the_horizon(mortal, grid):
    for horizon in (1, 5):
        env = ImaginedVecEnv(mortal, 3, horizon, starts=grid.episodes)
        env.reset()
        *_, dones, infos = env.step(actions(env))
        assert dones.all()
        assert not any(info["TimeLimit.truncated"] for info in infos)
        assert all("terminal_observation" in info for info in infos)


def test_rows_end_and_begin_alone(fickle, grid, monkeypatch):
    env = ImaginedVecEnv(fickle, 8, 4, starts=grid.episodes)
    tape = Tape(env, monkeypatch)
    env.reset()
    ages = np.zeros(8, dtype=int)
    mixed = 0
    observations: Any
    for index in range(30):
        observations, _, dones, infos = env.step(actions(env, index))
        ages += 1
        step = tape.steps[-1]
        np.testing.assert_array_equal(step.truncated, (ages >= 4) & ~step.terminated)
        np.testing.assert_array_equal(dones, step.terminated | step.truncated)
        decoded = fickle.decode(step.tokens)
        going = ~dones
        np.testing.assert_array_equal(observations[going], decoded[going])
        assert all(("terminal_observation" in infos[row]) == dones[row] for row in range(8))
        mixed += 0 < dones.sum() < 8
        ages[dones] = 0
    assert mixed > 5


def test_a_restarted_row_does_not_disturb_the_others(endless, grid):
    tokens = {}
    for restart in (False, True):
        rows = ImaginedVecEnv(endless, 3, 50, starts=grid.episodes)._rows
        rows.restart()
        generator = torch.Generator().manual_seed(0)
        rows._imagination.sampler = type(rows._imagination.sampler)(temperature=0.0)
        for index in range(6):
            if restart and index == 3:
                rows.restart_rows(np.array([1]))
            chosen = torch.randint(0, 5, (3,), generator=generator).numpy()
            tokens[restart] = rows.advance(chosen).tokens.clone()
    assert torch.equal(tokens[False][[0, 2]], tokens[True][[0, 2]])


def test_infos_add_up_returns_and_lengths(fickle, grid):
    env = ImaginedVecEnv(fickle, 6, 5, starts=grid.episodes)
    env.reset()
    totals, lengths, seen = np.zeros(6), np.zeros(6, dtype=int), 0
    for index in range(20):
        _, rewards, dones, infos = env.step(actions(env, index))
        totals += rewards
        lengths += 1
        for row in np.flatnonzero(dones):
            assert infos[row]["episode"]["r"] == pytest.approx(totals[row])
            assert infos[row]["episode"]["l"] == lengths[row]
            seen += 1
        totals[dones] = lengths[dones] = 0
    assert seen > 10


def play(env: ImaginedVecEnv, num_steps: int = 12) -> list[Any]:
    played: list[Any] = [env.reset()]
    for index in range(num_steps):
        played += env.step(actions(env, index))[:3]
    return played


def test_equal_seeds_dream_equally(world):
    one, other = (ImaginedVecEnv(world.model, 3, 4, starts=world.episodes, seed=7) for _ in "ab")
    for left, right in zip(play(one), play(other), strict=True):
        assert_equal(left, right)


def test_seed_acts_at_the_next_reset(vector):
    env = ImaginedVecEnv(vector.model, 4, 4, starts=vector.episodes)
    env.seed(3)
    first = play(env)
    second = play(env)  # without a seed the dreams go on
    env.seed(3)
    third = play(env)
    assert not np.array_equal(first[0], second[0])
    for left, right in zip(first, third, strict=True):
        assert_equal(left, right)


def test_set_starts_changes_where_dreams_begin(vector):
    longest = max(range(len(vector.episodes)), key=lambda index: len(vector.episodes[index]))
    few = vector.episodes.subset([longest])
    env = ImaginedVecEnv(vector.model, 16, 2, starts=vector.episodes)
    env.set_starts(few)
    known = vector.model.decode(vector.model.dataset(few).tokens[:-1])
    begun = env.reset()
    assert {row.tobytes() for row in begun} <= {row.tobytes() for row in known}
    assert len({row.tobytes() for row in begun}) > 1


def test_starts_may_be_tokenized_or_in_a_folder(grid, tmp_path):
    grid.episodes.save(tmp_path / "episodes")
    grid.model.save(tmp_path / "model")
    envs = [
        ImaginedVecEnv(grid.model, 4, starts=grid.episodes),
        ImaginedVecEnv(grid.model, 4, starts=grid.model.dataset(grid.episodes)),
        ImaginedVecEnv(tmp_path / "model", 4, starts=str(tmp_path / "episodes")),
    ]
    begun = [env.reset() for env in envs]
    np.testing.assert_array_equal(begun[0], begun[1])
    np.testing.assert_array_equal(begun[0], begun[2])


def test_attributes_and_methods_are_the_whole_environments(grid):
    env = ImaginedVecEnv(grid.model, 3, 9, starts=grid.episodes)
    assert env.get_attr("model") == [grid.model] * 3
    assert env.get_attr("render_mode", indices=1) == [None]
    env.set_attr("note", "seen")
    assert env.get_attr("note", [0, 2]) == ["seen", "seen"]
    assert env.env_method("get_attr", "num_envs") == [[3, 3, 3]] * 3
    assert env.env_is_wrapped(VecMonitor) == [False] * 3
    assert not env.has_attr("nothing_of_the_kind")
    env.close()


def test_rows_are_drawn(world):
    with pytest.raises(ConfigError, match="`render_mode` must be None or 'rgb_array', got 'human'"):
        ImaginedVecEnv(world.model, 4, starts=world.episodes, render_mode="human")
    env = ImaginedVecEnv(world.model, 4, starts=world.episodes, render_mode="rgb_array")
    env.reset()
    pictures = env.get_images()
    assert len(pictures) == 4
    assert all(picture.dtype == np.uint8 and picture.shape[2] == 3 for picture in pictures)
    assert env.render().ndim == 3


@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_sb3_learns_in_every_kind_of_dream(world, algorithm):
    env = ImaginedVecEnv(world.model, 4, 3, starts=world.episodes)
    policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
    numbers = {"batch_size": 8, "n_epochs": 1} if algorithm is PPO else {}
    agent = algorithm(policy, env, n_steps=4, seed=0, device="cpu", **numbers).learn(32)
    assert agent.num_timesteps == 32
    assert len(agent.ep_info_buffer) >= 4  # what rollout/ep_rew_mean is taken from


def test_a_dream_is_monitored_normalised_saved_and_loaded(vector, tmp_path):
    def monitored() -> VecMonitor:
        return VecMonitor(ImaginedVecEnv(vector.model, 4, 3, starts=vector.episodes, seed=1))

    env = VecNormalize(monitored())
    agent = PPO("MlpPolicy", env, n_steps=4, batch_size=8, n_epochs=1, seed=0, device="cpu")
    agent.learn(32)
    assert {info["l"] for info in agent.ep_info_buffer} <= {1, 2, 3}
    agent.save(tmp_path / "agent.zip")
    env.save(str(tmp_path / "normalize.pkl"))
    again = VecNormalize.load(str(tmp_path / "normalize.pkl"), monitored())
    np.testing.assert_array_equal(again.obs_rms.mean, env.obs_rms.mean)
    loaded = PPO.load(tmp_path / "agent.zip", again, device="cpu")
    raw = vector.episodes[0].observations["observation"][:4]
    for ours, theirs in zip(env.normalize_obs(raw), again.normalize_obs(raw), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        expected = agent.predict(ours, deterministic=True)[0]
        np.testing.assert_array_equal(loaded.predict(theirs, deterministic=True)[0], expected)
    assert loaded.learn(16).num_timesteps == 16


def test_dqn_learns_in_a_dream(grid):
    env = ImaginedVecEnv(grid.model, 4, 3, starts=grid.episodes, observation="embeddings")
    agent = DQN("MlpPolicy", env, learning_starts=8, train_freq=2, buffer_size=100, device="cpu")
    assert agent.learn(40).num_timesteps == 40


@pytest.mark.parametrize(("kind", "added"), [("endless", 0.5 * 6), ("mortal", 0)])
def test_ppo_bootstraps_at_the_horizon_and_not_at_termination(
    kind, added, grid, request, monkeypatch
):
    env = ImaginedVecEnv(request.getfixturevalue(kind), 4, 1, starts=grid.episodes)
    agent = PPO("MlpPolicy", env, 1e-9, 2, 8, 1, gamma=0.5, seed=0, device="cpu")
    with torch.no_grad():
        agent.policy.value_net.weight.zero_()
        agent.policy.value_net.bias.fill_(6)
    tape = Tape(env, monkeypatch)
    agent.learn(8)
    rewards = np.stack([step.rewards for step in tape.steps])
    np.testing.assert_allclose(agent.rollout_buffer.rewards, rewards + added, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 0}, "`horizon` must be at least 1, got 0"),
        ({"num_envs": 0}, "`num_envs` must be at least 1, got 0"),
        ({"observation": "pixels"}, "`observation` must be one of 'decoded', .* got 'pixels'"),
        ({"starts": None}, "`starts` must be Episodes, a TokenDataset or a path, got NoneType"),
        ({"model": 3}, "`model` must be a WorldModel or a path, got int"),
    ],
)
def test_wrong_arguments_are_named(grid, arguments, message):
    arguments = {"model": grid.model, "starts": grid.episodes, **arguments}
    with pytest.raises(ConfigError, match=message):
        ImaginedVecEnv(**arguments)


def test_an_untrained_model_says_so(grid):
    untrained = WorldModel.for_env(grid.id, device="cpu")
    with pytest.raises(ConfigError, match=r"has not been trained: call `model.fit"):
        ImaginedVecEnv(untrained, starts=grid.episodes)


def test_starts_of_another_environment_are_refused(grid, vector):
    with pytest.raises(SpaceError, match="the model was built for the observation space"):
        ImaginedVecEnv(grid.model, starts=vector.episodes)


def test_missing_files_and_episodes_are_named(grid, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        ImaginedVecEnv(tmp_path / "nowhere", starts=grid.episodes)
    with pytest.raises(DatasetError, match="nowhere"):
        ImaginedVecEnv(grid.model, starts=tmp_path / "nowhere")
    empty = Episodes(grid.episodes.observation_space, grid.episodes.action_space)
    with pytest.raises(DatasetError, match="at least one episode"):
        ImaginedVecEnv(grid.model, starts=empty)


def test_a_bonus_for_novelty_is_added_and_both_parts_are_told(grid, monkeypatch):
    plain, paid = (
        ImaginedVecEnv(grid.model, 16, 5, starts=grid.episodes, novelty=weight)
        for weight in (0.0, 0.5)
    )
    plain.reset()
    paid.reset()
    bonuses, returns = np.zeros(16), np.zeros(16)
    total = 0.0
    for index in range(10):
        _, rewards, _, infos = plain.step(actions(plain, index))
        _, sums, dones, told = paid.step(actions(paid, index))
        assert "bonus" not in infos[0]
        assert sums.dtype == np.float32
        np.testing.assert_array_equal(rewards, [info["task_reward"] for info in told])
        here = np.array([info["bonus"] for info in told])
        np.testing.assert_allclose(sums, rewards + here, rtol=1e-6)
        assert (here >= 0).all()
        total += here.sum()
        bonuses += here
        returns += rewards
        for row in np.flatnonzero(dones):
            assert told[row]["episode"]["r"] == pytest.approx(returns[row], abs=1e-5)
            assert told[row]["episode"]["bonus"] == pytest.approx(bonuses[row], abs=1e-5)
        bonuses[dones] = returns[dones] = 0
    assert total > 0


def test_what_the_real_episode_had_shown_is_no_longer_new(grid, endless):
    env = ImaginedVecEnv(endless, 4, 50, starts=grid.episodes, novelty=1.0)
    env.reset()
    env._rows._seen[:] = True
    for index in range(3):
        _, _, _, infos = env.step(actions(env, index))
        assert [info["bonus"] for info in infos] == [0.0] * 4


def test_a_bonus_that_repeats_does_not_look_at_what_was_shown(grid, endless):
    once, again = (
        ImaginedVecEnv(endless, 4, 50, starts=grid.episodes, novelty=1.0, novelty_repeats=repeats)
        for repeats in (False, True)
    )
    totals = {once: 0.0, again: 0.0}
    for env in totals:
        env.reset()
        for index in range(12):
            totals[env] += sum(info["bonus"] for info in env.step(actions(env, index))[3])
    assert totals[again] > totals[once] > 0


def test_a_negative_weight_of_novelty_is_refused(grid):
    with pytest.raises(ConfigError, match="`novelty` must be at least 0, got -1"):
        ImaginedVecEnv(grid.model, 2, 2, starts=grid.episodes, novelty=-1)

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time

import gymnasium as gym
import minigrid.wrappers
import numpy as np
import pytest
import torch
import worlds
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from stable_baselines3 import DQN, PPO

import worldgen
from worldgen import Episodes
from worldgen.data.environment import EnvironmentSpec, make_env
from worldgen.errors import ConfigError, DatasetError, EnvironmentIdError, ShapeError
from worldgen.seeding import derived_seed
from worldgen.spaces import ROOT

MODES = list(AutoresetMode)
LENGTHS = (3, 1, 4)


def collect(*arguments, **options):
    return worldgen.collect(*arguments, **{"progress": False, **options})


def same(left, right):
    """Whether two sets of episodes are equal bit for bit."""

    def content(episodes):
        return [
            [*(v.tobytes() for v in e.observations.values())]
            + [
                getattr(e, name).tobytes()
                for name in ("actions", "rewards", "terminated", "truncated")
            ]
            for e in episodes
        ]

    return content(left) == content(right)


def assert_counted_right(episodes, num_rows, lengths=LENGTHS):
    """Check each episode of `CountingWorld`: nothing lost, nothing invented, all in its place."""
    seen, cut = [], 0
    for episode in episodes:
        observations = episode.observations[ROOT].astype(int)
        number, length = int(observations[0, 0]), len(episode)
        expected_length = lengths[number % len(lengths)]
        over = length == expected_length
        assert over or length < expected_length
        assert (observations[:, 0] == number).all()
        assert observations[:, 1].tolist() == list(range(length + 1))
        assert observations[0, 2] == -1
        assert observations[1:, 2].tolist() == episode.actions.tolist()
        assert episode.rewards.tolist() == [100 * number + step for step in range(1, length + 1)]
        assert not episode.terminated[:-1].any()
        assert not episode.truncated[:-1].any()
        assert episode.terminated[-1] == (over and number % 2 == 0)
        assert episode.truncated[-1] == (over and number % 2 == 1)
        seen.append(number)
        cut += not over
    assert cut <= num_rows
    assert sorted(seen) == sorted(
        number for _ in range(num_rows) for number in range(max(seen) + 1)
    )


def counting(num_rows, kind=SyncVectorEnv, **options):
    return kind([worlds.CountingWorld] * num_rows, **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("copy", [True, False])
def test_no_frame_is_lost_or_invented_in_any_autoreset_mode(mode, copy):
    env = counting(2, autoreset_mode=mode, copy=copy)
    episodes = collect(env, 64)
    assert_counted_right(episodes, num_rows=2)
    assert episodes.num_steps == 64


@pytest.mark.parametrize("mode", MODES)
def test_subprocesses_give_the_same_as_one_process(mode):
    env = counting(2, AsyncVectorEnv, autoreset_mode=mode)
    try:
        assert same(collect(env, 40), collect(counting(2, autoreset_mode=mode), 40))
    finally:
        env.close()


@pytest.mark.parametrize("same_memory", [False, True])
def test_no_frame_is_lost_or_invented_in_environments_of_our_own(same_memory):
    made = []

    def make():
        made.append(worlds.CountingWorld(same_memory=same_memory))
        return made[-1]

    episodes = collect(make, 64, num_envs=2)
    assert_counted_right(episodes, num_rows=2)
    assert sum(env.steps_taken for env in made) == episodes.num_steps == 64


@pytest.mark.parametrize("mode", [*MODES, None])
def test_an_end_that_is_both_stays_both(mode):
    """A time limit that falls together with the true end does not hide it."""

    def make():
        return gym.wrappers.TimeLimit(worlds.CountingWorld((3, 5)), 3)

    env = make if mode is None else SyncVectorEnv([make] * 2, autoreset_mode=mode)
    ends = {
        (int(episode.observations[ROOT][0, 0]), bool(episode.terminated[-1]))
        for episode in collect(env, 36, num_envs=2)
        if episode.truncated[-1]
    }
    assert {(0, True), (1, False), (2, True), (3, False)} <= ends


@pytest.mark.parametrize("mode", [*MODES, None])
@pytest.mark.parametrize("num_steps", [1, 7, 8, 9, 31])
def test_the_number_of_environment_steps_is_exact(mode, num_steps):
    made = [worlds.CountingWorld() for _ in range(4)]
    makers = iter(made)
    if mode is None:
        episodes = collect(lambda: next(makers), num_steps, num_envs=4)
        assert sum(env.steps_taken for env in made) == num_steps
    else:
        env = SyncVectorEnv([functools.partial(next, makers)] * 4, autoreset_mode=mode)
        episodes = collect(env, num_steps)
        assert sum(env.steps_taken for env in made) < num_steps + 4
    assert episodes.num_steps == num_steps


@pytest.mark.parametrize("env_id", ["MiniGrid-DoorKey-5x5-v0", "worlds:worlds/Dict-v0"])
def test_all_ways_to_reset_give_the_same_episodes_of_nested_observations(env_id):
    def first_episodes(mode):
        env = SyncVectorEnv([lambda: gym.make(env_id, **short)] * 2, autoreset_mode=mode)
        policy = lambda batch: np.arange(2) % 3  # noqa: E731
        return collect(env, 120, policy, seed=3)[:4]

    short = {"max_steps": 10} if env_id.startswith("MiniGrid") else {"max_episode_steps": 10}
    ways = [first_episodes(mode) for mode in MODES]
    assert all(len(episode) == 10 for episode in ways[0])
    assert same(ways[0], ways[1])
    assert same(ways[1], ways[2])
    assert "mission" not in ways[0][0].observations


def test_a_vector_environment_over_minigrid_is_prepared():
    env = gym.make_vec("MiniGrid-DoorKey-5x5-v0", num_envs=2, vectorization_mode="sync")
    episodes = collect(env, 20)
    assert episodes.observation_space == make_env("MiniGrid-DoorKey-5x5-v0").observation_space
    assert episodes.environment == EnvironmentSpec(id="MiniGrid-DoorKey-5x5-v0")


def test_a_vector_environment_without_parts_is_collected_from():
    env = gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="vector_entry_point")
    episodes = collect(env, 200)
    assert (episodes.num_steps, episodes.environment) == (200, None)
    for episode in episodes:
        assert not (np.abs(np.diff(episode.observations[ROOT], axis=0)) > 3).any()
        assert (episode.rewards == 1).all()


class Silent(VectorEnv):
    """A vector environment that does not say how it resets, or not what the last frame was."""

    num_envs = 2
    single_observation_space = spaces.Box(0, 9, (), np.float32)
    single_action_space = spaces.Discrete(2)

    def __init__(self, mode):
        self.metadata = {} if mode is None else {"autoreset_mode": mode}

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, actions):
        final = {"part": np.zeros(2)}
        return np.zeros(2, np.float32), np.zeros(2), np.ones(2, bool), np.zeros(2, bool), final


def test_a_vector_environment_must_say_how_it_resets():
    with pytest.raises(ConfigError, match=r"`env` must name its AutoresetMode .*, got None"):
        collect(Silent(None), 10)
    with pytest.raises(ShapeError, match=r"infos\['final_obs'\], got infos with part"):
        collect(Silent(AutoresetMode.SAME_STEP), 10)


def test_a_policy_sees_batches_nested_as_in_the_environment():
    shapes = []

    def policy(batch):
        shapes.append({key: (value.shape, value.dtype) for key, value in batch.items()})
        return np.zeros(len(batch["hour"]), np.int32)

    episodes = collect("worlds:worlds/Dict-v0", 10, policy, num_envs=4)
    assert len(shapes) == 3
    assert shapes[0]["grid"] == ((4, 3, 3, 1), np.uint8)
    assert shapes[0]["hour"] == ((4,), np.int64)
    assert shapes[0]["place"] == ((4, 2), np.float32)
    assert episodes[0].actions.dtype == np.int64


def test_a_policy_acts_on_the_observation_that_the_episode_holds():
    """The reset's observation, not the final one, is what the next episode's action is for."""
    for env in (worlds.CountingWorld, *(counting(2, autoreset_mode=mode) for mode in MODES)):
        episodes = collect(env, 60, lambda batch: (batch.sum(1) % 5).astype(int), num_envs=2)
        for episode in episodes:
            seen = episode.observations[ROOT][:-1]
            assert episode.actions.tolist() == (seen.sum(1) % 5).astype(int).tolist()


WRONG_ACTIONS = {
    "too many": (lambda b: np.zeros(3, int), ShapeError, r"actions of shape \(2,\), got \(3,\)"),
    "outside": (
        lambda b: np.full(2, 5),
        ConfigError,
        r"actions in Discrete\(5\), got 5",
    ),
    "real": (lambda b: np.zeros(2), ConfigError, r"actions in Discrete\(5\), got float64"),
}


@pytest.mark.parametrize(("policy", "kind", "message"), WRONG_ACTIONS.values(), ids=WRONG_ACTIONS)
def test_a_policy_with_wrong_actions_is_stopped_at_once(policy, kind, message):
    made = [worlds.CountingWorld() for _ in range(2)]
    makers = iter(made)
    with pytest.raises(kind, match=f"`policy` must give {message}"):
        collect(lambda: next(makers), 9, policy, num_envs=2)
    assert [env.steps_taken for env in made] == [0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "`num_steps` must be at least 1, got 0"),
        ({"num_envs": 0}, "`num_envs` must be at least 1, got 0"),
        ({"seed": -1}, "`seed` must be at least 0, got -1"),
        ({"policy": 3}, "`policy` must be None, an SB3 model or a function, got 3"),
        ({"env": 3}, "`env` must be an id"),
    ],
)
def test_a_wrong_argument_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        collect(**{"env": "CartPole-v1", "num_steps": 10, **options})


def test_an_unknown_id_is_an_error_before_anything_is_written(tmp_path):
    with pytest.raises(EnvironmentIdError, match="did you mean 'CartPole-v"):
        collect("CartPool-v1", 10, path=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_one_object_cannot_be_several_rows():
    env = worlds.CountingWorld()
    with pytest.raises(ConfigError, match="must make a new environment each time"):
        collect(lambda: env, 10, num_envs=2)


def test_an_object_is_one_row_and_stays_open():
    class Closing(worlds.CountingWorld):
        closed = 0

        def close(self):
            Closing.closed += 1

    env = Closing()
    assert_counted_right(collect(env, 20), num_rows=1)
    assert Closing.closed == 0
    collect(Closing, 20, num_envs=3)
    assert Closing.closed == 3


def test_text_alone_is_collected():
    class Speaking(worlds.CountingWorld):
        def __init__(self):
            super().__init__()
            self.observation_space = spaces.Text(5, charset="0123456789")

        def reset(self, **arguments):
            observation, info = super().reset(**arguments)
            return self._word(observation), info

        def step(self, action):
            observation, *rest = super().step(action)
            return self._word(observation), *rest

        def _word(self, observation):
            return str(int(np.asarray(observation)[1]))

    first = collect(Speaking, 30)[0].observations["observation"]
    assert first.dtype.kind == "U"
    assert len(set(first)) > 1


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            spaces.Box(-1, 9, (2,), np.float32),
            r"must have shape \(2,\) as its space says, got \(3,\)",
        ),
        (spaces.Box(0, 9, (3,), np.uint8), "must hold uint8 as its space says, got float32"),
    ],
)
def test_an_environment_that_breaks_its_space_is_stopped(space, message):
    class Broken(worlds.CountingWorld):
        def __init__(self):
            super().__init__()
            self.observation_space = space

    with pytest.raises(ShapeError, match=message):
        collect(Broken, 10)


@pytest.mark.parametrize(
    "env_id", ["MiniGrid-DoorKey-5x5-v0", "CartPole-v1", "worlds:worlds/Vector-v0"]
)
def test_equal_seeds_give_equal_data(env_id):
    first, second, other = (collect(env_id, 300, seed=seed, num_envs=3) for seed in (5, 5, 6))
    assert same(first, second)
    assert not same(first, other)


def test_every_row_has_a_seed_of_its_own_and_is_seeded_once():
    """Row i begins as its seed says, and its resets go on from there."""
    episodes = collect("worlds:worlds/Vector-v0", 400, seed=7, num_envs=4)
    starts = [episode.observations[ROOT][0].tolist() for episode in episodes]
    for row in range(4):
        env = make_env("worlds:worlds/Vector-v0")
        seed = derived_seed(7, "row", row) % 2**31
        assert env.reset(seed=seed)[0].tolist() in starts
        assert env.reset()[0].tolist() in starts
    assert len({tuple(start) for start in starts}) == len(starts)


def test_neighbouring_seeds_share_no_start():
    first, second = (
        {
            tuple(episode.observations[ROOT][0].tolist())
            for episode in collect("worlds:worlds/Vector-v0", 100, seed=seed)
        }
        for seed in (0, 1)
    )
    assert not first & second


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_a_vector_environment_of_parts_begins_as_the_same_environments_do(kind):
    make = functools.partial(gym.make, "CartPole-v1")
    vector = kind([make] * 3)
    ours, theirs = collect("CartPole-v1", 3, seed=5, num_envs=3), collect(vector, 3, seed=5)
    vector.close()
    assert same(ours, theirs)


def test_random_actions_leave_the_environments_generator_alone():
    env = worlds.CountingWorld()
    env.action_space.seed(0)
    expected = [env.action_space.sample() for _ in range(5)]
    env.action_space.seed(0)
    collect(env, 20)
    assert [env.action_space.sample() for _ in range(5)] == expected


def test_random_actions_are_uniform():
    actions = np.concatenate([e.actions for e in collect(worlds.CountingWorld, 5000)])
    assert np.allclose(np.bincount(actions, minlength=5) / 5000, 0.2, atol=0.03)


@pytest.mark.parametrize("algorithm", [PPO, DQN])
def test_an_sb3_model_draws_the_same_actions_for_the_same_seed_and_others_keep_theirs(algorithm):
    options = {"n_steps": 8, "batch_size": 8} if algorithm is PPO else {}
    model = algorithm("MlpPolicy", "CartPole-v1", seed=0, device="cpu", **options)
    model.exploration_rate = 0.5
    space, torch_state = model.action_space, torch.get_rng_state()
    numpy_state = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    first, second, other = (collect("CartPole-v1", 200, model, seed=s) for s in (1, 1, 2))
    assert same(first, second)
    assert not same(first, other)
    assert model.action_space is space
    assert torch.equal(torch.get_rng_state(), torch_state)
    now = np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
    assert np.array_equal(now, numpy_state)
    assert len(set(np.concatenate([episode.actions for episode in first]).tolist())) == 2


def test_an_sb3_model_trained_on_prepared_minigrid_collects_from_it():
    env = make_env("MiniGrid-Empty-5x5-v0", wrappers=["minigrid.wrappers:ImgObsWrapper"])
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=8, device="cpu")
    assert collect(env, 30, model).num_steps == 30


def test_wrapped_environments_are_remembered(tmp_path):
    spec = EnvironmentSpec(
        id="MiniGrid-Empty-5x5-v0", wrappers=("minigrid.wrappers:RGBImgPartialObsWrapper",)
    )
    for env in (spec, minigrid.wrappers.RGBImgPartialObsWrapper(gym.make(spec.id))):
        episodes = collect(env, 12, path=tmp_path, overwrite=True, num_envs=2)
        assert episodes.environment == Episodes.load(tmp_path).environment == spec
        assert episodes.observation_space["image"].shape == (56, 56, 3)


def test_what_is_collected_is_what_is_on_disk(tmp_path):
    episodes = collect("worlds:worlds/Dict-v0", 200, path=tmp_path / "new")
    assert same(episodes, Episodes.load(tmp_path / "new"))
    with pytest.raises(DatasetError, match="holds episodes already; pass overwrite=True"):
        collect("worlds:worlds/Dict-v0", 10, path=tmp_path / "new")
    collect("worlds:worlds/Dict-v0", 10, path=tmp_path / "new", overwrite=True)
    assert Episodes.load(tmp_path / "new").num_steps == 10


def test_progress_shows_steps_episodes_and_their_return(capsys):
    worldgen.collect(worlds.CountingWorld, 64, num_envs=2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("collect: 64 of 64 env steps (100%), episodes ")
    assert "mean return" in shown.err


def test_an_error_in_the_environment_keeps_the_finished_episodes(tmp_path):
    class Failing(worlds.CountingWorld):
        def step(self, action):
            if self.steps_taken == 20:
                raise RuntimeError("broken")
            return super().step(action)

    with pytest.raises(RuntimeError, match="broken"):
        collect(Failing, 1000, num_envs=1, path=tmp_path / "new")
    assert_counted_right(Episodes.load(tmp_path / "new"), num_rows=1)


COLLECT_FOREVER = """
import sys, worldgen
worldgen.collect("worlds:worlds/Counting-v0", 10**8, path=sys.argv[1], num_envs=2, progress=False)
"""


def test_a_collection_that_is_killed_keeps_its_finished_episodes(tmp_path):
    path = tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", COLLECT_FOREVER, str(path)]
    process = subprocess.Popen(command, env=environment)
    try:
        deadline = time.monotonic() + 120
        while len(list(path.glob("episode-*"))) < 40:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    episodes = Episodes.load(path)
    assert len(episodes) >= 40
    assert all(episode.terminated[-1] or episode.truncated[-1] for episode in episodes)
    for episode in episodes:
        observations = episode.observations[ROOT]
        assert observations[:, 1].tolist() == list(range(len(episode) + 1))
        assert len(episode) == LENGTHS[int(observations[0, 0]) % 3]

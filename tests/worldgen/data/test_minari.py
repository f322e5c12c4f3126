"""Minari datasets in and out; Minari itself is the oracle."""

from __future__ import annotations

import logging
import string
import sys
import warnings

import gymnasium as gym
import minari
import numpy as np
import pytest
import worlds
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minari.data_collector import EpisodeBuffer

from worldgen import Episodes, collect
from worldgen.data import EnvironmentSpec, export_minari, import_minari, load_episodes
from worldgen.data.episode import Episode
from worldgen.errors import ConfigError, DatasetError, MissingDependencyError, SpaceError
from worldgen.spaces import ROOT, stack

assert worlds

IMAGE = spaces.Box(0, 255, (36, 40, 3), np.uint8)
CELLS = spaces.Box(0, np.array([[[10, 5, 3]]], np.uint8).repeat(7, 0).repeat(7, 1), dtype=np.uint8)
SPACES = {
    "image": IMAGE,
    "grey image": spaces.Box(0, 255, (32, 32), np.uint8),
    "small image": spaces.Box(0, 255, (8, 8, 3), np.uint8),
    "symbolic": CELLS,
    "vector": spaces.Box(-np.inf, np.inf, (3,), np.float32),
    "number": spaces.Discrete(5, start=-2),
    "dict": spaces.Dict(
        {
            "cells": CELLS,
            "picture": IMAGE,
            "speed": spaces.Box(-1, 1, (2,), np.float64),
            "parts": spaces.Tuple([spaces.MultiBinary(3), spaces.MultiDiscrete([3, 5])]),
        }
    ),
}
ACTIONS = [spaces.Discrete(7), spaces.Box(-1, 1, (2,), np.float32), spaces.MultiDiscrete([2, 3])]


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """A place for datasets that is this test's own."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def random_episode(space, actions, length, ending, seed):
    random = np.random.default_rng(seed)
    space.seed(seed)
    actions.seed(seed)
    last = np.arange(length) == length - 1
    return Episode(
        observations=stack(space, [space.sample() for _ in range(length + 1)]),
        actions=np.stack([actions.sample() for _ in range(length)]),
        rewards=random.normal(size=length).astype(np.float32),
        terminated=last & (ending in ("terminated", "both")),
        truncated=last & (ending in ("truncated", "both")),
    )


def assert_same(left: Episode, right: Episode) -> None:
    assert set(left.observations) == set(right.observations)
    pairs = [(values, right.observations[path]) for path, values in left.observations.items()]
    names = ("actions", "rewards", "terminated", "truncated")
    pairs += [(getattr(left, name), getattr(right, name)) for name in names]
    for one, other in pairs:
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.tobytes() == other.tobytes()


def assert_same_sets(left: Episodes, right: Episodes) -> None:
    assert left.observation_space == right.observation_space
    assert left.action_space == right.action_space
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert_same(one, other)


COUNTER = iter(range(10**6))


@pytest.mark.parametrize("kind", SPACES)
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    action=st.sampled_from(ACTIONS),
    endings=st.lists(st.sampled_from(["terminated", "truncated", "both", "cut"]), min_size=4),
    seed=st.integers(0, 1000),
)
def test_episodes_come_back_bit_for_bit(kind, lengths, action, endings, seed):
    space = SPACES[kind]
    episodes = Episodes(
        space,
        action,
        [
            random_episode(space, action, length, ending, seed + index)
            for index, (length, ending) in enumerate(zip(lengths, endings, strict=False))
        ],
    )
    name = f"tests/{next(COUNTER)}-v0"
    dataset = export_minari(episodes, name)
    assert dataset.total_steps == episodes.num_steps
    assert_same_sets(episodes, import_minari(dataset))
    assert_same_sets(episodes, import_minari(name))


def test_pictures_are_not_compressed(caplog):
    episode = random_episode(IMAGE, ACTIONS[0], 3, "terminated", 0)
    episodes = Episodes(IMAGE, ACTIONS[0], [episode])
    assert export_minari(episodes, "tests/exact-v0").storage.jpeg_encoding is False
    with caplog.at_level(logging.WARNING):
        assert_same(import_minari("tests/exact-v0")[0], episode)
        assert not caplog.records
        lossy = _written("tests/lossy-v0", IMAGE, [episode.observations[ROOT]], jpeg_encoding=True)
        read = import_minari(lossy)[0].observations[ROOT]
    assert "were compressed by JPEG" in caplog.text
    assert not np.array_equal(read, episode.observations[ROOT])


def _written(name, space, observations, *, env=None, jpeg_encoding=False, **changed):
    """Let Minari write an episode for each of `observations`, as its users do."""
    buffers = []
    for each in observations:
        length = changed.pop("length", None) or len(_first(each)) - 1
        values = {
            "actions": np.zeros(length, np.int64),
            "rewards": np.arange(length, dtype=np.float64) / 3,
            "terminations": np.arange(length) == length - 1,
            "truncations": np.zeros(length, bool),
        }
        buffers.append(EpisodeBuffer(observations=each, **{**values, **changed}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return minari.create_dataset_from_buffers(
            name,
            buffers,
            env=env,
            observation_space=space,
            action_space=spaces.Discrete(7),
            jpeg_encoding=jpeg_encoding,
        )


def _first(observations):
    while isinstance(observations, dict | tuple):
        parts = observations.values() if isinstance(observations, dict) else observations
        observations = next(iter(parts))
    return observations


def _doorkey():
    """Give observations of MiniGrid as the environment itself shows them, mission and all."""
    env = gym.make("MiniGrid-DoorKey-5x5-v0")
    seen = [env.reset(seed=0)[0]] + [env.step(action)[0] for action in (0, 1, 2)]
    env.close()
    nested = {key: np.stack([one[key] for one in seen]) for key in ("direction", "image")}
    text = spaces.Text(100, charset=string.printable)
    space = spaces.Dict({**env.observation_space.spaces, "mission": text})
    return {**nested, "mission": [one["mission"] for one in seen]}, space


def test_minigrid_is_prepared_as_prepare_env_does():
    pytest.importorskip("minigrid")
    EnvironmentSpec(id="MiniGrid-DoorKey-5x5-v0").make().close()  # registers it
    observations, space = _doorkey()
    dataset = _written(
        "tests/doorkey-v0", space, [observations], env=gym.spec("MiniGrid-DoorKey-5x5-v0")
    )
    episodes = import_minari(dataset)
    assert episodes.environment == EnvironmentSpec(id="MiniGrid-DoorKey-5x5-v0")
    env = episodes.environment.make()
    assert episodes.observation_space == env.observation_space
    env.close()
    assert set(episodes[0].observations) == {"direction", "image"}
    assert episodes[0].rewards.dtype == np.float32


def test_pictures_of_minigrid_are_no_cells():
    EnvironmentSpec(id="MiniGrid-DoorKey-5x5-v0").make().close()
    space = spaces.Box(0, 255, (7, 7, 3), np.uint8)
    picture = np.full((3, 7, 7, 3), 200, np.uint8)
    spec = gym.spec("MiniGrid-DoorKey-5x5-v0")
    assert (
        import_minari(_written("tests/a-v0", space, [picture], env=spec)).observation_space == space
    )
    dark = import_minari(_written("tests/b-v0", space, [picture // 100], env=spec))
    assert dark.observation_space.high.max() == 10


def test_text_is_left_out_of_dicts_at_any_depth():
    text = spaces.Text(10)
    space = spaces.Dict(
        {
            "inner": spaces.Dict({"note": text, "number": spaces.Discrete(3)}),
            "pair": spaces.Tuple([spaces.Discrete(2), spaces.Box(0, 1, (2,), np.float32)]),
            "mission": text,
        }
    )
    observations = {
        "inner": {"note": ["a", "b", "c"], "number": np.array([0, 1, 2])},
        "pair": (np.array([0, 1, 0]), np.zeros((3, 2), np.float32)),
        "mission": ["go", "go", "go"],
    }
    episodes = import_minari(_written("tests/text-v0", space, [observations]))
    assert set(episodes[0].observations) == {"inner/number", "pair/0", "pair/1"}


@pytest.mark.parametrize(
    "spec",
    [
        EnvironmentSpec(id="worlds:worlds/Dict-v0"),
        EnvironmentSpec(id="MiniGrid-Empty-5x5-v0"),
        EnvironmentSpec(
            id="MiniGrid-Empty-5x5-v0", wrappers=("minigrid.wrappers:FullyObsWrapper",)
        ),
        EnvironmentSpec(id="CartPole-v1"),
    ],
)
def test_collected_episodes_keep_their_environment(spec):
    episodes = collect(spec, 40, seed=0, num_envs=2, progress=False)
    dataset = export_minari(episodes, "tests/collected-v0", author="somebody", description="random")
    assert dataset.storage.metadata["author"] == {"somebody"}
    again = import_minari("tests/collected-v0")
    assert again.environment == spec
    assert_same_sets(episodes, again)
    assert not isinstance(dataset.recover_environment().unwrapped, gym.Wrapper)


def test_an_environment_with_arguments_of_its_own_is_not_known():
    env = gym.make("CartPole-v1", max_episode_steps=7)
    space, seen = env.observation_space, np.zeros((3, 4), np.float32)
    env.close()
    assert import_minari(_written("tests/a-v0", space, [seen], env=env.spec)).environment is None
    env = gym.make("CartPole-v1")
    for wrapped in (
        gym.wrappers.FrameStackObservation(env, 2),
        gym.wrappers.DtypeObservation(env, np.float64),
    ):
        name = f"tests/{type(wrapped).__name__}-v0"
        assert import_minari(_written(name, space, [seen], env=wrapped.spec)).environment is None
    env.close()
    assert import_minari(_written("tests/b-v0", space, [seen])).environment is None


def test_a_filtered_dataset_is_read_as_it_is_filtered():
    space = spaces.Box(0, 1, (2,), np.float32)
    dataset = _written("tests/a-v0", space, [np.zeros((n, 2), np.float32) for n in (3, 4, 5)])
    assert [len(one) for one in import_minari(dataset.filter_episodes(lambda e: len(e) > 2))] == [
        3,
        4,
    ]


def test_a_name_is_a_folder_or_a_dataset(tmp_path):
    episodes = collect("CartPole-v1", 20, seed=0, num_envs=2, progress=False, path=tmp_path / "own")
    assert_same_sets(load_episodes(tmp_path / "own"), episodes)
    export_minari(episodes, "tests/cartpole-v0")
    assert_same_sets(load_episodes("tests/cartpole-v0"), episodes)
    with pytest.raises(DatasetError, match="`minari download tests/nothing-v0` fetches"):
        load_episodes("tests/nothing-v0")
    with pytest.raises(DatasetError, match=r"must be a folder of episodes or the id"):
        load_episodes("no such thing")


@pytest.mark.parametrize("missing", ["minari", "h5py"])
def test_what_is_missing_is_named_with_its_command(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    message = r"pip install 'worldgen\[minari\]'"
    episodes = Episodes(spaces.Discrete(2), spaces.Discrete(2))
    with pytest.raises(MissingDependencyError, match=message):
        export_minari(episodes, "tests/a-v0")
    with pytest.raises(
        MissingDependencyError, match=f"there is no folder 'runs/episodes'.*{message}"
    ):
        load_episodes("runs/episodes")


def test_exporting_refuses_what_it_cannot_do(root):
    space, action = spaces.Discrete(2), spaces.Discrete(2)
    with pytest.raises(DatasetError, match="at least one episode"):
        export_minari(Episodes(space, action), "tests/a-v0")
    episodes = Episodes(space, action, [random_episode(space, action, 2, "cut", 0)])
    export_minari(episodes, "tests/a-v0")
    for name, message in (("tests/a-v0", "already exists"), ("tests/ a", "Malformed")):
        with pytest.raises(ConfigError, match=message):
            export_minari(episodes, name)
    with pytest.raises(ConfigError, match="unexpected keyword"):
        export_minari(episodes, "tests/b-v0", colour="red")
    assert sorted(path.name for path in (root / "tests").iterdir()) == [
        "a-v0",
        "namespace_metadata.json",
    ]


def test_data_that_do_not_fit_are_refused():
    space = spaces.Discrete(3)
    with pytest.raises(DatasetError, match=r"episode 0 of tests/a-v0: `observation` must lie in"):
        import_minari(_written("tests/a-v0", space, [np.array([0, 7, 1])]))
    with pytest.raises(DatasetError, match=r"`observation` must be int64 .* got float64"):
        import_minari(_written("tests/b-v0", space, [np.array([0, 0.5, 1])]))
    ends = np.array([True, False])
    with pytest.raises(DatasetError, match="must not go on after"):
        import_minari(_written("tests/c-v0", space, [np.array([0, 1, 2])], terminations=ends))
    dictionary = spaces.Dict({"a": spaces.Discrete(2)})
    dataset = minari.MinariDataset  # the action space is what is wrong here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        dataset = minari.create_dataset_from_buffers(
            "tests/d-v0",
            [
                EpisodeBuffer(
                    observations=np.array([0, 1]),
                    actions={"a": np.array([0])},
                    rewards=[0.0],
                    terminations=[True],
                    truncations=[False],
                )
            ],
            observation_space=space,
            action_space=dictionary,
            jpeg_encoding=False,
        )
    with pytest.raises(SpaceError, match="the action space must be"):
        import_minari(dataset)

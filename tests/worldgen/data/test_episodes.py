from __future__ import annotations

import json
import logging
import os

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from worldgen.data.environment import EnvironmentSpec
from worldgen.data.episode import Episode
from worldgen.data.episodes import Episodes
from worldgen.errors import ConfigError, DatasetError, SpaceError
from worldgen.spaces import ROOT, stack

OBSERVATIONS = spaces.Dict(
    {
        "picture": spaces.Box(0, 255, (40, 36, 3), np.uint8),
        "cells": spaces.Box(0, np.array([[[4, 2]]], np.uint8).repeat(3, 0), dtype=np.uint8),
        "speed": spaces.Box(-np.inf, np.inf, (2,), np.float64),
        "mode": spaces.Discrete(3, start=-1),
        "parts": spaces.Tuple([spaces.MultiBinary((2, 2)), spaces.MultiDiscrete([3, 5])]),
    }
)
ACTIONS = spaces.Box(-1, 1, (2,), np.float32)
SPEC = EnvironmentSpec(id="worlds:worlds/Dict-v0", wrappers=("a:B",))


def sample(length, seed=0, observation_space=OBSERVATIONS, action_space=ACTIONS):
    """Give a random episode that uses every bit of its dtypes."""
    random = np.random.default_rng(seed)
    observation_space.seed(seed)
    action_space.seed(seed)
    ended = np.arange(length) == length - 1
    return Episode(
        observations=stack(
            observation_space, [observation_space.sample() for _ in range(length + 1)]
        ),
        actions=np.stack([action_space.sample() for _ in range(length)]),
        rewards=random.normal(size=length).astype(np.float32),
        terminated=ended & (seed % 3 == 0),
        truncated=ended & (seed % 3 == 1),
    )


def simple(length=2, value=0):
    """Give an episode of a Discrete observation and action."""
    return Episode(
        observations={ROOT: np.full(length + 1, value, np.int64)},
        actions=np.zeros(length, np.int64),
        rewards=np.zeros(length, np.float32),
        terminated=np.zeros(length, bool),
        truncated=np.zeros(length, bool),
    )


def simple_set(lengths=(2, 3, 4)):
    episodes = [simple(length, index) for index, length in enumerate(lengths)]
    return Episodes(spaces.Discrete(100), spaces.Discrete(2), episodes)


def assert_same(left, right):
    """Equal bit for bit, dtypes and the order of the observations' parts included."""
    assert set(left.observations) == set(right.observations)
    pairs = [(value, right.observations[path]) for path, value in left.observations.items()]
    for name in ("actions", "rewards", "terminated", "truncated"):
        pairs.append((getattr(left, name), getattr(right, name)))
    for one, other in pairs:
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()
        assert one.shape == other.shape


@pytest.fixture
def folder(tmp_path):
    """A folder with three episodes."""
    path = tmp_path / "episodes"
    episodes = Episodes.create(path, OBSERVATIONS, ACTIONS, environment=SPEC)
    episodes.extend(sample(length, seed) for seed, length in enumerate((1, 5, 3)))
    return path


def test_episodes_come_back_bit_for_bit(folder):
    loaded = Episodes.load(folder)
    assert (len(loaded), loaded.num_steps) == (3, 9)
    assert loaded.observation_space == OBSERVATIONS
    assert loaded.action_space == ACTIONS
    assert loaded.environment == SPEC
    for seed, (length, episode) in enumerate(zip((1, 5, 3), loaded, strict=True)):
        assert_same(episode, sample(length, seed))


@given(st.sampled_from([np.uint8, np.int16, np.int64, np.float32, np.float64]), st.integers(1, 4))
def test_extreme_values_come_back_bit_for_bit(tmp_path_factory, dtype, length):
    limits = np.finfo(dtype) if np.issubdtype(dtype, np.floating) else np.iinfo(dtype)
    space = spaces.Box(limits.min, limits.max, (2,), dtype)
    episode = simple(length)
    values = np.tile(np.array([limits.min, limits.max], dtype), (length + 1, 1))
    episode.observations[ROOT] = np.asfortranarray(values)
    path = tmp_path_factory.mktemp("extreme")
    Episodes(space, spaces.Discrete(2), [episode]).save(path)
    assert_same(Episodes.load(path)[0], episode)


def test_what_is_loaded_can_be_written_to_and_appended_to(folder):
    loaded = Episodes.load(folder)
    assert all(array.flags.writeable for array in loaded[0].observations.values())
    loaded.append(sample(2, seed=9))
    again = Episodes.load(folder)
    assert [len(episode) for episode in again] == [1, 5, 3, 2]
    assert_same(again[3], sample(2, seed=9))


def test_an_episode_is_on_disk_as_soon_as_it_is_appended(tmp_path):
    episodes = Episodes.create(tmp_path / "new" / "deep", OBSERVATIONS, ACTIONS)
    for count in range(1, 4):
        episodes.append(sample(2, count))
        assert len(Episodes.load(tmp_path / "new" / "deep")) == count


def test_nothing_is_overwritten_unless_it_is_asked_for(folder, tmp_path):
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"holds episodes already; pass overwrite=True"):
        Episodes.create(folder, OBSERVATIONS, ACTIONS)
    assert len(Episodes.load(folder)) == 3
    Episodes.create(folder, spaces.Discrete(100), spaces.Discrete(2), overwrite=True).append(
        simple()
    )
    loaded = Episodes.load(folder)
    assert (len(loaded), loaded.observation_space) == (1, spaces.Discrete(100))
    assert (folder / "notes.txt").read_text() == "mine"


_GRAPH = spaces.Graph(spaces.Discrete(2), None)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_replaced(tmp_path, overwrite):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(DatasetError, match="exists and holds no episodes: choose another folder"):
        Episodes.create(tmp_path, OBSERVATIONS, ACTIONS, overwrite=overwrite)
    with pytest.raises(DatasetError, match="exists and holds no episodes"):
        Episodes.create(tmp_path / "thesis.txt", OBSERVATIONS, ACTIONS, overwrite=overwrite)


def test_saving_makes_a_copy_that_does_not_grow(folder, tmp_path):
    episodes = Episodes.load(folder)
    episodes.save(tmp_path / "copy")
    episodes.append(sample(4, 7))
    copy = Episodes.load(tmp_path / "copy")
    assert (len(copy), len(Episodes.load(folder)), copy.environment) == (3, 4, SPEC)
    with pytest.raises(DatasetError, match="overwrite=True"):
        episodes.save(tmp_path / "copy")
    episodes.save(tmp_path / "copy", overwrite=True)
    assert len(Episodes.load(tmp_path / "copy")) == 4


def test_saving_to_its_own_folder_loses_nothing(folder):
    episodes = Episodes.load(folder)
    episodes.save(folder, overwrite=True)
    assert len(Episodes.load(folder)) == 3


def test_what_an_interrupted_write_left_is_ignored(folder, tmp_path):
    (folder / ".episode-000003.safetensors.77.tmp").write_bytes(b"half")
    episodes = Episodes.load(folder)
    assert len(episodes) == 3
    episodes.append(sample(1, 3))
    assert len(Episodes.load(folder)) == 4
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / ".episodes.json.77.tmp").write_text("{")
    assert len(Episodes.create(begun, OBSERVATIONS, ACTIONS)) == 0


def test_a_missing_file_among_the_others_is_reported_and_its_number_stays_free(folder, caplog):
    (folder / "episode-000001.safetensors").unlink()
    with caplog.at_level(logging.WARNING, "worldgen"):
        episodes = Episodes.load(folder)
    assert "1 episode files are missing among the others" in caplog.text
    episodes.append(sample(1, 3))
    assert (folder / "episode-000003.safetensors").exists()
    assert [len(episode) for episode in episodes] == [1, 3, 1]


def test_two_writers_do_not_overwrite_each_other(folder):
    first, second = Episodes.load(folder), Episodes.load(folder)
    first.append(sample(1, 3))
    with pytest.raises(DatasetError, match=r"episode-000003.*somebody else writes to this folder"):
        second.append(sample(2, 4))


def _cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def _rewrite(path, **changes):
    arrays = {**load_file(path), **changes}
    metadata = {"kind": "worldgen episode", "format_version": "1"}
    save_file({name: value for name, value in arrays.items() if value is not None}, path, metadata)


DAMAGES = {
    "cut": (_cut, "is damaged or no episode"),
    "empty": (lambda path: path.write_bytes(b""), "is damaged or no episode"),
    "text": (lambda path: path.write_text("hello" * 100), "is damaged or no episode"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "is damaged or no episode"),
    "foreign": (
        lambda path: save_file({"weights": np.zeros(3)}, path),
        "must be an episode with .*'format_version': '1'.*got .*None",
    ),
    "without rewards": (lambda path: _rewrite(path, rewards=None), "is damaged: 'rewards'"),
    "too few rewards": (
        lambda path: _rewrite(path, rewards=np.zeros(2, np.float32)),
        "is damaged: an episode of T actions",
    ),
    "scalar": (lambda path: _rewrite(path, rewards=np.array(1, np.float32)), "is damaged"),
    "other actions": (
        lambda path: _rewrite(path, actions=np.zeros(5, np.int64)),
        "does not fit episodes.json: `actions` must be float32",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_or_foreign_episode_is_named(folder, damage, message):
    damage(folder / "episode-000001.safetensors")
    with pytest.raises(DatasetError, match=rf"episode-000001\.safetensors {message}"):
        Episodes.load(folder)


HEADERS = {
    "cut": ('{"kind": ', "is damaged"),
    "binary": (b"\xff\xfe\x00", "is damaged"),
    "list": ("[]", "does not describe episodes"),
    "foreign": ('{"name": "thing"}', "does not describe episodes"),
    "newer": ({"format_version": 99}, "has format version 99, this version of worldgen reads 1"),
    "space": ({"action_space": {"type": "Cube"}}, "is damaged: a saved space is damaged"),
    "no space": ({"action_space": None}, "is damaged"),
    "environment": ({"environment": {"idd": "x"}}, "`EnvironmentSpec` has no field idd"),
    "environment list": ({"environment": ["x"]}, "is damaged"),
}


@pytest.mark.parametrize(("content", "message"), HEADERS.values(), ids=HEADERS)
def test_a_damaged_or_foreign_header_is_named(folder, content, message):
    file = folder / "episodes.json"
    if isinstance(content, dict):
        content = json.dumps({**json.loads(file.read_text()), **content})
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetError, match=rf"episodes\.json .*{message}"):
        Episodes.load(folder)


def test_a_file_with_a_strange_name_is_named(folder):
    os.rename(folder / "episode-000001.safetensors", folder / "episode-best.safetensors")
    with pytest.raises(DatasetError, match=r"episode-best\.safetensors must be named like"):
        Episodes.load(folder)


@pytest.mark.parametrize("name", ["nothing", "file"])
def test_only_a_folder_of_episodes_can_be_loaded(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DatasetError, match=f"{name} must be a folder of episodes with episodes.json"
    ):
        Episodes.load(tmp_path / name)


def test_a_folder_around_episodes_says_where_they_are(folder):
    with pytest.raises(DatasetError, match=f"did you mean {folder}?"):
        Episodes.load(folder.parent)


def _with(path, change):
    episode = sample(3)
    episode.observations[path] = change(episode.observations[path])
    return episode


def _actions(values):
    episode = sample(3)
    return Episode(**{**vars(episode), "actions": values})


def _rewards(values):
    return Episode(**{**vars(sample(3)), "rewards": values})


def _without(path):
    episode = sample(3)
    del episode.observations[path]
    return episode


WRONG = {
    "path missing": (lambda: _without("mode"), "must have the paths cells, mode, .*, got cells"),
    "path too many": (lambda: _with("cells", lambda x: x), None),
    "dtype": (
        lambda: _with("speed", np.float32),
        "`speed` must be float64 .* ends in .2,., .* got float32",
    ),
    "shape": (
        lambda: _with("picture", lambda x: x[:, 1:]),
        "`picture` must be uint8 .* got uint8 of shape .4, 39, 36, 3.",
    ),
    "symbol": (
        lambda: _with("cells", lambda x: x + 5),
        "`cells` must lie in Box.0, 4, .3, 1, 2., uint8., got",
    ),
    "discrete": (lambda: _with("mode", lambda x: x + 9), "`mode` must lie in Discrete"),
    "bits": (lambda: _with("parts/0", lambda x: x + 2), "`parts/0` must lie in MultiBinary"),
    "not a number": (
        lambda: _with("speed", lambda x: x * np.nan),
        "`speed` must be finite, got nan",
    ),
    "action": (lambda: _actions(np.full((3, 2), 1.5, np.float32)), "`actions` must lie in Box"),
    "action dtype": (
        lambda: _actions(np.zeros((3, 2))),
        "`actions` must be float32 .* got float64",
    ),
    "action shape": (
        lambda: _actions(np.zeros((3, 1), np.float32)),
        r"got float32 of shape \(3, 1\)",
    ),
    "reward": (
        lambda: _rewards(np.full(3, np.inf, np.float32)),
        "`rewards` must be finite, got inf",
    ),
    "reward dtype": (lambda: _rewards(np.zeros(3)), "`rewards` must be float32"),
    "end dtype": (
        lambda: Episode(**{**vars(sample(3)), "truncated": np.zeros(3, int)}),
        "`truncated` must be bool",
    ),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_an_episode_that_does_not_fit_is_refused_and_not_written(tmp_path, make, message):
    episodes = Episodes.create(tmp_path / "new", OBSERVATIONS, ACTIONS)
    if message is None:
        episodes.append(make())
        return
    with pytest.raises(DatasetError, match=message):
        episodes.append(make())
    assert (len(episodes), episodes.num_steps, len(Episodes.load(tmp_path / "new"))) == (0, 0, 0)


@pytest.mark.parametrize(
    ("observation_space", "action_space", "message"),
    [
        (spaces.Discrete(2), spaces.Text(5), "action space must be Box.* got Text"),
        (spaces.Dict(a=spaces.Dict(b=_GRAPH)), spaces.Discrete(2), "got Graph at 'a/b'"),
        (spaces.Sequence(spaces.Discrete(2)), spaces.Discrete(2), "got Sequence"),
        (
            spaces.Discrete(2),
            spaces.Dict(a=spaces.Discrete(2)),
            "action space must be Box.* got Dict",
        ),
    ],
)
def test_a_space_that_cannot_be_kept_is_named(tmp_path, observation_space, action_space, message):
    with pytest.raises(SpaceError, match=message):
        Episodes(observation_space, action_space)
    with pytest.raises(SpaceError, match=message):
        Episodes.create(tmp_path / "new", observation_space, action_space)
    assert not (tmp_path / "new").exists()


def test_reals_may_leave_their_bounds():
    episodes = Episodes(spaces.Box(-1, 1, (), np.float32), spaces.Discrete(2))
    episode = simple(2)
    episode.observations[ROOT] = np.array([0, 5, -5], np.float32)
    episodes.append(episode)
    assert episodes.num_steps == 2


def test_it_is_a_sequence():
    episodes = simple_set((2, 3, 4))
    assert [len(episode) for episode in episodes] == [2, 3, 4]
    assert len(episodes[-1]) == 4
    assert [len(episode) for episode in episodes[1:]] == [3, 4]
    assert (episodes[1:].num_steps, episodes[:0].num_steps) == (7, 0)
    assert [len(episode) for episode in episodes.subset([2, 0])] == [4, 2]
    with pytest.raises(IndexError):
        episodes[3]
    assert repr(episodes) == "Episodes(unknown environment: 3 episodes, 9 environment steps)"


def test_a_subset_is_in_memory_and_leaves_the_folder_alone(folder):
    part = Episodes.load(folder)[:2]
    part.append(sample(2, 5))
    assert (len(part), part.path, part.environment) == (3, None, SPEC)
    assert len(Episodes.load(folder)) == 3


@given(st.integers(2, 40), st.floats(0.01, 0.99), st.integers(0, 99))
def test_a_split_divides_whole_episodes_with_something_on_each_side(count, fraction, seed):
    episodes = simple_set([2] * count)
    training, held_out = episodes.split(fraction, seed)
    numbers = [
        [int(episode.observations[ROOT][0]) for episode in side] for side in (training, held_out)
    ]
    assert sorted(numbers[0] + numbers[1]) == list(range(count))
    assert all(side == sorted(side) for side in numbers)
    assert numbers[0]
    assert numbers[1]
    assert abs(len(numbers[1]) - fraction * count) <= 1
    again = episodes.split(fraction, seed)[1]
    assert [int(episode.observations[ROOT][0]) for episode in again] == numbers[1]


def test_a_split_depends_on_its_seed():
    episodes = simple_set([2] * 50)
    chosen = {tuple(id(e) for e in episodes.split(0.2, seed)[1]) for seed in range(5)}
    assert len(chosen) == 5


def test_one_episode_is_not_held_out():
    training, held_out = simple_set((3,)).split()
    assert (len(training), len(held_out)) == (1, 0)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_a_fraction_is_between_zero_and_one(fraction):
    with pytest.raises(ConfigError, match=r"`held_out_fraction` must be in \(0, 1\), got"):
        simple_set().split(fraction)


def test_thousands_of_files_load(tmp_path):
    path = tmp_path / "many"
    simple_set([1]).save(path)
    content = (path / "episode-000000.safetensors").read_bytes()
    for number in range(1, 2000):
        (path / f"episode-{number:06d}.safetensors").write_bytes(content)
    assert Episodes.load(path).num_steps == 2000


def test_the_newest_episodes_can_be_set_aside(tmp_path):
    space, actions = spaces.Discrete(9), spaces.Discrete(2)
    episodes = Episodes.create(tmp_path / "e", space, actions)
    lengths = (3, 1, 4)
    for length in lengths:
        episodes.append(
            Episode(
                observations={"observation": np.full(length + 1, length)},
                actions=np.zeros(length, np.int64),
                rewards=np.zeros(length, np.float32),
                terminated=np.zeros(length, bool),
                truncated=np.zeros(length, bool),
            )
        )
    with pytest.raises(DatasetError, match="no episode ends at 5 of the 8 environment steps"):
        episodes.set_aside(5)
    assert episodes.set_aside(8) == 0
    assert episodes.set_aside(3) == 2
    assert (len(episodes), episodes.num_steps) == (1, 3)
    again = Episodes.load(tmp_path / "e")
    assert (len(again), again.num_steps) == (1, 3)
    assert len(list((tmp_path / "e" / "set-aside").iterdir())) == 2
    again.append(again[0])  # takes the place of the first that is gone
    assert Episodes.load(tmp_path / "e").num_steps == 6
    assert again.set_aside(0) == 2
    assert len(Episodes.load(tmp_path / "e")) == 0

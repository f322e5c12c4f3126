from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from worldgen.errors import CheckpointError, ShapeError, SpaceError
from worldgen.spaces import (
    ROOT,
    flatten,
    leaves,
    space_from_json,
    space_to_json,
    stack,
    unflatten,
)

SHAPES = npst.array_shapes(min_dims=0, max_dims=3, max_side=3)
KEYS = st.text("abcdefgh_ .0", min_size=1, max_size=4)


@st.composite
def real_boxes(draw):
    shape, dtype = draw(SHAPES), draw(st.sampled_from([np.float32, np.float64]))
    low = draw(npst.arrays(np.float32, shape, elements=st.floats(-1e3, 1e3, width=32)))
    low, high = low.astype(dtype), (low + np.float32(1.7)).astype(dtype)
    match draw(st.sampled_from(["bounded", "below", "unbounded"])):
        case "below":
            high = np.full(shape, np.inf, dtype)
        case "unbounded":
            low, high = np.full(shape, -np.inf, dtype), np.full(shape, np.inf, dtype)
    return spaces.Box(low, high, shape, dtype)


@st.composite
def whole_boxes(draw):
    dtype = draw(st.sampled_from([np.uint8, np.int8, np.int16, np.int32, np.int64]))
    shape = draw(SHAPES)
    # Beyond 2**31 Gymnasium's own sampling, by way of float64, breaks.
    lowest, highest = max(np.iinfo(dtype).min, -(2**31)), min(np.iinfo(dtype).max, 2**31 - 1)
    low = draw(npst.arrays(dtype, shape, elements=st.integers(int(lowest), int(highest) - 9)))
    return spaces.Box(low, (low + 9).astype(dtype), shape, dtype)


DISCRETE = st.builds(
    lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 9), st.integers(-5, 5)
)
MULTI_DISCRETE = npst.arrays(
    np.int64, st.sampled_from([(1,), (3,), (2, 2)]), elements=st.integers(1, 9)
).map(lambda nvec: spaces.MultiDiscrete(nvec, start=np.full_like(nvec, -2)))
MULTI_BINARY = st.sampled_from([1, 5, (2, 3)]).map(spaces.MultiBinary)
LEAVES = st.one_of(real_boxes(), whole_boxes(), DISCRETE, MULTI_DISCRETE, MULTI_BINARY)


def ordered_dict(parts):
    """A Dict with keys in any order: one that is made from a dictionary sorts them."""
    return spaces.Dict(list(parts.items()))


SPACES = st.recursive(
    LEAVES,
    lambda children: st.one_of(
        st.dictionaries(KEYS, children, min_size=1, max_size=3).map(ordered_dict),
        st.lists(children, min_size=1, max_size=3).map(spaces.Tuple),
    ),
    max_leaves=6,
)


def same(left, right):
    """Equal, dtypes included, through dictionaries and tuples."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    left, right = np.asarray(left), np.asarray(right)
    return left.dtype == right.dtype and np.array_equal(left, right)


@given(SPACES, st.integers(0, 99))
def test_unflatten_undoes_flatten(space, seed):
    space.seed(seed)
    observation = space.sample()
    flat = flatten(space, observation)
    assert list(flat) == list(leaves(space))
    assert all(flat[path].dtype == leaf.dtype for path, leaf in leaves(space).items())
    assert same(unflatten(space, flat), observation)


@given(SPACES, st.integers(1, 3))
def test_a_batch_is_what_gymnasium_makes_of_it(space, count):
    space.seed(0)
    observations = [space.sample() for _ in range(count)]
    empty = create_empty_array(space, count)
    expected = concatenate(space, observations, empty)
    flat = stack(space, observations)
    assert same(unflatten(space, flat), expected)
    assert same(flatten(space, expected), flat)


@given(SPACES)
def test_a_space_comes_back_from_json_as_it_was(space):
    back = space_from_json(json.loads(json.dumps(space_to_json(space), allow_nan=False)))
    assert back == space
    assert back.dtype == space.dtype
    assert list(leaves(back)) == list(leaves(space))


def test_text_comes_back_from_json():
    space = spaces.Dict(mission=spaces.Text(12, min_length=2, charset="xyz"))
    assert space_from_json(json.loads(json.dumps(space_to_json(space)))) == space


def test_paths_are_keys_and_indices():
    space = spaces.Tuple([spaces.Discrete(2), spaces.Dict(a=spaces.Dict(b=spaces.Discrete(3)))])
    assert list(leaves(space)) == ["0", "1/a/b"]
    assert list(leaves(spaces.Discrete(2))) == [ROOT]


@given(LEAVES)
def test_the_flat_form_of_a_space_with_one_leaf_is_taken_too(space):
    space.seed(0)
    observation = space.sample()
    assert same(flatten(space, {ROOT: observation}), flatten(space, observation))


def test_a_dictionary_without_the_one_leaf_is_refused():
    with pytest.raises(ShapeError, match="must hold 'observation' as its space"):
        flatten(spaces.Discrete(2), {"image": 1})


def test_extra_parts_of_an_observation_are_ignored():
    space = spaces.Dict(a=spaces.Discrete(2))
    assert flatten(space, {"a": 1, "mission": "go"}) == {"a": np.asarray(1)}


@pytest.mark.parametrize("observation", [{}, {"a": {}}, 3])
def test_a_missing_part_is_named(observation):
    space = spaces.Dict(a=spaces.Dict(b=spaces.Discrete(2)))
    with pytest.raises(ShapeError, match=r"must hold 'a(/b)?' as its space .* says"):
        flatten(space, observation)


def test_a_key_with_a_slash_is_refused():
    with pytest.raises(SpaceError, match="without '/', got 'a/b'"):
        leaves(spaces.Dict({"a/b": spaces.Discrete(2)}))


def test_a_space_that_json_cannot_hold_is_named():
    with pytest.raises(SpaceError, match=r"must be Box, Discrete, .* got Sequence"):
        space_to_json(spaces.Dict(a=spaces.Sequence(spaces.Discrete(2))))


@pytest.mark.parametrize(
    "description",
    [
        {},
        {"type": "Graph"},
        {"type": "Box", "low": 0, "high": 1, "shape": [2]},
        {"type": "Discrete", "n": -1, "start": 0},
        {"type": "Dict", "spaces": {"a": {"type": "Box"}}},
    ],
)
def test_a_damaged_description_is_an_error_of_ours(description):
    with pytest.raises(CheckpointError, match="a saved space is damaged"):
        space_from_json(description)

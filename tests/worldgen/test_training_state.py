"""Nested states come back as they were, and a damaged file is said to be one."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldgen.errors import CheckpointError
from worldgen.training_state import load_state, save_state

PLAIN = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False)
TENSORS = st.builds(
    lambda shape, dtype: torch.arange(int(torch.tensor(shape).prod())).reshape(shape).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool]),
)
STATES = st.recursive(
    PLAIN | st.text(max_size=5) | TENSORS,
    lambda part: (
        st.lists(part, max_size=3)
        | st.lists(part, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), part, max_size=3)
    ),
    max_leaves=8,
)


def assert_same(left, right):
    assert type(left) is type(right)
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    else:
        assert left == right


@settings(max_examples=50, deadline=None)
@given(STATES)
def test_a_state_comes_back_as_it_was(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("state") / "deep" / "state.safetensors"
    save_state(path, state)
    assert_same(load_state(path), state)
    assert os.listdir(path.parent) == ["state.safetensors"]


def test_tensors_that_share_memory_come_back_apart(tmp_path):
    whole = torch.arange(6.0)
    save_state(
        tmp_path / "state", {"whole": whole, "part": whole[2:4], "turned": whole.view(2, 3).T}
    )
    found = load_state(tmp_path / "state")
    assert_same(found, {"whole": whole, "part": whole[2:4], "turned": whole.view(2, 3).T})


def test_the_state_of_an_optimizer_goes_on(tmp_path):
    def steps(optimizer, weight, count):
        for _ in range(count):
            optimizer.zero_grad()
            weight.pow(2).sum().backward()
            optimizer.step()

    weight = torch.nn.Parameter(torch.ones(3, 3))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    steps(optimizer, weight, 3)
    save_state(tmp_path / "state", {"weight": weight, "optimizer": optimizer.state_dict()})
    steps(optimizer, weight, 2)
    found = load_state(tmp_path / "state")
    again = torch.nn.Parameter(found["weight"])
    other = torch.optim.AdamW([again], lr=0.5)
    other.load_state_dict(found["optimizer"])
    steps(other, again, 2)
    assert torch.equal(again, weight)


def test_what_is_no_plain_value_is_refused_and_the_old_file_stays(tmp_path):
    save_state(tmp_path / "state", {"number": 1})
    with pytest.raises(TypeError, match="plain values, got set"):
        save_state(tmp_path / "state", {"number": {2}})
    assert load_state(tmp_path / "state") == {"number": 1}


@pytest.mark.parametrize("content", [b"", b"torn", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_damaged_file_is_said_to_be_one(tmp_path, content):
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged or no state"):
        load_state(tmp_path / "state")
    with pytest.raises(CheckpointError, match="is damaged or no state"):
        load_state(tmp_path / "missing")

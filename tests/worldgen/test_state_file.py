"""States of tensors and plain values, in a file and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldgen.errors import CheckpointError
from worldgen.state_file import load_state, save_state

DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)


@st.composite
def tensors(draw: Any) -> Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    made = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    return (3 * made).to(draw(st.sampled_from(DTYPES)))


plain = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)
)
states = st.recursive(
    tensors() | plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    ),
    max_leaves=12,
)


def assert_equal(first: Any, second: Any) -> None:
    """Equal in values, types and dtypes."""
    assert type(first) is type(second)
    if isinstance(first, Tensor):
        assert first.dtype == second.dtype
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for key, value in first.items():
            assert_equal(value, second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_equal(one, other)
    else:
        assert first == second


@given(states)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_state_comes_back_as_it_was(tmp_path: Path, state: Any) -> None:
    save_state(tmp_path / "state", "test", state)
    assert_equal(load_state(tmp_path / "state", "test"), state)
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_an_optimizer_comes_back(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    save_state(tmp_path / "state", "test", optimizer.state_dict())
    assert_equal(load_state(tmp_path / "state", "test"), optimizer.state_dict())


def test_views_and_shared_memory_are_stored_as_values(tmp_path: Path) -> None:
    base = torch.arange(12).view(3, 4)
    state = {"whole": base, "same": base, "column": base[:, 1], "turned": base.T}
    save_state(tmp_path / "state", "test", state)
    assert_equal(load_state(tmp_path / "state", "test"), state)


@pytest.mark.parametrize("state", [object(), {1.5: 0}, [{"a": {2}}], torch.float32])
def test_anything_else_is_refused_and_the_old_file_stays(tmp_path: Path, state: Any) -> None:
    save_state(tmp_path / "state", "test", 7)
    with pytest.raises(TypeError, match="state"):
        save_state(tmp_path / "state", "test", state)
    assert load_state(tmp_path / "state", "test") == 7


def test_a_wrong_file_is_said_so(tmp_path: Path) -> None:
    file = tmp_path / "state"
    with pytest.raises(CheckpointError, match="there is none"):
        load_state(file, "test")
    save_state(file, "test", {"a": torch.zeros(100)})
    with pytest.raises(CheckpointError, match="must hold a model, got 'test'"):
        load_state(file, "model")
    whole = file.read_bytes()
    for torn in (b"", b"no", whole[:50], whole[:-1], whole.replace(b"items", b"itams")):
        file.write_bytes(torn)
        with pytest.raises(CheckpointError, match="is damaged"):
            load_state(file, "test")
    file.write_bytes(whole.replace(b'"format_version":"1"', b'"format_version":"9"'))
    with pytest.raises(CheckpointError, match="has format version '9'"):
        load_state(file, "test")

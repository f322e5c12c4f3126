from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, dataclass

import pytest

from worldgen.config import Config, require
from worldgen.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner(Config):
    width: int = 8
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outer(Config):
    inner: Inner = Inner()
    rate: float = 0.5
    label: str | None = None
    on: bool = True


@dataclass(frozen=True, kw_only=True)
class Checked(Config):
    horizon: int = 1

    def __post_init__(self) -> None:
        require(self.horizon >= 1, "horizon", "be at least 1", self.horizon)


def test_a_config_comes_back_from_json_as_it_was():
    config = Outer(inner=Inner(width=3, names=("a", "b")), rate=0.1, label="x", on=False)
    assert Outer.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_missing_fields_take_their_defaults():
    assert Outer.from_dict({"inner": {"width": 2}}) == Outer(inner=Inner(width=2))
    assert Outer.from_dict({}) == Outer()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rat": 1.0}, "`Outer` has no field rat; its fields are inner, label, on, rate"),
        ({"inner": {"depth": 1}}, "`Inner` has no field depth"),
    ],
)
def test_an_unknown_field_is_refused_at_every_level(values, message):
    with pytest.raises(ConfigError, match=message):
        Outer.from_dict(values)


def test_loading_checks_as_making_does():
    with pytest.raises(ConfigError, match="`horizon` must be at least 1, got 0"):
        Checked.from_dict({"horizon": 0})


def test_a_config_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Outer().rate = 1.0  # type: ignore[misc]


def test_require_shows_strings_as_strings():
    with pytest.raises(ConfigError, match="`mode` must be a or b, got 'c'"):
        require(False, "mode", "be a or b", "c")
    require(True, "mode", "be a or b", "c")

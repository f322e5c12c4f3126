"""Single fields of a config as keywords of the class that has it.

Functions:
    configured: a config with some of its fields replaced.
"""

from __future__ import annotations

import dataclasses
import difflib
import numbers
import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from worldgen.config import Config, require
from worldgen.errors import ConfigError

__all__ = ["configured"]

AnyConfig = TypeVar("AnyConfig", bound=Config)


def configured(owner: str, config: AnyConfig, overrides: Mapping[str, Any]) -> AnyConfig:
    """Replace fields of `config` by the keywords that `owner` was given.

    Raises:
        ConfigError: If a keyword is no field of it, or its value of another kind than the field.
    """
    known = {field.name for field in dataclasses.fields(config)}
    unknown = sorted(set(overrides) - known)
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(
            f"`{owner}` has no argument {', '.join(unknown)}; {hint}`{type(config).__name__}` has "
            f"{', '.join(sorted(known))}"
        )
    hints = get_type_hints(type(config))
    for name, value in overrides.items():
        require(_is_a(value, hints[name]), name, f"be {_described(hints[name])}", value)
    return dataclasses.replace(config, **overrides)


_KINDS: dict[Any, tuple[Any, str]] = {
    bool: (bool | np.bool_, "True or False"),
    int: (numbers.Integral, "an integer"),
    float: (numbers.Real, "a number, for which no schedule is taken"),
    str: (str, "a string"),
    type(None): (type(None), "None"),
}


def _is_a(value: object, hint: Any) -> bool:
    """Whether a value is of a field's kind, as far as the kinds of `Config` go."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_is_a(value, part) for part in get_args(hint))
    if hint in _KINDS:
        return isinstance(value, _KINDS[hint][0]) and (hint is bool or not isinstance(value, bool))
    return not (isinstance(hint, type) and issubclass(hint, Config)) or isinstance(value, hint)


def _described(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_described(part) for part in get_args(hint))
    return _KINDS[hint][1] if hint in _KINDS else f"a {hint.__name__}"

"""Configuration dataclasses that go to and from plain dictionaries.

Classes:
    Config: base of every component's configuration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self, get_type_hints

from worldgen.errors import ConfigError

__all__ = ["Config", "require"]


def require(condition: bool, name: str, rule: str, value: object) -> None:
    """Raise `ConfigError` in the project's one wording unless `condition` holds.

    >>> require(False, "horizon", "be at least 1", 0)
    Traceback (most recent call last):
    ...
    worldgen.errors.ConfigError: `horizon` must be at least 1, got 0
    """
    if not condition:
        raise ConfigError(f"`{name}` must {rule}, got {value!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A frozen dataclass that is written as JSON beside the weights.

    Fields are numbers, strings, booleans, None, tuples of these, or other `Config`s.
    """

    def to_dict(self) -> dict[str, Any]:
        """Give the fields as plain JSON values, nested configs as nested dictionaries."""
        return {
            field.name: _to_plain(getattr(self, field.name)) for field in dataclasses.fields(self)
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build the config from `to_dict`'s result; missing fields take their defaults.

        Raises:
            ConfigError: If a key is not a field of this config.
        """
        hints = get_type_hints(cls)
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(
                f"`{cls.__name__}` has no field {', '.join(unknown)}; its fields are "
                f"{', '.join(sorted(known))}"
            )
        return cls(**{name: _from_plain(hints[name], value) for name, value in values.items()})


def _to_plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_to_plain(item) for item in value]
    return value


def _from_plain(hint: Any, value: Any) -> Any:
    if isinstance(hint, type) and issubclass(hint, Config) and isinstance(value, Mapping):
        return hint.from_dict(value)
    return tuple(value) if isinstance(value, list) else value

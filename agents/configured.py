"""Single fields of a config as keywords of the class that has it.

Functions:
    configured: a config with some of its fields replaced.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from worldgen.config import Config
from worldgen.errors import ConfigError

__all__ = ["configured"]

AnyConfig = TypeVar("AnyConfig", bound=Config)


def configured(owner: str, config: AnyConfig, overrides: Mapping[str, Any]) -> AnyConfig:
    """Replace fields of `config` by the keywords that `owner` was given.

    Raises:
        ConfigError: If a keyword is no field of it.
    """
    known = {field.name for field in dataclasses.fields(config)}
    unknown = sorted(set(overrides) - known)
    if unknown:
        raise ConfigError(
            f"`{owner}` has no argument {', '.join(unknown)}; `{type(config).__name__}` has "
            f"{', '.join(sorted(known))}"
        )
    return dataclasses.replace(config, **overrides)

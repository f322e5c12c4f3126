"""Environments and the episodes that were collected in them.

Names are imported on first use, so that making an environment need not load torch. `collect`
is `worldgen.collect`: here the name is its module's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worldgen.data.environment import (
        EnvironmentSpec,
        EnvLike,
        environment_spec,
        episode_success,
        make_env,
        prepare_env,
    )
    from worldgen.data.episode import Episode, EpisodeBuilder
    from worldgen.data.episodes import Episodes
    from worldgen.data.minari_episodes import export_minari, import_minari, load_episodes
    from worldgen.data.token_dataset import Context, TokenDataset

__all__ = [
    "Context",
    "EnvLike",
    "EnvironmentSpec",
    "Episode",
    "EpisodeBuilder",
    "Episodes",
    "TokenDataset",
    "environment_spec",
    "episode_success",
    "export_minari",
    "import_minari",
    "load_episodes",
    "make_env",
    "prepare_env",
]

_HOMES = {
    "Context": "token_dataset",
    "EnvLike": "environment",
    "EnvironmentSpec": "environment",
    "Episode": "episode",
    "EpisodeBuilder": "episode",
    "Episodes": "episodes",
    "TokenDataset": "token_dataset",
    "environment_spec": "environment",
    "episode_success": "environment",
    "export_minari": "minari_episodes",
    "import_minari": "minari_episodes",
    "load_episodes": "minari_episodes",
    "make_env": "environment",
    "prepare_env": "environment",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'worldgen.data' has no attribute {name!r}")
    return getattr(import_module(f"worldgen.data.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__

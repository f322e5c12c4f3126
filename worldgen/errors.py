"""Errors that worldgen raises on purpose, all under `WorldgenError`.

Each message names the argument, the rule, the value and the remedy. The classes also
derive from the built-in error that a caller would expect, so `except ValueError` works.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DatasetError",
    "EnvironmentIdError",
    "MissingDependencyError",
    "ShapeError",
    "SpaceError",
    "TrainingError",
    "WorldgenError",
]


class WorldgenError(Exception):
    """Base of every error that worldgen raises on purpose."""


class ConfigError(WorldgenError, ValueError):
    """An argument or a configuration field breaks its rule."""


class ShapeError(WorldgenError, ValueError):
    """An array does not have the shape or the dtype that the model was built for."""


class SpaceError(WorldgenError, ValueError):
    """A space is not supported, is ambiguous, or does not fit the model."""


class EnvironmentIdError(WorldgenError, ValueError):
    """An environment id is not registered or cannot be made."""


class CheckpointError(WorldgenError):
    """A saved model or run is missing, damaged, foreign, or would be overwritten."""


class DatasetError(WorldgenError):
    """Episodes are missing, damaged, too short, or do not fit the model."""


class TrainingError(WorldgenError, RuntimeError):
    """Training cannot go on, for example because the loss is not finite."""


class MissingDependencyError(WorldgenError, ImportError):
    """An optional package is needed; the message holds the install command."""

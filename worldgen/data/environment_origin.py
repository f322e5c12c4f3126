"""Where an environment object came from, if it can be made again from names alone.

Functions:
    environment_origin: the registered id and the wrappers of an environment object.
    is_transparent: whether a wrapper changes nothing that has to be repeated.
    id_with_package: a registered id with the package that registers it.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any, TypeAlias

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from worldgen.data.prepared_observation import PrepareObservation, wrapper_chain

__all__ = ["environment_origin", "id_with_package", "is_transparent"]

Env: TypeAlias = gym.Env[Any, Any]

_TRANSPARENT = (
    PrepareObservation,
    gym.wrappers.PassiveEnvChecker,
    gym.wrappers.OrderEnforcing,
    gym.wrappers.TimeLimit,
    gym.wrappers.RecordEpisodeStatistics,
    gym.wrappers.RecordVideo,
    gym.wrappers.RenderCollection,
    gym.wrappers.HumanRendering,
)
"""Wrappers that need not be repeated: `make` puts them on, or they only look on."""


def environment_origin(env: Env) -> tuple[str, tuple[str, ...]] | None:
    """Give the id and the wrappers ("module:Class", innermost first) that make `env` again.

    Returns:
        None where that is not sure: no registered id, arguments of its own, or a wrapper with
        arguments that are not its defaults.
    """
    *layers, base = wrapper_chain(env)
    spec = base.spec
    registered = None if spec is None else gym.registry.get(spec.id)
    if spec is None or registered is None or registered.additional_wrappers:
        return None
    arguments = {key: value for key, value in spec.kwargs.items() if key != "render_mode"}
    if not _equal(arguments, registered.kwargs):
        return None
    limit = registered.max_episode_steps
    limits = [e._max_episode_steps for e in layers if isinstance(e, gym.wrappers.TimeLimit)]
    if limits != ([] if limit is None else [limit]):
        return None
    layers = [layer for layer in reversed(layers) if not _is_implied(layer)]
    if not all(_has_default_arguments(layer) for layer in layers):
        return None
    names = tuple(f"{type(layer).__module__}:{type(layer).__name__}" for layer in layers)
    return id_with_package(spec), names


def is_transparent(wrapper: str) -> bool:
    """Tell whether a wrapper "module:Class" need not be repeated."""
    return wrapper in {f"{kind.__module__}:{kind.__name__}" for kind in _TRANSPARENT}


def id_with_package(spec: EnvSpec) -> str:
    """Put the package in front that, as a rule, registers the id when it is imported."""
    entry = spec.entry_point
    module = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    package = module.partition(".")[0]
    known = package in ("", "__main__", "gymnasium", "minigrid")
    return spec.id if known else f"{package}:{spec.id}"


def _equal(left: Any, right: Any) -> bool:
    try:
        return bool(left == right)
    except ValueError:  # arrays among the values
        return False


def _is_implied(layer: Env) -> bool:
    monitor = type(layer).__module__ == "stable_baselines3.common.monitor"
    return monitor or isinstance(layer, _TRANSPARENT)


def _has_default_arguments(layer: Env) -> bool:
    """Tell whether the wrapper's class can be imported and was called with the environment alone.

    Arguments are known from Gymnasium's record of them, or from attributes of their names.
    """
    kind, unknown = type(layer), object()
    if kind.__module__ == "__main__" or not _is_importable(kind):
        return False
    recorded = getattr(layer, "_saved_kwargs", {})
    _, *parameters = inspect.signature(kind).parameters.values()
    return all(
        _equal(recorded.get(p.name, vars(layer).get(p.name, unknown)), p.default)
        for p in parameters
    )


def _is_importable(kind: type) -> bool:
    try:
        return getattr(importlib.import_module(kind.__module__), kind.__name__) is kind
    except (ImportError, AttributeError):
        return False

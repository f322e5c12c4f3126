"""Gymnasium spaces as a flat set of leaves, and as JSON.

Inside worldgen an observation is a flat dictionary from *path* to array, whatever its
space: a Dict's paths are its keys joined by "/", a Tuple's are its indices, and a space
that is neither has the one path "observation".

Functions:
    leaves: path -> leaf space.
    flatten, unflatten: nested observations to and from the flat dictionary.
    in_short: a space in a line.
    category_sizes: how many values each number of a categorical space has, and the first.
    stack: a list of single observations as one flat batch.
    space_to_json, space_from_json: spaces beside the weights and the episodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from worldgen.errors import CheckpointError, ShapeError, SpaceError

__all__ = [
    "ROOT",
    "category_sizes",
    "flatten",
    "in_short",
    "leaves",
    "space_from_json",
    "space_to_json",
    "stack",
    "unflatten",
]

ROOT = "observation"
"""Path of the only leaf of a space that is neither Dict nor Tuple."""


def leaves(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """List the leaf spaces by path, in the space's own order.

    >>> pair = spaces.Tuple([spaces.Discrete(3)])
    >>> list(leaves(spaces.Dict({"b": spaces.Discrete(2), "a": pair})))
    ['a/0', 'b']

    Raises:
        SpaceError: If a Dict key is not a string or contains "/", or a leaf occurs twice.
    """
    found: dict[str, spaces.Space[Any]] = {}
    _collect_leaves(space, "", found)
    return found


def _collect_leaves(
    space: spaces.Space[Any], prefix: str, found: dict[str, spaces.Space[Any]]
) -> None:
    children = _children(space)
    if children is None:
        found[prefix.rstrip("/") or ROOT] = space
        return
    for key, child in children.items():
        _collect_leaves(child, f"{prefix}{key}/", found)


def _children(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]] | None:
    if isinstance(space, spaces.Tuple):
        return {str(index): child for index, child in enumerate(space.spaces)}
    if not isinstance(space, spaces.Dict):
        return None
    for key in space.spaces:
        if not isinstance(key, str) or "/" in key or not key:
            raise SpaceError(
                f"a Dict space's key must be a non-empty string without '/', got {key!r}"
            )
    return dict(space.spaces)


def in_short(space: spaces.Space[Any]) -> str:
    """Describe a space in a line, bounds of a Box by their extremes.

    >>> in_short(spaces.Dict(a=spaces.Box(np.array([0, 1]), np.array([3, 2]), dtype=np.int64)))
    "Dict('a': Box(0, 3, (2,), int64))"
    """
    if isinstance(space, spaces.Dict):
        parts = [f"{key!r}: {in_short(part)}" for key, part in space.spaces.items()]
        return f"Dict({', '.join(parts)})"
    if isinstance(space, spaces.Tuple):
        return f"Tuple({', '.join(map(in_short, space.spaces))})"
    if isinstance(space, spaces.Box):
        return f"Box({space.low.min()}, {space.high.max()}, {space.shape}, {space.dtype})"
    return str(space)


def flatten(space: spaces.Space[Any], observation: Any) -> dict[str, np.ndarray]:
    """Turn one nested observation, or a nested batch of them, into path -> array.

    Leading batch dimensions are kept. Extra keys of a dictionary observation are ignored,
    so that an environment's unused parts (a mission text) need not be removed first. For a
    space that is neither Dict nor Tuple, the flat dictionary itself is taken too, since an
    `Episode` holds its observations in it.

    >>> flatten(spaces.Discrete(5), [1, 2])
    {'observation': array([1, 2])}
    >>> flatten(spaces.Discrete(5), {"observation": [1, 2]})
    {'observation': array([1, 2])}

    Raises:
        ShapeError: If a part of the observation is missing.
    """
    if isinstance(observation, Mapping) and _children(space) is None:
        space = spaces.Dict({ROOT: space})
    flat: dict[str, np.ndarray] = {}
    _flatten_into(space, observation, "", flat)
    return flat


def _flatten_into(
    space: spaces.Space[Any], value: Any, prefix: str, flat: dict[str, np.ndarray]
) -> None:
    children = _children(space)
    if children is None:
        flat[prefix.rstrip("/") or ROOT] = np.asarray(value)
        return
    for key, child in children.items():
        try:
            part = value[key] if isinstance(space, spaces.Dict) else value[int(key)]
        except (KeyError, IndexError, TypeError) as error:
            raise ShapeError(
                f"the observation must hold {prefix + key!r} as its space {in_short(space)} "
                f"says, got {type(value).__name__}"
            ) from error
        _flatten_into(child, part, f"{prefix}{key}/", flat)


def unflatten(space: spaces.Space[Any], flat: Mapping[str, Any]) -> Any:
    """Undo `flatten`: nested dictionaries and tuples as the space has them."""
    return _unflatten_from(space, flat, "")


def _unflatten_from(space: spaces.Space[Any], flat: Mapping[str, Any], prefix: str) -> Any:
    children = _children(space)
    if children is None:
        return flat[prefix.rstrip("/") or ROOT]
    parts = {
        key: _unflatten_from(child, flat, f"{prefix}{key}/") for key, child in children.items()
    }
    return tuple(parts.values()) if isinstance(space, spaces.Tuple) else parts


def category_sizes(
    space: spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary,
) -> tuple[np.ndarray, np.ndarray]:
    """Give the number of values of each flattened entry, and its lowest value, both (N,) int64.

    >>> category_sizes(spaces.Discrete(3, start=-1))
    (array([3]), array([-1]))
    """
    if isinstance(space, spaces.Discrete):
        sizes, start = np.array([space.n]), np.array([space.start])
    elif isinstance(space, spaces.MultiDiscrete):
        sizes, start = space.nvec.ravel(), space.start.ravel()
    else:
        sizes = np.full(int(np.prod(space.shape)), 2)
        start = np.zeros_like(sizes)
    return sizes.astype(np.int64), start.astype(np.int64)


def stack(space: spaces.Space[Any], observations: Sequence[Any]) -> dict[str, np.ndarray]:
    """Stack single nested observations into a flat batch, path -> (N, ...), in leaf dtypes."""
    flat = [flatten(space, observation) for observation in observations]
    return {
        path: np.stack([item[path] for item in flat]).astype(leaf.dtype, copy=False)
        for path, leaf in leaves(space).items()
    }


def space_to_json(space: spaces.Space[Any]) -> dict[str, Any]:
    """Describe a space in plain JSON values.

    Raises:
        SpaceError: If the space is none of Box, Discrete, MultiDiscrete, MultiBinary, Text,
            Dict, Tuple.
    """
    match space:
        case spaces.Box():
            return {
                "type": "Box",
                "low": _bound_to_json(space.low),
                "high": _bound_to_json(space.high),
                "shape": list(space.shape),
                "dtype": str(space.dtype),
            }
        case spaces.Discrete():
            return {
                "type": "Discrete",
                "n": int(space.n),
                "start": int(space.start),
                "dtype": str(space.dtype),
            }
        case spaces.MultiDiscrete():
            return {
                "type": "MultiDiscrete",
                "nvec": space.nvec.tolist(),
                "start": space.start.tolist(),
                "dtype": str(space.dtype),
            }
        case spaces.MultiBinary():
            n = list(space.shape) if isinstance(space.n, tuple) else int(space.n)
            return {"type": "MultiBinary", "n": n}
        case spaces.Text():
            return {
                "type": "Text",
                "min_length": space.min_length,
                "max_length": space.max_length,
                "charset": "".join(sorted(space.character_set)),
            }
        case spaces.Dict():
            return {
                "type": "Dict",
                "spaces": {key: space_to_json(child) for key, child in space.spaces.items()},
            }
        case spaces.Tuple():
            return {"type": "Tuple", "spaces": [space_to_json(child) for child in space.spaces]}
    raise SpaceError(
        f"`space` must be Box, Discrete, MultiDiscrete, MultiBinary, Text, Dict or Tuple, "
        f"got {type(space).__name__}"
    )


def space_from_json(description: Mapping[str, Any]) -> spaces.Space[Any]:
    """Rebuild the space that `space_to_json` described.

    Raises:
        CheckpointError: If the description is not one that `space_to_json` writes.
    """
    try:
        return _space_from_json(description)
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise CheckpointError(f"a saved space is damaged: {description!r} ({error})") from error


def _space_from_json(description: Mapping[str, Any]) -> spaces.Space[Any]:
    match description["type"]:
        case "Box":
            shape, dtype = tuple(description["shape"]), np.dtype(description["dtype"])
            low = _bound_from_json(description["low"], shape, dtype)
            high = _bound_from_json(description["high"], shape, dtype)
            return spaces.Box(low, high, shape, dtype.type)
        case "Discrete":
            dtype = np.dtype(description["dtype"]).type
            return spaces.Discrete(description["n"], start=description["start"], dtype=dtype)
        case "MultiDiscrete":
            nvec, start = np.array(description["nvec"]), np.array(description["start"])
            return spaces.MultiDiscrete(nvec, np.dtype(description["dtype"]).type, start=start)
        case "MultiBinary":
            return spaces.MultiBinary(description["n"])
        case "Text":
            return spaces.Text(
                description["max_length"],
                min_length=description["min_length"],
                charset=description["charset"],
            )
        case "Dict":
            parts = description["spaces"].items()
            # As pairs, since a dictionary would be sorted and the leaves' order is the tokens'.
            return spaces.Dict([(key, space_from_json(child)) for key, child in parts])
        case "Tuple":
            return spaces.Tuple([space_from_json(child) for child in description["spaces"]])
    raise ValueError(f"unknown space type {description['type']!r}")


def _bound_to_json(bound: np.ndarray) -> Any:
    """Write a Box bound, as one value where all entries agree; infinities become strings."""
    first = bound.flat[0] if bound.size else np.zeros((), bound.dtype)
    values = first if np.all(bound == first) else bound
    if bound.dtype.kind == "f":
        return np.vectorize(lambda x: repr(float(x)))(values).tolist()
    return values.tolist()


def _bound_from_json(bound: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    array = np.array(bound)
    if dtype.kind == "f":
        array = array.astype(np.float64)
    return np.broadcast_to(array.astype(dtype), shape).copy()

"""Observations as pictures, for films, `render()` and TensorBoard.

Functions:
    render: one observation of any supported space as RGB pixels.
    leaf_kind: how a leaf is drawn.
    picture: one leaf as pixels.
    patch_picture: a patch of a grid or a picture as pixels.
    words: a categorical leaf in words.
    side_by_side: pictures in a row.
    font: the typeface of every picture that worldgen draws.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from PIL import Image, ImageDraw, ImageFont

from worldgen.config import require
from worldgen.errors import ShapeError
from worldgen.minigrid_state import Agent, agents, carried_symbols, is_whole_grid, read_agent
from worldgen.spaces import leaves

__all__ = [
    "BACKGROUND",
    "GAP_TO_CARRIED",
    "INK",
    "LeafKind",
    "font",
    "leaf_kind",
    "patch_picture",
    "picture",
    "render",
    "side_by_side",
    "words",
]

LeafKind = Literal["minigrid", "symbols", "image", "numbers", "words"]

BACKGROUND = (22, 24, 29)
INK = (226, 228, 233)
_FAINT = (58, 62, 71)
_ACCENT = (96, 165, 250)
GAP_TO_CARRIED = 4
"""Pixels between MiniGrid's whole grid and the tile below it, which the agent carries."""

# Okabe and Ito's colours, told apart by nearly everyone; category 0 is almost the background.
_CATEGORY_COLOURS = np.array(
    [
        (38, 41, 48),
        (230, 159, 0),
        (86, 180, 233),
        (0, 158, 115),
        (240, 228, 66),
        (0, 114, 178),
        (213, 94, 0),
        (204, 121, 167),
        (160, 165, 175),
    ],
    dtype=np.uint8,
)
_MINIGRID_HIGHS = (10, 5, 3)
_MINIGRID_AGENT = 10
_FACING_UP = 3
_MOST_BARS = 16


def render(
    observation_space: spaces.Space[Any],
    observation: Mapping[str, np.ndarray],
    *,
    size: int = 224,
    modalities: Mapping[str, str] | None = None,
) -> np.ndarray:
    """Draw one observation, its leaves side by side.

    Args:
        observation_space: Space of the observation.
        observation: Flat observation, path -> array without a batch dimension.
        size: Height of the leaves' pictures in pixels, about.
        modalities: Path -> "symbolic", "image" or "vector" where the space does not say.

    Returns:
        Pixels, shape (H, W, 3), uint8.

    Raises:
        ShapeError: If a leaf is missing or does not have its space's shape.
    """
    require(size >= 16, "size", "be at least 16", size)
    pictures, captions = [], []
    parts = leaves(observation_space)
    values = {path: _checked(path, leaf, observation) for path, leaf in parts.items()}
    beside = agents(parts)
    inside = {path for pair in beside.values() for path in pair}
    for path, leaf in parts.items():
        kind = leaf_kind(leaf, (modalities or {}).get(path))
        if path in inside:
            continue
        if kind == "words":
            captions.append(words(path, values[path]))
        else:
            agent = read_agent(beside[path], values) if path in beside else None
            pictures.append(picture(kind, leaf, values[path], size=size, agent=agent))
    if captions:
        pictures.append(_caption(captions, size))
    return side_by_side(pictures)


def leaf_kind(leaf: spaces.Space[Any], declared: str | None = None) -> LeafKind:
    """Say how a leaf is drawn; `declared` is the modality that the user gave it, if any."""
    if not isinstance(leaf, spaces.Box):
        return "words"
    integer = np.issubdtype(leaf.dtype, np.integer)
    flat = len(leaf.shape) == 2 or (len(leaf.shape) == 3 and min(leaf.shape) <= 4)
    if declared == "vector" or not (integer and flat):
        return "numbers"
    if declared == "image" or (declared is None and leaf.high.max() >= 255):
        return "image"
    is_view = leaf.shape[2:] == (3,) and tuple(leaf.high.reshape(-1, 3).max(0)) == (_MINIGRID_HIGHS)
    return "minigrid" if is_view or is_whole_grid(leaf) else "symbols"


def picture(
    kind: LeafKind,
    leaf: spaces.Space[Any],
    value: np.ndarray,
    *,
    size: int,
    agent: Agent | None = None,
) -> np.ndarray:
    """Draw one leaf at about `size` pixels' height: (H, W, 3) uint8.

    An `agent` is drawn on MiniGrid's whole grid, and what it carries below.
    """
    match kind:
        case "minigrid" if is_whole_grid(leaf):
            return _whole_minigrid(value, agent, size)
        case "minigrid":
            return _minigrid(value, size)
        case "symbols":
            return _symbols(value, size)
        case "image":
            return _scaled(_as_rgb(value), size)
    assert isinstance(leaf, spaces.Box)
    return _numbers(np.asarray(value, np.float64).ravel(), leaf, size)


def patch_picture(
    kind: LeafKind, leaf: spaces.Space[Any], patch: np.ndarray, *, size: int
) -> np.ndarray:
    """Draw a patch of cells or pixels (rows, columns, channels) at about `size` pixels' height.

    Nothing is added that the patch does not hold, such as the agent of MiniGrid's view.
    """
    if kind == "minigrid":
        facing = {(int(x), int(y)): int(patch[x, y, 2]) for x, y in _agent_cells(patch)}
        return _tiles(patch, facing, size, highlight=not is_whole_grid(leaf))
    return _symbols(patch, size) if kind == "symbols" else _scaled(_as_rgb(patch), size)


def words(path: str, value: np.ndarray) -> str:
    """Say a categorical leaf in words.

    >>> words("direction", np.array(2))
    'direction 2'
    """
    entries = [str(entry) for entry in np.asarray(value).ravel()[:8]]
    rest = " ..." if np.size(value) > len(entries) else ""
    return f"{path} {' '.join(entries)}{rest}"


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Give Pillow's own typeface at `size` pixels."""
    return ImageFont.load_default(size)


def side_by_side(pictures: list[np.ndarray], gap: int = 8) -> np.ndarray:
    """Lay pictures in a row, centred on the background."""
    height = max(len(part) for part in pictures)
    width = sum(part.shape[1] for part in pictures) + gap * (len(pictures) - 1)
    canvas = np.full((height, width, 3), BACKGROUND, np.uint8)
    left = 0
    for part in pictures:
        top = (height - len(part)) // 2
        canvas[top : top + len(part), left : left + part.shape[1]] = part
        left += part.shape[1] + gap
    return canvas


def _checked(
    path: str, leaf: spaces.Space[Any], observation: Mapping[str, np.ndarray]
) -> np.ndarray:
    value = observation.get(path)
    if value is None or np.shape(value) != (leaf.shape or ()):
        actual = "nothing" if value is None else np.shape(value)
        raise ShapeError(
            f"`observation` must hold {path!r} with shape {leaf.shape or ()}, got {actual}"
        )
    return np.asarray(value)


def _minigrid(cells: np.ndarray, size: int) -> np.ndarray:
    """Draw MiniGrid's cells with MiniGrid's own tiles.

    A grid without an agent is the agent's own view: it stands at the middle of the bottom
    row and faces up.
    """
    columns, rows = cells.shape[:2]
    facing = {(int(x), int(y)): int(cells[x, y, 2]) for x, y in _agent_cells(cells)}
    if facing:
        return _tiles(cells, facing, size, highlight=False)
    return _tiles(cells, {(columns // 2, rows - 1): _FACING_UP}, size, highlight=True)


def _agent_cells(cells: np.ndarray) -> np.ndarray:
    return np.argwhere(cells[..., 0] == _MINIGRID_AGENT)


def _whole_minigrid(cells: np.ndarray, agent: Agent | None, size: int) -> np.ndarray:
    """Draw a grid that is kept without its agent; what the agent carries is a tile below."""
    if agent is None:
        return _tiles(cells, {}, size, highlight=False)
    drawn = _tiles(cells, {(agent.x, agent.y): agent.direction}, size, highlight=False)
    carried = carried_symbols(agent.carrying)
    held = np.array([[(*carried, 0) if carried else (1, 0, 0)]])
    tile = _tiles(held, {}, len(drawn) // cells.shape[1], highlight=False)
    strip = Image.new("RGB", (drawn.shape[1], len(tile) + GAP_TO_CARRIED), BACKGROUND)
    strip.paste(Image.fromarray(tile), (0, GAP_TO_CARRIED))
    place = (len(tile) + 6, GAP_TO_CARRIED + len(tile) // 2)
    text = "carried" if carried else "carries nothing"
    ImageDraw.Draw(strip).text(place, text, INK, font(13), anchor="lm")
    return np.concatenate([drawn, np.asarray(strip)])


def _tiles(
    cells: np.ndarray, facing: Mapping[tuple[int, int], int], size: int, *, highlight: bool
) -> np.ndarray:
    """Draw each cell; `facing` is cell -> direction of the agent that stands there."""
    from minigrid.core.grid import Grid
    from minigrid.core.world_object import WorldObj

    columns, rows = cells.shape[:2]
    tile = max(4, size // rows)
    canvas = np.zeros((rows * tile, columns * tile, 3), np.uint8)
    for x, y in np.ndindex(columns, rows):
        kind, colour, state = map(int, cells[x, y])
        drawn = Grid.render_tile(
            WorldObj.decode(kind, colour, state),
            agent_dir=facing.get((x, y)),
            highlight=highlight and kind != 0,
            tile_size=tile,
        )
        canvas[y * tile : (y + 1) * tile, x * tile : (x + 1) * tile] = drawn
    return canvas


def _symbols(cells: np.ndarray, size: int) -> np.ndarray:
    """Draw a grid of symbols: channel 0 fills the cell, the others are squares inside it."""
    rows, columns = cells.shape[:2]
    tile = max(4, size // rows)
    colours = _CATEGORY_COLOURS[cells.reshape(rows, columns, -1).astype(int) % 9]
    canvas = np.repeat(np.repeat(colours[:, :, 0], tile, 0), tile, 1)
    channels = colours.shape[2]
    inset = tile // (2 * max(channels - 1, 1))
    for channel in range(1, channels):
        shown = cells[..., channel] > 0
        left = (channel - 1) * inset + tile // 4
        for row, column in np.argwhere(shown):
            top, side = row * tile + tile // 4, column * tile + left
            canvas[top : top + inset, side : side + inset] = colours[row, column, channel]
    canvas[::tile] = _FAINT
    canvas[:, ::tile] = _FAINT
    return canvas


def _as_rgb(value: np.ndarray) -> np.ndarray:
    """Bring (H, W), (H, W, 1..4) or (1..4, H, W) pixels to (H, W, 3) uint8."""
    pixels = value[..., None] if value.ndim == 2 else value
    if pixels.shape[0] < pixels.shape[2]:
        pixels = np.moveaxis(pixels, 0, -1)
    pixels = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3)).astype(np.uint8)


def _scaled(pixels: np.ndarray, size: int) -> np.ndarray:
    """Enlarge by a whole factor, or reduce smoothly where the picture is too large."""
    height, width = pixels.shape[:2]
    factor = size // height
    if factor >= 1:
        return np.repeat(np.repeat(pixels, factor, 0), factor, 1)
    target = (max(1, round(width * size / height)), size)
    return np.asarray(Image.fromarray(pixels).resize(target, Image.Resampling.BOX))


def _numbers(values: np.ndarray, leaf: spaces.Box, size: int) -> np.ndarray:
    """Draw up to 16 values as bars from zero, more of them as a field of colours."""
    scales = _scales(values, leaf)
    if len(values) > _MOST_BARS:
        return _field(values / scales, size)
    image = Image.new("RGB", (size, size), BACKGROUND)
    draw = ImageDraw.Draw(image)
    row = size / len(values)
    thickness = max(2, min(16, row * 0.4))
    middle, reach = size * 0.5, size * 0.3
    for index, value in enumerate(values):
        y = (index + 0.5) * row
        end = middle + reach * float(np.clip(value / scales[index], -1, 1))
        left, right = sorted((middle, end))
        top, bottom = y - thickness / 2, y + thickness / 2
        draw.rectangle((middle - reach, top, middle + reach, bottom), fill=(32, 35, 42))
        draw.rectangle((left, top, max(right, left + 1), bottom), fill=_ACCENT)
        draw.text((4, y), str(index), INK, font(11), anchor="lm")
        draw.text((size - 4, y), f"{value:.2f}", INK, font(11), anchor="rm")
    draw.line((middle, 0, middle, size), fill=_FAINT)
    return np.asarray(image)


def _scales(values: np.ndarray, leaf: spaces.Box) -> np.ndarray:
    """Give the magnitude at which each bar is full: the bound, or 1, 10, ... without one."""
    bounds = np.maximum(np.abs(leaf.low), np.abs(leaf.high)).astype(np.float64).ravel()
    decade = 10.0 ** np.ceil(np.log10(np.maximum(np.abs(values), 1.0)))
    return np.where((bounds < 1e6) & (bounds > 0), bounds, decade)


def _field(shares: np.ndarray, size: int) -> np.ndarray:
    """Draw many values in [-1, 1] as a square of cells, blue below and orange above zero."""
    side = int(np.ceil(np.sqrt(len(shares))))
    padded = np.zeros(side * side)
    padded[: len(shares)] = np.clip(shares, -1, 1)
    strength = np.abs(padded)[:, None]
    towards = np.where(padded[:, None] < 0, _CATEGORY_COLOURS[2], _CATEGORY_COLOURS[1])
    colours = (1 - strength) * np.array(BACKGROUND) + strength * towards
    return _scaled(colours.reshape(side, side, 3).astype(np.uint8), size)


def _caption(lines: list[str], size: int) -> np.ndarray:
    """Write lines on a picture that is `size` pixels high and as wide as they need."""
    width = int(max(font(13).getlength(line) for line in lines)) + 8
    image = Image.new("RGB", (width, size), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for index, line in enumerate(lines):
        draw.text((4, 8 + 18 * index), line, INK, font(13))
    return np.asarray(image)

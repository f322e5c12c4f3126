"""The pictures of a film: real on the left, imagined on the right, time below.

Functions:
    draw_frames: all pictures of a `PairedDream`.
    draw_strip: some of its frames in one picture, real above imagined.
    write_gif: pictures to a small GIF.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from PIL import Image, ImageDraw

from worldgen.evaluation.paired_dream import PairedDream
from worldgen.minigrid_state import agents, read_agent
from worldgen.render import (
    BACKGROUND,
    GAP_TO_CARRIED,
    INK,
    LeafKind,
    font,
    picture,
    side_by_side,
    words,
)
from worldgen.spaces import leaves

__all__ = ["draw_frames", "draw_strip", "write_gif"]

_REAL = (52, 211, 153)
_IMAGINED = (251, 191, 36)
_WRONG = (248, 80, 80)
_QUIET = (148, 153, 164)
_FAINT = (58, 62, 71)
_MARGIN = 16
_HEADER = 34
_BELOW = 24
_FOOTER = 62
_BORDER = 3
_NARROWEST = 224
_MOST_CURVES = 8
_MOST_COLOURS = 128


def draw_frames(
    dream: PairedDream,
    observation_space: spaces.Space[Any],
    kinds: Mapping[str, LeafKind],
    actions: Sequence[str],
    *,
    size: int = 224,
) -> list[Image.Image]:
    """Draw frames 0 to H.

    Args:
        dream: What to show.
        observation_space: Of both sides.
        kinds: Path -> how the leaf is drawn.
        actions: What to call each of the H actions.
        size: Height of the leaves' pictures in pixels, about.
    """
    artist = _Artist(dream, observation_space, kinds, actions, size)
    return [artist.draw(time) for time in range(len(dream) + 1)]


def draw_strip(
    dream: PairedDream,
    observation_space: spaces.Space[Any],
    kinds: Mapping[str, LeafKind],
    *,
    size: int = 112,
    most_frames: int = 8,
) -> np.ndarray:
    """Draw some frames side by side, real above imagined: (H, W, 3) uint8."""
    artist = _Artist(dream, observation_space, kinds, [], size)
    count = min(most_frames, len(dream) + 1)
    times = np.linspace(0, len(dream), count).round().astype(int)
    rows = [
        side_by_side([artist.pictures(frames, int(time)) for time in times])
        for frames in (dream.real, dream.imagined)
    ]
    gap = np.full((8, rows[0].shape[1], 3), BACKGROUND, np.uint8)
    return np.concatenate([rows[0], gap, rows[1]])


def write_gif(frames: Sequence[Image.Image], path: Path, frames_per_second: float) -> None:
    """Write frames with one palette of at most 128 colours; the ends stand a little longer."""
    chosen = frames[:: max(1, len(frames) // 8)]
    width, height = frames[0].size
    sheet = Image.new("RGB", (width, height * len(chosen) + 8))
    for index, frame in enumerate(chosen):
        sheet.paste(frame, (0, index * height))
    # Colours of marks that few pixels have, or no frame of the sheet, must be in the palette.
    for index, colour in enumerate((_REAL, _IMAGINED, _WRONG, _QUIET, INK, BACKGROUND)):
        sheet.paste(colour, (index * 32, height * len(chosen), index * 32 + 32, sheet.height))
    palette = sheet.quantize(_MOST_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    each = round(1000 / frames_per_second)
    durations = [each] * len(frames)
    durations[0], durations[-1] = max(each, 800), max(each, 2000)
    indexed[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=indexed[1:],
        duration=durations,
        loop=0,
        optimize=True,
    )


class _Artist:
    def __init__(
        self,
        dream: PairedDream,
        observation_space: spaces.Space[Any],
        kinds: Mapping[str, LeafKind],
        actions: Sequence[str],
        size: int,
    ) -> None:
        self.dream, self.actions, self.size = dream, actions, size
        self.leaves, self.kinds = leaves(observation_space), kinds
        self.agents = agents(self.leaves)
        self.inside_grids = {path for pair in self.agents.values() for path in pair}
        self.curves = {
            path: _Curves(dream.real[path], dream.imagined[path], max(size, _NARROWEST))
            for path, kind in kinds.items()
            if kind == "numbers" and dream.real[path][0].size <= _MOST_CURVES
        }
        inside = self.pictures(dream.real, 0)
        self.inside = (max(inside.shape[1], _NARROWEST), max(len(inside), 24))
        self.panel_width = self.inside[0] + 2 * _BORDER
        self.panel_height = self.inside[1] + 2 * _BORDER
        self.width = 3 * _MARGIN + 2 * self.panel_width
        self.height = _HEADER + self.panel_height + _BELOW + _FOOTER

    def draw(self, time: int) -> Image.Image:
        """Draw frame `time` in 0..H."""
        image = Image.new("RGB", (self.width, self.height), BACKGROUND)
        draw = ImageDraw.Draw(image)
        wrong = bool(self.dream.differs[time])
        right = 2 * _MARGIN + self.panel_width
        self._half(image, draw, _MARGIN, "real", self.dream.real, time, _REAL)
        colour = _WRONG if wrong else _IMAGINED
        self._half(image, draw, right, "imagined", self.dream.imagined, time, colour)
        self._footer(draw, time)
        return image

    def _half(
        self,
        image: Image.Image,
        draw: ImageDraw.ImageDraw,
        left: int,
        label: str,
        frames: Mapping[str, np.ndarray],
        time: int,
        colour: tuple[int, int, int],
    ) -> None:
        is_real = label == "real"
        text_colour = _REAL if is_real else _IMAGINED
        draw.text((left, _HEADER / 2 + 1), label, text_colour, font(19), anchor="lm")
        pixels = self.pictures(frames, time)
        if not is_real and self._over(time):
            pixels = (pixels * 0.45 + np.array(BACKGROUND) * 0.55).astype(np.uint8)
        draw.rectangle(
            (left, _HEADER, left + self.panel_width - 1, _HEADER + self.panel_height - 1),
            outline=colour,
            width=_BORDER,
        )
        x = left + _BORDER + (self.inside[0] - pixels.shape[1]) // 2
        y = _HEADER + _BORDER + (self.inside[1] - len(pixels)) // 2
        image.paste(Image.fromarray(pixels), (x, y))
        if not is_real:
            self._mark_cells(draw, x, y, time)
        self._reward(draw, left, time, is_real)
        self._words(draw, left + self.panel_width, frames, time, is_real)

    def pictures(self, frames: Mapping[str, np.ndarray], time: int) -> np.ndarray:
        """Draw the leaves of frame `time` of one side: (H, W, 3) uint8."""
        drawn = []
        for path, kind in self.kinds.items():
            if path in self.curves:
                drawn.append(self.curves[path].draw(time, frames is self.dream.real))
            elif kind != "words":
                frame = {leaf: values[time] for leaf, values in frames.items()}
                agent = read_agent(self.agents[path], frame) if path in self.agents else None
                leaf = self.leaves[path]
                drawn.append(picture(kind, leaf, frame[path], size=self.size, agent=agent))
        if not drawn:
            return np.full((24, _NARROWEST, 3), BACKGROUND, np.uint8)
        return side_by_side(drawn)

    def _mark_cells(self, draw: ImageDraw.ImageDraw, x: int, y: int, time: int) -> None:
        """Outline the wrong cells of a symbolic grid, where it is the only picture."""
        grids = [path for path, kind in self.kinds.items() if kind in ("minigrid", "symbols")]
        others = [path for path, kind in self.kinds.items() if kind in ("image", "numbers")]
        if len(grids) != 1 or others or self._over(time):
            return
        real, imagined = self.dream.real[grids[0]][time], self.dream.imagined[grids[0]][time]
        wrong = (real != imagined).reshape(*real.shape[:2], -1).any(-1)
        if self.kinds[grids[0]] == "minigrid":
            wrong = wrong.T  # MiniGrid's first axis runs to the right.
        tile = max(4, self.size // len(wrong))
        places = [(column * tile, row * tile) for row, column in np.argwhere(wrong)]
        if grids[0] in self.agents:
            agent, carrying = self.agents[grids[0]]
            if self._wrong(agent, time):
                places.append(tuple(tile * self.dream.imagined[agent][time][:2]))
            if self._wrong(carrying, time):
                places.append((0, len(wrong) * tile + GAP_TO_CARRIED))
        for right, down in places:
            left, top = int(x + right), int(y + down)
            draw.rectangle((left, top, left + tile - 1, top + tile - 1), outline=_WRONG, width=2)

    def _wrong(self, path: str, time: int) -> bool:
        return not np.array_equal(self.dream.imagined[path][time], self.dream.real[path][time])

    def _over(self, time: int) -> bool:
        """Whether the dream ended before frame `time`."""
        return time >= 2 and bool(self.dream.imagined_ended[time - 2])

    def _reward(self, draw: ImageDraw.ImageDraw, left: int, time: int, is_real: bool) -> None:
        if time == 0:
            return
        rewards = self.dream.real_rewards if is_real else self.dream.imagined_rewards
        ended = self.dream.real_ended if is_real else self.dream.imagined_ended
        text = f"reward {rewards[time - 1]:+.2f}".replace("+0.00", "0.00").replace("-0.00", "0.00")
        if not is_real and self._over(time):
            text = "the dream has ended"
        elif ended[time - 1]:
            text += "  ·  the end"
        shines = abs(rewards[time - 1]) >= 0.005 and not (not is_real and self._over(time))
        y = _HEADER + self.panel_height + _BELOW / 2 + 2
        draw.text((left, y), text, INK if shines else _QUIET, font(14), anchor="lm")

    def _words(
        self,
        draw: ImageDraw.ImageDraw,
        right: int,
        frames: Mapping[str, np.ndarray],
        time: int,
        is_real: bool,
    ) -> None:
        y = _HEADER + self.panel_height + _BELOW / 2 + 2
        spoken = [path for path, kind in self.kinds.items() if kind == "words"]
        for path in reversed([path for path in spoken if path not in self.inside_grids]):
            text = words(path, frames[path][time])
            wrong = not is_real and self._wrong(path, time)
            draw.text((right, y), text, _WRONG if wrong else _QUIET, font(14), anchor="rm")
            right -= int(font(14).getlength(text)) + 12

    def _footer(self, draw: ImageDraw.ImageDraw, time: int) -> None:
        top = _HEADER + self.panel_height + _BELOW
        y = top + 20
        steps = len(self.dream)
        draw.text((_MARGIN, y), f"environment step {time} of {steps}", INK, font(15), anchor="lm")
        middle = 2 * _MARGIN + self.panel_width
        done = f"action: {self.actions[time - 1]}" if time else "start: the last real frame"
        draw.text((middle, y), done, INK, font(15), anchor="lm")
        self._timeline(draw, time, top + 40)
        first = self.dream.first_difference
        if first is not None and time >= first:
            text, colour = f"first difference at {first}", _WRONG
        else:
            text, colour = ("equal so far" if time else ""), _REAL
        right = self.width - _MARGIN
        draw.text((right, _HEADER / 2 + 1), text, colour, font(14), anchor="rm")

    def _timeline(self, draw: ImageDraw.ImageDraw, time: int, top: int) -> None:
        """One mark a frame: green where the dream is right, red where it differs."""
        count = len(self.dream) + 1
        span = (self.width - 2 * _MARGIN) / count
        gap = 1 if span >= 4 else 0
        for index in range(count):
            left = _MARGIN + index * span
            box = (left, top, max(left + span - 1 - gap, left), top + 7)
            colour = _FAINT
            if index <= time:
                colour = _WRONG if self.dream.differs[index] else _REAL
            draw.rectangle(box, fill=colour)


class _Curves:
    """Each entry of a vector over time; the dream is drawn over a faint reality."""

    def __init__(self, real: np.ndarray, imagined: np.ndarray, size: int) -> None:
        self._size = size
        self._real = real.reshape(len(real), -1).astype(np.float64)
        self._imagined = imagined.reshape(len(imagined), -1).astype(np.float64)
        both = np.concatenate([self._real, self._imagined])
        self._low, high = both.min(0), both.max(0)
        self._span = np.maximum(high - self._low, 1e-6)

    def draw(self, time: int, is_real: bool) -> np.ndarray:
        """Draw the entries' curves up to `time`: (size, size, 3) uint8."""
        image = Image.new("RGB", (self._size, self._size), (30, 33, 39))
        draw = ImageDraw.Draw(image)
        for entry in range(self._real.shape[1]):
            self._lane(draw, entry)
            if is_real:
                self._line(draw, self._real, entry, time, _REAL)
            else:
                self._line(draw, self._real, entry, time, (92, 97, 108))
                self._line(draw, self._imagined, entry, time, _IMAGINED)
            values = self._real if is_real else self._imagined
            self._number(draw, entry, values[time, entry])
        return np.asarray(image)

    def _lane(self, draw: ImageDraw.ImageDraw, entry: int) -> None:
        height = self._size / self._real.shape[1]
        draw.text((5, (entry + 0.5) * height), str(entry), _QUIET, font(12), anchor="lm")
        if entry:
            draw.line((0, entry * height, self._size, entry * height), fill=_FAINT)

    def _line(
        self,
        draw: ImageDraw.ImageDraw,
        values: np.ndarray,
        entry: int,
        time: int,
        colour: tuple[int, int, int],
    ) -> None:
        height = self._size / values.shape[1]
        left, right = 18, self._size - 46
        share = (values[: time + 1, entry] - self._low[entry]) / self._span[entry]
        x = left + np.arange(time + 1) * (right - left) / max(len(values) - 1, 1)
        y = (entry + 0.88 - 0.76 * share) * height
        points = list(zip(x.tolist(), y.tolist(), strict=True))
        if time:
            draw.line(points, fill=colour, width=2, joint="curve")
        end_x, end_y = points[-1]
        draw.ellipse((end_x - 3, end_y - 3, end_x + 3, end_y + 3), fill=colour)

    def _number(self, draw: ImageDraw.ImageDraw, entry: int, value: float) -> None:
        y = (entry + 0.5) * self._size / self._real.shape[1]
        draw.text((self._size - 5, y), f"{value:.2f}", INK, font(12), anchor="rm")

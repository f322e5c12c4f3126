"""Codes that stand for numbers, drawn on axes: few numbers as marks, many as a curve.

Classes:
    NumberArtist.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from worldgen.render import INK, font

__all__ = ["NumberArtist"]

_ACCENT = (96, 165, 250)
_REAL = (52, 211, 153)
_FAINT = (72, 77, 88)
_PANEL = (32, 35, 42)
_BEFORE = (251, 191, 36)
_MOST_AXES = 8
_MOST_CURVES = 6
_WIDTH, _ROW, _CURVE = 184, 30, 96
_TEXT = 74
"""Pixels for an axis's number."""


class NumberArtist:
    """Draws patches of numbers on the same axes.

    Args:
        low: (P,) smallest value of each entry that is to be drawn.
        high: (P,) largest.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self._low, self._high = low, np.maximum(high, low + 1e-9)

    def draw(
        self, decoded: np.ndarray, seen: Sequence[np.ndarray], before: np.ndarray | None = None
    ) -> np.ndarray:
        """Draw what a code decodes to over real patches that chose it: (H, W, 3) uint8.

        Args:
            decoded: (P,), in blue.
            seen: Real patches (P,), in green.
            before: (P,) without this code, in amber; None in the first stage.
        """
        if len(decoded) > _MOST_AXES:
            return self._curves(decoded, seen, before)
        image = Image.new("RGB", (_WIDTH, _ROW * len(decoded)), _PANEL)
        draw = ImageDraw.Draw(image)
        for entry in range(len(decoded)):
            self._axis(draw, entry, decoded, seen, before)
        return np.asarray(image)

    def _axis(
        self,
        draw: ImageDraw.ImageDraw,
        entry: int,
        decoded: np.ndarray,
        seen: Sequence[np.ndarray],
        before: np.ndarray | None,
    ) -> None:
        """Draw one entry: its range as a line, real values below it, the decoded one on it."""
        top = entry * _ROW
        left, right, y = 4, _WIDTH - _TEXT, top + 12
        span = float(self._high[entry] - self._low[entry])

        def place(value: float) -> float:
            return left + (right - left) * (value - float(self._low[entry])) / span

        draw.line((left, y, right, y), fill=_FAINT, width=2)
        for patch in seen:
            x = place(float(patch[entry]))
            draw.line((x, y + 6, x, y + 12), fill=_REAL)
        if before is not None:
            x = place(float(before[entry]))
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), outline=_BEFORE)
        x = place(float(decoded[entry]))
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=_ACCENT)
        text = f"{decoded[entry]:.3g}"
        draw.text((_WIDTH - 3, y), text, INK, font(14), anchor="rm")

    def _curves(
        self, decoded: np.ndarray, seen: Sequence[np.ndarray], before: np.ndarray | None
    ) -> np.ndarray:
        image = Image.new("RGB", (_WIDTH, _CURVE), _PANEL)
        draw = ImageDraw.Draw(image)
        reach = float(max(np.abs(self._low).max(), np.abs(self._high).max()))
        draw.line((0, _CURVE / 2, _WIDTH, _CURVE / 2), fill=_FAINT)
        for patch in list(seen)[:_MOST_CURVES]:
            _curve(draw, patch / reach, (32, 110, 84))
        if before is not None:
            _curve(draw, before / reach, _BEFORE)
        _curve(draw, decoded / reach, _ACCENT)
        return np.asarray(image)


def _curve(draw: ImageDraw.ImageDraw, shares: np.ndarray, color: tuple[int, int, int]) -> None:
    x = np.linspace(2, _WIDTH - 3, len(shares))
    # Small values matter too: the axis is that of the square root.
    y = _CURVE / 2 - np.sign(shares) * np.sqrt(np.abs(shares)) * (_CURVE / 2 - 4)
    draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=color)

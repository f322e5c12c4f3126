"""The pictures of a token film: reality with its token grid, beside what the tokens decode to.

Classes:
    TokenArtist: draws the frames of one tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from worldgen.inspection.patch_layout import patch_layout
from worldgen.minigrid_state import agents, read_agent
from worldgen.render import BACKGROUND, INK, LeafKind, font, leaf_kind, picture, words
from worldgen.spaces import leaves
from worldgen.tokenizer import Tokenizer
from worldgen.tokenizer.patch_autoencoder import PatchAutoencoder

__all__ = ["TokenArtist"]

_REAL, _DECODED, _WRONG = (52, 211, 153), (251, 191, 36), (248, 80, 80)
_QUIET, _LINE, _PANEL = (148, 153, 164), (120, 126, 138), (30, 33, 39)
_CHANGED = (251, 191, 36)
_MARGIN, _HEADER, _FOOTER = 14, 32, 34
_ROW, _NUMBERS_WIDTH = 26, 300
_CURVE_WIDTH = 448
_MOST_ROWS = 16
_MOST_BESIDE, _A_LINE = 3, 12
"""Codes that stand beside words, and on a line below them."""


@dataclass(frozen=True)
class _Box:
    """Where a patch is drawn, in pixels of its leaf's picture."""

    left: float
    top: float
    right: float
    bottom: float


class TokenArtist:
    """Draws frames of one tokenizer.

    Args:
        tokenizer: Trained, with codes.
        size: Height of the leaves' pictures in pixels, about.
    """

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        self._tokenizer, self._size = tokenizer, size
        self._leaves = leaves(tokenizer.space)
        self._agents = agents(self._leaves)
        declared = tokenizer.config.modalities
        self._kinds: dict[str, LeafKind] = {
            path: leaf_kind(leaf, declared.get(path)) for path, leaf in self._leaves.items()
        }

    def draw(
        self,
        real: Mapping[str, np.ndarray],
        decoded: Mapping[str, np.ndarray],
        tokens: np.ndarray,
        before: np.ndarray | None,
        footer: str,
    ) -> Image.Image:
        """Draw one frame.

        Args:
            real: Flat observation without a batch dimension.
            decoded: Likewise, from the tokens.
            tokens: (K,) codes.
            before: (K,) codes of the frame before; None for the first.
            footer: Line below.
        """
        changed = np.zeros(len(tokens), bool) if before is None else tokens != before
        halves = [
            self._stack([self._leaf(path, side, real, tokens, changed) for path in self._leaves])
            for side in (real, decoded)
        ]
        width = max(half.width for half in halves)
        height = max(half.height for half in halves)
        size = (2 * width + 3 * _MARGIN, _HEADER + height + _FOOTER)
        image = Image.new("RGB", size, BACKGROUND)
        draw = ImageDraw.Draw(image)
        same = all(np.array_equal(real[path], decoded[path]) for path in self._leaves)
        names = (("real, with its codes", _REAL), ("decoded from the codes", _DECODED))
        for index, (half, (name, color)) in enumerate(zip(halves, names, strict=True)):
            left = _MARGIN + index * (width + _MARGIN)
            draw.text((left, _HEADER / 2), name, color, font(15), anchor="lm")
            image.paste(half, (left, _HEADER))
        end = (size[0] - _MARGIN, size[1] - _FOOTER / 2)
        draw.text((_MARGIN, end[1]), footer, INK, font(13), anchor="lm")
        if same:
            draw.text(end, "equal", _REAL, font(13), anchor="rm")
        return image

    def _leaf(
        self,
        path: str,
        frame: Mapping[str, np.ndarray],
        real: Mapping[str, np.ndarray],
        tokens: np.ndarray,
        changed: np.ndarray,
    ) -> Image.Image:
        """Draw a leaf of either side; codes are written on the real one only."""
        place = self._tokenizer.token_slices[path]
        codes, moved = tokens[place], changed[place]
        is_real = frame is real
        if patch_layout(self._tokenizer, path) is not None:
            return self._grid(path, frame, real, codes, moved)
        values = np.asarray(frame[path])
        if self._kinds[path] == "words" or not isinstance(
            self._tokenizer.codec(path), PatchAutoencoder
        ):
            wrong = not np.array_equal(values, real[path])
            return self._words(path, values, codes, moved, is_real, wrong)
        if values.size <= _MOST_ROWS:
            return self._rows(path, values, codes, moved, is_real)
        return self._curve(path, values, np.asarray(real[path]), codes, moved, is_real)

    def _grid(
        self,
        path: str,
        frame: Mapping[str, np.ndarray],
        real: Mapping[str, np.ndarray],
        codes: np.ndarray,
        moved: np.ndarray,
    ) -> Image.Image:
        """Draw a grid or a picture, each patch framed."""
        agent = read_agent(self._agents[path], frame) if path in self._agents else None
        leaf, kind = self._leaves[path], self._kinds[path]
        drawn = picture(kind, leaf, np.asarray(frame[path]), size=self._size, agent=agent)
        image = Image.fromarray(drawn)
        boxes = self._boxes(path, drawn)
        draw = ImageDraw.Draw(image)
        if frame is real:
            stages = codes.reshape(-1, len(boxes))
            changed = np.any(moved.reshape(-1, len(boxes)), axis=0)
            for index in np.argsort(changed, kind="stable"):  # The changed ones lie on top.
                _frame_patch(draw, boxes[index], stages[:, index], bool(changed[index]))
        else:
            for index in np.flatnonzero(self._lost(path, frame, real)):
                box = boxes[index]
                place = (box.left, box.top, box.right - 1, box.bottom - 1)
                draw.rectangle(place, outline=_WRONG, width=2)
        return image

    def _lost(
        self, path: str, frame: Mapping[str, np.ndarray], real: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Say which patches do not come back: (patches,) bool."""
        codec = self._tokenizer.codec(path)
        assert isinstance(codec, PatchAutoencoder)
        pair = [self._tokenizer.patches(path, side[path][None]) for side in (frame, real)]
        lost: np.ndarray = codec.patches_lost(*pair)[0].cpu().numpy()
        return lost

    def _boxes(self, path: str, drawn: np.ndarray) -> list[_Box]:
        """Give each patch's place, cut off where it reaches over the frame's edge."""
        layout = patch_layout(self._tokenizer, path)
        codec, leaf = self._tokenizer.codec(path), self._leaves[path]
        assert layout is not None
        assert isinstance(codec, PatchAutoencoder)
        down, right = codec.modality.patch_shape
        shape = leaf.shape or ()
        if len(shape) == 3 and shape[0] < shape[2] and not codec.modality.cell_size:
            shape = shape[1:]
        rows, columns = shape[:2]
        if self._kinds[path] == "minigrid":
            (down, right), (rows, columns) = (right, down), (columns, rows)
        unit = drawn.shape[1] / columns  # Below a whole grid stands what is carried.
        boxes: list[_Box] = [_Box(0, 0, 0, 0)] * layout.size
        for (row, column), index in np.ndenumerate(layout):
            boxes[index] = _Box(
                column * right * unit,
                row * down * unit,
                min((column + 1) * right, columns) * unit,
                min((row + 1) * down, rows) * unit,
            )
        return boxes

    def _words(
        self,
        path: str,
        values: np.ndarray,
        codes: np.ndarray,
        moved: np.ndarray,
        is_real: bool,
        wrong: bool,
    ) -> Image.Image:
        """Write a category or a text, and its codes."""
        text = words(path, values)
        text = text if len(text) <= 60 else f"{text[:57]}..."
        length = int(font(14).getlength(text)) + 8
        beside = len(codes) <= _MOST_BESIDE
        lines = [codes] if beside else np.split(codes, range(_A_LINE, len(codes), _A_LINE))
        left, top = (length + 16, 11) if beside else (18, 33)
        width = max(length, (length if beside else 0) + 34 * max(map(len, lines)) + 4)
        height = 22 if beside else 24 + 20 * len(lines)
        image = Image.new("RGB", (max(width, 120), height), BACKGROUND)
        draw = ImageDraw.Draw(image)
        draw.text((2, 11), text, _WRONG if wrong else INK, font(14), anchor="lm")
        for index, code in enumerate(codes if is_real else []):
            row, column = divmod(index, _A_LINE)
            _write_code(draw, (left + 34 * column, top + 20 * row), f"{code}", bool(moved[index]))
        return image

    def _rows(
        self,
        path: str,
        values: np.ndarray,
        codes: np.ndarray,
        moved: np.ndarray,
        is_real: bool,
    ) -> Image.Image:
        """Write few numbers, one below the other, each patch's codes at its right."""
        flat = values.ravel()
        codec = self._tokenizer.codec(path)
        assert isinstance(codec, PatchAutoencoder)
        group = codec.modality.patch_shape[0]
        stages = codes.reshape(-1, codec.modality.num_patches)
        changed = np.any(moved.reshape(stages.shape), axis=0)
        width = _NUMBERS_WIDTH if is_real else 150
        image = Image.new("RGB", (width, _ROW * len(flat) + 4), _PANEL)
        draw = ImageDraw.Draw(image)
        for entry, value in enumerate(flat):
            y = _ROW * entry + _ROW / 2 + 2
            draw.text((8, y), f"{entry}", _QUIET, font(13), anchor="lm")
            draw.text((120, y), f"{value:.4g}", INK, font(14), anchor="rm")
        for patch in range(stages.shape[1] if is_real else 0):
            top = _ROW * group * patch + 2
            bottom = min(_ROW * group * (patch + 1), _ROW * len(flat)) + 2
            _frame_patch(
                draw,
                _Box(136, top + 2, width - 8, bottom - 2),
                stages[:, patch],
                bool(changed[patch]),
                across=True,
            )
        return image

    def _curve(
        self,
        path: str,
        values: np.ndarray,
        real: np.ndarray,
        codes: np.ndarray,
        moved: np.ndarray,
        is_real: bool,
    ) -> Image.Image:
        """Draw many numbers as a curve in which each patch is a strip."""
        codec = self._tokenizer.codec(path)
        assert isinstance(codec, PatchAutoencoder)
        height = max(120, self._size // 2)
        image = Image.new("RGB", (_CURVE_WIDTH, height), _PANEL)
        draw = ImageDraw.Draw(image)
        low, high = float(real.min()), float(real.max())
        span = max(high - low, 1e-9)
        x = np.linspace(0, _CURVE_WIDTH - 1, values.size)
        y = np.clip(height - 6 - (values.ravel() - low) / span * (height - 12), 0, height - 1)
        color = _REAL if is_real else _DECODED
        draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=color)
        stages = codes.reshape(-1, codec.modality.num_patches)
        changed = np.any(moved.reshape(stages.shape), axis=0)
        step = _CURVE_WIDTH * codec.modality.patch_shape[0] / values.size
        for patch in range(stages.shape[1] if is_real else 0):
            box = _Box(patch * step, 0, min((patch + 1) * step, _CURVE_WIDTH), height)
            _frame_patch(draw, box, stages[:, patch], bool(changed[patch]))
        return image

    def _stack(self, parts: list[Image.Image]) -> Image.Image:
        """Lay a frame's leaves below one another, pictures first."""
        parts = sorted(parts, key=lambda part: -part.height)
        width = max(part.width for part in parts)
        height = sum(part.height for part in parts) + 8 * (len(parts) - 1)
        image = Image.new("RGB", (width, height), BACKGROUND)
        top = 0
        for part in parts:
            image.paste(part, (0, top))
            top += part.height + 8
        return image


def _frame_patch(
    draw: ImageDraw.ImageDraw,
    box: _Box,
    codes: np.ndarray,
    changed: bool,
    *,
    across: bool = False,
) -> None:
    """Outline a patch and write its codes at its top, below one another, or across its middle."""
    color = _CHANGED if changed else _LINE
    place = (box.left, box.top, box.right - 1, box.bottom - 1)
    draw.rectangle(place, outline=color, width=2 if changed else 1)
    x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    for index, code in enumerate(codes):
        offset = index - (len(codes) - 1) / 2
        center = (x + 36 * offset, y) if across else (x, box.top + 10 + 15 * index)
        _write_code(draw, center, f"{code}", changed, box.right - box.left)


def _write_code(
    draw: ImageDraw.ImageDraw,
    center: tuple[float, float],
    text: str,
    changed: bool,
    room: float = 99,
) -> None:
    """Write a code's number on a plate, dark, or amber where it changed."""
    size = next((size for size in (12, 11, 10) if font(size).getlength(text) + 4 <= room), 9)
    half = font(size).getlength(text) / 2 + 2
    x, y = center
    plate = (x - half, y - size / 2 - 1, x + half, y + size / 2 + 1)
    draw.rectangle(plate, fill=_CHANGED if changed else (16, 18, 22))
    draw.text((x, y), text, (16, 18, 22) if changed else INK, font(size), anchor="mm")

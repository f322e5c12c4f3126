"""The codes as pictures: what each decodes to, beside real patches that chose it.

Classes:
    CodeCard: one code.

Functions:
    code_cards: the codes of a codebook, most used first.
    atlas_pages: cards laid out on pages of readable size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from worldgen.inspection.code_usage import CodebookUsage, LeafUsage
from worldgen.inspection.number_pictures import NumberArtist
from worldgen.inspection.seen_patches import SeenPatch
from worldgen.render import BACKGROUND, INK, font, leaf_kind, patch_picture
from worldgen.spaces import leaves
from worldgen.tokenizer import Tokenizer
from worldgen.tokenizer.patch_autoencoder import PatchAutoencoder

__all__ = ["CodeCard", "atlas_pages", "code_cards"]

WRONG = (248, 80, 80)
QUIET = (148, 153, 164)
_NUMBER = (96, 165, 250)
_PANEL = (32, 35, 42)
_TALL, _NARROW = 96, 48
_SMALL = 56
_SMALLEST_CELL, _LARGEST_CELL = 10, 26
_PAGE_WIDTH, _PAGE_HEIGHT = 1240, 1600
_GAP, _PAD, _LINE = 10, 8, 20
_TITLE = 44


@dataclass(frozen=True, kw_only=True, eq=False)
class CodeCard:
    """What is shown of one code."""

    code: int
    count: int
    """How often it was chosen."""
    share: float
    """Of all choices of its codebook."""
    decoded: list[np.ndarray]
    """What it decodes to: one picture, or in later stages before and after; none for words."""
    seen: list[np.ndarray] = field(default_factory=list)
    """Different real patches that chose it, the most frequent first."""
    seen_counts: list[int] = field(default_factory=list)
    """How often each was seen."""
    seen_exact: list[bool] = field(default_factory=list)
    """Whether each comes back exactly."""
    label: str = ""
    """What it means, in words."""


def code_cards(
    tokenizer: Tokenizer, leaf: LeafUsage, codebook: CodebookUsage, *, examples: int = 4
) -> Iterator[CodeCard]:
    """Draw each code in use of a codebook, the most used one first.

    Args:
        tokenizer: That was measured.
        leaf: One of its leaves.
        codebook: One of the leaf's codebooks.
        examples: Most real patches to show beside each code.
    """
    artist = _artist(tokenizer, leaf, codebook)
    totals = codebook.totals
    for code in codebook.ranked:
        count = int(totals[code])
        share = count / max(int(totals.sum()), 1)
        if artist is None:
            label = codebook.labels[code]
            yield CodeCard(code=code, count=count, share=share, decoded=[], label=label)
        else:
            yield artist.card(code, count, share, examples)


def atlas_pages(
    cards: Sequence[CodeCard], title: str, *, most: int | None = None
) -> Iterator[Image.Image]:
    """Lay cards out on pages, row by row.

    Args:
        cards: All of one codebook.
        title: Written on top of each page.
        most: Most pages; None for as many as it takes.
    """
    if not cards:
        return
    sizes = np.array([_card_size(card) for card in cards])
    width, height = int(sizes[:, 0].max()), int(sizes[:, 1].max())
    columns = max(1, (_PAGE_WIDTH - _GAP) // (width + _GAP))
    rows = max(1, (_PAGE_HEIGHT - _TITLE - _GAP) // (height + _GAP))
    each = columns * rows
    count = -(-len(cards) // each)
    for page in range(count if most is None else min(count, most)):
        part = cards[page * each : (page + 1) * each]
        used_rows = -(-len(part) // columns)
        size = (_GAP + columns * (width + _GAP), _TITLE + _GAP + used_rows * (height + _GAP))
        image = Image.new("RGB", size, BACKGROUND)
        numbered = f"{title}  ·  page {page + 1} of {count}" if count > 1 else title
        ImageDraw.Draw(image).text((_GAP + 2, _TITLE / 2 + 2), numbered, INK, font(17), anchor="lm")
        for index, card in enumerate(part):
            row, column = divmod(index, columns)
            place = (_GAP + column * (width + _GAP), _TITLE + _GAP + row * (height + _GAP))
            image.paste(_draw_card(card, width, height), place)
        yield image


class _PatchArtist:
    """Draws the patches of grids and pictures."""

    def __init__(self, tokenizer: Tokenizer, leaf: LeafUsage, codebook: CodebookUsage) -> None:
        self._leaf = leaves(tokenizer.space)[leaf.path]
        self._kind = leaf_kind(self._leaf, tokenizer.config.modalities.get(leaf.path))
        codec = tokenizer.codec(leaf.path)
        assert isinstance(codec, PatchAutoencoder)
        self._shape: tuple[int, ...] = codec.modality.patch_shape
        self._codebook = codebook

    def card(self, code: int, count: int, share: float, examples: int) -> CodeCard:
        """Draw a code."""
        steps = [self._codebook.before.get(code), self._codebook.decoded[code]]
        decoded = [self._draw(values, _TALL) for values in steps if values is not None]
        height = _TALL if decoded[-1].shape[1] <= _NARROW else _SMALL
        seen = self._codebook.seen[code][:examples]
        return CodeCard(
            code=code,
            count=count,
            share=share,
            decoded=decoded,
            seen=[self._draw(patch.values, height) for patch in seen],
            seen_counts=[patch.count for patch in seen],
            seen_exact=[patch.exact for patch in seen],
        )

    def _draw(self, values: np.ndarray, size: int) -> np.ndarray:
        patch = values.reshape(*self._shape, -1)
        if self._kind not in ("minigrid", "symbols"):
            return patch_picture(self._kind, self._leaf, patch, size=size)
        # MiniGrid's first axis runs to the right, that of other grids down.
        down = self._shape[1] if self._kind == "minigrid" else self._shape[0]
        cell = int(np.clip(size // max(self._shape), _SMALLEST_CELL, _LARGEST_CELL))
        return patch_picture(self._kind, self._leaf, patch, size=cell * down)


class _NumberCards:
    """Draws the patches of vectors and waveforms."""

    def __init__(self, codebook: CodebookUsage) -> None:
        self._codebook = codebook
        seen = [patch.values for patches in codebook.seen.values() for patch in patches]
        every = np.stack([*codebook.decoded.values(), *seen]).astype(np.float64)
        self._artist = NumberArtist(every.min(0), every.max(0))

    def card(self, code: int, count: int, share: float, examples: int) -> CodeCard:
        """Draw a code and all kept patches on the same axes."""
        patches: list[SeenPatch] = self._codebook.seen[code]
        drawn = self._artist.draw(
            self._codebook.decoded[code],
            [patch.values for patch in patches],
            self._codebook.before.get(code),
        )
        return CodeCard(code=code, count=count, share=share, decoded=[drawn])


def _artist(
    tokenizer: Tokenizer, leaf: LeafUsage, codebook: CodebookUsage
) -> _PatchArtist | _NumberCards | None:
    codec = tokenizer.codec(leaf.path)
    if not isinstance(codec, PatchAutoencoder) or not codebook.decoded:
        return None
    if codec.modality.linear_skip:
        return _NumberCards(codebook)
    return _PatchArtist(tokenizer, leaf, codebook)


def _counted(card: CodeCard) -> str:
    return f"{card.count:,} · {percent(card.share)}"


def _card_size(card: CodeCard) -> tuple[int, int]:
    """Give the width and height that a card needs."""
    pictures = _pictures(card)
    head = font(14).getlength(f"{card.code}") + font(12).getlength(_counted(card)) + 18
    body = pictures.width if pictures else font(15).getlength(card.label)
    height = _LINE + (pictures.height if pictures else 24)
    return int(max(head, body)) + 2 * _PAD, height + 2 * _PAD


def _draw_card(card: CodeCard, width: int, height: int) -> Image.Image:
    """Draw number, count, share and pictures of a code."""
    image = Image.new("RGB", (width, height), _PANEL)
    draw = ImageDraw.Draw(image)
    middle = _PAD + _LINE / 2 - 3
    draw.text((_PAD, middle), f"{card.code}", _NUMBER, font(14), anchor="lm")
    draw.text((width - _PAD, middle), _counted(card), QUIET, font(12), anchor="rm")
    pictures = _pictures(card)
    if pictures:
        image.paste(pictures, (_PAD, _PAD + _LINE))
    else:
        draw.text((_PAD, _PAD + _LINE + 10), card.label, INK, font(15), anchor="lm")
    return image


def _pictures(card: CodeCard) -> Image.Image | None:
    """Lay what a code decodes to and its real patches in a row."""
    if not card.decoded:
        return None
    parts = [Image.fromarray(picture) for picture in card.decoded]
    image = parts[0]
    for part in parts[1:]:
        image = _beside(image, part, 18, arrow=True)
    if card.seen:
        image = _beside(image, examples_picture(card), 16)
    return image


def examples_picture(card: CodeCard) -> Image.Image:
    """Draw a card's real patches with their counts; those that are lost have a red line below."""
    size = font(11)
    widths = [
        max(picture.shape[1], int(size.getlength(short(count))) + 2)
        for picture, count in zip(card.seen, card.seen_counts, strict=True)
    ]
    height = max(picture.shape[0] for picture in card.seen)
    image = Image.new("RGB", (sum(widths) + 6 * (len(widths) - 1), height + 20), _PANEL)
    draw = ImageDraw.Draw(image)
    left = 0
    for index, (picture, width) in enumerate(zip(card.seen, widths, strict=True)):
        place = left + (width - picture.shape[1]) // 2
        image.paste(Image.fromarray(picture), (place, 0))
        if not card.seen_exact[index]:
            below = len(picture) + 1
            draw.rectangle((place, below, place + picture.shape[1] - 1, below + 1), fill=WRONG)
        text = short(card.seen_counts[index])
        draw.text((left + width / 2, height + 13), text, QUIET, size, anchor="mm")
        left += width + 6
    return image


def _beside(left: Image.Image, right: Image.Image, gap: int, *, arrow: bool = False) -> Image.Image:
    height = max(left.height, right.height)
    image = Image.new("RGB", (left.width + gap + right.width, height), _PANEL)
    image.paste(left, (0, 0))
    image.paste(right, (left.width + gap, 0))
    draw = ImageDraw.Draw(image)
    x, y = left.width + gap // 2, left.height // 2
    if arrow:
        draw.polygon([(x - 3, y - 5), (x - 3, y + 5), (x + 5, y)], fill=QUIET)
    else:
        draw.line((x, 0, x, height), fill=(58, 62, 71))
    return image


def short(count: int) -> str:
    """Write a count in few characters.

    >>> short(87), short(12_345), short(2_000_000)
    ('87', '12k', '2M')
    """
    if count < 1_000:
        return str(count)
    if count < 10_000:
        return f"{count / 1000:.1f}k".replace(".0k", "k")
    return f"{count // 1000}k" if count < 1_000_000 else f"{count // 1_000_000}M"


def percent(share: float) -> str:
    """Write a share as a percentage, small ones with the digits that matter.

    >>> percent(1), percent(0.99996), percent(0.1234), percent(0.00012)
    ('100%', '99.996%', '12.3%', '0.012%')
    """
    if share in (0, 1):
        return f"{100 * share:.0f}%"
    limits = ((0.999, 3), (0.01, 1), (0.001, 2))
    digits = next((digits for limit, digits in limits if share >= limit), 3)
    return f"{100 * share:.{digits}f}%"

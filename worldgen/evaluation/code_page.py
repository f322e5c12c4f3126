"""One HTML page for all codes of a tokenizer, which needs nothing but a browser.

Functions:
    code_page: the page as text, its pictures inside.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from worldgen.evaluation.page_parts import data_url, page
from worldgen.inspection.code_pictures import CodeCard, code_cards, examples_picture, percent
from worldgen.inspection.code_usage import CodebookUsage, CodeUsage, LeafUsage
from worldgen.tokenizer import Tokenizer

__all__ = ["code_page"]

_STYLE = """
.cards img { image-rendering: pixelated; display: block; }
.cards { display: grid; gap: 8px; margin: 10px 0 20px;
  grid-template-columns: repeat(auto-fill, minmax(var(--card), 1fr)); }
.card { background: #20232a; border-radius: 6px; padding: 7px 9px; }
.card:target { outline: 2px solid #fbbf24; }
.head { display: flex; justify-content: space-between; gap: 8px; font-size: 12px;
  color: #9499a4; margin-bottom: 5px; white-space: nowrap; }
.head a { font-size: 14px; text-decoration: none; }
.body { display: flex; gap: 10px; align-items: flex-start; }
.body .seen { border-left: 1px solid #3a3e47; padding-left: 10px; }
.label { font-family: ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.bar { height: 3px; background: #60a5fa; border-radius: 2px; margin-top: 6px; min-width: 1px; }
.red { color: #f85050; } .blue { color: #60a5fa; } .green { color: #34d399; }
.amber { color: #fbbf24; }
"""


def code_page(
    tokenizer: Tokenizer,
    usage: CodeUsage,
    *,
    title: str,
    facts: Mapping[str, str],
    plots: Mapping[str, bytes],
    film: bytes,
    examples: int = 4,
) -> str:
    """Write the page.

    Args:
        tokenizer: That was measured.
        usage: What was measured.
        title: Of the page.
        facts: Shown in the header, name -> value.
        plots: Path of each leaf -> PNG.
        film: GIF of an episode with its codes.
        examples: Most real patches to show beside each code.
    """
    parts = [
        *_facts(facts),
        *_summary(usage),
        _navigation(usage),
        '<h2 id="film">An episode with its codes</h2>',
        '<p class="quiet">Each token\'s part of the frame has its code written in it, '
        '<span class="amber">amber</span> where it changed since the last frame. On the right is '
        "what the codes decode to; what does not come back is framed in "
        '<span class="red">red</span>.</p>',
        f'<img alt="film" src="{data_url("gif", film)}">',
    ]
    for path, leaf in usage.leaves.items():
        parts.append(f'<h2 id="{_anchor(path)}">{html.escape(path)}</h2>')
        parts.append(f'<img alt="plot of the use of codes" src="{data_url("png", plots[path])}">')
        for index, codebook in enumerate(leaf.codebooks):
            parts += _codebook(tokenizer, leaf, codebook, examples, is_open=index == 0)
    return page(title, parts, style=_STYLE)


def _facts(facts: Mapping[str, str]) -> Iterator[str]:
    yield '<p class="quiet">'
    for name, value in facts.items():
        yield f"{html.escape(name)}: <b>{html.escape(value)}</b><br>"
    yield "</p>"


def _summary(usage: CodeUsage) -> Iterator[str]:
    yield (
        f"<p>{usage.num_frames:,} frames of {usage.num_tokens} tokens. "
        f"<b>{percent(usage.exact_frames)}</b> of the frames come back exactly"
        f"{usage.tolerance}.</p>"
    )
    names = ("leaf", "tokens", "codes", "in use", "share in use", "perplexity", "exact patches")
    yield "<table><tr>" + "".join(f"<th>{name}</th>" for name in names) + "</tr>"
    for path, leaf in usage.leaves.items():
        tokens = sum(len(codebook.counts) for codebook in leaf.codebooks)
        cells = (
            f'<a href="#{_anchor(path)}">{html.escape(path)}</a>',
            f"{tokens}",
            f"{leaf.num_codes:,}",
            f"{leaf.in_use:,}",
            percent(leaf.in_use / leaf.num_codes),
            f"{leaf.perplexity:.1f}",
            percent(leaf.exact_share),
        )
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    yield "</table>"
    yield (
        '<p class="quiet">Perplexity: as many equally frequent codes would say as much; the mean '
        "where a leaf has several codebooks.</p>"
    )


def _navigation(usage: CodeUsage) -> str:
    links = "".join(f'<a href="#{_anchor(path)}">{html.escape(path)}</a>' for path in usage.leaves)
    return f'<nav><a href="#film">film</a>{links}</nav>'


def _codebook(
    tokenizer: Tokenizer,
    leaf: LeafUsage,
    codebook: CodebookUsage,
    examples: int,
    *,
    is_open: bool,
) -> Iterator[str]:
    """Give a codebook's legend and cards; all but a leaf's first are folded."""
    cards = list(code_cards(tokenizer, leaf, codebook, examples=examples))
    name = html.escape(codebook.name)
    yield f"<details{' open' if is_open else ''}><summary><b>{name}</b>: "
    yield (
        f"{codebook.in_use:,} of {codebook.size:,} codes in use, perplexity "
        f"{codebook.perplexity:.1f}, most used first</summary>"
    )
    yield f'<p class="quiet">{_legend(cards, codebook)}</p>'
    yield f'<div class="cards" style="--card: {_card_width(cards)}px">'
    most = cards[0].share if cards else 1.0
    for card in cards:
        yield _card(card, f"{_anchor(codebook.name)}-{card.code}", most)
    yield "</div></details>"


def _legend(cards: Sequence[CodeCard], codebook: CodebookUsage) -> str:
    if not cards or not cards[0].decoded:
        return "The code's number, how often it was chosen, and what it means."
    if cards[0].seen:
        text = (
            "Left: what the code decodes to. Right: different real patches that chose it, the "
            'most frequent first, with how often; one with a <span class="red">red</span> line '
            "below does not come back exactly. Where a patch reaches over the edge of the frame, "
            "it holds zeros, which are black."
        )
        if codebook.stage:
            text += (
                " This is a later stage: the arrow leads from what the stages before give, of the "
                "most frequent patch, to what this code makes of it."
            )
        return text
    text = (
        'In <span class="blue">blue</span> what the code decodes to, in '
        '<span class="green">green</span> some real values that chose it; each axis is as long '
        "as the values that occur."
    )
    if codebook.stage:
        text += (
            ' In <span class="amber">amber</span> what the stages before give, of the most '
            "frequent patch."
        )
    return text


def _card_width(cards: Sequence[CodeCard]) -> int:
    widest = max((sum(part.shape[1] + 14 for part in _all(card)) for card in cards), default=0)
    return max(130, widest + 28)


def _all(card: CodeCard) -> list[np.ndarray]:
    return [*card.decoded, *card.seen]


def _card(card: CodeCard, anchor: str, most: float) -> str:
    body = f'<div class="label">{html.escape(card.label)}</div>' if card.label else ""
    body += "<span>→</span>".join(_picture(Image.fromarray(part)) for part in card.decoded)
    if card.seen:
        body += f'<div class="seen">{_picture(examples_picture(card))}</div>'
    return (
        f'<div class="card" id="{anchor}"><div class="head">'
        f'<a href="#{anchor}">{card.code}</a>'
        f"<span>{card.count:,} · {percent(card.share)}</span></div>"
        f'<div class="body">{body}</div>'
        f'<div class="bar" style="width: {100 * card.share / most:.1f}%"></div></div>'
    )


def _picture(image: Image.Image) -> str:
    """Give an image as an element; few colors make a small file."""
    buffer = io.BytesIO()
    colors = image.getcolors(256)
    small = image.quantize(len(colors), dither=Image.Dither.NONE) if colors else image
    small.save(buffer, format="PNG", optimize=True)
    width, height = image.size
    source = data_url("png", buffer.getvalue())
    return f'<img alt="" width="{width}" height="{height}" src="{source}">'


def _anchor(name: str) -> str:
    """Make a name that can stand in a link."""
    return "codes-" + re.sub(r"[^A-Za-z0-9]+", "-", name)

"""What worldgen's HTML pages are made of: they need nothing but a browser.

Functions:
    page: a whole page.
    data_url: bytes inside a page.
    table: rows of text.
    line_chart: curves, as SVG.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from worldgen.evaluation.plot_style import COLORS, GRID, INK, QUIET

__all__ = ["data_url", "line_chart", "page", "table"]

_STYLE = """
:root { color-scheme: dark; }
body { margin: 0 auto; max-width: 1280px; padding: 0 20px 60px; background: #16181d;
  color: #e2e4e9; font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 26px; margin: 28px 0 4px; } h2 { font-size: 21px; margin: 44px 0 6px; }
p { max-width: 75ch; } a { color: #60a5fa; } .quiet { color: #9499a4; }
nav { position: sticky; top: 0; background: #16181d; padding: 8px 0; z-index: 1;
  border-bottom: 1px solid #2c3038; } nav a { margin-right: 16px; }
table { border-collapse: collapse; margin: 12px 0; }
th, td { text-align: right; padding: 4px 14px; border-bottom: 1px solid #2c3038; }
th { color: #9499a4; font-weight: normal; } th:first-child, td:first-child { text-align: left;
  padding-left: 0; }
img { max-width: 100%; } summary { cursor: pointer; padding: 6px 0; }
pre { background: #20232a; padding: 10px 14px; border-radius: 6px; overflow-x: auto; }
.charts { display: flex; flex-wrap: wrap; gap: 14px; }
svg { background: #20232a; border-radius: 6px; font: 11px system-ui, sans-serif; }
"""
_WIDTH, _HEIGHT = 410, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 22, 30, 54

Curve = Sequence[tuple[float, float]]


def page(title: str, body: Iterable[str], *, style: str = "") -> str:
    """Give a whole page.

    Args:
        title: Plain text.
        body: HTML.
        style: CSS beside that of all pages.
    """
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}{style}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        *body,
        "</body></html>\n",
    ]
    return "\n".join(parts)


def data_url(kind: str, content: bytes) -> str:
    """Give a picture's bytes as a URL: `kind` is "png" or "gif"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Lay out rows of plain text."""
    lines = ["<table>"]
    if header:
        lines.append("<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in header) + "</tr>")
    for row in rows:
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>")
    return "\n".join([*lines, "</table>"])


def line_chart(
    title: str,
    x_label: str,
    curves: Mapping[str, Curve],
    *,
    share: bool = False,
    levels: Mapping[str, float] | None = None,
) -> str:
    """Draw curves.

    Args:
        title: Plain text, as all labels.
        x_label: Below the horizontal axis.
        curves: Name -> points (x, y), in the order of x.
        share: The vertical axis is of shares, from 0 to 100%.
        levels: Name -> y, dashed lines to compare with.
    """
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    levels = levels or {}
    values = [y for _, y in points] + list(levels.values())
    xs = _ticks(min(x for x, _ in points), max(x for x, _ in points))
    ys = _ticks(0.0, 1.0) if share else _ticks(min(values), max(values))
    to_x = _scale(xs[0], xs[-1], _LEFT, _WIDTH - _RIGHT)
    to_y = _scale(ys[0], ys[-1], _HEIGHT - _BOTTOM, _TOP)
    dashed = {name: [(xs[0], y), (xs[-1], y)] for name, y in levels.items()}
    parts = [
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{html.escape(title)}">',
        f'<text x="{_LEFT}" y="19" fill="{INK}" font-size="13">{html.escape(title)}</text>',
        *(_grid_line(to_y(y), f"{y:.0%}" if share else f"{y:g}") for y in ys),
        *(_centred(to_x(x), 16, f"{x:,.10g}") for x in xs),
        _centred((_LEFT + _WIDTH - _RIGHT) / 2, 31, html.escape(x_label)),
    ]
    left = float(_LEFT)
    for index, (name, curve) in enumerate({**curves, **dashed}.items()):
        color = COLORS[index % len(COLORS)]
        places = [(to_x(x), to_y(y)) for x, y in curve]
        parts += _drawn(places, color, dashed=name in dashed)
        parts.append(
            f'<text x="{left}" y="{_HEIGHT - 8}" fill="{color}">{html.escape(name)}</text>'
        )
        left += 6.2 * len(name) + 14
    return "\n".join([*parts, "</svg>"])


def _grid_line(at: float, label: str) -> str:
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at}" y2="{at}" stroke="{GRID}"/>'
        f'<text x="{_LEFT - 6}" y="{at + 4}" fill="{QUIET}" text-anchor="end">{label}</text>'
    )


def _centred(at: float, below: float, text: str) -> str:
    """Write below the horizontal axis."""
    return (
        f'<text x="{at}" y="{_HEIGHT - _BOTTOM + below}" fill="{QUIET}" '
        f'text-anchor="middle">{text}</text>'
    )


def _drawn(places: Curve, color: str, *, dashed: bool) -> Iterator[str]:
    """Draw a curve with its points, or a dashed line without."""
    path = " ".join(f"{x},{y}" for x, y in places)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    yield f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8"{dash}/>'
    if not dashed:
        yield from (f'<circle cx="{x}" cy="{y}" r="2.2" fill="{color}"/>' for x, y in places)


def _scale(low: float, high: float, to_low: float, to_high: float) -> Callable[[float], float]:
    """Give a straight line from one range to another, rounded to tenths of a pixel."""
    slope = (to_high - to_low) / ((high - low) or 1.0)
    return lambda value: round(to_low + (value - low) * slope, 1)


def _ticks(low: float, high: float) -> list[float]:
    """Choose four to seven round numbers that hold a range.

    >>> _ticks(0, 1), _ticks(1000, 4000)[-1]
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], 4000.0)
    """
    span = (high - low) or max(abs(high), 1.0)
    raw = span / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step = min((f * unit for f in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / raw)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [round(step * number, 12) for number in range(first, last + 1)]

"""Plots of how a tokenizer's codes are used, by matplotlib.

Functions:
    require_matplotlib: say early that it is missing.
    usage_figure: rank against frequency, and use at each position, of one leaf.
    figure_png: a figure as a PNG.

Figures are drawn on a canvas of their own: matplotlib's global state is left alone.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from worldgen.errors import MissingDependencyError
from worldgen.inspection.code_pictures import percent
from worldgen.inspection.code_usage import CodebookUsage, LeafUsage, perplexities

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figure_png", "require_matplotlib", "usage_figure"]

_BACKGROUND, _PANEL, _INK, _QUIET = "#16181d", "#20232a", "#e2e4e9", "#9499a4"
_COLORS = ("#60a5fa", "#fbbf24", "#34d399", "#f87171", "#c084fc", "#22d3ee", "#f472b6", "#a3e635")
_DPI = 110
_LARGEST_MAP = 24
_FEW_CODES = 12
"""Codes that do not need a logarithmic axis."""


def require_matplotlib() -> None:
    """Make sure that plots can be drawn.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "plots of codes need matplotlib, which is not installed: pip install 'worldgen[plot]'"
        ) from error


def usage_figure(leaf: LeafUsage, layout: np.ndarray | None = None) -> Figure:
    """Draw how the codes of a leaf are used.

    Args:
        leaf: What was measured.
        layout: (rows, columns) numbers of its patches as they are drawn, from `patch_layout`,
            where it has such.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), dpi=_DPI, facecolor=_BACKGROUND, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    _style(left)
    _style(right)
    _plot_ranks(left, leaf)
    first = leaf.codebooks[0]
    if layout is not None and max(layout.shape) <= _LARGEST_MAP:
        _plot_map(right, first, layout)
    else:
        _plot_positions(right, leaf)
    figure.suptitle(
        f"{leaf.path}: {leaf.in_use:,} of {leaf.num_codes:,} codes in use "
        f"({percent(leaf.in_use / leaf.num_codes)}), perplexity {leaf.perplexity:.1f}",
        color=_INK,
        fontsize=12,
    )
    return figure


def figure_png(figure: Figure) -> bytes:
    """Give a figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    # No version number in the file: equal figures are equal files.
    figure.savefig(buffer, format="png", facecolor=_BACKGROUND, metadata={"Software": None})
    return buffer.getvalue()


def _style(axes: Axes) -> None:
    axes.set_facecolor(_PANEL)
    axes.tick_params(colors=_QUIET, labelsize=8, which="both")
    for spine in axes.spines.values():
        spine.set_color("#3a3e47")
    axes.title.set_color(_INK)
    axes.xaxis.label.set_color(_QUIET)
    axes.yaxis.label.set_color(_QUIET)


def _plot_ranks(axes: Axes, leaf: LeafUsage) -> None:
    """Draw each codebook's counts, the largest first, on a logarithmic axis."""
    from matplotlib.ticker import MaxNLocator

    for index, codebook in enumerate(leaf.codebooks):
        counts = np.sort(codebook.totals)[::-1][: codebook.in_use]
        axes.plot(
            np.arange(1, len(counts) + 1),
            counts,
            marker="o",
            markersize=3 if len(counts) <= 100 else 1.5,
            linewidth=1.2,
            color=_COLORS[index % len(_COLORS)],
            label=f"{codebook.name} ({codebook.in_use})",
        )
    if max(codebook.in_use for codebook in leaf.codebooks) > _FEW_CODES:
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_yscale("log")
    _plain_numbers(axes.yaxis)
    axes.set_ylim(0.8, 2 * max(codebook.totals.max() for codebook in leaf.codebooks))
    axes.set_xlabel("rank of the code")
    axes.set_ylabel("times chosen")
    axes.set_title("how often each code is chosen", fontsize=10)
    axes.grid(color="#2c3038", linewidth=0.6)
    if 1 < len(leaf.codebooks) <= len(_COLORS):
        axes.legend(fontsize=8, facecolor=_PANEL, edgecolor="#3a3e47", labelcolor=_INK)


def _plain_numbers(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_minor_formatter(NullFormatter())


def _plot_map(axes: Axes, codebook: CodebookUsage, layout: np.ndarray) -> None:
    """Write the number of codes in use where each patch stands in the frame."""
    numbers = (codebook.counts > 0).sum(1)[layout]
    axes.imshow(numbers, cmap="viridis", vmin=0, aspect="auto")
    size = 9 if max(layout.shape) <= 10 else 6
    for (row, column), number in np.ndenumerate(numbers):
        color = "#16181d" if number > 0.7 * numbers.max() else "#ffffff"
        axes.text(column, row, f"{number}", ha="center", va="center", color=color, fontsize=size)
    axes.set_xticks(range(layout.shape[1]))
    axes.set_yticks(range(layout.shape[0]))
    axes.set_xlabel("patches of the frame, as it is drawn")
    axes.set_title("codes in use at each position", fontsize=10)


def _plot_positions(axes: Axes, leaf: LeafUsage) -> None:
    """Draw codes in use and perplexity of each token as bars."""
    counts = [codebook.counts for codebook in leaf.codebooks]
    in_use = np.concatenate([(part > 0).sum(1) for part in counts])
    said = np.concatenate([perplexities(part) for part in counts])
    place = np.arange(len(in_use))
    axes.bar(place, in_use, color="#3b4a63", label="codes in use")
    axes.bar(place, said, width=0.5, color=_COLORS[0], label="perplexity")
    axes.set_xlabel("token of the leaf")
    axes.set_xlim(-0.6, max(len(place), 4) - 0.4)
    if len(place) <= 16:
        axes.set_xticks(place)
    axes.set_title("codes in use and perplexity at each position", fontsize=10)
    axes.set_ylim(top=float(in_use.max()) * 1.22)
    axes.legend(
        fontsize=8, facecolor=_PANEL, edgecolor="#3a3e47", labelcolor=_INK, loc="upper right"
    )

"""Plots of how a tokenizer's codes are used, by matplotlib.

Functions:
    usage_figure: rank against frequency, and use at each position, of one leaf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from worldgen.evaluation.plot_style import COLORS, EDGE, GRID, INK, PANEL, new_figure
from worldgen.inspection.code_pictures import percent
from worldgen.inspection.code_usage import CodebookUsage, LeafUsage, perplexities

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["usage_figure"]

_LARGEST_MAP = 24
_FEW_CODES = 12
"""Codes that do not need a logarithmic axis."""


def usage_figure(leaf: LeafUsage, layout: np.ndarray | None = None) -> Figure:
    """Draw how the codes of a leaf are used.

    Args:
        leaf: What was measured.
        layout: (rows, columns) numbers of its patches as they are drawn, from `patch_layout`,
            where it has such.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    figure, (left, right) = new_figure((11, 4.2), (1.35, 1))
    _plot_ranks(left, leaf)
    first = leaf.codebooks[0]
    if layout is not None and max(layout.shape) <= _LARGEST_MAP:
        _plot_map(right, first, layout)
    else:
        _plot_positions(right, leaf)
    figure.suptitle(
        f"{leaf.path}: {leaf.in_use:,} of {leaf.num_codes:,} codes in use "
        f"({percent(leaf.in_use / leaf.num_codes)}), perplexity {leaf.perplexity:.1f}",
        color=INK,
        fontsize=12,
    )
    return figure


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
            color=COLORS[index % len(COLORS)],
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
    axes.grid(color=GRID, linewidth=0.6)
    if 1 < len(leaf.codebooks) <= len(COLORS):
        axes.legend(fontsize=8, facecolor=PANEL, edgecolor=EDGE, labelcolor=INK)


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
    axes.bar(place, said, width=0.5, color=COLORS[0], label="perplexity")
    axes.set_xlabel("token of the leaf")
    axes.set_xlim(-0.6, max(len(place), 4) - 0.4)
    if len(place) <= 16:
        axes.set_xticks(place)
    axes.set_title("codes in use and perplexity at each position", fontsize=10)
    axes.set_ylim(top=float(in_use.max()) * 1.22)
    axes.legend(fontsize=8, facecolor=PANEL, edgecolor=EDGE, labelcolor=INK, loc="upper right")

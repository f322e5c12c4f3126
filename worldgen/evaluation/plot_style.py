"""The look of worldgen's plots, and the one place where matplotlib is asked for.

Functions:
    require_matplotlib: say early that it is missing.
    new_figure: an empty figure with its axes.
    style_axes: the dark look.
    figure_png: a figure as a PNG.

Figures are drawn on a canvas of their own: matplotlib's global state is left alone.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from worldgen.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BACKGROUND",
    "COLORS",
    "EDGE",
    "GRID",
    "INK",
    "PANEL",
    "QUIET",
    "figure_png",
    "new_figure",
    "require_matplotlib",
    "style_axes",
]

BACKGROUND, PANEL, INK, QUIET = "#16181d", "#20232a", "#e2e4e9", "#9499a4"
EDGE, GRID = "#3a3e47", "#2c3038"
COLORS = ("#60a5fa", "#fbbf24", "#34d399", "#f87171", "#c084fc", "#22d3ee", "#f472b6", "#a3e635")
_DPI = 110


def require_matplotlib() -> None:
    """Make sure that plots can be drawn.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "plots need matplotlib, which is not installed: pip install 'worldgen[plot]'"
        ) from error


def new_figure(
    size: tuple[float, float], width_ratios: Sequence[float], rows: int = 1
) -> tuple[Figure, list[Axes]]:
    """Make a figure with axes side by side, in one row or more.

    Args:
        size: Width and height in inches.
        width_ratios: One for each of the axes of a row.
        rows: How many; the axes are given row by row.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=_DPI, facecolor=BACKGROUND, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, len(width_ratios), width_ratios=width_ratios, squeeze=False)
    every = list(axes.flat)
    for one in every:
        style_axes(one)
    return figure, every


def style_axes(axes: Axes) -> None:
    """Give axes the dark look."""
    axes.set_facecolor(PANEL)
    axes.tick_params(colors=QUIET, labelsize=8, which="both")
    for spine in axes.spines.values():
        spine.set_color(EDGE)
    axes.title.set_color(INK)
    axes.xaxis.label.set_color(QUIET)
    axes.yaxis.label.set_color(QUIET)


def figure_png(figure: Figure) -> bytes:
    """Give a figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    # No version number in the file: equal figures are equal files.
    figure.savefig(buffer, format="png", facecolor=BACKGROUND, metadata={"Software": None})
    return buffer.getvalue()

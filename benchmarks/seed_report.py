"""What the reports on agents have in common: steps of every seed, and curves over them.

Functions:
    with_interval: an estimate in text.
    steps_by_seed: a table of every run.
    plot_curves: each run, and the interquartile mean of each arm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.interquartile import interquartile_mean
from benchmarks.results import markdown_table
from worldgen.checkpoint import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_curves", "steps_by_seed", "with_interval"]

_COLORS = ("#0072B2", "#E69F00", "#009E73")


def with_interval(values: Mapping[str, float], form: str = ",.0f") -> str:
    """Write an `Estimate`, as a dictionary.

    >>> with_interval({"mean": 1234.5, "low": 1000.0, "high": 2000.0})
    '1,234 (1,000 to 2,000)'
    """
    return f"{values['mean']:{form}} ({values['low']:{form}} to {values['high']:{form}})"


def steps_by_seed(
    label: str,
    seeds: Sequence[int],
    arms: Mapping[str, tuple[np.ndarray, np.ndarray]],
    unfinished: str,
) -> str:
    """Lay every run out as a Markdown table.

    Args:
        label: Of the first column.
        seeds: Of the other columns.
        arms: Name -> steps (seeds,) and which runs got there.
        unfinished: Before the steps of a run that did not.
    """
    rows = [
        [
            arm,
            *(
                f"{count:,.0f}" if done else f"{unfinished} {count:,.0f}"
                for count, done in zip(steps, reached, strict=True)
            ),
        ]
        for arm, (steps, reached) in arms.items()
    ]
    return markdown_table([label, *map(str, seeds)], rows)


def plot_curves(
    path: Path,
    arms: Mapping[str, Sequence[np.ndarray]],
    goal: float,
    *,
    title: str,
    y_label: str,
    y_limits: tuple[float, float] | None = None,
) -> None:
    """Draw curves over real environment steps, as a PNG.

    Args:
        path: The PNG.
        arms: Name -> a curve (points, 2) for each run: steps and value; empty ones are left out.
        goal: A dotted line.
        title: Of the plot.
        y_label: What the values are.
        y_limits: Of the vertical axis; None leaves it to the curves.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for (arm, curves), color in zip(arms.items(), _COLORS, strict=False):
        _draw_arm(axes, arm, [curve for curve in curves if len(curve)], color)
    axes.axhline(goal, color="grey", linewidth=1, linestyle=":")
    axes.set_xlabel("real environment steps")
    axes.set_ylabel(y_label)
    axes.set_title(title)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    if y_limits is not None:
        axes.set_ylim(*y_limits)
    axes.legend(loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)

    def write(file: Path) -> None:
        figure.savefig(file, format="png")

    write_atomically(path, write)


def _draw_arm(axes: Axes, arm: str, curves: Sequence[np.ndarray], color: str) -> None:
    for curve in curves:
        axes.plot(curve[:, 0], curve[:, 1], color=color, alpha=0.3, linewidth=1)
    if curves:
        steps = np.unique(np.concatenate([curve[:, 0] for curve in curves]))
        # A run that is over stays where it ended.
        values = np.stack([np.interp(steps, curve[:, 0], curve[:, 1]) for curve in curves], -1)
        axes.plot(steps, interquartile_mean(values), color=color, linewidth=2.5, label=arm)

"""Plots of how far dreams can be trusted, by matplotlib.

Functions:
    drift_figure: shares of dreams that are right, against the horizon.
    samplers_figure: the same dreams by the number of denoising steps.
    calibration_figure: predicted probabilities against observed frequencies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from worldgen.evaluation.calibration import CalibrationReport, GroupCalibration
from worldgen.evaluation.plot_style import (
    BACKGROUND,
    COLORS,
    EDGE,
    GRID,
    INK,
    PANEL,
    QUIET,
    new_figure,
)
from worldgen.evaluation.reliability import Reliability
from worldgen.evaluation.report import Agreement, FidelityReport, HorizonFidelity
from worldgen.evaluation.sampler_comparison import SamplerComparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["calibration_figure", "drift_figure", "samplers_figure"]

_SIZE = (11, 4.8)
_MOST_CURVES = 6

_Get = Callable[[HorizonFidelity], float | None]
_Part = Callable[[Agreement], float | None]
_Points = list[tuple[int, float]]


def drift_figure(report: FidelityReport) -> Figure:
    """Draw how the shares of right dreams, and their observations, fall with the horizon.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    figure, (left, right) = new_figure(_SIZE, (1.2, 1))
    curves: list[tuple[str, str, _Get]] = [
        ("all", "-", lambda entry: entry.exact),
        ("all that the past determines", "-", lambda entry: entry.determined_exact),
        ("every reward", "-", lambda entry: entry.rewards),
        ("every termination", "--", lambda entry: entry.terminations),
    ]
    for color, (label, line, get) in zip(COLORS, curves, strict=False):
        _curve(left, report.horizons, get, label, color, line=line, interval=True)
    _finish(left, report.horizons, "dreams that have it right so far, with 95% intervals")
    _percent_axis(left)
    _plot_observations(right, report)
    figure.suptitle(
        f"open-loop dreams on {report.num_episodes:,} held-out episodes, up to "
        f"{max(entry.num_dreams for entry in report.horizons):,} for each horizon",
        color=INK,
        fontsize=11,
    )
    return figure


def _curve(
    axes: Axes,
    entries: Sequence[HorizonFidelity],
    get: _Get,
    label: str,
    color: str,
    *,
    line: str = "-",
    interval: bool = False,
) -> None:
    points = _points(entries, get)
    if not points:
        return
    x, y = zip(*points, strict=True)
    axes.plot(x, y, line, marker="o", markersize=4, linewidth=1.8, color=color, label=label)
    if interval:
        known = [entry for entry in entries if get(entry) is not None]
        bounds = np.array([entry.interval(get(entry)) for entry in known], np.float64)
        axes.fill_between(x, bounds[:, 0], bounds[:, 1], color=color, alpha=0.16, linewidth=0)


def _points(entries: Sequence[HorizonFidelity], get: _Get) -> _Points:
    return [(entry.horizon, value) for entry in entries if (value := get(entry)) is not None]


def _finish(axes: Axes, entries: Sequence[HorizonFidelity], title: str) -> None:
    horizons = [entry.horizon for entry in entries]
    axes.set_xscale("log")
    axes.set_xticks(horizons, [str(horizon) for horizon in horizons])
    axes.minorticks_off()
    axes.set_xlabel("horizon, environment steps")
    axes.set_title(title, fontsize=10)
    axes.grid(color=GRID, linewidth=0.6)
    _legend_below(axes)


def _legend_below(axes: Axes) -> None:
    labels = axes.get_legend_handles_labels()[1]
    if not labels:
        return
    columns = 5 if max(map(len, labels)) < 10 else 3
    axes.legend(
        fontsize=8,
        facecolor=PANEL,
        edgecolor=EDGE,
        labelcolor=INK,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.15),
        ncols=min(len(labels), columns),
    )


def _percent_axis(axes: Axes) -> None:
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks(np.linspace(0, 1, 6), [f"{share}%" for share in range(0, 101, 20)])


def _plot_observations(axes: Axes, report: FidelityReport) -> None:
    """Draw what the observations at each horizon are worth, with the tokenizer's ceiling."""
    parts: list[tuple[str, _Part]] = []
    ceiling = report.reconstruction
    if ceiling.cells is not None:
        parts.append(("single values", lambda agreement: agreement.cells))
    parts += [(f"{name} cells", _entry("objects", name)) for name in _worst_objects(report)]
    for path in ceiling.r2:
        parts.append((f"R2 of {path}", _entry("r2", path)))
        parts.append(("its worst entry", _entry("r2_worst", path)))
    decibels = not parts
    if decibels:
        parts = [(f"PSNR of {path}, dB", _entry("psnr", path)) for path in ceiling.psnr]
    for color, (label, get) in zip(COLORS, parts[:_MOST_CURVES], strict=False):
        _curve(axes, report.horizons, _at_horizon(get), label, color)
        best = get(ceiling)
        if best is not None:
            axes.axhline(best, color=color, linewidth=0.8, linestyle=":", alpha=0.8)
    if not decibels:
        axes.set_ylim(top=1.02, bottom=_bottom(axes))
    _finish(axes, report.horizons, "observations at the horizon; dotted: the tokenizer alone")


def _entry(name: str, key: str) -> _Part:
    """Give the reader of one entry of a dictionary of `Agreement`."""

    def get(agreement: Agreement) -> float | None:
        found: dict[str, float] = getattr(agreement, name)
        return found.get(key)

    return get


def _at_horizon(get: _Part) -> _Get:
    return lambda entry: get(entry.agreement)


def _bottom(axes: Axes) -> float:
    """Choose where the axis begins: at a round share below what is drawn, -1 at least."""
    lowest = min((float(np.min(line.get_ydata())) for line in axes.lines), default=0.0)
    return max(-1.0, float(np.floor(lowest * 10)) / 10 - 0.02)


def _worst_objects(report: FidelityReport) -> list[str]:
    """Name the MiniGrid objects that fare worst over all horizons, up to four."""
    shares: dict[str, float] = {}
    for entry in report.horizons:
        for name, share in entry.agreement.objects.items():
            shares[name] = min(share, shares.get(name, 1.0))
    return sorted((name for name in shares if name != "unseen"), key=shares.__getitem__)[:4]


def samplers_figure(comparison: SamplerComparison) -> Figure:
    """Draw what more denoising steps bring, over the horizon and at single horizons.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    figure, (left, right) = new_figure(_SIZE, (1.2, 1))
    numbers = list(comparison.by_denoising_steps)
    get = comparison.main_value
    shares = comparison.main_share.startswith("dreams")
    for index, number in enumerate(numbers):
        label = f"{number} denoising step{'s' if number > 1 else ''}"
        label += " (one a token)" if number == comparison.num_tokens > 1 else ""
        color = _shade(index, len(numbers))
        _curve(left, comparison.by_denoising_steps[number], get, label, color)
    entries = comparison.by_denoising_steps[numbers[0]]
    _finish(left, entries, comparison.main_share)
    places = np.arange(len(numbers))
    for color, entry in zip(COLORS, entries, strict=False):
        found = [_at(comparison, number, entry.horizon) for number in numbers]
        values = [get(one) for one in found]
        if any(value is None for value in values):
            continue
        heights = np.array(values, np.float64)
        errors = None
        if shares:
            bounds = np.array(
                [one.interval(value) for one, value in zip(found, values, strict=True)], np.float64
            )
            errors = np.abs(bounds.T - heights)
        right.errorbar(
            places, heights, errors, color=color, marker="o", markersize=4, linewidth=1.6,
            elinewidth=1, capsize=3, label=f"after {entry.horizon}",
        )  # fmt: skip
    right.set_xticks(places, [str(number) for number in numbers])
    right.set_xlabel("denoising steps a frame (network passes)")
    right.set_title(
        "the same, by horizon" + (", with 95% intervals" if shares else ""), fontsize=10
    )
    right.grid(color=GRID, linewidth=0.6)
    _legend_below(right)
    if shares:
        _percent_axis(left)
        _percent_axis(right)
    return figure


def _shade(index: int, count: int) -> str:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return to_hex(colormaps["plasma"](0.15 + 0.75 * index / max(count - 1, 1)))


def _at(comparison: SamplerComparison, number: int, horizon: int) -> HorizonFidelity:
    entries = comparison.by_denoising_steps[number]
    return next(entry for entry in entries if entry.horizon == horizon)


def calibration_figure(report: CalibrationReport) -> Figure:
    """Draw reliability diagrams, and the nats of the model beside simple predictors.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    groups = list(report.groups.items())[:2]
    ratios = [1.0] * len(groups) + ([0.75] if report.predictors else [])
    figure, axes = new_figure((4.1 * sum(ratios) + 0.4, 4.4), ratios)
    for one, (name, group) in zip(axes, groups, strict=False):
        _plot_reliability(one, group.likeliest, COLORS[0], "the likeliest")
        _plot_reliability(one, group.contents, COLORS[1], "any over 1%")
        one.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle="--", zorder=1)
        highest = _highest(group)
        one.set_xlim(-0.02 * highest, 1.02 * highest)
        one.set_ylim(-0.02 * highest, 1.02 * highest)
        one.set_xlabel("predicted probability")
        one.set_ylabel("observed frequency")
        one.set_title(f"{name}, one step ahead", fontsize=10)
        one.grid(color=GRID, linewidth=0.6)
        one.legend(
            fontsize=8, facecolor=PANEL, edgecolor=EDGE, labelcolor=INK, loc="upper left",
            title="calibration error", title_fontproperties={"size": 8},
        ).get_title().set_color(QUIET)  # fmt: skip
    if report.predictors is not None:
        _plot_predictors(axes[-1], report)
    return figure


def _highest(group: GroupCalibration) -> float:
    """Choose where the axes end: at 1, or sooner where nothing is ever sure."""
    shown = [
        value
        for found in (group.likeliest, group.contents)
        for value in (*found.predicted, *found.observed)
    ]
    highest = max(shown, default=1.0)
    return 1.0 if highest > 0.5 else 1.2 * max(highest, 0.01)


def _plot_reliability(axes: Axes, found: Reliability, color: str, label: str) -> None:
    if found.error is None:
        return
    axes.plot(
        found.predicted,
        found.observed,
        marker="o",
        markersize=5,
        markeredgecolor=BACKGROUND,
        linewidth=1.4,
        color=color,
        label=f"{label}: {found.error:.3f}",
        zorder=3,
    )


def _plot_predictors(axes: Axes, report: CalibrationReport) -> None:
    found = report.predictors
    assert found is not None
    names = ("model", "marginal\nfrequencies", "copying the\nlast frame")
    values = (found.model, found.marginal, found.copy)
    bars = axes.bar(range(3), values, width=0.62, color=(COLORS[0], "#56606f", "#56606f"))
    axes.bar_label(bars, [f"{value:.2f}" for value in values], color=INK, fontsize=9, padding=2)
    axes.set_xticks(range(3), names, fontsize=8)
    axes.set_ylim(0, 1.15 * max(values))
    axes.set_ylabel("nats a cell, lower is better")
    axes.set_title(f"{found.num_cells:,} revealed cells", fontsize=10)

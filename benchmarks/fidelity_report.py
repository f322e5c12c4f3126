"""The tables and plots of the fidelity benchmark, from its finished pieces alone.

Functions:
    write_report: fidelity.json, fidelity.md and fidelity.png.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import markdown_table, write_json
from worldgen.evaluation.plot_style import (
    COLORS,
    EDGE,
    GRID,
    INK,
    PANEL,
    figure_png,
    new_figure,
)
from worldgen.evaluation.report import percent

__all__ = ["write_report"]

Piece = dict[str, Any]
Get = Callable[[Piece], float | None]


def write_report(
    pieces: Sequence[Piece], provenance: dict[str, Any], output: Path
) -> dict[str, Any]:
    """Write JSON, tables and plots; give what the JSON holds."""
    result = {"provenance": provenance, "pieces": list(pieces)}
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "fidelity.json", result)
    tasks = _by_task(pieces)
    symbols = {name: found for name, found in tasks.items() if _is_exact(found[0])}
    views = {name: found for name, found in symbols.items() if _predictors(found[0])}
    numbers = {name: found for name, found in tasks.items() if name not in symbols}
    page = [
        "The figures are the lowest of all seeds; of errors, nats and times the highest.",
        *_section("Dreams exactly right so far, by horizon", symbols, _exact_columns(symbols)),
        *_section(
            "Partial views: dreams right so far in all that the past determines, and what is "
            "newly revealed, one step ahead",
            views,
            _view_columns(views),
        ),
        *_section(
            "The same dreams with the likeliest tokens, in place of drawn ones",
            views,
            _determined_columns(views, "likeliest"),
        ),
        *_section("Numbers", numbers, _number_columns(numbers)),
        *_section(
            "Exact dreams (or R2) after 15 environment steps, by denoising steps",
            tasks,
            _sampler_columns(tasks),
        ),
    ]
    (output / "fidelity.md").write_text("\n\n".join(page) + "\n")
    (output / "fidelity.png").write_bytes(_figure(tasks))
    return result


def _by_task(pieces: Sequence[Piece]) -> dict[str, list[Piece]]:
    found: dict[str, list[Piece]] = {}
    for piece in pieces:
        found.setdefault(piece["settings"]["task"], []).append(piece)
    return found


def _is_exact(piece: Piece) -> bool:
    return any(entry["exact"] is not None for entry in piece["report"]["horizons"])


def _predictors(piece: Piece) -> Any:
    return piece["calibration"]["predictors"]


def _at(piece: Piece, horizon: int, report: str = "report") -> dict[str, Any]:
    entries = {entry["horizon"]: entry for entry in piece[report]["horizons"]}
    found: dict[str, Any] = entries[horizon]
    return found


def _horizons(tasks: dict[str, list[Piece]]) -> list[int]:
    first = next(iter(tasks.values()), [])
    return [entry["horizon"] for entry in first[0]["report"]["horizons"]] if first else []


Column = tuple[str, Get, Callable[[float | None], str], bool]
"""Head, value, how it is written, and whether more is worse."""


def _section(title: str, tasks: dict[str, list[Piece]], columns: list[Column]) -> list[str]:
    if not tasks or not columns:
        return []
    rows = [
        [name, str(len(pieces)), *(_worst(pieces, column) for column in columns)]
        for name, pieces in tasks.items()
    ]
    return [f"{title}:", markdown_table(["task", "seeds", *(c[0] for c in columns)], rows)]


def _worst(pieces: list[Piece], column: Column) -> str:
    _, get, write, more_is_worse = column
    values = [value for piece in pieces if (value := get(piece)) is not None]
    if not values:
        return ""
    return write(max(values) if more_is_worse else min(values))


def _share(head: str, get: Get) -> Column:
    return head, get, percent, False


def _number(head: str, get: Get, form: str, *, more_is_worse: bool) -> Column:
    return head, get, lambda value: form.format(value), more_is_worse


def _seconds() -> Column:
    return _number("training", lambda p: p["fit_seconds"], "{:.0f} s", more_is_worse=True)


def _exact_columns(tasks: dict[str, list[Piece]]) -> list[Column]:
    columns = [
        _share(str(h), lambda p, h=h: _at(p, h)["exact"])  # type: ignore[misc]
        for h in _horizons(tasks)
    ]
    for name in ("recall", "precision"):
        columns.append(
            _share(f"rewards: {name}", lambda p, n=name: p["report"]["rewarding"][n])  # type: ignore[misc]
        )
    return [*columns, _seconds()]


def _determined_columns(tasks: dict[str, list[Piece]], report: str) -> list[Column]:
    return [
        _share(str(h), lambda p, h=h: _at(p, h, report)["determined_exact"])  # type: ignore[misc]
        for h in _horizons(tasks)
    ]


def _view_columns(tasks: dict[str, list[Piece]]) -> list[Column]:
    columns = _determined_columns(tasks, "report")
    columns.append(
        _number(
            "calibration error",
            lambda p: p["calibration"]["groups"]["revealed cells"]["likeliest"]["error"],
            "{:.3f}",
            more_is_worse=True,
        )
    )
    for name in ("model", "copy", "marginal"):
        columns.append(
            _number(
                f"nats: {name}",
                lambda p, n=name: _predictors(p)[n],  # type: ignore[misc]
                "{:.3f}",
                more_is_worse=True,
            )
        )
    return columns


def _number_columns(tasks: dict[str, list[Piece]]) -> list[Column]:
    columns: list[Column] = []
    for horizon in _horizons(tasks):
        columns.append(
            _number(
                f"worst R2 at {horizon}",
                lambda p, h=horizon: _worst_r2(p, h),  # type: ignore[misc]
                "{:.4f}",
                more_is_worse=False,
            )
        )
    for horizon in _horizons(tasks)[-2:]:
        columns.append(
            _share(
                f"ends within 1 step, by {horizon}",
                lambda p, h=horizon: _at(p, h)["end_timing"],  # type: ignore[misc]
            )
        )
        columns.append(
            _number(
                f"false ends by {horizon}",
                lambda p, h=horizon: _percentage(_at(p, h)["false_ends"]),  # type: ignore[misc]
                "{:.1f}%",
                more_is_worse=True,
            )
        )
    return [*columns, _seconds()]


def _percentage(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _worst_r2(piece: Piece, horizon: int) -> float | None:
    return min(_at(piece, horizon)["agreement"]["r2_worst"].values(), default=None)


def _main_value(entry: dict[str, Any]) -> float | None:
    """Give the share of exact dreams, or the lowest R2 where nothing is exact."""
    if entry["exact"] is not None:
        return float(entry["exact"])
    return min(entry["agreement"]["r2"].values(), default=None)


def _sampler_columns(tasks: dict[str, list[Piece]]) -> list[Column]:
    """Give a column for each number of denoising steps, at the horizon nearest 15; last K."""
    numbers = _compared(tasks)
    if not numbers:
        return []
    columns = [
        _number(
            f"S = {number}",
            lambda p, s=number: _sampled(p, s),  # type: ignore[misc]
            "{:.3f}",
            more_is_worse=False,
        )
        for number in numbers
    ]
    last = _number("S = K", lambda p: _sampled(p, p["tokens"]), "{:.3f}", more_is_worse=False)
    return [*columns, last]


def _compared(tasks: dict[str, list[Piece]]) -> list[int]:
    """Give the numbers of denoising steps that were compared, but for K."""
    pieces = [piece for found in tasks.values() for piece in found if "samplers" in piece]
    return sorted({int(s) for piece in pieces for s in piece["settings"]["denoising_steps"]})


def _sampled(piece: Piece, number: int) -> float | None:
    entries = piece.get("samplers", {}).get("by_denoising_steps", {}).get(str(number), [])
    near = min(entries, key=lambda entry: abs(entry["horizon"] - 15), default=None)
    return None if near is None else _main_value(near)


def _figure(tasks: dict[str, list[Piece]]) -> bytes:
    """Draw each task's curve over the horizon, and over the denoising steps."""
    figure, (left, middle, right) = new_figure((13.5, 4.8), (1.15, 1, 1))
    marks = _compared(tasks)

    def at_mark(piece: Piece, place: int) -> float | None:
        """Read one number of steps; K is another in each task, and has the last place."""
        return _sampled(piece, [*marks, piece["tokens"]][place])

    for index, (name, pieces) in enumerate(tasks.items()):
        color = COLORS[index % len(COLORS)]
        axes = left if _is_exact(pieces[0]) else middle
        _curve(axes, pieces, name, color, lambda p, h: _main_value(_at(p, h)), _horizons(tasks))
        if _predictors(pieces[0]):
            _curve(
                left,
                pieces,
                f"{name}, determined",
                color,
                lambda p, h: _at(p, h)["determined_exact"],
                _horizons(tasks),
                line="--",
            )
        if marks:
            _curve(right, pieces, name, color, at_mark, range(len(marks) + 1))
    left.set_title("dreams exactly right so far, mean of seeds", fontsize=10)
    middle.set_title("R2 of vectors at the horizon", fontsize=10)
    right.set_title("exact (or R2) after 15, by denoising steps", fontsize=10)
    for axes in (left, middle):
        axes.set_xscale("log")
        axes.set_xlabel("horizon, environment steps")
        axes.set_xticks(_horizons(tasks), [str(horizon) for horizon in _horizons(tasks)])
        axes.minorticks_off()
    right.set_xlabel("denoising steps a frame; K draws one token a pass")
    right.set_xticks(range(len(marks) + 1), [*map(str, marks), "K"])
    for axes in (left, middle, right):
        lowest = min((float(np.min(line.get_ydata())) for line in axes.lines), default=0.0)
        axes.set_ylim(max(0.0, np.floor(lowest * 10) / 10) - 0.02, 1.02)
        axes.grid(color=GRID, linewidth=0.6)
    for axes in (left, middle):
        if axes.lines:
            axes.legend(fontsize=8, facecolor=PANEL, edgecolor=EDGE, labelcolor=INK, loc="best")
    return figure_png(figure)


def _curve(
    axes: Any,
    pieces: list[Piece],
    label: str,
    color: str,
    get: Callable[[Piece, int], float | None],
    places: Sequence[int],
    *,
    line: str = "-",
) -> None:
    """Draw the mean over the seeds, and a band from the lowest to the highest."""
    found = [(x, [v for p in pieces if (v := get(p, x)) is not None]) for x in places]
    known = [(x, values) for x, values in found if values]
    if not known:
        return
    x = [place for place, _ in known]
    axes.plot(
        x,
        [np.mean(values) for _, values in known],
        line,
        marker="o",
        markersize=4,
        linewidth=1.6,
        color=color,
        label=label,
    )
    axes.fill_between(
        x,
        [min(values) for _, values in known],
        [max(values) for _, values in known],
        color=color,
        alpha=0.15,
        linewidth=0,
    )

"""The tables and plots of `benchmarks.sample_efficiency`, from its finished runs alone.

Functions:
    write_report: sample_efficiency.json, .md, .png and sample_efficiency_seconds.png.
    break_even: from what cost of a real environment step on the dream wins by the clock too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from benchmarks.interquartile import estimate, interquartile_mean
from benchmarks.results import markdown_table, write_json
from benchmarks.sample_efficiency_tasks import TASKS
from benchmarks.seed_report import with_interval
from worldgen.evaluation.plot_style import COLORS, EDGE, GRID, INK, PANEL, figure_png, new_figure

__all__ = ["break_even", "write_report"]

Piece = Mapping[str, Any]
Runs = Mapping[str, Mapping[str, Sequence[Piece]]]
"""Task -> arm -> its runs."""

_ARMS = ("dream_ppo", "ppo", "dqn")
_NAMES = {"dream_ppo": "DreamPPO", "ppo": "PPO", "dqn": "DQN"}
_COLUMNS = 4
"""Most plots side by side."""
_CROWDED = 500
"""From this ratio of its ends on, an axis has a number a decade alone."""
_HELD_OUT = "episodes, of seeds that no training uses"


def write_report(
    pieces: Sequence[Piece], provenance: Mapping[str, Any], output: Path
) -> dict[str, Any]:
    """Write JSON, tables and plots; give what the JSON holds."""
    runs = _by_task(pieces)
    summary = {task: _summary(arms) for task, arms in runs.items()}
    result = {"provenance": provenance, "summary": summary, "runs": list(pieces)}
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "sample_efficiency.json", result)
    page = "\n\n".join(_page(runs, summary)) + "\n"
    (output / "sample_efficiency.md").write_text(page, encoding="utf-8")
    for name, key, label in (
        ("sample_efficiency", "real_steps", "real environment steps"),
        ("sample_efficiency_seconds", _clock(pieces), "seconds of training"),
    ):
        (output / f"{name}.png").write_bytes(_figure(runs, key, label))
    return result


def break_even(
    our_steps: float, our_seconds: float, their_steps: float, their_seconds: float
) -> float | None:
    """Give the cost of a real environment step, in ms, at which both take equally long.

    It comes on top of what the environment takes here, which both times contain.

    >>> break_even(5_000, 300, 45_000, 20)
    7.0

    Returns:
        0 where we are as fast already; None where we save no real steps.
    """
    saved = their_steps - our_steps
    if saved <= 0:
        return None
    return max(0.0, 1000 * (our_seconds - their_seconds) / saved)


def _by_task(pieces: Sequence[Piece]) -> dict[str, dict[str, list[Piece]]]:
    """Sort runs by task, in the table's order, by arm and by seed."""
    names = [*TASKS, *sorted({piece["settings"]["task"] for piece in pieces} - set(TASKS))]
    runs: dict[str, dict[str, list[Piece]]] = {}
    for task in names:
        for arm in _ARMS:
            found = [
                p for p in pieces if (p["settings"]["task"], p["settings"]["arm"]) == (task, arm)
            ]
            if found:
                by_seed = sorted(found, key=lambda piece: int(piece["settings"]["seed"]))
                runs.setdefault(task, {})[arm] = by_seed
    return runs


def _values(runs: Sequence[Piece], key: str) -> np.ndarray:
    return np.array([run[key] for run in runs], dtype=np.float64)


def _summary(arms: Mapping[str, Sequence[Piece]]) -> dict[str, Any]:
    found: dict[str, Any] = {
        arm: {
            "solved": sum(bool(run["solved"]) for run in runs),
            "runs": len(runs),
            "real_steps": asdict(estimate(_values(runs, "real_steps"))),
            "seconds": asdict(estimate(_values(runs, "seconds"))),
            "cpu_seconds": asdict(estimate(_values(runs, "cpu_seconds"))),
        }
        for arm, runs in arms.items()
    }
    against = [arm for arm in arms if arm != "dream_ppo"] if "dream_ppo" in arms else []
    return {"arms": found, "against": {arm: _against(arms, found, arm) for arm in against}}


def _against(
    arms: Mapping[str, Sequence[Piece]], found: Mapping[str, Any], other: str
) -> dict[str, Any]:
    """Compare DreamPPO with another arm."""
    ours, theirs = (found[arm] for arm in ("dream_ppo", other))
    steps = [_values(arms[arm], "real_steps") for arm in (other, "dream_ppo")]
    clock = _clock([*arms["dream_ppo"], *arms[other]])
    return {
        "ratio": asdict(estimate(*steps)),
        "break_even_ms": break_even(
            ours["real_steps"]["mean"],
            ours[clock]["mean"],
            theirs["real_steps"]["mean"],
            theirs[clock]["mean"],
        ),
        "break_even_clock": clock,
        "ours_censored": ours["solved"] < ours["runs"],
        "theirs_censored": theirs["solved"] < theirs["runs"],
    }


def _clock(runs: Sequence[Piece]) -> str:
    """Choose the clock for comparisons.

    With one thread the processor's seconds are the wall-clock of a machine that does nothing
    else, whatever else it did.
    """
    one_thread = all(run["settings"]["threads"] == 1 for run in runs)
    return "cpu_seconds" if one_thread else "seconds"


def _page(runs: Runs, summary: Mapping[str, Any]) -> list[str]:
    made = _any_run(runs)["settings"]
    page = [
        "# Real environment steps to a solved task",
        "Made by `benchmarks/sample_efficiency_report.py`; do not edit.",
        f"A task is solved at the second good evaluation in a row: {made['episodes']} {_HELD_OUT}, "
        f"played by sampling; {made['success']:.0%} succeed, or the mean return reaches the figure "
        "behind the task's name. All real environment steps up to the second of the two count, "
        "those of a first random collection too, and the seconds of training up to there, without "
        "evaluations. Interquartile means over seeds, with 95% bootstrap intervals; a run that is "
        "not solved counts with all its steps, so that a figure with > is a lower bound.",
        _arms_table(runs, summary),
    ]
    if any(entry["against"] for entry in summary.values()):
        page += [
            "The break-even cost is what a real environment step must cost, on top of what the "
            "environment takes here, for DreamPPO to be the faster one by the clock too; reckoned "
            "from the processor's seconds where the runs had one thread, since these do not depend "
            "on what else the machine did.",
            _comparison_table(summary),
        ]
    return [
        *page,
        "![Evaluations by real environment steps](sample_efficiency.png)",
        "![Evaluations by seconds of training](sample_efficiency_seconds.png)",
        "Thin lines are seeds, with a dot where the task is solved; a thick line is their "
        "interquartile mean, in which a run that is over stays where it ended.",
        _origin(runs),
    ]


def _any_run(runs: Runs) -> Piece:
    return next(iter(next(iter(runs.values())).values()))[0]


def _arms_table(runs: Runs, summary: Mapping[str, Any]) -> str:
    rows = []
    for task, arms in runs.items():
        for arm, of_arm in arms.items():
            found = summary[task]["arms"][arm]
            bound = "> " if found["solved"] < found["runs"] else ""
            goal = of_arm[0]["settings"]["solved_return"]
            rows.append(
                [
                    task if goal is None else f"{task} (return {goal:g})",
                    _NAMES[arm],
                    f"{found['solved']} of {found['runs']}",
                    bound + with_interval(found["real_steps"]),
                    bound + with_interval(found["seconds"]),
                    bound + with_interval(found["cpu_seconds"]),
                    ", ".join(_steps_of(run) for run in of_arm),
                ]
            )
    return markdown_table(
        [
            "task",
            "arm",
            "solved",
            "real environment steps",
            "seconds by the clock",
            "of the processor",
            "steps by seed",
        ],
        rows,
    )


def _steps_of(run: Piece) -> str:
    return f"{'' if run['solved'] else '> '}{run['real_steps']:,}"


def _comparison_table(summary: Mapping[str, Any]) -> str:
    rows = [
        [task, _NAMES[arm], _ratio(found), _cost(found)]
        for task, entry in summary.items()
        for arm, found in entry["against"].items()
    ]
    return markdown_table(
        ["task", "against", "times fewer real environment steps", "break-even cost of a real step"],
        rows,
    )


def _ratio(found: Mapping[str, Any]) -> str:
    if found["ours_censored"] and found["theirs_censored"]:
        return "unknown"
    bound = "< " if found["ours_censored"] else "> " if found["theirs_censored"] else ""
    return bound + with_interval(found["ratio"], ".1f")


def _cost(found: Mapping[str, Any]) -> str:
    """Write the break-even cost; what they would need beyond their budget makes it lower yet."""
    if found["ours_censored"]:
        return "unknown"
    if found["break_even_ms"] is None:
        return "unknown" if found["theirs_censored"] else "none: no steps are saved"
    return f"{'< ' if found['theirs_censored'] else ''}{found['break_even_ms']:.2g} ms"


def _origin(runs: Runs) -> str:
    """Say with what command, code and machine the runs were made."""
    made = [run for arms in runs.values() for of_arm in arms.values() for run in of_arm]
    sources = [run["provenance"] for run in made]

    def all_of(key: str) -> str:
        return ", ".join(sorted({str(source[key]) for source in sources}))

    commands = ", ".join(f"`{command}`" for command in sorted({s["command"] for s in sources}))
    commits = ", ".join(sorted({source["commit"][:10] for source in sources}))
    versions = ", ".join(f"{name} {found}" for name, found in sources[-1]["versions"].items())
    return (
        f"Commands: {commands}. Commits: {commits}. Processor: {all_of('processor')}; threads: "
        f"{all_of('threads')}. Versions: {versions}. Settings and curves: sample_efficiency.json."
    )


def _figure(runs: Runs, key: str, label: str) -> bytes:
    """Draw each task's evaluations over `key` of the curves."""
    columns = min(_COLUMNS, len(runs))
    rows = -(-len(runs) // columns)
    figure, every = new_figure((4.6 * columns, 4.2 * rows), [1.0] * columns, rows)
    for axes in every[len(runs) :]:
        axes.remove()
    for axes, (task, arms) in zip(every, runs.items(), strict=False):
        made = next(iter(arms.values()))[0]["settings"]
        goal = made["solved_return"]
        value = "success" if goal is None else "mean_return"
        for arm, of_arm in arms.items():
            _draw_arm(axes, arm, of_arm, key, value)
        axes.axhline(made["success"] if goal is None else goal, color=EDGE, linestyle=":")
        axes.set_title(f"{task}: {value.replace('_', ' ')}", fontsize=10)
        axes.set_xlabel(label)
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        subs = (1.0, 2.0, 5.0) if high < _CROWDED * low else (1.0,)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        if goal is None:
            axes.set_ylim(-0.02, 1.02)
        axes.grid(color=GRID, linewidth=0.6)
        axes.legend(fontsize=8, facecolor=PANEL, edgecolor=EDGE, labelcolor=INK, loc="best")
    return figure_png(figure)


def _draw_arm(axes: Any, arm: str, runs: Sequence[Piece], key: str, value: str) -> None:
    color = COLORS[_ARMS.index(arm)]
    curves = [
        (np.array([p[key] for p in run["curve"]]), np.array([p[value] for p in run["curve"]]))
        for run in runs
    ]
    for run, (x, y) in zip(runs, curves, strict=True):
        axes.plot(x, y, color=color, alpha=0.35, linewidth=1)
        if run["solved"]:
            axes.plot(x[-1:], y[-1:], "o", color=color, alpha=0.7, markersize=4)
    grid = np.unique(np.concatenate([x for x, _ in curves]))
    values = np.stack([np.interp(grid, x, y) for x, y in curves], axis=-1)
    axes.plot(grid, interquartile_mean(values), color=color, linewidth=2.4, label=_NAMES[arm])

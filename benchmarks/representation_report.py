"""Table and plot of `benchmarks.representation`, made from its results alone.

Classes:
    Result: all runs, and how they were made.

Functions:
    write_report: representation.json, .md and .png.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.interquartile import estimate, interquartile_mean
from worldgen.checkpoint import write_atomically, write_json

__all__ = ["Result", "write_report"]

_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00")


@dataclass(frozen=True, kw_only=True)
class Result:
    """All runs of a comparison."""

    settings: Mapping[str, Any]
    """The comparison's config."""
    record: Mapping[str, Any]
    """Commit, versions, hardware and the command lines."""
    ppo: Mapping[str, Any]
    """PPO's settings."""
    runs: tuple[Mapping[str, Any], ...]
    """Of each arm and seed: steps until solved, curve, times."""

    def steps(self, arm: str, *, with_tokenizer: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Give the arm's real environment steps, (seeds,) float64, and which runs solved it.

        A run that did not solve the task counts with all its steps, less than it would need.
        """
        runs = [run for run in self.runs if run["arm"] == arm]
        solved = np.array([run["solved_at"] is not None for run in runs])
        own = [run["solved_at"] or run["steps"] for run in runs]
        extra = [run["tokenizer_steps"] if with_tokenizer else 0 for run in runs]
        return np.add(own, extra).astype(np.float64), solved


def write_report(result: Result, folder: Path) -> None:
    """Write representation.json, .md and .png to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    values = asdict(result)
    values["summary"] = {arm: _summary(result, arm) for arm in result.settings["arms"]}
    write_json(folder / "representation.json", values)
    page = folder / "representation.md"

    def write_page(file: Path) -> None:
        file.write_text(_page(result), encoding="utf-8")

    write_atomically(page, write_page)
    _plot(result, folder / "representation.png")


def _summary(result: Result, arm: str) -> dict[str, Any]:
    base = result.settings["arms"][0]
    steps, solved = result.steps(arm)
    all_steps, _ = result.steps(arm, with_tokenizer=True)
    reference, reference_solved = result.steps(base)
    return {
        "solved": int(solved.sum()),
        "runs": len(solved),
        "steps": asdict(estimate(steps)),
        "steps_with_tokenizer": asdict(estimate(all_steps)),
        "ratio": asdict(estimate(steps, reference)),
        "ratio_with_tokenizer": asdict(estimate(all_steps, reference)),
        "censored": not bool(solved.all()),
        "reference_censored": not bool(reference_solved.all()),
    }


def _page(result: Result) -> str:
    settings, record = result.settings, result.record
    share, window = settings["success"], settings["window"]
    lines = [
        "# PPO on tokens and on one-hot cells",
        "",
        "Made by `benchmarks/representation_report.py` from `representation.json`; do not edit.",
        "",
        f"Real environment steps of {settings['environment']} until {share:.0%} of the last "
        f"{window} training episodes succeed (terminate with a reward). Each cell is the "
        "interquartile mean over seeds with the 95% bootstrap interval. All arms see the same "
        "partial view and direction, and all agents have the same PPO settings and hidden layers.",
        "",
        f"The tokenizer of each run was fitted to {settings['tokenizer_steps']} environment steps "
        "of random play of other seeds than the training's and then frozen. The last two columns "
        "count these steps.",
        "",
        "| shown | solved | steps | of the first arm | steps with the tokenizer's | of the first "
        "arm | inputs | seconds | tokenizer seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_row(result, arm) for arm in settings["arms"]),
        "",
        "![Success during training by real environment steps](representation.png)",
        "",
        *_by_seed(result),
        "",
        f"Command: `{record['starts'][-1]['command']}`; commit {record['commit']}; "
        f"{record['hardware']['processor']}, {record['hardware']['cores']} cores, one thread a "
        "run. Versions: " + ", ".join(f"{k} {v}" for k, v in record["versions"].items()) + ".",
        "PPO: " + ", ".join(f"{name} {value}" for name, value in result.ppo.items()) + ".",
        "",
    ]
    return "\n".join(lines)


def _row(result: Result, arm: str) -> str:
    summary = _summary(result, arm)
    runs = [run for run in result.runs if run["arm"] == arm]
    bound = "at least " if summary["censored"] else ""
    comparable = not summary["reference_censored"]
    seconds = np.mean([run["seconds"] for run in runs])
    own = np.mean([run["tokenizer_seconds"] for run in runs])
    cells = [
        arm,
        f"{summary['solved']} of {summary['runs']}",
        bound + _with_interval(summary["steps"], ",.0f"),
        bound + _with_interval(summary["ratio"], ".2f") if comparable else "unknown",
        bound + _with_interval(summary["steps_with_tokenizer"], ",.0f"),
        bound + _with_interval(summary["ratio_with_tokenizer"], ".2f") if comparable else "unknown",
        str(runs[0]["inputs"]),
        f"{seconds:.0f}",
        f"{own:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _with_interval(values: Mapping[str, float], form: str) -> str:
    return f"{values['mean']:{form}} ({values['low']:{form}} to {values['high']:{form}})"


def _by_seed(result: Result) -> list[str]:
    """List every run; one that did not solve the task is shown as more than its steps."""
    seeds: Sequence[int] = result.settings["seeds"]
    lines = [
        "| steps by seed | " + " | ".join(map(str, seeds)) + " |",
        "| --- |" + " --- |" * len(seeds),
    ]
    for arm in result.settings["arms"]:
        steps, solved = result.steps(arm)
        pairs = zip(steps, solved, strict=True)
        cells = [
            f"{count:,.0f}" if done else f"not solved in {count:,.0f}" for count, done in pairs
        ]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return lines


def _plot(result: Result, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for arm, color in zip(result.settings["arms"], _COLORS, strict=False):
        curves = [np.array(run["curve"]) for run in result.runs if run["arm"] == arm]
        for curve in curves:
            axes.plot(curve[:, 0], curve[:, 1], color=color, alpha=0.3, linewidth=1)
        steps = np.unique(np.concatenate([curve[:, 0] for curve in curves]))
        # A run that is over stays where it ended.
        rates = np.stack([np.interp(steps, curve[:, 0], curve[:, 1]) for curve in curves], -1)
        axes.plot(steps, interquartile_mean(rates), color=color, linewidth=2.5, label=arm)
    axes.axhline(result.settings["success"], color="grey", linewidth=1, linestyle=":")
    axes.set_xlabel("real environment steps")
    axes.set_ylabel(f"success, last {result.settings['window']} training episodes")
    axes.set_title(f"{result.settings['environment']}: each seed, and the interquartile mean")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylim(0, 1)
    axes.legend(loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)

    def write(file: Path) -> None:
        figure.savefig(file, format="png")

    write_atomically(path, write)

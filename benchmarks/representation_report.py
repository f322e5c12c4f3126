"""Table and plot of `benchmarks.representation`, made from its results alone.

Classes:
    Result: all runs, and how they were made.

Functions:
    write_report: representation.json, .md and .png.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.interquartile import estimate
from benchmarks.seed_report import plot_curves, steps_by_seed, with_interval
from worldgen.checkpoint import write_json, write_text

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
    write_text(folder / "representation.md", _page(result))
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
        _by_seed(result),
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
        bound + with_interval(summary["steps"], ",.0f"),
        bound + with_interval(summary["ratio"], ".2f") if comparable else "unknown",
        bound + with_interval(summary["steps_with_tokenizer"], ",.0f"),
        bound + with_interval(summary["ratio_with_tokenizer"], ".2f") if comparable else "unknown",
        str(runs[0]["inputs"]),
        f"{seconds:.0f}",
        f"{own:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _by_seed(result: Result) -> str:
    """List every run; one that did not solve the task is shown as more than its steps."""
    arms = {arm: result.steps(arm) for arm in result.settings["arms"]}
    return steps_by_seed("steps by seed", result.settings["seeds"], arms, "not solved in")


def _plot(result: Result, path: Path) -> None:
    settings = result.settings
    plot_curves(
        path,
        {
            arm: [np.array(run["curve"]) for run in result.runs if run["arm"] == arm]
            for arm in settings["arms"]
        },
        settings["success"],
        title=f"{settings['environment']}: each seed, and the interquartile mean",
        y_label=f"success, last {settings['window']} training episodes",
        y_limits=(0, 1),
    )

"""Table and plot of `benchmarks.imagined_replay`, made from its results alone.

Classes:
    Result: all runs, and how they were made.

Functions:
    write_report: the .json, .md and .png.
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


@dataclass(frozen=True, kw_only=True)
class Result:
    """All runs of a comparison."""

    name: str
    """Of the report's files."""
    settings: Mapping[str, Any]
    """The comparison's config."""
    record: Mapping[str, Any]
    """Commit, versions, hardware and the command lines."""
    agent: Mapping[str, Any]
    """Algorithm and its settings."""
    goal: float
    """Mean return that counts as reached."""
    runs: tuple[Mapping[str, Any], ...]
    """Of each arm and seed: steps until the goal, curve, times."""

    def of(self, arm: str) -> list[Mapping[str, Any]]:
        """Give the runs of an arm, in the order of the seeds."""
        return [run for run in self.runs if run["arm"] == arm]

    def steps(self, arm: str) -> tuple[np.ndarray, np.ndarray]:
        """Give the arm's real environment steps, (seeds,) float64, and which runs got there.

        A run that did not reach the goal counts with all its steps, less than it would need.
        """
        runs = self.of(arm)
        reached = np.array([run["reached_at"] is not None for run in runs])
        return np.array([run["steps"] for run in runs], np.float64), reached


def write_report(result: Result, folder: Path) -> None:
    """Write the report to a folder: .json, .md and .png."""
    folder.mkdir(parents=True, exist_ok=True)
    values = asdict(result)
    values["summary"] = {arm: _summary(result, arm) for arm in result.settings["arms"]}
    write_json(folder / f"{result.name}.json", values)
    write_text(folder / f"{result.name}.md", _page(result))
    _plot(result, folder / f"{result.name}.png")


def _summary(result: Result, arm: str) -> dict[str, Any]:
    steps, reached = result.steps(arm)
    reference, reference_reached = result.steps(result.settings["arms"][0])
    return {
        "reached": int(reached.sum()),
        "runs": len(reached),
        "steps": asdict(estimate(steps)),
        "ratio": asdict(estimate(steps, reference)),
        "censored": not bool(reached.all()),
        "reference_censored": not bool(reference_reached.all()),
        "seconds": float(np.mean([run["seconds"] for run in result.of(arm)])),
        "gradient_steps": float(np.mean([run["gradient_steps"] for run in result.of(arm)])),
    }


def _page(result: Result) -> str:
    settings, record = result.settings, result.record
    algorithm = result.agent["algorithm"]
    lines = [
        f"# {algorithm} with imagined transitions and without: {settings['environment']}",
        "",
        f"Made by `benchmarks/imagined_replay_report.py` from `{result.name}.json`; do not edit.",
        "",
        f"Real environment steps until {settings['episodes']} held-out episodes have a mean return "
        f"of at least {result.goal:g} in two evaluations in a row, one each "
        f"{settings['evaluate_every']} steps; the second of the two counts. Actions are the "
        "policy's best. Each cell is the interquartile mean over seeds with the 95% bootstrap "
        f'interval. "plain-many" and "imagined" make {settings["updates"]} times the gradient '
        f'steps of "plain" for each real environment step; "imagined" has an '
        "`ImaginedReplayBuffer`.",
        "",
        "| agent | reached | real steps | of the first | gradient steps | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_row(result, arm) for arm in settings["arms"]),
        "",
        f"![Mean return of held-out episodes by real environment steps]({result.name}.png)",
        "",
        _by_seed(result),
        "",
        "Seconds are of one process with one thread on a machine that others used as well, with "
        "evaluations.",
        "",
        f"Command: `{record['starts'][-1]['command']}`; commit {record['commit']}; "
        f"{record['hardware']['processor']}, {record['hardware']['cores']} cores. Versions: "
        + ", ".join(f"{name} {value}" for name, value in record["versions"].items())
        + ".",
        f"{algorithm}: "
        + ", ".join(
            f"{name} {value}" for name, value in result.agent.items() if name != "algorithm"
        )
        + "; all else as SB3 has it.",
        "Buffer: "
        + ", ".join(f"{name} {value}" for name, value in settings["buffer"].items())
        + ".",
        "",
    ]
    return "\n".join(lines)


def _row(result: Result, arm: str) -> str:
    summary = _summary(result, arm)
    bound = "at least " if summary["censored"] else ""
    comparable = not summary["reference_censored"]
    cells = [
        arm,
        f"{summary['reached']} of {summary['runs']}",
        bound + with_interval(summary["steps"], ",.0f"),
        bound + with_interval(summary["ratio"], ".2f") if comparable else "unknown",
        f"{summary['gradient_steps']:,.0f}",
        f"{summary['seconds']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _by_seed(result: Result) -> str:
    """List every run; one that did not reach the goal is shown as more than its steps."""
    arms = {arm: result.steps(arm) for arm in result.settings["arms"]}
    return steps_by_seed("real steps by seed", result.settings["seeds"], arms, "not reached in")


def _plot(result: Result, path: Path) -> None:
    settings = result.settings
    plot_curves(
        path,
        {arm: [np.array(run["curve"]) for run in result.of(arm)] for arm in settings["arms"]},
        result.goal,
        title=f"{settings['environment']}: each seed, and the interquartile mean",
        y_label=f"mean return, {settings['episodes']} held-out episodes",
    )

"""What the command line says: episodes in a line, and a run's results in a table.

Functions:
    describe_episodes: counts and returns in one line.
    describe_fit: how well a fit went, in one line.
    describe_phase: what a phase of training achieved, in one line.
    describe_play: how a policy played, in one line.
    describe_stop: what ended a training early, in one line.
    results_rows, results_table: the table at the end of `worldgen train`.
    duration: seconds, to be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from worldgen.data.episode import Episode
from worldgen.evaluation.report import percent

__all__ = [
    "describe_episodes",
    "describe_fit",
    "describe_phase",
    "describe_play",
    "describe_stop",
    "duration",
    "results_rows",
    "results_table",
]

_SHOWN_HORIZONS = (1, 5, 15)


def describe_episodes(episodes: Sequence[Episode]) -> str:
    """Say how much there is and what was earned."""
    finished = [episode for episode in episodes if episode.is_over]
    steps = sum(map(len, episodes))
    earned = sum(int((episode.rewards != 0).sum()) for episode in episodes)
    returns = f"{np.mean([e.total_reward for e in finished]):.3g}" if finished else "-"
    return (
        f"{steps:,} environment steps in {len(episodes):,} episodes ({len(finished):,} of them "
        f"finished, with mean return {returns}), {earned:,} rewarding transitions"
    )


def describe_fit(metrics: Mapping[str, float]) -> str:
    """Say how well a fit went; `metrics` are those of a `FitResult`."""
    shown = (
        ("frames", "data/frames", ",.0f"),
        ("kept by the tokenizer", "tokenizer/kept_frames", ".1%"),
        ("token loss", "dynamics/token_loss", ".4f"),
        ("reward loss", "dynamics/reward_loss", ".4f"),
        ("termination loss", "dynamics/termination_loss", ".4f"),
        ("recall of rewards", "dynamics/rewarding_recall", ".1%"),
        ("recall of ends", "dynamics/terminating_recall", ".1%"),
    )
    return _in_a_line(metrics, shown)


def describe_phase(
    phase: str, round_index: int, metrics: Mapping[str, float], seconds: float
) -> str:
    """Say what a phase achieved; `metrics` are those that `DreamPPO` gives its callbacks."""
    shown = {
        "collect": (
            ("real environment steps", "real_timesteps", ",.0f"),
            ("episodes", "episodes", ",.0f"),
            ("mean return of the last episodes", "ep_rew_mean", ".3f"),
            ("horizon of dreams", "dream/horizon", ".0f"),
        ),
        "fit": (
            ("frames", "data/frames", ",.0f"),
            ("frames kept by the tokenizer", "tokenizer/kept_frames", ".1%"),
            ("token loss", "dynamics/token_loss", ".4f"),
            ("reward loss", "dynamics/reward_loss", ".4f"),
        ),
        "dream": (
            ("imagined environment steps", "dream/timesteps", ",.0f"),
            ("in all", "dream/imagined_timesteps", ",.0f"),
            ("mean return in the dream", "dream/ep_rew_mean", ".3f"),
        ),
    }.get(phase, ())
    return f"round {round_index}  {phase:8}{_in_a_line(metrics, shown)}  ({duration(seconds)})"


def _in_a_line(metrics: Mapping[str, float], shown: Sequence[tuple[str, str, str]]) -> str:
    """Write those metrics that are there: labels, names and formats to text."""
    parts = [f"{label} {metrics[name]:{form}}" for label, name, form in shown if name in metrics]
    return ", ".join(parts)


def describe_play(played: Mapping[str, Any]) -> str:
    """Say how a policy played in the real environment; `played` as in report.json."""
    success = played["success_rate"]
    parts = [] if success is None else [f"success {percent(success)}"]
    parts += [f"mean return {played['mean_return']:.3f}", f"{played['episodes']} episodes"]
    return ", ".join(parts)


def describe_stop(stopped: Mapping[str, Any]) -> str:
    """Say what stopped a training before its steps were used up; `stopped` as in report.json.

    >>> describe_stop({"target": 0.9, "mean_returns": [0.9512, 1.0]})
    'held-out mean return 0.951, then 1: enough for 0.9'
    """
    returns = ", then ".join(f"{value:.3g}" for value in stopped["mean_returns"])
    return f"held-out mean return {returns}: enough for {stopped['target']:g}"


def duration(seconds: float) -> str:
    """Write a time.

    >>> duration(3.21), duration(75), duration(3700)
    ('3.2 s', '1 min 15 s', '1 h 01 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def results_table(report: Mapping[str, Any], times: Mapping[str, float]) -> Table:
    """Lay out a run's report and its wall times.

    Args:
        report: As `worldgen train` writes it to report.json, with or without --offline.
        times: Phase -> seconds.
    """
    name = "offline" if report["environment"] is None else report["environment"]["id"]
    table = Table(title=f"{name}, seed {report['seed']}", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for rows in results_rows(report, times):
        for label, value in rows:
            table.add_row(label, value)
        table.add_section()
    return table


def results_rows(
    report: Mapping[str, Any], times: Mapping[str, float]
) -> list[list[tuple[str, str]]]:
    """Give the sections of `results_table`: labels with values."""
    return [
        _steps_rows(report),
        _dataset_rows(report["dataset"]) if "dataset" in report else [],
        _play_rows(report) if "agent" in report else [],
        _fidelity_rows(report["fidelity"]),
        [(f"wall time: {phase}", duration(seconds)) for phase, seconds in times.items()],
        [("wall time in all", duration(sum(times.values())))],
    ]


def _steps_rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    real, stopped = f"{report['real_environment_steps']:,}", report.get("stopped")
    if "timesteps" in report:
        real += f" of {report['timesteps']:,}"
    rows = [("real environment steps used", real)]
    if stopped:
        label = f"stopped at a held-out mean return of {stopped['target']:g}"
        rows.append((label, ", ".join(f"{value:.3g}" for value in stopped["mean_returns"])))
    return [*rows, ("imagined environment steps used", f"{report['imagined_environment_steps']:,}")]


def _dataset_rows(dataset: Mapping[str, Any]) -> list[tuple[str, str]]:
    steps = dataset["training_environment_steps"]
    rows = [("environment steps of the dataset that were learnt from", f"{steps:,}")]
    if dataset["success_rate"] is not None:
        rows.append(("success in the dataset", percent(dataset["success_rate"])))
    if dataset["mean_return"] is not None:
        rows.append(("mean return in the dataset", f"{dataset['mean_return']:.3f}"))
    return rows


def _play_rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    agent, rows = report["agent"], []
    players = [("random policy", report["random"]), ("agent", agent)]
    if "ppo" in report:
        players.insert(1, ("PPO after as many real steps", report["ppo"]))
    for label, key, write in (
        ("success", "success_rate", percent),
        ("mean return", "mean_return", lambda value: f"{value:.3f}"),
    ):
        if agent[key] is not None:
            label = f"{label} over {agent['episodes']} held-out episodes"
            rows += [(f"{label}, {name}", write(played[key])) for name, played in players]
    return rows


def _fidelity_rows(fidelity: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    entries = [e for e in fidelity["horizons"] if e["horizon"] in _SHOWN_HORIZONS]
    for entry in entries:
        steps = entry["horizon"]
        label = f"dreams exactly right after {steps} step{'s' if steps > 1 else ''}"
        if entry["exact"] is not None:
            rows.append((label, percent(entry["exact"])))
        if entry["determined_exact"] is not None:
            rows.append(("  in what the past determines", percent(entry["determined_exact"])))
        agreement = entry["agreement"]
        for path, value in agreement["r2"].items():
            rows.append((f"R2 of {path} after {steps}", f"{value:.3f}"))
        for path, value in agreement["psnr"].items():
            rows.append((f"PSNR of {path} after {steps}", f"{value:.1f} dB"))
    for name in ("rewarding", "terminating"):
        event = fidelity[name]
        label = f"recall on {name} transitions ({event['num_events']:,} real ones)"
        rows.append((label, percent(event["recall"])))
    return rows

"""Measurements of a run that are made one after the other, each of them once.

Classes:
    Stages: base of the measuring parts of `worldgen train`.

Functions:
    together: evaluations of different seeds as one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from worldgen.agents import AgentResult, DreamPPO, evaluate_agent
from worldgen.cli.summaries import describe_play, duration
from worldgen.data.environment import EnvironmentSpec
from worldgen.data.episode import Episode
from worldgen.data.episodes import Episodes
from worldgen.evaluation import FidelityReport, best_moment, dream_film, evaluate
from worldgen.memory import release_memory
from worldgen.progress import Progress
from worldgen.run_folder import RunFolder

__all__ = ["HELD_OUT_SEED", "Stages", "together"]

HELD_OUT_SEED = 1_000_000
"""First of the seeds that nobody has trained on."""
_EPISODES_AT_ONCE = 25


class Stages:
    """Measure a trained agent and its world model; every stage depends on the seed alone.

    Args:
        folder: Where results go; stages that are finished there are not repeated.
        agent: Trained, with its world model.
        seed: Of the run.
    """

    def __init__(self, folder: RunFolder, agent: DreamPPO, seed: int) -> None:
        self._folder, self._agent, self._seed = folder, agent, seed

    def _stage(self, name: str, label: str, work: Callable[[], tuple[Any, str]]) -> None:
        """Run a stage unless it is finished.

        Args:
            name: In stages.json and report.json.
            label: For people, here and in timings.json.
            work: Gives the result in JSON values, and what to say of it.
        """
        if name in self._folder.stages():
            return
        began = time.perf_counter()
        release_memory()
        try:
            result, summary = work()
        finally:  # Time that was spent was spent, whether Ctrl-C came or not.
            seconds = time.perf_counter() - began
            self._folder.add_time(label, seconds)
        self._folder.finish_stage(name, result)
        print(f"{label:15} {summary}  ({duration(seconds)})", flush=True)

    def _play(
        self, policy: DreamPPO | None, environment: EnvironmentSpec, total: int
    ) -> tuple[dict[str, Any], str]:
        """Play the held-out seeds, some at a time so that progress can be seen."""
        name = "random" if policy is None else "agent"
        results: list[AgentResult] = []
        with Progress(f"evaluate {name}", total, unit="episodes") as bar:
            for first in range(0, total, _EPISODES_AT_ONCE):
                count = min(_EPISODES_AT_ONCE, total - first)
                results.append(
                    evaluate_agent(policy, environment, count, seed=HELD_OUT_SEED + first)
                )
                bar.update(count, mean_return=results[-1].mean_return)
        played = together(results)
        return played, describe_play(played)

    def _measure(self, dreams: int) -> tuple[dict[str, Any], str]:
        report = evaluate(
            self._agent.world_model,
            Episodes.load(self._folder.held_out),
            num_dreams=dreams,
            seed=self._seed,
        )
        print(report, flush=True)
        report.save(self._folder.model / "report.json")
        self._log(report)
        return report.to_dict(), f"{report.num_dreams} dreams"

    def _film_best(self, name: str, episodes: Sequence[Episode], horizon: int) -> dict[str, Any]:
        """Film the best moment of some episodes as NAME.gif."""
        model = self._agent.world_model
        index, start = best_moment(episodes, horizon)
        # With its full context the dream knows what the agent has seen of the world.
        start = max(start, min(model.config.context, len(episodes[index]) // 2))
        path = self._folder.films / f"{name}.gif"
        film = dream_film(model, episodes[index], path, start=start, horizon=horizon)
        return {
            "environment_steps": film.num_frames - 1,
            "first_difference": film.first_difference,
        }

    def _log(self, report: FidelityReport) -> None:
        """Draw shares over the horizon in TensorBoard."""
        writer = SummaryWriter(str(self._folder.tensorboard / "fidelity"))
        for entry in report.horizons:
            for name, share in (
                ("exact", entry.exact),
                ("determined_exact", entry.determined_exact),
                ("rewards", entry.rewards),
                ("ends", entry.terminations),
            ):
                if share is not None:
                    writer.add_scalar(f"fidelity/{name}_by_horizon", share, entry.horizon)
        writer.close()


def together(results: list[AgentResult]) -> dict[str, Any]:
    """Put evaluations of different seeds together, in JSON values."""
    returns = np.concatenate([result.returns for result in results])
    lengths = np.concatenate([result.lengths for result in results])
    known = [
        result.success_rate * len(result.returns)
        for result in results
        if result.success_rate is not None
    ]
    return {
        "episodes": len(returns),
        "mean_return": float(returns.mean()),
        "std_return": float(returns.std()),
        "success_rate": round(sum(known)) / len(returns) if known else None,
        "mean_length": float(lengths.mean()),
        "returns": returns.tolist(),
    }

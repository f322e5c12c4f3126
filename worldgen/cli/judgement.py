"""The measuring part of `worldgen train`, stage by stage, so that a killed run can go on.

Classes:
    Judgement: random policy, agent, held-out episodes, fidelity, films, report.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from worldgen.agents import AgentResult, DreamPPO, baseline_result, evaluate_agent
from worldgen.checkpoint import write_json
from worldgen.cli.summaries import describe_episodes, describe_play, duration
from worldgen.data.collect import collect
from worldgen.data.episodes import Episodes
from worldgen.evaluation import FidelityReport, best_moment, dream_film, evaluate
from worldgen.progress import Progress
from worldgen.run_folder import RunFolder
from worldgen.seeding import derived_seed

if TYPE_CHECKING:
    from worldgen.cli.train import Arguments

__all__ = ["Judgement"]

_HELD_OUT_SEED = 1_000_000
_EPISODES_AT_ONCE = 25
_REPORTED = ("random", "agent", "ppo", "held_out", "fidelity")


class Judgement:
    """Measure a trained agent and its world model; every stage depends on the seed alone.

    Args:
        folder: Where results go; stages that are finished there are not repeated.
        agent: Trained, with its world model.
        arguments: Of the run.
    """

    def __init__(self, folder: RunFolder, agent: DreamPPO, arguments: Arguments) -> None:
        self._folder, self._agent, self._arguments = folder, agent, arguments
        self._config = arguments.judgement
        self._environment = arguments.environment

    def run(self) -> dict[str, Any]:
        """Run what is left, write report.json and give its contents."""
        self._stage("random", "evaluate random", lambda: self._play(None))
        self._stage("agent", "evaluate agent", lambda: self._play(self._agent))
        if self._config.compare_ppo:
            self._stage("ppo", "compare PPO", self._compare)
        self._stage("held_out", "hold out", self._collect)
        self._stage("fidelity", "fidelity", self._measure)
        self._stage("films", "films", self._film)
        stages = self._folder.stages()
        report = {
            "environment": self._environment.to_dict(),
            "seed": self._arguments.seed,
            **stages["training"],
            **{name: stages[name] for name in _REPORTED if name in stages},
        }
        write_json(self._folder.report, report)
        return report

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
        result, summary = work()
        seconds = time.perf_counter() - began
        self._folder.finish_stage(name, result)
        self._folder.add_time(label, seconds)
        print(f"{label:15} {summary}  ({duration(seconds)})", flush=True)

    def _play(self, policy: DreamPPO | None) -> tuple[dict[str, Any], str]:
        """Play the held-out seeds, some at a time so that progress can be seen."""
        name = "random" if policy is None else "agent"
        total = self._config.episodes
        results: list[AgentResult] = []
        with Progress(f"evaluate {name}", total, unit="episodes") as bar:
            for first in range(0, total, _EPISODES_AT_ONCE):
                count = min(_EPISODES_AT_ONCE, total - first)
                results.append(
                    evaluate_agent(policy, self._environment, count, seed=_HELD_OUT_SEED + first)
                )
                bar.update(count, mean_return=results[-1].mean_return)
        played = _together(results)
        return played, describe_play(played)

    def _compare(self) -> tuple[dict[str, Any], str]:
        """Train SB3's PPO in the real environment for as many steps, and let it play."""
        with Progress("compare PPO", 1, unit="training") as bar:
            result = baseline_result(
                self._environment,
                self._agent.num_timesteps,
                seed=self._arguments.seed,
                num_episodes=self._config.episodes,
                evaluation_seed=_HELD_OUT_SEED,
            )
            bar.update(1, mean_return=result.mean_return)
        played = _together([result])
        return played, describe_play(played)

    def _collect(self) -> tuple[dict[str, Any], str]:
        """Play new episodes: at random for variety, by the agent for what it meets."""
        episodes = self._new_episodes(None)
        episodes.extend(self._new_episodes(self._agent))
        episodes.save(self._folder.held_out, overwrite=True)
        counts = {"episodes": len(episodes), "environment_steps": episodes.num_steps}
        return counts, describe_episodes(episodes)

    def _new_episodes(self, policy: DreamPPO | None) -> Episodes:
        seed = derived_seed(self._arguments.seed, "held out", policy is None) % 2**30
        return collect(self._environment, self._config.held_out_steps, policy, seed=seed)

    def _measure(self) -> tuple[dict[str, Any], str]:
        report = evaluate(
            self._agent.world_model,
            Episodes.load(self._folder.held_out),
            num_dreams=self._config.dreams,
            seed=self._arguments.seed,
        )
        print(report, flush=True)
        report.save(self._folder.model / "report.json")
        self._log(report)
        return report.to_dict(), f"{report.num_dreams} dreams"

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

    def _film(self) -> tuple[dict[str, Any], str]:
        """Film the agent's best held-out episode, and one of the random policy's."""
        held_out = Episodes.load(self._folder.held_out)
        horizon = self._config.film_steps
        first_of_agent = self._first_of_agent(held_out)
        films = {}
        for name, first, last in (
            ("agent", first_of_agent, len(held_out)),
            ("random", 0, first_of_agent),
        ):
            chosen = [held_out[index] for index in range(first, last)]
            index, start = best_moment(chosen, horizon)
            # With its full context the dream knows what the agent has seen of the world.
            start = max(start, min(self._agent.world_model.config.context, len(chosen[index]) // 2))
            path = self._folder.films / f"{name}.gif"
            film = dream_film(
                self._agent.world_model, chosen[index], path, start=start, horizon=horizon
            )
            films[name] = {
                "environment_steps": film.num_frames - 1,
                "first_difference": film.first_difference,
            }
        return films, f"{', '.join(f'{name}.gif' for name in films)} in {self._folder.films}"

    def _first_of_agent(self, held_out: Episodes) -> int:
        """Find where the random policy's episodes end: it came first, with as many steps."""
        steps = 0
        for index, episode in enumerate(held_out):
            if steps >= self._config.held_out_steps:
                return index
            steps += len(episode)
        return 0


def _together(results: list[AgentResult]) -> dict[str, Any]:
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

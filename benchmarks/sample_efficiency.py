"""How many real environment steps, and how much time, an agent needs to solve a task.

`DreamPPO` beside SB3's PPO and DQN, on the same observation and the same policy network:

    python -m benchmarks.sample_efficiency    # every task and seed of DreamPPO and PPO
    python -m benchmarks.sample_efficiency --tasks doorkey-5x5 --arms ppo dqn --seeds 0 1 2
    python -m benchmarks.sample_efficiency --tasks MiniGrid-Unlock-v0 --seeds 0

A task is *solved* at the second good evaluation in a row: 100 held-out episodes each, played by
sampling, of which 90% succeed (or whose mean return is high enough, where success is not known).
All real environment steps up to there count, those of the first random collection too; those of
evaluations do not, and the clock stands still meanwhile. `DreamPPO` is evaluated after each
round, the others every `evaluate_every` real steps. A run whose budget is used up first is
reported as not solved, and counts with all its steps.

Each finished run is a JSON file in `parts` and is not repeated. The report is made from all runs
in `parts` that have the settings of `sample_efficiency_tasks.TASKS`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from stable_baselines3.common.base_class import BaseAlgorithm

from benchmarks.learning_curve import Goal, LearningCurve
from benchmarks.results import Parts, one_line_errors, provenance
from benchmarks.sample_efficiency_arms import ARMS, acting_policy, train
from benchmarks.sample_efficiency_report import write_report
from benchmarks.sample_efficiency_tasks import TASKS, Task, task_named
from worldgen.agents import AgentResult, evaluate_agent
from worldgen.config import Config, require
from worldgen.errors import ConfigError, EnvironmentIdError

__all__ = ["SampleEfficiencyConfig", "main"]

_HELD_OUT_SEED = 1_000_000


@dataclass(frozen=True, kw_only=True)
class SampleEfficiencyConfig(Config):
    """What is compared, and when a task counts as solved."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """Names in `sample_efficiency_tasks.TASKS`, or Gymnasium ids."""
    arms: tuple[str, ...] = ("dream_ppo", "ppo")
    """Of "dream_ppo", "ppo" and "dqn"."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """A run of each task and arm for each."""
    threads: int = 1
    """Of torch, for every arm."""
    episodes: int = 100
    """Held-out episodes of an evaluation."""
    success: float = 0.9
    """Share of successful episodes of a good evaluation."""
    solved_return: float | None = None
    """Mean return of a good evaluation, for Gymnasium ids without success."""
    budget: int | None = None
    """Real environment steps of every arm, in place of the table's."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        unknown = sorted(set(self.arms) - set(ARMS))
        require(not unknown, "arms", f"be among {', '.join(ARMS)}", unknown)
        for name in ("tasks", "arms", "seeds"):
            require(len(getattr(self, name)) >= 1, name, "name at least one", getattr(self, name))
        for name in ("threads", "episodes"):
            require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))
        require(0 < self.success <= 1, "success", "be in (0, 1]", self.success)
        require(self.budget is None or self.budget >= 1, "budget", "be at least 1", self.budget)


_PUBLISHED = SampleEfficiencyConfig()


def main(
    config: Annotated[SampleEfficiencyConfig, tyro.conf.arg(name="")] = _PUBLISHED,
    *,
    parts: Path = Path("runs/benchmarks/sample_efficiency"),
    output: Path = Path("docs/benchmarks"),
) -> dict[str, Any]:
    """Run what is not yet finished, and write JSON, tables and plots.

    Args:
        config: What is compared.
        parts: Folder of the finished runs.
        output: Folder of sample_efficiency.json, .md, .png and sample_efficiency_seconds.png.
    """
    torch.set_num_threads(config.threads)
    tasks = {name: _task(config, name) for name in config.tasks}
    for name, task in tasks.items():
        for arm in config.arms:
            for seed in config.seeds:
                piece = Parts(parts).get(
                    f"{name.replace('/', '-').replace(':', '-')}-{arm}-{seed}",
                    _settings(config, name, task, arm, seed),
                    lambda t=task, a=arm, s=seed: _run(config, t, a, s),  # type: ignore[misc]
                )
                print(_described(piece), flush=True)
    return write_report(_current(config, Parts(parts).finished()), provenance(), output)


def _task(config: SampleEfficiencyConfig, name: str) -> Task:
    task = task_named(name, config.solved_return)
    if config.budget is None:
        return task
    dream = replace(task.dream_ppo, budget=config.budget)
    return replace(task, budget=config.budget, dream_ppo=dream)


def _settings(
    config: SampleEfficiencyConfig, name: str, task: Task, arm: str, seed: int
) -> dict[str, Any]:
    """Give all that decides about one run, and nothing else."""
    agent = getattr(task, arm).to_dict()
    schedule = {} if arm == "dream_ppo" else {"evaluate_every": task.evaluate_every}
    return {
        "task": name,
        "arm": arm,
        "seed": seed,
        "environment": task.environment.to_dict(),
        "budget": agent.pop("budget", task.budget),
        "success": config.success,
        "solved_return": task.solved_return,
        "episodes": config.episodes,
        "threads": config.threads,
        **schedule,
        "agent": agent,
    }


def _run(config: SampleEfficiencyConfig, task: Task, arm: str, seed: int) -> dict[str, Any]:
    """Train one agent until it solves the task or its budget is used up."""

    def evaluate(agent: BaseAlgorithm) -> AgentResult:
        policy = acting_policy(agent, _HELD_OUT_SEED)
        result = evaluate_agent(policy, task.environment, config.episodes, seed=_HELD_OUT_SEED)
        level = _level(result.success_rate, result.mean_return)
        print(f"  {agent.num_timesteps:,} real environment steps: {level}", flush=True)
        return result

    goal = Goal(success=config.success, mean_return=task.solved_return)
    curve = LearningCurve(evaluate, goal)
    train(arm, task, seed, curve)
    return curve.to_dict()


def _current(
    config: SampleEfficiencyConfig, pieces: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Choose the runs that this table and these options would make again just so."""

    def is_current(made: dict[str, Any]) -> bool:
        try:
            task = _task(config, made["task"])
        except (ConfigError, EnvironmentIdError):
            return False  # it has left the table
        return made == _settings(config, made["task"], task, made["arm"], made["seed"])

    return [piece for piece in pieces if is_current(piece["settings"])]


def _described(piece: dict[str, Any]) -> str:
    made, last = piece["settings"], piece["curve"][-1]
    end = "solved" if piece["solved"] else "not solved"
    level = _level(last["success"], last["mean_return"])
    return (
        f"{made['task']}, {made['arm']}, seed {made['seed']}: {end} at {piece['real_steps']:,} "
        f"real environment steps in {piece['seconds']:.0f} s, {level}"
    )


def _level(success: float | None, mean_return: float) -> str:
    told = "" if success is None else f"success {success:.0%}, "
    return f"{told}mean return {mean_return:.2f}"


if __name__ == "__main__":
    with one_line_errors():
        tyro.cli(main, description=__doc__)

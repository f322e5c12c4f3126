"""How many real environment steps SAC and DQN need with imagined transitions, and without.

The same SB3 agent learns the same environment, with the settings of RL Baselines3 Zoo:

- "plain": as it is;
- "plain-many": with `updates` times as many gradient steps for each real environment step;
- "imagined": with as many gradient steps as "plain-many", and an `ImaginedReplayBuffer`.

Every `evaluate_every` real environment steps the agent plays held-out episodes by its best
actions. The goal is reached at the second evaluation in a row that is good enough; the run is
then over. Each finished run is a JSON file in the output folder and is not repeated. The report
in `docs/benchmarks/` is made from the results alone, see `benchmarks.imagined_replay_report`.

    python -m benchmarks.imagined_replay
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import tyro
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from benchmarks.imagined_replay_report import Result, write_report
from benchmarks.results import one_line_errors
from worldgen.agents import (
    ImaginedReplayBuffer,
    ImaginedReplayCallback,
    ImaginedReplayConfig,
    evaluate_agent,
)
from worldgen.checkpoint import write_json
from worldgen.config import Config, require
from worldgen.run_folder import RunFolder, read_json

__all__ = ["Arm", "ImaginedReplayBenchmarkConfig", "main"]

Arm = Literal["plain", "plain-many", "imagined"]

_SEEDS_APART = 1000
"""Between the agents' seeds of two runs."""


@dataclass(frozen=True, kw_only=True)
class _Task:
    """An environment, the agent for it, and when it is done."""

    algorithm: type[OffPolicyAlgorithm]
    settings: dict[str, Any]
    goal: float
    """Mean return of held-out episodes."""


_TASKS = {
    "Pendulum-v1": _Task(algorithm=SAC, settings={"learning_rate": 1e-3}, goal=-200.0),
    "CartPole-v1": _Task(
        algorithm=DQN,
        settings={
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1000,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "exploration_final_eps": 0.04,
            # The Zoo's 0.16 of 50,000 steps, whatever the limit here.
            "exploration_fraction": 0.16,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
        goal=475.0,
    ),
}


@dataclass(frozen=True, kw_only=True)
class ImaginedReplayBenchmarkConfig(Config):
    """What is compared, and for how long."""

    environment: str = "Pendulum-v1"
    """"Pendulum-v1", learnt by SAC, or "CartPole-v1", learnt by DQN."""
    arms: tuple[Arm, ...] = ("plain", "plain-many", "imagined")
    """The first is what the others are compared with."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """A run of each arm for each."""
    updates: int = 10
    """Gradient steps of "plain-many" and "imagined" for each of "plain"."""
    evaluate_every: int = 250
    """Real environment steps."""
    episodes: int = 20
    """Held-out episodes of an evaluation."""
    max_steps: int = 10_000
    """Real environment steps after which a run is given up."""
    buffer: ImaginedReplayConfig = ImaginedReplayConfig()
    """Numbers of the buffer."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("updates", "evaluate_every", "episodes", "max_steps"):
            require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))
        require(len(self.seeds) >= 1, "seeds", "name at least one seed", self.seeds)
        known = all(arm in get_args(Arm) for arm in self.arms) and len(self.arms) >= 1
        require(known, "arms", f"be some of {', '.join(get_args(Arm))}", self.arms)
        rule = f"be one of {', '.join(_TASKS)}"
        require(self.environment in _TASKS, "environment", rule, self.environment)

    @property
    def name(self) -> str:
        """Of the report's files."""
        first = self.environment == "Pendulum-v1"
        return "imagined_replay" if first else "imagined_replay_cartpole"


_PUBLISHED = ImaginedReplayBenchmarkConfig()


def main(
    config: ImaginedReplayBenchmarkConfig = _PUBLISHED,
    *,
    output: Path = Path("runs/imagined_replay"),
    report: Path = Path("docs/benchmarks"),
) -> Result:
    """Run what is not finished yet, and write the report.

    Args:
        config: What is compared; the published comparison by default.
        output: Folder of the runs; a run that it holds is not repeated.
        report: Folder of the report's .json, .md and .png.
    """
    torch.set_num_threads(1)
    command = " ".join(["python -m benchmarks.imagined_replay", *sys.argv[1:]])
    folder = RunFolder.create(
        output, config.to_dict(), seed=config.seeds[0], command=command, resume=True
    )
    runs = [
        _finished_run(config, arm, seed, output) for seed in config.seeds for arm in config.arms
    ]
    task = _TASKS[config.environment]
    result = Result(
        name=config.name,
        settings=config.to_dict(),
        record=read_json(folder.record),
        agent={"algorithm": task.algorithm.__name__, **task.settings},
        goal=task.goal,
        runs=tuple(runs),
    )
    write_report(result, report)
    return result


def _finished_run(
    config: ImaginedReplayBenchmarkConfig, arm: Arm, seed: int, output: Path
) -> dict[str, Any]:
    """Read the run's results, or run it and write them."""
    path = output / "finished" / f"{arm}-{seed}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, _run(config, arm, seed))
    run: dict[str, Any] = read_json(path)
    print(
        f"{arm}, seed {seed}: reached at {run['reached_at']}, {run['steps']} environment steps in "
        f"{run['seconds']:.0f} s",
        flush=True,
    )
    return run


def _run(config: ImaginedReplayBenchmarkConfig, arm: Arm, seed: int) -> dict[str, Any]:
    """Train one agent until it reaches the goal or its environment steps are used up."""
    task = _TASKS[config.environment]
    settings = dict(task.settings)
    until_reached = _UntilReached(config, task.goal)
    callbacks: list[BaseCallback] = [until_reached]
    if arm != "plain":
        settings["gradient_steps"] = config.updates * settings.get("gradient_steps", 1)
    if arm == "imagined":
        settings["replay_buffer_class"] = ImaginedReplayBuffer
        settings["replay_buffer_kwargs"] = {"config": config.buffer}
        callbacks.append(ImaginedReplayCallback())
    agent = task.algorithm(
        policy="MlpPolicy",
        env=config.environment,
        seed=_SEEDS_APART * seed,
        device="cpu",
        **settings,
    )
    began = time.perf_counter()
    agent.learn(config.max_steps, callback=callbacks)
    return {
        "arm": arm,
        "seed": seed,
        "reached_at": until_reached.reached_at,
        "steps": int(agent.num_timesteps),
        "gradient_steps": int(agent._n_updates),
        "seconds": round(time.perf_counter() - began, 2),
        "curve": until_reached.curve,
    }


class _UntilReached(BaseCallback):
    """Evaluate now and then; stop at the second good evaluation in a row."""

    def __init__(self, config: ImaginedReplayBenchmarkConfig, goal: float) -> None:
        super().__init__()
        self._config, self._goal = config, goal
        self.reached_at: int | None = None
        self.curve: list[tuple[int, float]] = []
        """Real environment steps, and the mean return of the held-out episodes."""

    def _on_step(self) -> bool:
        if self.num_timesteps % self._config.evaluate_every:
            return True
        found = evaluate_agent(
            self.model, self._config.environment, self._config.episodes, deterministic=True
        )
        self.curve.append((int(self.num_timesteps), round(found.mean_return, 2)))
        if len(self.curve) >= 2 and min(value for _, value in self.curve[-2:]) >= self._goal:
            self.reached_at = int(self.num_timesteps)
        return self.reached_at is None


if __name__ == "__main__":
    with one_line_errors():
        tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))

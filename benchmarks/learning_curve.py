"""What an agent can do while it trains, by real environment steps and by time.

Classes:
    Goal: when a task counts as solved.
    TrainingClock: time of the training alone.
    LearningCurve: evaluations of one training, and whether it solved its task.
    AfterRollouts: evaluates an SB3 algorithm every so many environment steps.
    AfterDreams: evaluates `DreamPPO` after each of its dreams.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from worldgen.agents import AgentResult, PhaseCallback

__all__ = ["AfterDreams", "AfterRollouts", "Goal", "LearningCurve", "TrainingClock"]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """When a task counts as solved: at good evaluations in a row."""

    success: float = 0.9
    """Least share of successful episodes."""
    mean_return: float | None = None
    """Least mean return, in place of `success`."""
    in_a_row: int = 2
    """Good evaluations that it takes; one alone may be luck."""

    def reached(self, result: AgentResult) -> bool:
        """Tell whether an evaluation is a good one."""
        if self.mean_return is not None:
            return result.mean_return >= self.mean_return
        return result.success_rate is not None and result.success_rate >= self.success


class TrainingClock:
    """Wall-clock and processor seconds between `start` and `stop`, added up."""

    def __init__(
        self,
        wall: Callable[[], float] = time.perf_counter,
        processor: Callable[[], float] = time.process_time,
    ) -> None:
        self._wall, self._processor = wall, processor
        self._began: tuple[float, float] | None = None
        self._seconds, self._cpu_seconds = 0.0, 0.0

    def start(self) -> None:
        """Let it run."""
        self._began = self._now()

    def _now(self) -> tuple[float, float]:
        return self._wall(), self._processor()

    def stop(self) -> tuple[float, float]:
        """Stop it, if it runs; give the wall-clock and the processor seconds so far."""
        if self._began is not None:
            began, now = self._began, self._now()
            self._seconds += now[0] - began[0]
            self._cpu_seconds += now[1] - began[1]
            self._began = None
        return self._seconds, self._cpu_seconds


class LearningCurve:
    """Evaluations of one training; the clock stands still while they are made.

    Args:
        evaluate: Lets an agent play held-out episodes.
        goal: When the task is solved.
        clock: Of the training.
    """

    def __init__(
        self,
        evaluate: Callable[[BaseAlgorithm], AgentResult],
        goal: Goal,
        clock: TrainingClock | None = None,
    ) -> None:
        self._evaluate, self._goal = evaluate, goal
        self.clock = clock or TrainingClock()
        self.points: list[dict[str, Any]] = []
        self._good = 0

    @property
    def real_steps(self) -> int:
        """Real environment steps at the last evaluation."""
        return int(self.points[-1]["real_steps"]) if self.points else 0

    @property
    def solved(self) -> bool:
        """Whether the last evaluations were good ones, as many as the goal asks for."""
        return self._good >= self._goal.in_a_row

    def add(self, agent: BaseAlgorithm) -> bool:
        """Evaluate the agent as it is now; true once the task is solved."""
        seconds, cpu_seconds = self.clock.stop()
        result = self._evaluate(agent)
        self._good = self._good + 1 if self._goal.reached(result) else 0
        self.points.append(
            {
                "real_steps": int(agent.num_timesteps),
                "seconds": round(seconds, 3),
                "cpu_seconds": round(cpu_seconds, 3),
                "success": result.success_rate,
                "mean_return": round(result.mean_return, 4),
                "mean_length": round(result.mean_length, 2),
            }
        )
        self.clock.start()
        return self.solved

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON values.

        `real_steps` and `seconds` are those at the last evaluation: where the task is solved,
        the last of the good ones in a row, at which one first knew; `first_good` is the real
        steps at the first of them.
        """
        last = self.points[-1]
        first = self.points[-self._goal.in_a_row] if self.solved else None
        return {
            "solved": self.solved,
            "real_steps": last["real_steps"],
            "seconds": last["seconds"],
            "cpu_seconds": last["cpu_seconds"],
            "first_good": first and first["real_steps"],
            "curve": list(self.points),
        }


class AfterRollouts(BaseCallback):
    """Evaluate between rollouts, when the policy has learned from the last one.

    Once the task is solved the training stops, at the first environment step of a rollout that
    nobody learns from or counts.

    Args:
        curve: Where evaluations go.
        every: Least environment steps from one to the next.
    """

    def __init__(self, curve: LearningCurve, every: int) -> None:
        super().__init__()
        self._curve, self._every = curve, every

    def _on_training_start(self) -> None:
        self._curve.clock.start()

    def _on_rollout_start(self) -> None:
        if self.num_timesteps - self._curve.real_steps >= self._every:
            self._curve.add(self.model)

    def _on_step(self) -> bool:
        return not self._curve.solved

    def _on_training_end(self) -> None:
        if not self._curve.solved and self.model.num_timesteps > self._curve.real_steps:
            self._curve.add(self.model)
        self._curve.clock.stop()


class AfterDreams(PhaseCallback):
    """Evaluate `DreamPPO` after each dream, and stop it once the task is solved.

    Args:
        curve: Where evaluations go.
    """

    def __init__(self, curve: LearningCurve) -> None:
        super().__init__()
        self._curve = curve

    def _on_training_start(self) -> None:
        self._curve.clock.start()

    def on_phase_end(self, phase: str, metrics: Mapping[str, float]) -> bool:
        """Evaluate after a dream; false once the task is solved."""
        return phase != "dream" or not self._curve.add(self.model)

    def _on_training_end(self) -> None:
        self._curve.clock.stop()

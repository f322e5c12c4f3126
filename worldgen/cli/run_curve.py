"""How good the agent of a run is, round by round.

Classes:
    RunCurve: callback that plays held-out seeds after each round, and keeps the best agent.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from typing import Any

from worldgen.agents import DreamPPO, PhaseCallback, evaluate_agent
from worldgen.checkpoint import write_json
from worldgen.data.environment import EnvironmentSpec
from worldgen.memory import resident_mib
from worldgen.progress import Progress
from worldgen.run_folder import RunFolder, read_json

__all__ = ["IN_A_ROW", "RunCurve"]

IN_A_ROW = 2
"""Rounds with enough of a return before a training is stopped: one may have been luck."""

_SEED = 2_000_000
"""First of the held-out seeds; those of the final judgement are others."""
_KEPT = (
    "dream/ep_rew_mean",
    "dream/ep_bonus_mean",
    "dream/ep_len_mean",
    "dynamics/token_loss",
    "dynamics/rewarding_recall",
    "dynamics/terminating_recall",
)


class RunCurve(PhaseCallback):
    """Add an entry to curve.json after each round; a round that is made again replaces its own.

    To be called after the agent is saved: the best agent is a copy of agent.zip.

    Args:
        folder: Of the run.
        environment: To play in; None in an offline training, which plays in none.
        episodes: How many a round; 0 for none.
        stop_at_return: Mean return with which the training stops; None for never.
    """

    def __init__(
        self,
        folder: RunFolder,
        environment: EnvironmentSpec | None = None,
        episodes: int = 0,
        stop_at_return: float | None = None,
    ) -> None:
        super().__init__()
        self._folder, self._environment, self._episodes = folder, environment, episodes
        self._stop_at_return = stop_at_return

    def catch_up(self, agent: DreamPPO) -> None:
        """Make the entry of a round after which a run was killed before it was made."""
        done = [entry["round"] for entry in _entries(self._folder)]
        if agent.round and agent.phase == "collect" and agent.round not in done:
            self._note(agent)

    def good_enough(self) -> list[float]:
        """Give the mean returns of the newest rounds in a row, where they are enough to stop."""
        if self._stop_at_return is None:
            return []
        newest = _entries(self._folder)[-IN_A_ROW:]
        returns = [entry.get("mean_return", -math.inf) for entry in newest]
        return returns if len(returns) == IN_A_ROW and min(returns) >= self._stop_at_return else []

    def on_phase_end(self, phase: str, metrics: Mapping[str, float]) -> bool:
        """Play once a round is over; false if that was enough."""
        if phase != "dream":
            return True
        assert isinstance(self.model, DreamPPO)
        for name, score in self._note(self.model).items():
            if score is not None:
                self.logger.record(f"held_out/{name}", score)
        return not self.good_enough()

    def _note(self, agent: DreamPPO) -> dict[str, float | None]:
        """Play, add the entry of the agent's newest round, and keep the agent if it is the best."""
        scores = self._played(agent)
        numbers = {
            name: value
            for name, value in agent.round_metrics.items()
            if name in _KEPT or name.startswith("unseen/")
        }
        entry: dict[str, Any] = {
            "round": agent.round,
            "real_environment_steps": agent.num_timesteps,
            "imagined_environment_steps": agent.imagined_timesteps,
            "training_seconds": round(sum(self._folder.times().values()), 1),
            "resident_mib": resident_mib(),
            **numbers,
            **scores,
        }
        earlier = [e for e in _entries(self._folder) if e["round"] < agent.round]
        if "mean_return" in entry and _is_best(entry, earlier):
            shutil.copyfile(self._folder.agent, self._folder.best_agent)
        write_json(self._folder.curve, [*earlier, entry])
        return scores

    def _played(self, agent: DreamPPO) -> dict[str, float | None]:
        if self._environment is None or not self._episodes:
            return {}
        label = f"round {agent.round}: held out"
        with Progress(label, self._episodes, unit="episodes") as bar:
            result = evaluate_agent(agent, self._environment, self._episodes, seed=_SEED)
            bar.update(self._episodes, mean_return=result.mean_return)
        return {"success_rate": result.success_rate, "mean_return": result.mean_return}


def _entries(folder: RunFolder) -> list[dict[str, Any]]:
    return read_json(folder.curve) if folder.curve.is_file() else []


def _is_best(entry: Mapping[str, Any], earlier: list[dict[str, Any]]) -> bool:
    """Whether an entry is at least as good as all before it: the newest of equals is kept."""

    def score(of: Mapping[str, Any]) -> tuple[float, float]:
        return (of.get("success_rate") or 0.0, of["mean_return"])

    played = [score(e) for e in earlier if "mean_return" in e]
    return not played or score(entry) >= max(played)

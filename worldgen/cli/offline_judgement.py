"""The measuring part of `worldgen train --offline`, stage by stage.

Classes:
    OfflineJudgement: the dataset, the agent where its environment is known, fidelity, a film.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from worldgen.agents import DreamPPO
from worldgen.checkpoint import write_json
from worldgen.cli.stages import Stages
from worldgen.data.environment import EnvironmentSpec, episode_success
from worldgen.data.episode import Episode
from worldgen.data.episodes import Episodes
from worldgen.errors import EnvironmentIdError, MissingDependencyError, SpaceError
from worldgen.run_folder import RunFolder

if TYPE_CHECKING:
    from worldgen.cli.train_offline import Arguments

__all__ = ["OfflineJudgement"]


class OfflineJudgement(Stages):
    """Measure an agent that learnt from a dataset, on the dataset's held-out episodes.

    Where the environment is known, and may be made, the agent plays in it now, for the first
    time.

    Args:
        folder: Where results go, and the held-out episodes are.
        agent: Trained, with its world model.
        arguments: Of the run.
        episodes: The whole dataset.
    """

    def __init__(
        self, folder: RunFolder, agent: DreamPPO, arguments: Arguments, episodes: Episodes
    ) -> None:
        super().__init__(folder, agent, arguments.seed)
        self._dataset, self._config = episodes, arguments.judgement
        known = arguments.named if arguments.env is not None else episodes.environment
        self._place = None if arguments.no_environment else known

    def run(self) -> dict[str, Any]:
        """Run what is left, write report.json and give its contents."""
        self._stage("dataset", "dataset", self._describe)
        place, episodes = self._place, self._config.episodes
        if place is not None and self._can_be_made(place):
            self._stage("random", "evaluate random", lambda: self._play(None, place, episodes))
            self._stage("agent", "evaluate agent", lambda: self._play(self._agent, place, episodes))
        self._stage("fidelity", "fidelity", lambda: self._measure(self._config.dreams))
        self._stage("films", "films", self._film)
        stages = self._folder.stages()
        measured = ("dataset", "random", "agent", "fidelity")
        report = {
            "environment": None if self._place is None else self._place.to_dict(),
            "seed": self._seed,
            **stages["training"],
            **{name: stages[name] for name in measured if name in stages},
        }
        write_json(self._folder.report, report)
        return report

    def _can_be_made(self, environment: EnvironmentSpec) -> bool:
        """Try to make the environment; say why it is not played in where that fails."""
        try:
            env = environment.make()
            env.close()
            self._agent.world_model.check_compatible(env.observation_space, env.action_space)
        except (EnvironmentIdError, MissingDependencyError, SpaceError) as error:
            print(f"not played in the environment: {error}", flush=True)
            return False
        return True

    def _describe(self) -> tuple[dict[str, Any], str]:
        """Say what the dataset's own policy achieved, in episodes that are over."""
        finished = [episode for episode in self._dataset if episode.is_over]
        known = [success for e in finished if (success := self._success(e)) is not None]
        found = {
            "episodes": len(self._dataset),
            "environment_steps": self._dataset.num_steps,
            "training_environment_steps": self._agent.episodes.num_steps,
            "mean_return": float(np.mean([e.total_reward for e in finished])) if finished else None,
            "success_rate": float(np.mean(known)) if known else None,
        }
        return found, f"{found['training_environment_steps']:,} environment steps were learnt from"

    def _success(self, episode: Episode) -> bool | None:
        return episode_success(
            self._place or self._dataset.environment,
            episode.total_reward,
            float(episode.rewards[-1]),
            bool(episode.terminated[-1]),
        )

    def _film(self) -> tuple[dict[str, Any], str]:
        """Film the best held-out episode."""
        held_out = Episodes.load(self._folder.held_out)
        shown = self._film_best("held_out", held_out, self._config.film_steps)
        return {"held_out": shown}, f"held_out.gif in {self._folder.films}"

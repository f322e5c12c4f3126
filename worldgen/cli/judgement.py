"""The measuring part of `worldgen train`, stage by stage, so that a killed run can go on.

Classes:
    Judgement: random policy, agent, held-out episodes, fidelity, films, report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worldgen.agents import DreamPPO, baseline_result
from worldgen.checkpoint import write_json
from worldgen.cli.stages import HELD_OUT_SEED, Stages, together
from worldgen.cli.summaries import describe_episodes, describe_play
from worldgen.data.collect import collect
from worldgen.data.episodes import Episodes
from worldgen.progress import Progress
from worldgen.run_folder import RunFolder
from worldgen.seeding import derived_seed

if TYPE_CHECKING:
    from worldgen.cli.train import Arguments

__all__ = ["Judgement"]

_REPORTED = ("random", "agent", "ppo", "held_out", "fidelity")


class Judgement(Stages):
    """Measure an agent that was trained in its environment, there and on new episodes.

    Args:
        folder: Where results go; stages that are finished there are not repeated.
        agent: Trained, with its world model.
        arguments: Of the run.
    """

    def __init__(self, folder: RunFolder, agent: DreamPPO, arguments: Arguments) -> None:
        super().__init__(folder, agent, arguments.seed)
        self._config, self._environment = arguments.judgement, arguments.environment

    def run(self) -> dict[str, Any]:
        """Run what is left, write report.json and give its contents."""
        self._stage("random", "evaluate random", lambda: self._play_held_out(None))
        self._stage("agent", "evaluate agent", lambda: self._play_held_out(self._agent))
        if self._config.compare_ppo:
            self._stage("ppo", "compare PPO", self._compare)
        self._stage("held_out", "hold out", self._collect)
        self._stage("fidelity", "fidelity", lambda: self._measure(self._config.dreams))
        self._stage("films", "films", self._film)
        stages = self._folder.stages()
        report = {
            "environment": self._environment.to_dict(),
            "seed": self._seed,
            **stages["training"],
            **{name: stages[name] for name in _REPORTED if name in stages},
        }
        write_json(self._folder.report, report)
        return report

    def _play_held_out(self, policy: DreamPPO | None) -> tuple[dict[str, Any], str]:
        return self._play(policy, self._environment, self._config.episodes)

    def _compare(self) -> tuple[dict[str, Any], str]:
        """Train SB3's PPO in the real environment for as many steps, and let it play."""
        with Progress("compare PPO", 1, unit="training") as bar:
            result = baseline_result(
                self._environment,
                self._agent.num_timesteps,
                seed=self._seed,
                num_episodes=self._config.episodes,
                evaluation_seed=HELD_OUT_SEED,
            )
            bar.update(1, mean_return=result.mean_return)
        played = together([result])
        return played, describe_play(played)

    def _collect(self) -> tuple[dict[str, Any], str]:
        """Play new episodes: at random for variety, by the agent for what it meets."""
        episodes = self._new_episodes(None)
        episodes.extend(self._new_episodes(self._agent))
        episodes.save(self._folder.held_out, overwrite=True)
        counts = {"episodes": len(episodes), "environment_steps": episodes.num_steps}
        return counts, describe_episodes(episodes)

    def _new_episodes(self, policy: DreamPPO | None) -> Episodes:
        seed = derived_seed(self._seed, "held out", policy is None) % 2**30
        return collect(self._environment, self._config.held_out_steps, policy, seed=seed)

    def _film(self) -> tuple[dict[str, Any], str]:
        """Film the agent's best held-out episode, and one of the random policy's."""
        held_out = Episodes.load(self._folder.held_out)
        first_of_agent = self._first_of_agent(held_out)
        films = {
            name: self._film_best(name, chosen, self._config.film_steps)
            for name, chosen in (
                ("agent", held_out[first_of_agent:]),
                ("random", held_out[:first_of_agent]),
            )
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

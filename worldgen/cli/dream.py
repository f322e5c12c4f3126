"""Film a dream beside reality: the same start, the same actions, as a GIF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worldgen.cli.arguments import CommonArguments, Flag, ModelFolder, refuse_existing
from worldgen.config import require
from worldgen.errors import ConfigError

if TYPE_CHECKING:
    from worldgen.data.episodes import Episodes
    from worldgen.world_model import WorldModel

__all__ = ["Arguments", "run"]

_NEW_STEPS = 2_000


@dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    """Options of `worldgen dream`."""

    model: ModelFolder
    """Folder of a model, or of a run."""
    output: Path = Path("dream.gif")
    """GIF to write."""
    episodes: Path | None = None
    """Folder of real episodes to dream along; by default new ones are played, by the run's
    agent where there is one, else at random."""
    episode: int | None = None
    """Which of the episodes, from 0; by default the one with most to see."""
    start: int | None = None
    """Environment step of the episode at which the dream begins."""
    horizon: int = 40
    """Most environment steps to dream."""
    denoising_steps: int | None = None
    """Network passes a frame; the model's setting by default."""
    frames_per_second: float = 4.0
    """Environment steps shown a second."""
    size: int = 224
    """Height of each picture in pixels, about."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    overwrite: Flag = False
    """Replace the file."""


def run(arguments: Arguments) -> None:
    """Find real episodes, dream along one of them, write the film."""
    require(arguments.horizon >= 1, "horizon", "be at least 1", arguments.horizon)
    require(arguments.output.suffix == ".gif", "output", "end in .gif", str(arguments.output))
    refuse_existing(arguments.output, arguments.overwrite)
    from worldgen.cli.saved import load_model, sampler_of
    from worldgen.evaluation import dream_film

    model = load_model(arguments.model, arguments.device)
    episodes = _episodes(arguments, model)
    index, start = _moment(arguments, episodes)
    film = dream_film(
        model,
        episodes[index],
        arguments.output,
        start=start,
        horizon=arguments.horizon,
        sampler=sampler_of(model, arguments.denoising_steps),
        seed=arguments.seed,
        frames_per_second=arguments.frames_per_second,
        size=arguments.size,
    )
    steps = film.num_frames - 1
    if film.first_difference is None:
        verdict = f"the dream equals reality for all {steps} environment steps"
    else:
        verdict = f"the dream first differs at environment step {film.first_difference} of {steps}"
    print(f"{verdict}: {film.path}")


def _episodes(arguments: Arguments, model: WorldModel) -> Episodes:
    from worldgen.cli.saved import find_agent
    from worldgen.data.collect import collect
    from worldgen.data.episodes import Episodes

    if arguments.episodes is not None:
        episodes = Episodes.load(arguments.episodes)
        model.check_compatible(episodes.observation_space, episodes.action_space)
        return episodes
    if model.environment is None:
        raise ConfigError(
            f"{arguments.model} does not say how to make its environment: pass --episodes"
        )
    policy, agent = None, find_agent(arguments.model)
    if agent is not None:
        from worldgen.agents import DreamPPO

        policy = DreamPPO.load(agent, device=arguments.device)
    return collect(model.environment, _NEW_STEPS, policy, seed=arguments.seed)


def _moment(arguments: Arguments, episodes: Episodes) -> tuple[int, int]:
    from worldgen.evaluation import best_moment

    if arguments.episode is None and arguments.start is None:
        return best_moment(episodes, arguments.horizon)
    index = arguments.episode or 0
    require(0 <= index < len(episodes), "episode", f"be in [0, {len(episodes)})", index)
    return index, arguments.start or 0

"""Train an agent from logged episodes alone: the environment is not touched while training."""

from __future__ import annotations

import functools
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import tyro

from worldgen.agents.dream_config import DreamConfig
from worldgen.agents.offline_config import OFFLINE_CONFIG, OFFLINE_ROUNDS
from worldgen.cli.arguments import CommonArguments, Flag, Wrappers
from worldgen.cli.train import refuse_unused_steps, show_results
from worldgen.config import Config, require
from worldgen.data.environment import EnvironmentSpec
from worldgen.data.episodes import Episodes
from worldgen.data.minari_episodes import load_episodes
from worldgen.device import resolve_device
from worldgen.errors import ConfigError, DatasetError, SpaceError
from worldgen.run_folder import RunFolder
from worldgen.world_model import WorldModelConfig

__all__ = ["Arguments", "OfflineJudgementConfig", "run"]

OptionalEnvironment = Annotated[
    str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[ENV]", help_behavior_hint="")
]


@dataclass(frozen=True, kw_only=True)
class OfflineJudgementConfig(Config):
    """How agent and model are measured after training."""

    held_out_share: float = 0.1
    """Share of the dataset's episodes that nothing is learnt from, to measure the model on."""
    dreams: int = 256
    """Dreams in the fidelity report."""
    film_steps: int = 40
    """Most environment steps of the film."""
    episodes: int = 100
    """Real episodes of held-out seeds that the agent and the random policy play, where the
    environment is known."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        share = self.held_out_share
        require(0 < share < 1, "held_out_share", "be in (0, 1)", share)
        for name in ("dreams", "film_steps", "episodes"):
            require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    """Options of `worldgen train --offline`."""

    env: OptionalEnvironment = None
    """Gymnasium id of the environment to play in after training; the dataset's own by default."""
    wrapper: Wrappers = ()
    """Wrapper around it, as module:Class; may be repeated, the innermost first."""
    dataset: str | None = None
    """Folder of episodes that `worldgen collect` wrote, or id of a Minari dataset."""
    offline: Flag = False
    """Train on the dataset alone."""
    no_environment: Flag = False
    """Do not play in the environment after training either."""
    run: Path | None = None
    """Folder of the run; by default runs/offline-DATASET."""
    rounds: int = OFFLINE_ROUNDS
    """Fits of the world model, each with a dream after it."""
    resume: Flag = False
    """Go on with the run in the folder, if there is one; finished phases stay."""
    overwrite: Flag = False
    """Replace the run in the folder."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    dream: DreamConfig = OFFLINE_CONFIG
    """The loop, and PPO in the dream."""
    model: WorldModelConfig = WorldModelConfig()
    """The world model."""
    judgement: OfflineJudgementConfig = OfflineJudgementConfig()
    """Measurements after training."""

    def suited(self) -> Self:
        """Give the defaults that suit what the dataset shows."""
        from worldgen.agents.dream_defaults import dream_defaults

        space = _episodes(_checked_dataset(self)).observation_space
        suited = dream_defaults(space, offline=True)
        return type(self)(dream=suited.config, model=suited.model_config)

    def goes_on(self) -> str:
        """Say how to go on after Ctrl-C."""
        return f"--resume goes on with {self.folder}" if self.folder.exists() else ""

    @property
    def folder(self) -> Path:
        """Where the run is, or will be."""
        given = self.dataset or ""
        name = Path(given).resolve().name if Path(given).is_dir() else given.replace("/", "-")
        return self.run or Path("runs") / f"offline-{name}"

    def settings(self, episodes: Episodes) -> dict[str, Any]:
        """Give all that decides about the results, for config.json."""
        return {
            "dataset": self.dataset,
            "dataset_episodes": len(episodes),
            "dataset_environment_steps": episodes.num_steps,
            "environment": None if self.env is None else self.named.to_dict(),
            "no_environment": self.no_environment,
            "seed": self.seed,
            "rounds": self.rounds,
            "dream": self.dream.to_dict(),
            "model": self.model.to_dict(),
            "judgement": self.judgement.to_dict(),
        }

    @property
    def named(self) -> EnvironmentSpec:
        """How to make the environment that the command line names."""
        return EnvironmentSpec(id=self.env or "", wrappers=self.wrapper)


def run(arguments: Arguments) -> None:
    """Train, or go on training; measure; film; print the table and where everything is."""
    resolve_device(arguments.device)
    episodes = _episodes(_checked_dataset(arguments))
    if len(episodes) < 2:
        raise DatasetError(
            f"{arguments.dataset} must hold at least 2 episodes, one to learn from and one to "
            f"measure on, got {len(episodes)}"
        )
    if arguments.env is not None:
        _check_spaces(arguments.named, episodes)
    from worldgen.cli.offline_judgement import OfflineJudgement
    from worldgen.cli.offline_training import train_offline_agent
    from worldgen.cli.summaries import describe_episodes

    folder = RunFolder.create(
        arguments.folder,
        arguments.settings(episodes),
        seed=arguments.seed,
        command=shlex.join(["worldgen", *sys.argv[1:]]),
        overwrite=arguments.overwrite,
        resume=arguments.resume,
    )
    print(f"run      {folder.path}\ndataset  {describe_episodes(episodes)}", flush=True)
    if not any(episode.rewards.any() or episode.terminated[-1] for episode in episodes):
        print("warning  no reward and no end is in it: there is nothing for an agent to learn from")
    training, held_out = episodes.split(arguments.judgement.held_out_share, arguments.seed)
    held_out.save(folder.held_out, overwrite=True)
    agent = train_offline_agent(folder, arguments, training)
    report = OfflineJudgement(folder, agent, arguments, episodes).run()
    show_results(folder, report)


@functools.lru_cache(maxsize=1)
def _episodes(dataset: str) -> Episodes:
    return load_episodes(dataset)


def _checked_dataset(arguments: Arguments) -> str:
    """Refuse what is wrong before anything is read; give the dataset's name."""
    if not arguments.dataset:
        raise ConfigError(
            "`--dataset` must be given with --offline: a folder that `worldgen collect` wrote, or "
            "the id of a Minari dataset"
        )
    require(arguments.rounds >= 1, "rounds", "be at least 1", arguments.rounds)
    rule = "be left out with --no-environment"
    given = not (arguments.env is None and not arguments.wrapper)
    require(not (arguments.no_environment and given), "ENV", rule, arguments.env)
    rule = "be left out without ENV"
    require(arguments.env is not None or not arguments.wrapper, "wrapper", rule, arguments.wrapper)
    refuse_unused_steps(arguments.model)
    return arguments.dataset


def _check_spaces(environment: EnvironmentSpec, episodes: Episodes) -> None:
    """Make sure that the agent will be able to play there, without acting in it.

    Raises:
        EnvironmentIdError: If it cannot be made.
        SpaceError: If its spaces are not those of the episodes.
    """
    env = environment.make()
    pairs = (
        ("observation", env.observation_space, episodes.observation_space),
        ("action", env.action_space, episodes.action_space),
    )
    env.close()
    for name, its, ours in pairs:
        if its != ours:
            raise SpaceError(
                f"{environment.id} has the {name} space {its}, the dataset {ours}: name the "
                "environment of the dataset, with its wrappers, or pass --no-environment"
            )

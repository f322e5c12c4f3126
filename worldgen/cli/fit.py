"""Train a world model on the episodes of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from worldgen.cli.arguments import CommonArguments, EpisodesFolder, Flag, refuse_existing
from worldgen.data.episodes import Episodes
from worldgen.world_model import WorldModel, WorldModelConfig

__all__ = ["Arguments", "run"]


@dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    """Options of `worldgen fit`."""

    episodes: EpisodesFolder
    """Folder that `worldgen collect` wrote."""
    output: Path = Path("model")
    """Folder of the model to write."""
    start: Path | None = None
    """Model folder to go on training from, in place of a new model; its settings are kept."""
    tokenizer_steps: int | None = None
    """Most gradient steps of the tokenizer; the model's setting by default."""
    dynamics_steps: int | None = None
    """Gradient steps of the dynamics; the model's setting by default."""
    log_dir: Path | None = None
    """Folder for TensorBoard."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    overwrite: Flag = False
    """Replace the folder."""
    model: WorldModelConfig = WorldModelConfig()
    """Settings of a new model."""


def run(arguments: Arguments) -> None:
    """Fit, save, and say how well it went."""
    refuse_existing(arguments.output, arguments.overwrite)
    episodes = Episodes.load(arguments.episodes)
    model = _model(arguments, episodes)
    result = model.fit(
        episodes,
        tokenizer_steps=arguments.tokenizer_steps,
        dynamics_steps=arguments.dynamics_steps,
        log_dir=arguments.log_dir,
    )
    model.save(arguments.output, overwrite=arguments.overwrite)
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
    print(f"{numbers}: {arguments.output}")


def _model(arguments: Arguments, episodes: Episodes) -> WorldModel:
    if arguments.start is not None:
        model = WorldModel.load(arguments.start, device=arguments.device)
        model.check_compatible(episodes.observation_space, episodes.action_space)
        return model
    return WorldModel.for_spaces(
        episodes.observation_space,
        episodes.action_space,
        environment=episodes.environment,
        config=arguments.model,
        seed=arguments.seed,
        device=arguments.device,
    )

"""Train a world model on the episodes of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from worldgen.cli.arguments import CommonArguments, EpisodesFolder, Flag, refuse_existing
from worldgen.data.episodes import Episodes
from worldgen.errors import CheckpointError
from worldgen.fit_checkpoint import remove_checkpoint
from worldgen.world_model import WorldModel, WorldModelConfig

__all__ = ["Arguments", "checkpoint_path", "run"]


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
    devices: int = 1
    """Processes over which each batch of the dynamics is spread: on CPU cores, or a GPU each."""
    overwrite: Flag = False
    """Replace the folder, and forget an unfinished fit unless --resume is given too."""
    resume: Flag = False
    """Go on with the unfinished fit of this output, if there is one."""
    checkpoint_every: int = 100
    """Gradient steps of the dynamics after which a killed fit can go on."""
    model: WorldModelConfig = WorldModelConfig()
    """Settings of a new model."""


def run(arguments: Arguments) -> None:
    """Fit, save, and say how well it went."""
    refuse_existing(arguments.output, arguments.overwrite)
    checkpoint = checkpoint_path(arguments.output)
    if checkpoint.exists() and not arguments.resume:
        if not arguments.overwrite:
            raise CheckpointError(
                f"{checkpoint} holds an unfinished fit: pass --resume to go on with it, "
                "--overwrite to begin anew, or another --output"
            )
        remove_checkpoint(checkpoint)
    episodes = Episodes.load(arguments.episodes)
    model = _model(arguments, episodes)
    result = model.fit(
        episodes,
        tokenizer_steps=arguments.tokenizer_steps,
        dynamics_steps=arguments.dynamics_steps,
        log_dir=arguments.log_dir,
        checkpoint=checkpoint,
        checkpoint_every=arguments.checkpoint_every,
        keep_checkpoint=True,
        devices=arguments.devices,
    )
    model.save(arguments.output, overwrite=arguments.overwrite)
    remove_checkpoint(checkpoint)
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
    print(f"{numbers}: {arguments.output}")


def checkpoint_path(output: Path) -> Path:
    """Give the file beside the model's folder that an unfinished fit is kept in."""
    return output.with_name(f"{output.name}.fit.safetensors")


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

"""Train a world model on the episodes of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from worldgen.cli.arguments import CommonArguments, EpisodesFolder, Flag, refuse_existing
from worldgen.cli.summaries import describe_fit
from worldgen.config import require
from worldgen.data.episodes import Episodes
from worldgen.errors import CheckpointError
from worldgen.fit_checkpoint import remove_checkpoint
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
    """Model folder to go on training from, in place of a new model, with its settings and seed."""
    tokenizer_steps: int | None = None
    """Most gradient steps of the tokenizer; the model's setting by default."""
    dynamics_steps: int | None = None
    """Gradient steps of the dynamics; the model's setting by default."""
    log_dir: Path | None = None
    """Folder for TensorBoard."""
    checkpoint_every: int = 500
    """Gradient steps of the dynamics between two states on disk, from which --resume goes on."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    devices: int = 1
    """Processes that train the dynamics together, a GPU each or a part of the CPU."""
    overwrite: Flag = False
    """Replace the folder, and begin anew where a fit was broken off."""
    resume: Flag = False
    """Go on with a fit that was broken off, if there is one; its settings must be the same."""
    model: WorldModelConfig = WorldModelConfig()
    """Settings of a new model."""

    @property
    def checkpoint(self) -> Path:
        """File of an unfinished fit, beside the output."""
        return self.output.with_name(f"{self.output.name}.fit")

    def goes_on(self) -> str:
        """Say how to go on after Ctrl-C, which the tokenizer's part of a fit does not keep."""
        return f"--resume goes on with {self.checkpoint}" if self.checkpoint.exists() else ""

    def prepare(self) -> None:
        """Refuse settings that the model of `start` has already."""
        super().prepare()
        if self.start is not None:
            for name, usual in (("model", WorldModelConfig()), ("seed", 0)):
                rule = "be left out with --start, whose model has its own"
                require(getattr(self, name) == usual, f"--{name}", rule, getattr(self, name))


def run(arguments: Arguments) -> None:
    """Fit, save, and say how well it went."""
    if arguments.resume and not arguments.checkpoint.exists() and arguments.output.exists():
        _check_finished(arguments)
        print(f"finished before, nothing to go on with: {arguments.output}")
        return
    _check_files(arguments)
    episodes = Episodes.load(arguments.episodes)
    model = _model(arguments, episodes)
    result = model.fit(
        episodes,
        tokenizer_steps=arguments.tokenizer_steps,
        dynamics_steps=arguments.dynamics_steps,
        log_dir=arguments.log_dir,
        checkpoint=arguments.checkpoint,
        checkpoint_every=arguments.checkpoint_every,
        devices=arguments.devices,
    )
    model.save(arguments.output, overwrite=arguments.overwrite or arguments.resume)
    remove_checkpoint(arguments.checkpoint)
    print(f"{describe_fit(result.metrics)}: {arguments.output}")


def _check_finished(arguments: Arguments) -> None:
    """Make sure that the model in the output is the one that is asked for."""
    found = WorldModel.load(arguments.output, device="cpu")
    if arguments.start is None and (found.config, found.seed) != (arguments.model, arguments.seed):
        raise CheckpointError(
            f"{arguments.output} holds a finished model with other settings, or another seed: "
            "pass another --output, or --overwrite in place of --resume to begin anew"
        )


def _check_files(arguments: Arguments) -> None:
    """Make sure, before any work, that nothing is lost, and say where a fit begins.

    A fit that goes on may find the model that it wrote just before it was killed.
    """
    path = arguments.checkpoint
    goes_on = arguments.resume and path.exists()
    refuse_existing(arguments.output, arguments.overwrite or goes_on)
    if arguments.resume and not goes_on:
        print(f"{path} does not exist: the fit begins from its beginning")
    if path.exists() and not arguments.resume:
        if not arguments.overwrite:
            raise CheckpointError(
                f"{path} holds a fit that was broken off: --resume goes on with it, --overwrite "
                "begins anew"
            )
        remove_checkpoint(path)


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

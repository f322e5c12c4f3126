"""Train a world model on the episodes of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldgen.checkpoint import write_json
from worldgen.cli.arguments import CommonArguments, EpisodesFolder, Flag, refuse_existing
from worldgen.cli.summaries import describe_fit
from worldgen.config import require
from worldgen.data.episodes import Episodes
from worldgen.errors import CheckpointError
from worldgen.fit_checkpoint import FitCheckpoint, remove_checkpoint
from worldgen.fitting import fit_identity
from worldgen.run_folder import read_json
from worldgen.world_model import WorldModel, WorldModelConfig

__all__ = ["Arguments", "run"]

_FITTED = "fit.json"
"""File in the model's folder: what the model was fitted to, and how."""


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
    output, checkpoint = arguments.output, arguments.checkpoint
    refuse_existing(output, arguments.overwrite or arguments.resume)
    _settle_checkpoint(arguments)
    episodes = Episodes.load(arguments.episodes)
    model = _model(arguments, episodes)
    identity = _identity(arguments, model, episodes)
    if arguments.resume and not arguments.overwrite:
        if output.exists() and not checkpoint.exists():
            _check_finished(output, identity)
            print(f"finished before, nothing to go on with: {output}")
            return
        _check_unsaved(output, checkpoint, identity)
    result = model.fit(
        episodes,
        tokenizer_steps=arguments.tokenizer_steps,
        dynamics_steps=arguments.dynamics_steps,
        log_dir=arguments.log_dir,
        checkpoint=checkpoint,
        checkpoint_every=arguments.checkpoint_every,
        devices=arguments.devices,
    )
    model.save(output, overwrite=arguments.overwrite or arguments.resume)
    write_json(output / _FITTED, identity)
    remove_checkpoint(checkpoint)
    print(f"{describe_fit(result.metrics)}: {output}")


def _settle_checkpoint(arguments: Arguments) -> None:
    """Say, before any work, what becomes of an unfinished fit."""
    path = arguments.checkpoint
    if arguments.resume and not path.exists() and not arguments.output.exists():
        print(f"{path} does not exist: the fit begins from its beginning")
    if path.exists() and not arguments.resume:
        if not arguments.overwrite:
            raise CheckpointError(
                f"{path} holds a fit that was broken off: --resume goes on with it, --overwrite "
                "begins anew"
            )
        remove_checkpoint(path)


def _identity(arguments: Arguments, model: WorldModel, episodes: Episodes) -> dict[str, Any]:
    """Give what tells this fit from others."""
    steps = model.config.gradient_steps(arguments.tokenizer_steps, arguments.dynamics_steps)
    return fit_identity(model, episodes, steps, arguments.devices)


def _check_finished(output: Path, identity: dict[str, Any]) -> None:
    """Make sure that the model in the output is of the fit that is asked for."""
    file = output / _FITTED
    found = read_json(file) if file.is_file() else {}
    others = [name for name, value in identity.items() if found.get(name) != value]
    if others:
        raise CheckpointError(
            f"{output} holds a finished model of another fit, which differs in "
            f"{', '.join(others)}: pass another --output, --start {output} to go on training from "
            "it, or --overwrite in place of --resume to begin anew"
        )


def _check_unsaved(output: Path, checkpoint: Path, identity: dict[str, Any]) -> None:
    """Make sure that no finished fit is lost whose model had not been written yet."""
    unsaved = checkpoint.exists() and not output.exists()
    if unsaved and FitCheckpoint(checkpoint, identity).read() is None:
        raise CheckpointError(
            f"{checkpoint} holds a finished fit with other settings or episodes, whose model was "
            "not written yet: resume it with its own, or begin anew with --overwrite"
        )


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

"""Measure how often a model's dreams are right, on episodes that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from worldgen.cli.arguments import (
    CommonArguments,
    Flag,
    ModelFolder,
    refuse_existing,
)
from worldgen.errors import ConfigError

__all__ = ["Arguments", "run"]


@dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    """Options of `worldgen evaluate`."""

    model: ModelFolder
    """Folder of a model, or of a run."""
    episodes: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="EPISODES")] = None
    """Folder of held-out episodes, as `worldgen collect` writes it; by default the held_out/ of
    the run that the model belongs to."""
    horizons: tuple[int, ...] = (1, 5, 10, 15, 30)
    """Lengths of dreams to report on, in environment steps."""
    dreams: int = 256
    """Number of dreams."""
    denoising_steps: int | None = None
    """Network passes a frame; the model's setting by default."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    output: Path | None = None
    """JSON file for the report; none by default."""
    overwrite: Flag = False
    """Replace the file."""


def run(arguments: Arguments) -> None:
    """Evaluate, print the table, write the report."""
    if arguments.output is not None:
        refuse_existing(arguments.output, arguments.overwrite)
    from worldgen.cli.saved import find_held_out, load_model, sampler_of
    from worldgen.data.episodes import Episodes
    from worldgen.evaluation import evaluate

    episodes = arguments.episodes or find_held_out(arguments.model)
    if episodes is None:
        raise ConfigError(
            f"`EPISODES` must be given, since {arguments.model} belongs to no run with held_out/"
        )
    model = load_model(arguments.model, arguments.device)
    report = evaluate(
        model,
        Episodes.load(episodes),
        horizons=arguments.horizons,
        num_dreams=arguments.dreams,
        sampler=sampler_of(model, arguments.denoising_steps),
        seed=arguments.seed,
    )
    print(f"episodes: {episodes}")
    print(report)
    if arguments.output is not None:
        report.save(arguments.output)
        print(f"report: {arguments.output}")

"""Measure how often a model's dreams are right, on episodes that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from worldgen.cli.arguments import CommonArguments, Flag, refuse_existing

__all__ = ["Arguments", "run"]


@dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    """Options of `worldgen evaluate`."""

    model: Annotated[Path, tyro.conf.Positional]
    """Folder of a model, or of a run."""
    episodes: Annotated[Path, tyro.conf.Positional]
    """Folder of held-out episodes, as `worldgen collect` writes it."""
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
    from worldgen.cli.saved import load_model, sampler_of
    from worldgen.data.episodes import Episodes
    from worldgen.evaluation import evaluate

    model = load_model(arguments.model, arguments.device)
    report = evaluate(
        model,
        Episodes.load(arguments.episodes),
        horizons=arguments.horizons,
        num_dreams=arguments.dreams,
        sampler=sampler_of(model, arguments.denoising_steps),
        seed=arguments.seed,
    )
    print(report)
    if arguments.output is not None:
        report.save(arguments.output)
        print(f"report: {arguments.output}")

"""Measure how often a model's dreams are right, on episodes that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from worldgen.cli.arguments import CommonArguments, Flag, ModelFolder
from worldgen.errors import ConfigError

if TYPE_CHECKING:
    from worldgen.data.episodes import Episodes
    from worldgen.evaluation import FidelityReport
    from worldgen.world_model import WorldModel

__all__ = ["Arguments", "run"]


@dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    """Options of `worldgen evaluate`."""

    model: ModelFolder
    """Folder of a model, or of a run."""
    episodes: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="EPISODES")] = None
    """Folder of held-out episodes, as `worldgen collect` writes it; by default the held_out/ of
    the run that the model belongs to."""
    horizons: tuple[int, ...] = (1, 5, 10, 15, 30, 100)
    """Lengths of dreams to report on, in environment steps."""
    dreams: int = 256
    """Most dreams of a horizon."""
    denoising_steps: int | None = None
    """Network passes a frame; the model's setting by default."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    output: Path | None = None
    """Folder for report.json with drift.png, and likewise calibration and samplers; none by
    default."""
    samplers: tuple[int, ...] = (1, 2, 3, 4)
    """Denoising steps to compare in --output, beside one token a pass; without a number, none."""
    plots: bool = True
    """Whether to draw the PNGs of --output, which needs matplotlib."""
    overwrite: Flag = False
    """Replace the files of an earlier report."""


def run(arguments: Arguments) -> None:
    """Evaluate, print the table, write the folder."""
    from worldgen.cli.saved import find_held_out, load_model, sampler_of
    from worldgen.data.episodes import Episodes
    from worldgen.evaluation import evaluate
    from worldgen.evaluation.fidelity_folder import check_folder
    from worldgen.evaluation.plot_style import require_matplotlib

    if arguments.output is not None:
        check_folder(arguments.output, arguments.overwrite)
        if arguments.plots:
            require_matplotlib()
    folder = arguments.episodes or find_held_out(arguments.model)
    if folder is None:
        raise ConfigError(
            f"`EPISODES` must be given, since {arguments.model} belongs to no run with held_out/"
        )
    model, episodes = load_model(arguments.model, arguments.device), Episodes.load(folder)
    report = evaluate(
        model,
        episodes,
        horizons=arguments.horizons,
        num_dreams=arguments.dreams,
        sampler=sampler_of(model, arguments.denoising_steps),
        seed=arguments.seed,
    )
    print(f"episodes: {folder}")
    print(report)
    if arguments.output is not None:
        _write(arguments, arguments.output, model, episodes, report)


def _write(
    arguments: Arguments,
    output: Path,
    model: WorldModel,
    episodes: Episodes,
    report: FidelityReport,
) -> None:
    """Write the report, measure what only the folder shows, and write that too."""
    from worldgen.evaluation import calibrate, compare_samplers
    from worldgen.evaluation.fidelity_folder import write_fidelity

    # At once, so that it is there if what follows is broken off.
    write_fidelity(output, report, plots=arguments.plots, overwrite=arguments.overwrite)
    calibration = calibrate(model, episodes, seed=arguments.seed)
    print(calibration)
    samplers = None
    if arguments.samplers:
        samplers = compare_samplers(
            model,
            episodes,
            denoising_steps=(*arguments.samplers, model.tokenizer.num_tokens),
            horizons=tuple(h for h in arguments.horizons if h <= 30) or arguments.horizons[:1],
            num_dreams=arguments.dreams,
            seed=arguments.seed,
        )
        print(samplers)
    files = write_fidelity(
        output,
        report,
        calibration=calibration,
        samplers=samplers,
        plots=arguments.plots,
        overwrite=True,
    )
    print(f"report: {', '.join(file.name for file in files)} in {output}")

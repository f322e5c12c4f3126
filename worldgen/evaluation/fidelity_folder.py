"""Everything that is measured of a model's dreams, as a folder of JSON and plots.

Functions:
    write_fidelity: report, calibration and samplers, each as JSON with its plot beside it.
    check_folder: whether that may be written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from worldgen.checkpoint import write_atomically
from worldgen.evaluation.calibration import CalibrationReport
from worldgen.evaluation.output_folder import check_output
from worldgen.evaluation.plot_style import figure_png, require_matplotlib
from worldgen.evaluation.report import FidelityReport
from worldgen.evaluation.sampler_comparison import SamplerComparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_folder", "write_fidelity"]

_REPORT = "report.json"
_FILES = (
    *(f"{name}.{ending}" for name in ("calibration", "samplers") for ending in ("json", "png")),
    "drift.png",
)


def write_fidelity(
    output: str | Path,
    report: FidelityReport,
    *,
    calibration: CalibrationReport | None = None,
    samplers: SamplerComparison | None = None,
    plots: bool = True,
    overwrite: bool = False,
) -> list[Path]:
    """Write what was measured.

    Args:
        output: Folder; it is made where it is not there.
        report: report.json, and drift.png: shares of right dreams against the horizon.
        calibration: calibration.json and calibration.png.
        samplers: samplers.json and samplers.png: the dreams by denoising steps.
        plots: Whether to draw the PNGs, which needs matplotlib.
        overwrite: Replace the files of an earlier report.

    Returns:
        The files.

    Raises:
        MissingDependencyError: If there are to be plots and matplotlib is not installed.
        CheckpointError: If the folder holds something and `overwrite` is not set, or something
            that is no report.
    """
    if plots:
        require_matplotlib()
    output = Path(output)
    check_folder(output, overwrite)
    output.mkdir(parents=True, exist_ok=True)
    for name in _FILES:  # of an earlier report, which may be of another model
        (output / name).unlink(missing_ok=True)
    files = [output / _REPORT]
    report.save(files[0])
    for name, part in (("calibration", calibration), ("samplers", samplers)):
        if part is not None:
            files.append(output / f"{name}.json")
            part.save(files[-1])
    if plots:
        from worldgen.evaluation.fidelity_plots import (
            calibration_figure,
            drift_figure,
            samplers_figure,
        )

        figures = {"drift": drift_figure(report)}
        if calibration is not None:
            figures["calibration"] = calibration_figure(calibration)
        if samplers is not None:
            figures["samplers"] = samplers_figure(samplers)
        files += [_write_png(output / f"{name}.png", figure) for name, figure in figures.items()]
    return files


def check_folder(output: Path, overwrite: bool) -> None:
    """Make sure, before any work, that a report may be written; see `check_output`."""
    check_output(output, overwrite, marker=_REPORT, holds="report")


def _write_png(path: Path, figure: Figure) -> Path:
    data = figure_png(figure)

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomically(path, write)
    return path

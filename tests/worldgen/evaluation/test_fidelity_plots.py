"""The folder of a report: files, plots, and what is said where matplotlib is missing."""

from __future__ import annotations

import builtins
import io

import numpy as np
import pytest
from PIL import Image

from worldgen.errors import CheckpointError, MissingDependencyError
from worldgen.evaluation import FidelityReport, evaluate
from worldgen.evaluation.calibration import CalibrationReport, GroupCalibration, PredictorNats
from worldgen.evaluation.fidelity_folder import write_fidelity
from worldgen.evaluation.fidelity_plots import calibration_figure, drift_figure, samplers_figure
from worldgen.evaluation.plot_style import figure_png
from worldgen.evaluation.reliability import reliability
from worldgen.evaluation.sampler_comparison import SamplerComparison


@pytest.fixture
def report(counting_model, held_out):
    model = counting_model(blind_after=3)
    return evaluate(model, held_out, horizons=(1, 3, 5, 50), num_dreams=20, progress=False)


@pytest.fixture
def calibration():
    rng = np.random.default_rng(0)
    predicted = rng.random(500)
    found = reliability(predicted, rng.random(500) < predicted)
    group = GroupCalibration(likeliest=found, contents=found)
    predictors = PredictorNats(num_cells=500, model=0.2, copy=0.9, marginal=0.5)
    return CalibrationReport(
        num_transitions=100,
        groups={"revealed cells": group, "cells": group, "tokens": group},
        predictors=predictors,
    )


@pytest.fixture
def samplers(report):
    return SamplerComparison(
        num_tokens=4,
        num_dreams=20,
        seed=0,
        sampler={},
        by_denoising_steps={1: report.horizons, 4: report.horizons},
    )


def pixels(figure):
    with Image.open(io.BytesIO(figure_png(figure))) as image:
        return np.asarray(image.convert("RGB"))


def test_each_figure_shows_something(report, calibration, samplers):
    for figure in (
        drift_figure(report),
        calibration_figure(calibration),
        samplers_figure(samplers),
    ):
        drawn = pixels(figure)
        assert min(drawn.shape[:2]) > 300
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 50


def test_what_is_drawn_are_the_reports_shares(report):
    axes = drift_figure(report).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    known = [entry for entry in report.horizons if entry.exact is not None]
    assert list(lines["all"].get_xdata()) == [entry.horizon for entry in known]
    assert list(lines["all"].get_ydata()) == [entry.exact for entry in known]
    assert "all that the past determines" not in lines  # No partial view here.


def test_equal_reports_give_equal_files(report, calibration, samplers, tmp_path):
    for name in ("first", "second"):
        files = write_fidelity(tmp_path / name, report, calibration=calibration, samplers=samplers)
        assert [file.name for file in files] == [
            "report.json",
            "calibration.json",
            "samplers.json",
            "drift.png",
            "calibration.png",
            "samplers.png",
        ]
    for file in files:
        assert file.read_bytes() == (tmp_path / "first" / file.name).read_bytes()
    assert FidelityReport.load(tmp_path / "first" / "report.json") == report


def test_a_folder_is_not_overwritten_unasked(report, tmp_path):
    write_fidelity(tmp_path / "out", report, plots=False)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["report.json"]
    with pytest.raises(CheckpointError, match="pass --overwrite"):
        write_fidelity(tmp_path / "out", report)
    write_fidelity(tmp_path / "out", report, overwrite=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(CheckpointError, match="holds no report"):
        write_fidelity(tmp_path / "other", report, overwrite=True)


def test_without_matplotlib_the_numbers_remain(report, tmp_path, monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments, **options):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError, match=r"worldgen\[plot\]"):
        write_fidelity(tmp_path / "out", report)
    assert not (tmp_path / "out").exists()
    assert write_fidelity(tmp_path / "out", report, plots=False)


def test_a_table_of_samplers_shows_what_is_defined(samplers):
    text = str(samplers)
    assert text.startswith("dreams exactly right so far")
    assert len(text.splitlines()) == 4
    assert samplers.to_dict()["by_denoising_steps"]["4"][0]["horizon"] == 1

"""A fit that was killed and goes on ends where one that was left alone ends, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import killed_fits
import pytest
import torch
from killed_fits import EVERY, GRADIENT_STEPS, KILLS, fit, new_model, some_episodes
from torch import Tensor

from worldgen import Episodes, WorldModel
from worldgen.dynamics_trainer import DynamicsTrainer
from worldgen.errors import CheckpointError
from worldgen.training_state import load_state, save_state

_needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork and SIGKILL")


def differences(first: Any, second: Any, name: str = "") -> list[str]:
    """Names of all that is not equal, bit for bit, in two nested states."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        equal = first.dtype == second.dtype and torch.equal(first, second)
        return [] if equal else [name]
    if isinstance(first, dict) and isinstance(second, dict) and list(first) == list(second):
        parts = [differences(first[key], second[key], f"{name}/{key}") for key in first]
        return [item for part in parts for item in part]
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            return [name]
        pairs = zip(first, second, strict=True)
        parts = [differences(*pair, f"{name}/{i}") for i, pair in enumerate(pairs)]
        return [item for part in parts for item in part]
    return [] if first == second and type(first) is type(second) else [name]


@pytest.fixture(scope="module")
def episodes() -> Episodes:
    return some_episodes()


@pytest.fixture(scope="module")
def undisturbed(episodes: Episodes, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Model, metrics and last state of a fit that was left alone."""
    path = tmp_path_factory.mktemp("undisturbed") / "fit"
    model = new_model()
    result = fit(model, episodes, path)
    return model, result.metrics, load_state(path)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What fits left that were killed."""
    folder = tmp_path_factory.mktemp("killed")
    tests = Path(killed_fits.__file__).parent
    # Last in the path, lest tests/worldgen hide worldgen.
    code = "import sys; sys.path.append(sys.argv[1]); import killed_fits as k; k.main(sys.argv[2])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tests), str(folder)],
        cwd=tests.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@_needs_fork
@pytest.mark.parametrize(("what", "count"), KILLS)
def test_a_killed_fit_ends_as_if_it_had_not_been(
    killed: Path, undisturbed: Any, episodes: Episodes, what: str, count: int
) -> None:
    path = killed_fits.place(killed, what, count)
    left = list(path.parent.glob("*")) + list(path.parent.glob(".*"))
    assert path.exists() == (what == "gradient step" or count == 3), left
    done = load_state(path)["trainer"]["gradient_step"] if path.exists() else 0
    if what == "gradient step":
        assert done == (count - 1) // EVERY * EVERY
    model = new_model()
    result = fit(model, episodes, path)
    expected_model, expected_metrics, expected_state = undisturbed
    assert differences(model.state_dict(), expected_model.state_dict()) == []
    assert result.metrics == expected_metrics
    # Weights, average, Muon's and AdamW's states, rates, priorities, generator, tokenizer.
    assert differences(load_state(path), expected_state) == []


def test_what_a_checkpoint_holds(undisturbed: Any) -> None:
    state = undisturbed[2]
    trainer = state["trainer"]
    assert trainer["gradient_step"] == GRADIENT_STEPS
    muon, adam = trainer["optimizers"]
    assert all(set(entry) == {"momentum_buffer"} for entry in muon["state"].values())
    assert all(set(e) == {"step", "exp_avg", "exp_avg_sq"} for e in adam["state"].values())
    assert muon["param_groups"][0]["lr"] == adam["param_groups"][0]["lr"] < 1e-3
    names = {name.rpartition(".")[2] for name in trainer["dynamics"]}
    assert {"possible", "contents", "unseen"} <= names, "buffers of what occurs in the data"
    assert trainer["priority"].unique().numel() > 3
    assert any("codec" in name for name in state["tokenizer"])


class Stopped(BaseException):
    """Ctrl-C, say."""


def stop_after(patch: pytest.MonkeyPatch, count: int) -> None:
    original, calls = DynamicsTrainer.step, []

    def step(self: DynamicsTrainer) -> Any:
        calls.append(0)
        if len(calls) > count:
            raise Stopped
        return original(self)

    patch.setattr(DynamicsTrainer, "step", step)


def stopped_fit(model: WorldModel, episodes: Episodes, path: Path, after: int = 8) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, after)
        with pytest.raises(Stopped):
            fit(model, episodes, path)


@pytest.mark.parametrize("damage", ["torn", "no trainer", "no tokenizer", "shapes"])
def test_a_damaged_checkpoint_is_said_so_and_kept(
    episodes: Episodes, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "fit"
    stopped_fit(new_model(), episodes, path)
    whole = load_state(path)
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:-7])
    elif damage == "shapes":
        whole["trainer"]["average"][0] = torch.zeros(1, 1, 7)
        save_state(path, whole)
    else:
        del whole[damage.removeprefix("no ")]
        save_state(path, whole)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"fit is damaged.* remove it to begin"):
        fit(new_model(), episodes, path)
    assert path.read_bytes() == before

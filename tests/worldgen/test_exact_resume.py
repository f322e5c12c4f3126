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
from hypothesis import given, settings
from hypothesis import strategies as st
from killed_fits import EVERY, GRADIENT_STEPS, KILLS, fit, new_model, some_episodes
from torch import Tensor

from worldgen import Episodes, WorldModel
from worldgen.dynamics_training import DynamicsTrainer
from worldgen.errors import CheckpointError, ConfigError
from worldgen.fit_checkpoint import FitCheckpoint
from worldgen.state_file import load_state, save_state

KIND = "checkpoint of a fit"
pytestmark = pytest.mark.xdist_group("exact resume")
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
    result = fit(model, episodes, path, keep_checkpoint=True)
    return model, result.metrics, load_state(path, KIND)


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
    assert path.exists() == ((what, count) in KILLS[2:8] or (what, count) == ("write", 3)), left
    done = load_state(path, KIND)["state"]["trainer"]["gradient_step"] if path.exists() else 0
    if what == "gradient step":
        assert done == (count - 1) // EVERY * EVERY
    model = new_model()
    result = fit(model, episodes, path, keep_checkpoint=True)
    expected_model, expected_metrics, expected_state = undisturbed
    assert differences(model.state_dict(), expected_model.state_dict()) == []
    assert result.metrics == expected_metrics
    # Weights, average, Muon's and AdamW's states, rates, priorities, generator, tokenizer.
    assert differences(load_state(path, KIND), expected_state) == []


def test_what_a_checkpoint_holds(undisturbed: Any) -> None:
    state = undisturbed[2]["state"]
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


def test_a_checkpoint_changes_nothing_and_is_removed(
    undisturbed: Any, episodes: Episodes, tmp_path: Path
) -> None:
    (tmp_path / ".fit.1234.tmp").write_bytes(b"what a killed write left")
    for path in (None, tmp_path / "fit"):
        model = new_model()
        fit(model, episodes, path)
        assert differences(model.state_dict(), undisturbed[0].state_dict()) == []
    assert list(tmp_path.iterdir()) == []


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


def test_a_fit_that_is_broken_off_goes_on_with_the_same_object(
    undisturbed: Any, episodes: Episodes, tmp_path: Path
) -> None:
    model = new_model()
    stopped_fit(model, episodes, tmp_path / "fit", after=8)
    stopped_fit(model, episodes, tmp_path / "fit", after=9)
    fit(model, episodes, tmp_path / "fit")
    assert differences(model.state_dict(), undisturbed[0].state_dict()) == []
    assert model.unfinished_fit is None


def test_a_second_fit_goes_on_too(undisturbed: Any, episodes: Episodes, tmp_path: Path) -> None:
    undisturbed[0].save(tmp_path / "model")
    first, second, third = (WorldModel.load(tmp_path / "model", device="cpu") for _ in range(3))
    fit(first, episodes, None)
    stopped_fit(second, episodes, tmp_path / "fit")
    fit(third, episodes, tmp_path / "fit")
    assert differences(first.state_dict(), third.state_dict()) == []


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ("seed", "seed was 0 and is 1"),
        ("steps", "dynamics_steps was 23 and is 24"),
        ("settings", r"config.training.learning_rate was 0.002 and is 0.1"),
        ("episodes", "hash of the episodes was"),
        ("fits", "num_fits was 0 and is 1"),
        ("weights", "hash of the weights at the beginning was"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused_and_kept(
    episodes: Episodes, tmp_path: Path, what: str, match: str
) -> None:
    path = tmp_path / "fit"
    stopped_fit(new_model(), episodes, path)
    before = path.read_bytes()
    model = new_model(
        seed=int(what == "seed"), **({"learning_rate": 0.1} if what == "settings" else {})
    )
    model.num_fits += int(what == "fits")
    if what == "weights":
        with torch.no_grad():
            model.dynamics.mask_vector[0] += 1
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    steps = {"dynamics_steps": GRADIENT_STEPS + 1} if what == "steps" else {}
    with pytest.raises(CheckpointError, match=f"belongs to another fit: .*{match}.*or remove it"):
        fit(model, some_episodes(1) if what == "episodes" else episodes, path, **steps)
    assert path.read_bytes() == before
    assert differences(model.state_dict(), weights) == []


def test_the_length_of_a_fit_does_not_hide_in_the_config(
    episodes: Episodes, tmp_path: Path
) -> None:
    """Settings that a fit does not use, or is given beside the config, are none of its identity."""
    stopped_fit(new_model(gradient_steps=5), episodes, tmp_path / "fit")
    fit(new_model(gradient_steps=7), episodes, tmp_path / "fit")


@pytest.mark.parametrize("damage", ["torn", "no identity", "no trainer", "no tokenizer", "shapes"])
def test_a_damaged_checkpoint_is_said_so_and_kept(
    episodes: Episodes, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "fit"
    stopped_fit(new_model(), episodes, path)
    whole = load_state(path, KIND)
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:-7])
    elif damage == "no identity":
        save_state(path, KIND, {"state": 0})
    elif damage == "shapes":
        whole["state"]["trainer"]["average"][0] = torch.zeros(1, 1, 7)
        save_state(path, KIND, whole)
    else:
        del whole["state"][damage.removeprefix("no ")]
        save_state(path, KIND, whole)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"fit is damaged.*remove it to begin"):
        fit(new_model(), episodes, path)
    assert path.read_bytes() == before
    path.unlink()
    fit(new_model(), episodes, path)


def test_a_model_folder_is_no_checkpoint(episodes: Episodes, tmp_path: Path) -> None:
    new_model().save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="remove it"):
        fit(new_model(), episodes, tmp_path / "model" / "dynamics.safetensors")
    with pytest.raises(ConfigError, match="`checkpoint_every` must be at least 1, got 0"):
        fit(new_model(), episodes, tmp_path / "fit", checkpoint_every=0)


def trainer_of(model: WorldModel, episodes: Episodes, steps: int, **options: Any) -> Any:
    dataset = model.dataset(episodes)
    generator = torch.Generator().manual_seed(7)
    return DynamicsTrainer(
        model.dynamics, dataset, model.config.training, steps, generator, **options
    )


@given(st.integers(0, 12), st.integers(0, 12), st.sampled_from([1, 5]))
@settings(max_examples=8)
def test_a_trainer_goes_on_from_any_state(
    undisturbed: Any, episodes: Episodes, first: int, second: int, check_every: int
) -> None:
    """Saved at one gradient step, and once more at a later one."""
    model = WorldModel.for_spaces(
        undisturbed[0].observation_space,
        undisturbed[0].action_space,
        config=undisturbed[0].config,
        device="cpu",
    )
    begin = {name: value.clone() for name, value in undisturbed[0].state_dict().items()}

    def train(stops: list[int]) -> dict[str, Tensor]:
        model.load_state_dict(begin)
        trainer = trainer_of(model, episodes, 12, check_every=check_every)
        for _ in range(12):
            if trainer.gradient_step in stops:
                state = trainer.state_dict()
                kept = {**state, "dynamics": {k: v.clone() for k, v in state["dynamics"].items()}}
                model.load_state_dict(begin)
                trainer = trainer_of(model, episodes, 12, check_every=check_every)
                trainer.load_state_dict(kept)
            trainer.step()
        trainer.finish()
        return {name: value.clone() for name, value in model.state_dict().items()}

    assert differences(train([first, second]), train([])) == []


def test_a_checkpoints_folder_is_made(tmp_path: Path) -> None:
    kept = FitCheckpoint(tmp_path / "a" / "b" / "fit", {"seed": 0})
    assert kept.load() is None
    kept.save({"x": torch.ones(2)})
    state = kept.load()
    assert state is not None
    assert torch.equal(state["x"], torch.ones(2))

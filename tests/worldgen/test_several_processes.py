"""Fits that are spread over processes: equal to those of one, and never left hanging."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import killed_fits
import pytest
import torch
from killed_fits import fit, new_model, some_episodes

from worldgen import Episodes
from worldgen.data.token_dataset import TokenDataset
from worldgen.errors import ConfigError, TrainingError
from worldgen.remote_training import RemoteTrainer, check_devices
from worldgen.training_state import load_state, save_state

RATE = 5e-5


@pytest.fixture(scope="module")
def episodes() -> Episodes:
    return some_episodes()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[RemoteTrainer]:
    """The trainers that started processes."""
    found: list[RemoteTrainer] = []
    original = RemoteTrainer._start

    def start(self: RemoteTrainer) -> None:
        found.append(self)
        original(self)

    monkeypatch.setattr(RemoteTrainer, "_start", start)
    return found


def test_two_processes_equal_one_on_the_same_batches(
    episodes: Episodes, tmp_path: Path, started: list[RemoteTrainer], capfd: Any
) -> None:
    """Weights, and what is a sum over all gradients so far.

    Three drafts, and three windows for actions, go to two processes. The rate is low, since
    Muon turns the last bit of a gradient into more than that.
    """
    models, states, logs, results = [], [], [], []
    for devices in (1, 2):
        shares = {"draft_share": 0.75, "action_share": 0.75}
        model = new_model(learning_rate=RATE, precision="float32", goal_horizon=6, **shares)
        log: list[tuple[int, Mapping[str, float]]] = []
        results.append(
            fit(
                model,
                episodes,
                tmp_path / str(devices),
                devices=devices,
                log_dir=tmp_path / f"log-{devices}",
                on_log=lambda step, values, log=log: log.append((step, values)),
            )
        )
        models.append(model)
        states.append(load_state(tmp_path / str(devices)))
        logs.append(log)
    assert len(started) == 1
    first, second = (dict(model.dynamics.named_parameters()) for model in models)
    begun = dict(new_model(precision="float32", goal_horizon=6).dynamics.named_parameters())
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=1e-5, rtol=0)
    moved = [(value.detach() - begun[name].detach()).abs().max() for name, value in first.items()]
    assert max(moved) > 3e-4
    for one, two in zip(*(state["trainer"]["optimizers"] for state in states), strict=True):
        for number, entry in one["state"].items():
            for name, value in entry.items():
                torch.testing.assert_close(two["state"][number][name], value, atol=1e-6, rtol=1e-3)
    one, two = (state["trainer"] for state in states)
    assert torch.equal(one["generator"], two["generator"]), "the same windows"
    torch.testing.assert_close(one["priority"], two["priority"], atol=1e-4, rtol=0)
    assert torch.equal(one["events"], two["events"])
    assert [step for step, _ in logs[0]] == [step for step, _ in logs[1]]
    for (_, values), (_, others) in zip(*logs, strict=True):
        assert values == pytest.approx(others, abs=1e-4)
    assert results[0].metrics == pytest.approx(results[1].metrics, abs=1e-4)
    assert all(rank.returncode == 0 for rank in started[0]._ranks), "all of them end by themselves"
    assert not started[0]._folder.exists()
    assert list((tmp_path / "log-2").glob("events.out.tfevents.*"))
    assert not models[1].dynamics.training
    assert capfd.readouterr() == ("", "")


def test_a_killed_process_ends_all_and_the_checkpoint_stays(
    episodes: Episodes, tmp_path: Path, started: list[RemoteTrainer]
) -> None:
    killed: list[subprocess.Popen[bytes]] = []

    def kill_one(step: int, values: Mapping[str, float]) -> None:
        if started and started[0].gradient_step >= 20 and not killed:
            killed.append(started[0]._ranks[1])
            killed[0].kill()

    model = new_model(draft_share=0.0)  # so that some parameters have no gradient
    path = tmp_path / "fit"
    steps = {"dynamics_steps": 5000, "checkpoint_every": 20}
    with pytest.raises(TrainingError, match=r"one of the 2 processes .*rank 1 .*signal SIGKILL"):
        fit(model, episodes, path, devices=2, on_log=kill_one, **steps)
    assert all(rank.returncode is not None for rank in started[0]._ranks)
    assert not started[0]._folder.exists()
    done = load_state(path)["trainer"]["gradient_step"]
    assert done >= 20
    assert done % 20 == 0


def test_a_loss_that_is_not_finite_ends_all_with_the_last_good_weights(
    episodes: Episodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rewards become bad while the dataset is on its way to the processes."""
    original = TokenDataset.state_dict

    def spoiled(self: TokenDataset) -> dict[str, Any]:
        return {**original(self), "rewards": torch.full_like(self.rewards, torch.nan)}

    monkeypatch.setattr(TokenDataset, "state_dict", spoiled)
    model = new_model()
    with pytest.raises(
        TrainingError, match=r"must stay finite, got nan and nan at gradient step 0:"
    ):
        fit(model, episodes, tmp_path / "fit", devices=2)
    assert all(bool(value.isfinite().all()) for value in model.dynamics.parameters())
    assert load_state(tmp_path / "fit")["trainer"]["gradient_step"] == 0


def test_what_cannot_be_spread_is_refused_at_once(episodes: Episodes) -> None:
    model = new_model()
    with pytest.raises(ConfigError, match="`devices` must divide the batch size, 4, got 3"):
        fit(model, episodes, None, devices=3)
    assert not model.tokenizer.is_fitted, "before any work"
    with pytest.raises(ConfigError, match="`devices` must be at least 1, got 0"):
        fit(model, episodes, None, devices=0)
    with pytest.raises(ConfigError, match="`devices` must be at most the number of GPUs, "):
        check_devices(1024, 4096, torch.device("cuda"))
    with pytest.raises(ConfigError, match="`devices` must be 1 on the device 'meta', got 2"):
        check_devices(2, 4, torch.device("meta"))


def test_nothing_left_to_do_starts_nothing(
    episodes: Episodes, started: list[RemoteTrainer]
) -> None:
    fit(new_model(), episodes, None, devices=2, dynamics_steps=0)
    assert started == []


def test_a_dataset_goes_to_another_process(episodes: Episodes, tmp_path: Path) -> None:
    model = new_model()
    fit(model, episodes, None, dynamics_steps=1)
    dataset = model.dataset(episodes)
    save_state(tmp_path / "dataset", dataset.state_dict())
    copy = TokenDataset.from_state(load_state(tmp_path / "dataset"), model.device)
    drawn = [
        each.sample_windows(
            6,
            5,
            event_share=0.3,
            hard_share=0.3,
            generator=torch.Generator().manual_seed(3),
        )
        for each in (dataset, copy)
    ]
    assert all(
        torch.equal(one, two)
        for one, two in zip(*(vars(windows).values() for windows in drawn), strict=True)
    )


SCRIPT = """
import multiprocessing, os, signal, sys
sys.path.append(sys.argv[1])
from killed_fits import fit, new_model, some_episodes
from pathlib import Path
from worldgen.remote_training import RemoteTrainer

original = RemoteTrainer._start
def start(self):
    original(self)
    Path(sys.argv[3]).write_text(" ".join(str(rank.pid) for rank in self._ranks))
RemoteTrainer._start = start

def kill(step, values):
    if "dynamics/token_loss" in values:
        os.kill(os.getpid(), signal.SIGKILL)

multiprocessing.current_process()._config["daemon"] = True  # which may have no children
fit(new_model(), some_episodes(), Path(sys.argv[2]), devices=2, on_log=kill, dynamics_steps=5000)
"""


class Enough(Exception):
    pass


def stop(step: int, values: Mapping[str, float]) -> None:
    raise Enough


@pytest.mark.slow
def test_a_plain_script_may_fit_and_takes_its_processes_along(
    tmp_path: Path, episodes: Episodes, started: list[RemoteTrainer]
) -> None:
    """No `if __name__ == "__main__"`; the script is killed, and then nobody works on.

    What it left is gone on with.
    """
    tests = Path(killed_fits.__file__).parent
    (tmp_path / "script.py").write_text(SCRIPT)
    pids = tmp_path / "pids"
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", tests, tmp_path / "fit", pids],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tests.parent)},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    done = load_state(tmp_path / "fit")["trainer"]["gradient_step"]
    for pid in map(int, pids.read_text().split()):
        while _lives(pid):  # until the test's own time limit
            time.sleep(0.1)
    with pytest.raises(Enough):
        fit(new_model(), episodes, tmp_path / "fit", devices=2, on_log=stop, dynamics_steps=5000)
    assert started[0].gradient_step > done
    assert all(rank.returncode is not None for rank in started[0]._ranks), "ended by the error"


def _lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False

"""Training of the dynamics in several processes, seen from the one that asked for it.

Classes:
    RemoteTrainer: stands in for a `DynamicsTrainer` whose gradient steps others make.

Functions:
    check_devices: whether a number of processes is possible.

The processes are started anew (`worldgen.rank`) rather than forked or spawned by
`multiprocessing`, so that a script needs no `if __name__ == "__main__"`, a daemon may fit, and
nothing is pickled: they get a temporary folder of safetensors and JSON. This process trains
nothing itself. It waits for reports, and ends all the others as soon as one of them fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, Self

import torch
from torch import Tensor

from worldgen import errors
from worldgen.checkpoint import write_json
from worldgen.config import require
from worldgen.dynamics_trainer import DynamicsTrainer
from worldgen.errors import TrainingError, WorldgenError
from worldgen.event_recall import recall
from worldgen.training_state import load_state, save_state

__all__ = [
    "DATASET",
    "ERROR",
    "GOOD_WEIGHTS",
    "JOB",
    "MODEL",
    "REPORT_EVERY",
    "STATE",
    "TRAINER",
    "RemoteTrainer",
    "check_devices",
]

JOB, MODEL, DATASET, TRAINER = "job.json", "model", "dataset.safetensors", "trainer.safetensors"
STATE, ERROR, GOOD_WEIGHTS = "state-{}.safetensors", "error-{}.json", "good-{}.safetensors"
"""Files of the temporary folder."""
REPORT_EVERY = 20
"""Gradient steps between two reports."""

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from worldgen.rank import main; main(*sys.argv[2:])"
)
_LOOK_EVERY = 0.2
"""Seconds between two looks at whether all processes live."""
_GRACE = 10.0
"""Seconds that the other processes have, once one has failed, to say what they know."""
_GRACE_TO_FINISH = 60.0
"""The same where all work is done, and a busy machine is all that keeps them."""
_SHOWN = 200
"""Characters of what a failed process said."""


def check_devices(devices: int, batch_size: int, device: torch.device) -> None:
    """Make sure that a fit can be spread over processes.

    Raises:
        ConfigError: If it cannot; the message says why.
    """
    require(devices >= 1, "devices", "be at least 1", devices)
    if devices == 1:
        return
    rule = f"divide the batch size, {batch_size}"
    require(batch_size % devices == 0, "devices", rule, devices)
    known = device.type in ("cpu", "cuda")
    require(known, "devices", f"be 1 on the device {device.type!r}", devices)
    if device.type == "cuda":
        present = torch.cuda.device_count()
        rule = f"be at most the number of GPUs, {present}"
        require(devices <= present, "devices", rule, devices)


class RemoteTrainer:
    """Let N processes make a trainer's gradient steps.

    Used like the trainer itself, inside a `with` block; at each checkpoint and at the end the
    trainer is in the state that it would have reached alone, but for rounding.

    Args:
        trainer: Where to begin, and where the results go.
        save_model: Writes the model to a folder.
        devices: N.
        checkpoint_every: Gradient steps between two states that are asked for; None asks for
            the last one alone.
    """

    def __init__(
        self,
        trainer: DynamicsTrainer,
        save_model: Callable[[Path], None],
        devices: int,
        checkpoint_every: int | None,
    ) -> None:
        self._trainer, self._save_model = trainer, save_model
        self._devices, self._checkpoint_every = devices, checkpoint_every
        self.gradient_step = trainer.gradient_step
        self._made: deque[dict[str, Tensor]] = deque()
        self._events: Tensor | None = None
        self._ranks: list[subprocess.Popen[bytes]] = []
        self._reports: queue.Queue[bytes | None] = queue.Queue()
        self._reader: threading.Thread | None = None
        self._cleanup = contextlib.ExitStack()

    @property
    def gradient_steps(self) -> int:
        """How many there are to make in all."""
        return self._trainer.gradient_steps

    @property
    def is_finished(self) -> bool:
        """Whether all gradient steps are done."""
        return self.gradient_step >= self.gradient_steps

    def __enter__(self) -> Self:
        """Start the processes, if there is something to do."""
        if not self.is_finished:
            with self._cleanup:
                self._start()
                self._cleanup = self._cleanup.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        """End the processes and remove the temporary folder."""
        self._cleanup.close()

    def step(self) -> dict[str, Tensor]:
        """Give the losses of the next gradient step, once the processes have made it.

        Raises:
            TrainingError: If a process failed.
        """
        if not self._made:
            self._receive()
        self.gradient_step += 1
        return self._made.popleft()

    def recall(self) -> dict[str, float]:
        """Give the recall on rewarding and terminating transitions; see `DynamicsTrainer`."""
        return self._trainer.recall() if self._events is None else recall(self._events)

    def state_dict(self) -> dict[str, Any]:
        """All that decides how training goes on; where a state was asked for."""
        assert self._trainer.gradient_step == self.gradient_step
        return self._trainer.state_dict()

    def finish(self) -> dict[str, float]:
        """Leave the average of the weights in the network; see `DynamicsTrainer`."""
        assert self._trainer.gradient_step == self.gradient_step
        return self._trainer.finish()

    def _start(self) -> None:
        self._folder = Path(
            self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="worldgen-"))
        )
        trainer, device = self._trainer, self._trainer.dynamics.device
        threads = max(1, torch.get_num_threads() // self._devices)
        job = {
            "devices": self._devices,
            "accelerator": device.type,
            "gradient_steps": trainer.gradient_steps,
            "checkpoint_every": self._checkpoint_every,
            "threads": threads,
        }
        write_json(self._folder / JOB, job)
        self._save_model(self._folder / MODEL)
        save_state(self._folder / DATASET, trainer.dataset.state_dict())
        save_state(self._folder / TRAINER, trainer.state_dict())
        self._cleanup.callback(self._kill)
        for rank in range(self._devices):
            self._start_rank(rank, threads)
        self._reader = threading.Thread(target=self._read, args=(self._ranks[0],), daemon=True)
        self._reader.start()

    def _start_rank(self, rank: int, threads: int) -> None:
        log = self._cleanup.enter_context((self._folder / f"rank-{rank}.log").open("wb"))
        environment = {
            **os.environ,
            "LOCAL_RANK": str(rank),
            "NODE_RANK": "0",
            "OMP_NUM_THREADS": str(threads),
        }
        started = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path), str(self._folder), str(rank)],
            stdin=subprocess.PIPE,  # held open as long as this process lives
            stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C is for this process, which ends the others
        )
        self._ranks.append(started)

    def _read(self, rank: subprocess.Popen[bytes]) -> None:
        """Pass rank 0's lines on, then None; in a thread of its own."""
        assert rank.stdout is not None
        for line in rank.stdout:
            self._reports.put(line)
        self._reports.put(None)

    def _receive(self) -> None:
        """Wait for the next report."""
        line: bytes | None = None
        while line is None:
            try:
                line = self._reports.get(timeout=_LOOK_EVERY)
                failed = line is None
            except queue.Empty:
                failed = any(rank.poll() for rank in self._ranks)
            if failed:
                self._fail()
        report = json.loads(line)
        self._events = torch.tensor(report["events"])
        for values in report["losses"]:
            self._made.append(
                dict(zip(self._trainer.loss_names, torch.tensor(values), strict=True))
            )
        if report["state"]:
            file = self._folder / STATE.format(report["gradient_step"])
            self._trainer.load_state_dict(load_state(file))
            file.unlink()

    def _fail(self) -> NoReturn:
        """Say why a process failed."""
        deadline = time.monotonic() + _GRACE
        while time.monotonic() < deadline and any(rank.poll() is None for rank in self._ranks):
            time.sleep(_LOOK_EVERY / 4)
        codes = [rank.poll() for rank in self._ranks]
        self._kill()
        for rank in range(self._devices):
            good = self._folder / GOOD_WEIGHTS.format(rank)
            if good.exists():
                self._trainer.dynamics.load_state_dict(load_state(good))
                break
        for error in self._errors():
            raise error
        told = "; ".join(self._end_of(rank, code) for rank, code in enumerate(codes))
        raise TrainingError(
            f"one of the {self._devices} processes of the fit failed, so all were ended: {told}"
        )

    def _errors(self) -> Iterator[WorldgenError]:
        """Give the errors that the processes raised on purpose."""
        for rank in range(self._devices):
            file = self._folder / ERROR.format(rank)
            if file.exists():
                told = json.loads(file.read_text(encoding="utf-8"))
                if told["kind"] is not None:
                    yield getattr(errors, told["kind"])(told["message"])

    def _end_of(self, rank: int, code: int | None) -> str:
        if code is None:
            return f"rank {rank} did not end by itself"
        if code == 0:
            return f"rank {rank} was finished"
        if code < 0:
            return f"rank {rank} ended with signal {signal.Signals(-code).name}"
        log = (self._folder / f"rank-{rank}.log").read_text(encoding="utf-8", errors="replace")
        lines = [line for line in log.splitlines() if line.strip()] or ["nothing"]
        return f"rank {rank} ended with exit code {code} and said last: {lines[-1][:_SHOWN]}"

    def _kill(self) -> None:
        """End all processes and wait until they are gone."""
        finished = self.is_finished
        for rank in self._ranks:
            if finished:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    rank.wait(_GRACE_TO_FINISH)
            if rank.poll() is None:
                rank.kill()
        if self._reader is not None:
            self._reader.join()
        for rank in self._ranks:
            rank.wait()
            for pipe in (rank.stdin, rank.stdout):
                if pipe is not None:
                    pipe.close()

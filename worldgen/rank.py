"""One of several processes that train the dynamics together.

Functions:
    main: what such a process does; `worldgen.remote_training` starts it.

All ranks draw the same batch with equal generators, and rank r takes its windows r, r + N,
r + 2 N and so on, so that drafts, which belong to the first windows, are spread evenly too.
Distributed data parallel averages the gradients; losses of single transitions are gathered, so
that all ranks prefer the same windows later. Rank 0 reports to the parent on its standard output,
a line of JSON every few gradient steps.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor

from worldgen.checkpoint import write_json
from worldgen.data.token_dataset import TokenDataset
from worldgen.dynamics_trainer import DynamicsTrainer
from worldgen.errors import TrainingError, WorldgenError
from worldgen.remote_training import (
    DATASET,
    ERROR,
    GOOD_WEIGHTS,
    JOB,
    MODEL,
    REPORT_EVERY,
    STATE,
    TRAINER,
)
from worldgen.training_state import load_state, save_state
from worldgen.world_model import WorldModel

__all__ = ["main"]


def main(folder: str, rank: str) -> None:
    """Train with the others; exit code 1 and a line of JSON in a file if that fails."""
    _end_with_parent()
    reports = _take_stdout()
    job_folder = Path(folder)
    try:
        _train(job_folder, int(rank), reports)
    except BaseException as error:
        traceback.print_exc()
        kind = type(error).__name__ if isinstance(error, WorldgenError) else None
        write_json(job_folder / ERROR.format(rank), {"kind": kind, "message": str(error)})
        sys.stderr.flush()
        os._exit(1)  # without waiting for the others, or for threads that wait for them
    reports.close()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _train(folder: Path, rank: int, reports: TextIO) -> None:
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    fabric = _launch(folder, rank, job)
    trainer = _trainer(folder, fabric, job)
    made: list[Tensor] = []
    try:
        while not trainer.is_finished:
            made.append(torch.stack(list(trainer.step().values())))
            often = trainer.gradient_step % REPORT_EVERY == 0
            if often or _is_due(trainer, job["checkpoint_every"]):
                trainer.gather_events()
                if rank == 0:
                    _report(trainer, made, folder, job["checkpoint_every"], reports)
                made.clear()
    except TrainingError:
        save_state(folder / GOOD_WEIGHTS.format(rank), dict(trainer.dynamics.state_dict()))
        raise


def _is_due(trainer: DynamicsTrainer, checkpoint_every: int | None) -> bool:
    """Whether the state at this gradient step is asked for."""
    if trainer.is_finished:
        return True
    return checkpoint_every is not None and trainer.gradient_step % checkpoint_every == 0


def _launch(folder: Path, rank: int, job: Mapping[str, Any]) -> Fabric:
    """Join the other processes, by a file that all of them know."""
    accelerator, devices = job["accelerator"], job["devices"]
    backend = "nccl" if accelerator == "cuda" else "gloo"
    if accelerator == "cuda":
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(
        backend,
        init_method=(folder / "rendezvous").absolute().as_uri(),
        rank=rank,
        world_size=devices,
    )
    strategy = DDPStrategy(
        process_group_backend=backend,
        broadcast_buffers=False,  # they do not change
        find_unused_parameters=True,  # a rank may have no drafts
    )
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
        precision="32-true",  # the network chooses its precision itself
        plugins=[LightningEnvironment()],
    )
    fabric.launch()
    return fabric


def _trainer(folder: Path, fabric: Fabric, job: Mapping[str, Any]) -> DynamicsTrainer:
    device = fabric.device
    model = WorldModel.load(folder / MODEL, device=device)
    dataset = TokenDataset.from_state(load_state(folder / DATASET), device)
    trainer = DynamicsTrainer(
        model.dynamics,
        dataset,
        model.config.training,
        job["gradient_steps"],
        torch.Generator(device),
        fabric=fabric,
    )
    trainer.load_state_dict(load_state(folder / TRAINER))
    if not fabric.is_global_zero:
        trainer.forget_events()
    return trainer


def _report(
    trainer: DynamicsTrainer,
    made: list[Tensor],
    folder: Path,
    checkpoint_every: int | None,
    reports: TextIO,
) -> None:
    """Send the losses since the last report, and the state where one is asked for."""
    step, due = trainer.gradient_step, _is_due(trainer, checkpoint_every)
    if due:
        save_state(folder / STATE.format(step), trainer.state_dict())
    line = {
        "gradient_step": step,
        "losses": torch.stack(made).tolist(),
        "events": trainer.events.tolist(),
        "state": due,
    }
    reports.write(json.dumps(line) + "\n")
    reports.flush()


def _take_stdout() -> TextIO:
    """Keep standard output for reports; what else is printed goes to standard error."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


def _end_with_parent() -> None:
    """End this process when the parent has: its end of our standard input is closed then."""

    def wait() -> None:
        while os.read(0, 4096):  # not sys.stdin, whose lock would be held at the end
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()

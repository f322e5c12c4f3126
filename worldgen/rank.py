"""One of several processes that train the dynamics together.

Classes:
    RankTrainer: a `DynamicsTrainer` that works on its share of each batch.

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
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from worldgen.checkpoint import write_json
from worldgen.data.token_dataset import TokenDataset, Windows
from worldgen.dynamics import Dynamics
from worldgen.dynamics_training import DynamicsLoss, DynamicsTrainer, dynamics_loss
from worldgen.errors import TrainingError, WorldgenError
from worldgen.event_recall import count_events
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
from worldgen.state_file import load_state, save_state
from worldgen.world_model import WorldModel

__all__ = ["RankTrainer", "main"]


class _Objective(nn.Module):
    """Losses and counts of a batch, as one module: what is made parallel is its `forward`."""

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__()
        self.dynamics = dynamics

    def forward(
        self, windows: Mapping[str, Tensor], masked: Tensor | None, past: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        batch = Windows(**windows)
        first, drafts = self.dynamics(batch, past, masked)
        two_hot = self.dynamics.two_hot
        loss = dynamics_loss(first, drafts, batch, masked, two_hot)
        return vars(loss), count_events(first, batch, two_hot)


class RankTrainer(DynamicsTrainer):
    """Train on every N-th window of each batch.

    Args:
        fabric: Launched, with N processes.
        dynamics: The network, with equal weights in all processes.
        dataset: Equal in all processes.
        *arguments: As of `DynamicsTrainer`.
    """

    def __init__(
        self, fabric: Fabric, dynamics: Dynamics, dataset: TokenDataset, *arguments: Any
    ) -> None:
        super().__init__(dynamics, dataset, *arguments)
        self._fabric = fabric
        self._objective = fabric.setup_module(_Objective(dynamics), move_to_device=False)
        self._losses: list[Tensor] = []

    def _learn(self, windows: Windows, masked: Tensor | None, past: Tensor) -> DynamicsLoss:
        own = slice(self._fabric.global_rank, None, self._fabric.world_size)
        if masked is not None:
            masked = masked[own] if len(masked[own]) else None
        parts, events = self._objective(vars(windows.rows(own)), masked, past[own])
        loss = DynamicsLoss(**parts)
        self._fabric.backward(loss.total)
        self._events += events
        by_rank = self._fabric.all_gather(loss.transitions)  # (N, B / N, T - 1)
        assert isinstance(by_rank, Tensor)
        by_rank = by_rank.view(self._fabric.world_size, *loss.transitions.shape)
        return replace(loss, transitions=by_rank.transpose(0, 1).flatten(0, 1))

    def step(self) -> dict[str, Tensor]:
        """Make one gradient step; gives the losses of this process's share."""
        losses = super().step()
        self._losses.append(torch.stack(list(losses.values())))
        return losses

    def collect(self) -> tuple[list[list[float]], list[int]]:
        """Give the losses of the whole batches since the last call, and the counts of events.

        To be called by all ranks at the same gradient step.
        """
        losses = self._fabric.all_reduce(torch.stack(self._losses), reduce_op="mean")
        events = self._fabric.all_reduce(self._events.clone(), reduce_op="sum")
        assert isinstance(losses, Tensor)
        assert isinstance(events, Tensor)
        self._losses.clear()
        self._events.copy_(events if self._fabric.is_global_zero else torch.zeros_like(events))
        return losses.tolist(), events.tolist()


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
    try:
        while not trainer.is_finished:
            trainer.step()
            _report(trainer, folder, job["checkpoint_every"], reports if rank == 0 else None)
    except TrainingError:
        weights = dict(trainer.dynamics.state_dict())
        save_state(folder / GOOD_WEIGHTS.format(rank), "weights", weights)
        raise


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


def _trainer(folder: Path, fabric: Fabric, job: Mapping[str, Any]) -> RankTrainer:
    device = fabric.device
    model = WorldModel.load(folder / MODEL, device=device)
    dataset = TokenDataset.from_state(load_state(folder / DATASET, "dataset"), device)
    generator = torch.Generator(device)
    state = load_state(folder / TRAINER, "trainer")
    model.dynamics.load_state_dict(state["dynamics"])  # before DDP compares the ranks' weights
    trainer = RankTrainer(
        fabric, model.dynamics, dataset, model.config.training, job["gradient_steps"], generator
    )
    trainer.load_state_dict(state)
    if not fabric.is_global_zero:
        trainer.forget_events()
    return trainer


def _report(
    trainer: RankTrainer, folder: Path, checkpoint_every: int | None, reports: TextIO | None
) -> None:
    """Send what was made since the last report, and the state where one is due."""
    step = trainer.gradient_step
    due = trainer.is_finished or (checkpoint_every is not None and step % checkpoint_every == 0)
    if not due and step % REPORT_EVERY:
        return
    losses, events = trainer.collect()
    if reports is None:
        return
    if due:
        save_state(folder / STATE.format(step), "trainer", trainer.state_dict())
    line = {"gradient_step": step, "losses": losses, "events": events, "state": due}
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

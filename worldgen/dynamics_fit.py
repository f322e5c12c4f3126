"""The dynamics' part of a fit, in this process or in several.

Classes:
    DynamicsFit: all that the part needs.

Functions:
    fit_dynamics: train the network, in place.
    fit_dynamics_on: the same in one process a device.
"""

from __future__ import annotations

import copy
import os
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from worldgen.config import require
from worldgen.data.token_dataset import TokenDataset
from worldgen.dynamics import Dynamics
from worldgen.dynamics_training import RECALL_STEPS, DynamicsTrainer, DynamicsTrainingConfig
from worldgen.errors import ConfigError, TrainingError
from worldgen.fit_checkpoint import FitCheckpoint
from worldgen.fit_log import FitLog
from worldgen.progress import Progress
from worldgen.training_state import load_state, save_state

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["DynamicsFit", "fit_dynamics", "fit_dynamics_on"]


@dataclass(frozen=True)
class DynamicsFit:
    """A network, its data, and how to train it."""

    dynamics: Dynamics
    dataset: TokenDataset
    config: DynamicsTrainingConfig
    gradient_steps: int
    seed: int
    """Of windows, masks and corruption."""
    log: FitLog
    progress: bool
    state: dict[str, Any] | None
    """Of a trainer that was broken off, to go on from."""
    checkpoint: FitCheckpoint | None
    kept: dict[str, Any]
    """What is written to the checkpoint beside the trainer's state."""
    checkpoint_every: int

    def keep(self, trainer: DynamicsTrainer) -> None:
        """Write the checkpoint."""
        if self.checkpoint is not None:
            state = {**self.kept, "trainer": trainer.state_dict()}
            self.checkpoint.write(state, finished=trainer.is_finished)


def fit_dynamics(fit: DynamicsFit, fabric: Fabric | None = None) -> dict[str, float]:
    """Train the network in place.

    Args:
        fit: What and how.
        fabric: Of this process, if it is one of several.

    Returns:
        Mean losses over the last tenth of the gradient steps, and the last recall.
    """
    generator = torch.Generator(fit.dynamics.device).manual_seed(fit.seed)
    trainer = DynamicsTrainer(
        fit.dynamics, fit.dataset, fit.config, fit.gradient_steps, generator, fabric=fabric
    )
    speaks = fabric is None or fabric.global_rank == 0
    if fit.state is not None:
        trainer.load_state_dict(fit.state)
    elif speaks:
        fit.keep(trainer)
    fit.log.skip(trainer.gradient_step)
    enabled = fit.progress and speaks
    with Progress("dynamics", fit.gradient_steps, enabled=enabled, unit="gradient steps") as bar:
        bar.update(trainer.gradient_step)
        while not trainer.is_finished:
            latest = trainer.step()
            if not speaks:
                continue
            if fit.log.is_due():
                losses = {name: value.item() for name, value in latest.items()}
                fit.log.write({f"dynamics/{name}": value for name, value in losses.items()})
                bar.update(0, **losses)
            if trainer.is_finished or trainer.gradient_step % RECALL_STEPS == 0:
                recalled = trainer.recall()
                fit.log.write({f"dynamics/{name}": part for name, part in recalled.items()})
                bar.update(0, **recalled)
            bar.update(1)
            if trainer.is_finished or trainer.gradient_step % fit.checkpoint_every == 0:
                fit.keep(trainer)
    return {**trainer.finish(), **trainer.recall()}


def fit_dynamics_on(fit: DynamicsFit, devices: int) -> dict[str, float]:
    """Train the network in `devices` processes: a GPU each, or parts of the CPU.

    Each process draws the same windows and works on its share of them; gradients are averaged
    (DistributedDataParallel, over NCCL or gloo). The result is that of one process with the same
    batch, up to rounding.

    Raises:
        ConfigError: If the batch cannot be shared out, or there are not so many GPUs.
        TrainingError: If a process fails.
    """
    from lightning_fabric import Fabric
    from torch.multiprocessing.spawn import ProcessException

    batch = fit.config.batch_size
    require(batch % devices == 0, "batch_size", f"be a multiple of devices = {devices}", batch)
    on_gpu = fit.dynamics.device.type == "cuda"
    if on_gpu and torch.cuda.device_count() < devices:
        raise ConfigError(
            f"`devices` must be at most {torch.cuda.device_count()}, the GPUs that are here, got "
            f"{devices}"
        )
    fabric = Fabric(accelerator="cuda" if on_gpu else "cpu", devices=devices, strategy="ddp_spawn")
    home = fit.dynamics.device
    job = replace(fit, dynamics=fit.dynamics.cpu(), dataset=fit.dataset.to("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.safetensors"
        try:
            # In a partial, since Fabric looks into its arguments and refuses frozen dataclasses.
            fabric.launch(partial(_one_of_several, fit=job, results=results))
        except ProcessException as error:
            reason = str(error).strip().splitlines()[-1]
            raise TrainingError(
                f"one of {devices} processes failed: {reason}; the model's weights are as they were"
            ) from error
        finally:
            fit.dynamics.to(home)
        found = load_state(results)
    fit.dynamics.load_state_dict(found["weights"])
    fit.dynamics.eval()
    losses: dict[str, float] = found["losses"]
    return losses


def _one_of_several(fabric: Fabric, fit: DynamicsFit, results: Path) -> None:
    if fabric.device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // fabric.world_size))
    # Copies: what came along is shared with the other processes, and would be changed by all.
    dynamics, dataset = copy.deepcopy((fit.dynamics, fit.dataset))
    dynamics, dataset = dynamics.to(fabric.device), dataset.to(fabric.device)
    fit = replace(fit, dynamics=dynamics, dataset=dataset)
    losses = fit_dynamics(fit, fabric)
    fit.log.close()
    if fabric.global_rank == 0:
        # By a file: a queue would block on so many bytes until the parent reads them, and the
        # parent waits for the process to end.
        save_state(results, {"weights": fit.dynamics.state_dict(), "losses": losses})

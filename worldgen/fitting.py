"""Fitting a world model to episodes: tokenizer first, then dynamics.

Classes:
    FitResult: what a fit did.

Functions:
    fit_world_model: the work behind `WorldModel.fit`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from worldgen import spaces as space_tools
from worldgen.config import require
from worldgen.data.episode import Episode
from worldgen.dynamics_training import RECALL_STEPS, DynamicsTrainer
from worldgen.errors import DatasetError
from worldgen.fit_checkpoint import WEIGHTS, FitCheckpoint, fit_identity, remove_checkpoint
from worldgen.inspection import log_codes
from worldgen.progress import Progress
from worldgen.remote_training import RemoteTrainer, check_devices
from worldgen.seeding import derived_seed
from worldgen.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from worldgen.world_model import WorldModel

__all__ = ["FitResult", "fit_world_model"]

_LOG_EVERY = 20
_REFIT_BELOW = 0.995
_CHECKED_FRAMES = 4096


@dataclass(frozen=True)
class FitResult:
    """What a fit did and how well it ended."""

    metrics: dict[str, float] = field(default_factory=dict)
    """Losses at the end, reconstruction, counts; names as in TensorBoard."""


def fit_world_model(
    model: WorldModel,
    episodes: Sequence[Episode],
    *,
    tokenizer_steps: int,
    dynamics_steps: int,
    log_dir: str | Path | None,
    progress: bool,
    on_log: Callable[[int, Mapping[str, float]], None] | None,
    checkpoint: str | Path | None,
    checkpoint_every: int,
    keep_checkpoint: bool,
    devices: int,
) -> FitResult:
    """Train `model` in place; see `WorldModel.fit`."""
    _check_episodes(model, episodes)
    check_devices(devices, model.config.training.batch_size, model.device)
    require(checkpoint_every >= 1, "checkpoint_every", "be at least 1", checkpoint_every)
    kept = None
    if checkpoint is not None:
        identity = _identity(model, episodes, tokenizer_steps, dynamics_steps)
        kept = FitCheckpoint(Path(checkpoint), identity)
    saved = kept.load() if kept is not None else None
    log = _Log(log_dir, on_log)
    seed = derived_seed(model.seed, "fit", model.num_fits)
    try:
        if kept is not None and saved is not None:
            metrics = _restore_tokenizer(model, kept, saved, log)
        else:
            model.unfinished_fit = None
            metrics = _fit_tokenizer(model, episodes, tokenizer_steps, seed, progress, log)
        model.dynamics.set_code_contents(model.tokenizer.code_contents())
        dataset = model.dataset(episodes)
        model.dynamics.set_seen_codes(dataset.tokens)
        model.dynamics.two_hot.restrict(dataset.rewards)
        generator = torch.Generator(model.device).manual_seed(seed)
        trainer = DynamicsTrainer(
            model.dynamics, dataset, model.config.training, dynamics_steps, generator
        )
        training = _Training(model, trainer, metrics, log, kept, checkpoint_every)
        if saved is not None:
            training.restore(trainer, saved)
        with _spread(model, trainer, devices, checkpoint_every if kept else None) as stepping:
            training.trainer = stepping
            losses = training.run(progress, keep_checkpoint)
    finally:
        log.close()
    model.num_fits += 1
    model.unfinished_fit = None
    if kept is not None and not keep_checkpoint:
        remove_checkpoint(kept.path)
    metrics |= {f"dynamics/{name}": value for name, value in losses.items()}
    return FitResult({**metrics, "data/frames": float(dataset.num_frames)})


def _identity(
    model: WorldModel, episodes: Sequence[Episode], tokenizer_steps: int, dynamics_steps: int
) -> dict[str, Any]:
    """Say which fit it is, by all that decides about its result."""
    config = model.config.to_dict()
    # Not of a fit, or given to it beside the config.
    del config["sampler"], config["tokenizer_gradient_steps"], config["training"]["gradient_steps"]
    settings = {
        "config": config,
        "seed": model.seed,
        "num_fits": model.num_fits,
        "tokenizer_steps": tokenizer_steps,
        "dynamics_steps": dynamics_steps,
        "device": model.device.type,
    }
    identity = fit_identity(settings, model.state_dict(), episodes)
    if model.unfinished_fit is not None:  # broken off in this process: the weights have moved
        identity[WEIGHTS] = model.unfinished_fit
    return identity


def _restore_tokenizer(
    model: WorldModel, checkpoint: FitCheckpoint, saved: Mapping[str, Any], log: _Log
) -> dict[str, float]:
    """Take the tokenizer of a checkpoint; gives its metrics."""
    try:
        model.tokenizer.load_state_dict(saved["tokenizer"])
        log.count = saved["log_count"]
        metrics: dict[str, float] = dict(saved["metrics"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise checkpoint.damaged(error) from error
    model.tokenizer.refresh()
    return metrics


def _spread(
    model: WorldModel, trainer: DynamicsTrainer, devices: int, checkpoint_every: int | None
) -> AbstractContextManager[DynamicsTrainer | RemoteTrainer]:
    """Give what makes the gradient steps: the trainer itself, or several processes."""
    if devices == 1:
        return nullcontext(trainer)
    return RemoteTrainer(trainer, model.save, devices, checkpoint_every)


@dataclass
class _Training:
    """The gradient steps of the dynamics, with checkpoints in between."""

    model: WorldModel
    trainer: DynamicsTrainer | RemoteTrainer
    metrics: dict[str, float]
    """Of the tokenizer."""
    log: _Log
    checkpoint: FitCheckpoint | None
    checkpoint_every: int

    def __post_init__(self) -> None:
        most = max(1, self.trainer.gradient_steps // 10)
        self._tail: deque[dict[str, Tensor]] = deque(maxlen=most)

    def restore(self, trainer: DynamicsTrainer, saved: Mapping[str, Any]) -> None:
        """Go on where a checkpoint stands."""
        assert self.checkpoint is not None
        try:
            trainer.load_state_dict(saved["trainer"])
            self._tail.extend(saved["tail"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise self.checkpoint.damaged(error) from error
        self.model.unfinished_fit = self.checkpoint.identity[WEIGHTS]

    def run(self, progress: bool, keep_checkpoint: bool) -> dict[str, float]:
        """Make the gradient steps that are left.

        Returns:
            The mean losses of the last tenth of all, and the last recall.
        """
        trainer = self.trainer
        if trainer.gradient_step == 0:
            self._save()
        with Progress(
            "dynamics", trainer.gradient_steps, enabled=progress, unit="gradient steps"
        ) as bar:
            bar.update(trainer.gradient_step)
            while not trainer.is_finished:
                self._tail.append(trainer.step())
                if self.log.is_due():
                    losses = {name: value.item() for name, value in self._tail[-1].items()}
                    self.log.write({f"dynamics/{name}": loss for name, loss in losses.items()})
                    bar.update(0, **losses)
                if trainer.gradient_step % RECALL_STEPS == 0 or trainer.is_finished:
                    recalled = trainer.recall()
                    self.log.write({f"dynamics/{name}": part for name, part in recalled.items()})
                    bar.update(0, **recalled)
                bar.update(1)
                due = trainer.gradient_step % self.checkpoint_every == 0
                if keep_checkpoint if trainer.is_finished else due:
                    self._save()
        trainer.finish()
        names = self._tail[0] if self._tail else {}
        losses = {
            name: float(torch.stack([part[name] for part in self._tail]).mean()) for name in names
        }
        return {**losses, **trainer.recall()}

    def _save(self) -> None:
        if self.checkpoint is not None:
            state = {
                "tokenizer": self.model.tokenizer.state_dict(),
                "metrics": self.metrics,
                "log_count": self.log.count,
                "trainer": self.trainer.state_dict(),
                "tail": list(self._tail),
            }
            self.checkpoint.save(state)
            self.model.unfinished_fit = self.checkpoint.identity[WEIGHTS]


def _fit_tokenizer(
    model: WorldModel,
    episodes: Sequence[Episode],
    gradient_steps: int,
    seed: int,
    progress: bool,
    log: _Log,
) -> dict[str, float]:
    """Train the tokenizer if it is new or loses something of the newest frames."""
    kept = _kept_share(model, episodes) if model.tokenizer.is_fitted else 0.0
    if kept < _REFIT_BELOW:
        with Progress("tokenizer", gradient_steps, enabled=progress, unit="gradient steps") as bar:

            def on_gradient_step(loss: float) -> None:
                bar.update(1, reconstruction_loss=loss)
                if log.is_due():
                    log.write({"tokenizer/reconstruction_loss": loss})

            model.tokenizer.fit(
                episodes,
                gradient_steps=gradient_steps,
                seed=seed,
                on_gradient_step=on_gradient_step,
            )
        kept = _kept_share(model, episodes)
        log.write_codes(model.tokenizer, episodes)
    return {"tokenizer/kept_frames": kept}


def _kept_share(model: WorldModel, episodes: Sequence[Episode]) -> float:
    """Share of the newest frames that come back (nearly) as they were, in every leaf."""
    frames = _newest_frames(model, episodes)
    decoded = model.tokenizer.decode_flat(model.tokenizer.encode_flat(frames))
    count = len(next(iter(frames.values())))
    kept = np.ones(count, dtype=bool)
    for path, real in frames.items():
        difference = np.abs(
            real.reshape(count, -1).astype(np.float64) - decoded[path].reshape(count, -1)
        )
        if np.issubdtype(real.dtype, np.floating):
            spread = real.reshape(count, -1).std(0)
            kept &= (difference <= 0.2 * spread + 1e-6).all(1)
        elif real.dtype == np.uint8 and real.max() > 15:
            kept &= difference.mean(1) <= 4
        else:
            kept &= (difference == 0).all(1)
    return float(kept.mean())


def _newest_frames(model: WorldModel, episodes: Sequence[Episode]) -> dict[str, np.ndarray]:
    chosen: list[Episode] = []
    frames = 0
    for index in range(len(episodes) - 1, -1, -1):
        chosen.append(episodes[index])
        frames += len(episodes[index]) + 1
        if frames >= _CHECKED_FRAMES:
            break
    paths = space_tools.leaves(model.observation_space)
    return {
        path: np.concatenate([e.observations[path] for e in chosen])[:_CHECKED_FRAMES]
        for path in paths
    }


def _check_episodes(model: WorldModel, episodes: Sequence[Episode]) -> None:
    if not len(episodes):
        raise DatasetError("`episodes` must hold at least one episode, got none")
    own = space_tools.leaves(model.observation_space)
    observations = episodes[0].observations
    for path, leaf in own.items():
        shape = observations[path].shape[1:] if path in observations else None
        if shape != (leaf.shape or ()):
            raise DatasetError(
                f"`episodes` must hold {path!r} of shape {leaf.shape} as the model's observation "
                f"space says, got {'nothing' if shape is None else shape}"
            )
    shape = model.action_space.shape or ()
    if episodes[0].actions.shape[1:] != shape:
        raise DatasetError(
            f"`episodes` must hold actions of shape {shape}, got {episodes[0].actions.shape[1:]}"
        )


class _Log:
    """TensorBoard scalars and the caller's callback, every few gradient steps."""

    def __init__(
        self,
        log_dir: str | Path | None,
        on_log: Callable[[int, Mapping[str, float]], None] | None,
    ) -> None:
        self._writer: SummaryWriter | None = None
        if log_dir is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(log_dir))
        self._on_log, self.count = on_log, 0

    def is_due(self) -> bool:
        """Count a gradient step; true at every so many."""
        self.count += 1
        return self.count % _LOG_EVERY == 0

    def write(self, values: Mapping[str, float]) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, self.count)
        if self._on_log is not None and values:
            self._on_log(self.count, values)

    def write_codes(self, tokenizer: Tokenizer, episodes: Sequence[Episode]) -> None:
        """Show in TensorBoard what the codes stand for and how often they are used."""
        if self._writer is not None:
            log_codes(self._writer, tokenizer, episodes, self.count)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

"""Fitting a world model to episodes: tokenizer first, then dynamics.

Classes:
    FitResult: what a fit did.

Functions:
    fit_world_model: the work behind `WorldModel.fit`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from worldgen import spaces as space_tools
from worldgen.data.episode import Episode
from worldgen.dynamics_training import DynamicsTrainer
from worldgen.errors import DatasetError
from worldgen.inspection import log_codes
from worldgen.progress import Progress
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
) -> FitResult:
    """Train `model` in place; see `WorldModel.fit`."""
    _check_episodes(model, episodes)
    log = _Log(log_dir, on_log)
    seed = derived_seed(model.seed, "fit", model.num_fits)
    metrics = _fit_tokenizer(model, episodes, tokenizer_steps, seed, progress, log)
    model.dynamics.set_code_contents(model.tokenizer.code_contents())
    dataset = model.dataset(episodes)
    model.dynamics.set_seen_codes(dataset.tokens)
    model.dynamics.set_code_vectors(model.tokenizer.codebook_vectors())
    model.dynamics.two_hot.restrict(dataset.rewards)
    generator = torch.Generator(model.device).manual_seed(seed)
    trainer = DynamicsTrainer(
        model.dynamics, dataset, model.config.training, dynamics_steps, generator
    )
    losses = _train(trainer, progress, log)
    model.num_fits += 1
    log.close()
    metrics |= {f"dynamics/{name}": value for name, value in losses.items()}
    return FitResult({**metrics, "data/frames": float(dataset.num_frames)})


def _train(trainer: DynamicsTrainer, progress: bool, log: _Log) -> dict[str, float]:
    """Make all gradient steps; gives the mean losses of the last tenth."""
    tail: deque[dict[str, Tensor]] = deque(maxlen=max(1, trainer.gradient_steps // 10))
    with Progress(
        "dynamics", trainer.gradient_steps, enabled=progress, unit="gradient steps"
    ) as bar:
        while not trainer.is_finished:
            tail.append(trainer.step())
            if log.is_due():
                losses = {name: value.item() for name, value in tail[-1].items()}
                log.write({f"dynamics/{name}": value for name, value in losses.items()})
                bar.update(0, **losses)
            bar.update(1)
    trainer.finish()
    names = tail[0] if tail else {}
    return {name: float(torch.stack([part[name] for part in tail]).mean()) for name in names}


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
        self._on_log, self._count = on_log, 0

    def is_due(self) -> bool:
        """Count a gradient step; true at every so many."""
        self._count += 1
        return self._count % _LOG_EVERY == 0

    def write(self, values: Mapping[str, float]) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, self._count)
        if self._on_log is not None:
            self._on_log(self._count, values)

    def write_codes(self, tokenizer: Tokenizer, episodes: Sequence[Episode]) -> None:
        """Show in TensorBoard what the codes stand for and how often they are used."""
        if self._writer is not None:
            log_codes(self._writer, tokenizer, episodes, self._count)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

"""Fitting a world model to episodes: tokenizer first, then dynamics.

Classes:
    FitResult: what a fit did.

Functions:
    fit_world_model: the work behind `WorldModel.fit`.
    fit_identity: what tells a fit from others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worldgen import spaces as space_tools
from worldgen.config import require
from worldgen.data.episode import Episode
from worldgen.data.token_dataset import TokenDataset
from worldgen.dynamics_fit import DynamicsFit, fit_dynamics
from worldgen.errors import DatasetError
from worldgen.fit_checkpoint import STATE_ERRORS, FitCheckpoint, fingerprint
from worldgen.fit_log import FitLog
from worldgen.progress import Progress
from worldgen.remote_training import check_devices
from worldgen.seeding import derived_seed
from worldgen.tokenizer.patch_autoencoder import PatchAutoencoder

if TYPE_CHECKING:
    from worldgen.world_model import WorldModel

__all__ = ["FitResult", "fit_identity", "fit_world_model"]

_REFIT_BELOW = 0.995
_CHECKED_FRAMES = 4096
_COMPARED_FRAMES = 512
"""Frames of pictures that are cut into patches at once."""


@dataclass(frozen=True)
class FitResult:
    """What a fit did and how well it ended."""

    metrics: dict[str, float] = field(default_factory=dict)
    """Losses at the end, reconstruction, counts; names as in TensorBoard."""


def fit_world_model(
    model: WorldModel,
    episodes: Sequence[Episode],
    *,
    gradient_steps: tuple[int, int],
    log_dir: str | Path | None,
    progress: bool,
    on_log: Callable[[int, Mapping[str, float]], None] | None,
    checkpoint: str | Path | None,
    checkpoint_every: int,
    devices: int,
) -> FitResult:
    """Train `model` in place; see `WorldModel.fit`.

    Args:
        model: As there.
        episodes: As there.
        gradient_steps: Of the tokenizer and of the dynamics.
        log_dir: As there.
        progress: As there.
        on_log: As there.
        checkpoint: As there.
        checkpoint_every: As there.
        devices: As there.
    """
    require(checkpoint_every >= 1, "checkpoint_every", "be at least 1", checkpoint_every)
    check_devices(devices, model.config.training.batch_size, model.device)
    _check_episodes(model, episodes)
    log = FitLog(log_dir, on_log)
    file = _checkpoint(model, episodes, gradient_steps, checkpoint, devices)
    state = None if file is None else file.read()
    seed = derived_seed(model.seed, "fit", model.num_fits)
    if state is None:
        metrics = _fit_tokenizer(model, episodes, gradient_steps[0], seed, progress, log)
    else:
        assert file is not None
        metrics = _restore_tokenizer(model, file, state)
    dataset = model.dataset(episodes)
    _introduce(model, dataset)
    fit = DynamicsFit(
        model.dynamics,
        dataset,
        model.config.training,
        gradient_steps[1],
        seed,
        log,
        progress,
        state=None if state is None else state.get("trainer", {}),
        checkpoint=file,
        kept={"tokenizer": model.tokenizer.state_dict(), "metrics": metrics},
        checkpoint_every=checkpoint_every,
        devices=devices,
        save_model=model.save,
    )
    losses = fit_dynamics(fit)
    model.num_fits += 1
    log.close()
    named = {f"dynamics/{name}": value for name, value in losses.items()}
    return FitResult({**metrics, **named, "data/frames": float(dataset.num_frames)})


def _restore_tokenizer(
    model: WorldModel, checkpoint: FitCheckpoint, state: Mapping[str, Any]
) -> dict[str, float]:
    """Take the tokenizer of a checkpoint; gives its metrics."""
    try:
        metrics: dict[str, float] = dict(state["metrics"])
        model.tokenizer.load_state_dict(state["tokenizer"])
    except STATE_ERRORS as error:
        raise checkpoint.damaged(error) from error
    model.tokenizer.refresh()
    return metrics


def _introduce(model: WorldModel, dataset: TokenDataset) -> None:
    """Tell the dynamics what codes stand for, and what of codes and rewards occurs."""
    model.dynamics.set_code_contents(model.tokenizer.code_contents())
    model.dynamics.set_seen_codes(dataset.tokens)
    model.dynamics.set_code_vectors(model.tokenizer.codebook_vectors())
    model.dynamics.two_hot.restrict(dataset.rewards)


def fit_identity(
    model: WorldModel,
    episodes: Sequence[Episode],
    gradient_steps: tuple[int, int],
    devices: int = 1,
) -> dict[str, Any]:
    """Give all that decides about a fit that is to come, as JSON values.

    Args:
        model: Before the fit.
        episodes: What it is to learn from.
        gradient_steps: Of the tokenizer and of the dynamics.
        devices: Processes that are to train the dynamics.
    """
    return {
        "settings": model.config.to_dict(),
        "seed": model.seed,
        "number of earlier fits": model.num_fits,
        "gradient steps": list(gradient_steps),
        "episodes": fingerprint(episodes),
        "devices": devices,
    }


def _checkpoint(
    model: WorldModel,
    episodes: Sequence[Episode],
    gradient_steps: tuple[int, int],
    path: str | Path | None,
    devices: int,
) -> FitCheckpoint | None:
    """Make the file that belongs to this fit and to no other."""
    if path is None:
        return None
    return FitCheckpoint(path, fit_identity(model, episodes, gradient_steps, devices))


def _fit_tokenizer(
    model: WorldModel,
    episodes: Sequence[Episode],
    gradient_steps: int,
    seed: int,
    progress: bool,
    log: FitLog,
) -> dict[str, float]:
    """Train the tokenizer if it is new, or loses more of the newest frames than it had to."""
    kept = _kept_share(model, episodes) if model.tokenizer.is_fitted else -1.0
    if kept < _REFIT_BELOW * float(model.tokenizer.kept):
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
            bar.finish()
        kept = _kept_share(model, episodes)
        model.tokenizer.kept.fill_(kept)
        log.write_codes(model.tokenizer, episodes)
    return {"tokenizer/kept_frames": kept}


def _kept_share(model: WorldModel, episodes: Sequence[Episode]) -> float:
    """Share of the newest frames that come back (nearly) as they were, in every part of a leaf."""
    frames = _newest_frames(model, episodes)
    decoded = model.tokenizer.decode_flat(model.tokenizer.encode_flat(frames))
    count = len(next(iter(frames.values())))
    kept = np.ones(count, dtype=bool)
    for path, real in frames.items():
        codec, flat = model.tokenizer.codec(path), real.reshape(count, -1)
        if np.issubdtype(real.dtype, np.floating):
            difference = np.abs(flat.astype(np.float64) - decoded[path].reshape(count, -1))
            kept &= (difference <= 0.2 * flat.std(0) + 1e-6).all(1)
        elif isinstance(codec, PatchAutoencoder):
            for first in range(0, count, _COMPARED_FRAMES):
                part = slice(first, first + _COMPARED_FRAMES)
                pair = (model.tokenizer.patches(path, v[part]) for v in (decoded[path], real))
                kept[part] &= ~codec.patches_lost(*pair).any(1).cpu().numpy()
        else:
            kept &= (flat == decoded[path].reshape(count, -1)).all(1)
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

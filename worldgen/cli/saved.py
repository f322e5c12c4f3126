"""Models and agents that earlier commands saved.

Functions:
    load_model: from a model folder or a run folder.
    load_tokenizer: likewise, or from a tokenizer's own folder.
    find_agent: the agent beside a model, where there is one.
    find_held_out: the held-out episodes beside a model, where there are any.
    sampler_of: a model's sampler with another number of denoising steps.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from worldgen.checkpoint import folder_kind
from worldgen.diffusion.sampler_config import SamplerConfig
from worldgen.run_folder import RunFolder
from worldgen.tokenizer import Tokenizer
from worldgen.world_model import WorldModel

__all__ = ["find_agent", "find_held_out", "load_model", "load_tokenizer", "sampler_of"]


def load_model(path: Path, device: str) -> WorldModel:
    """Load the model of a model folder, or of a run folder.

    Raises:
        CheckpointError: If there is none.
    """
    run = RunFolder(path)
    return WorldModel.load(run.model if run.record.is_file() else path, device=device)


def load_tokenizer(path: Path, device: str) -> tuple[Tokenizer, WorldModel | None]:
    """Load the tokenizer of a tokenizer's folder, or the model of another and its tokenizer.

    Raises:
        CheckpointError: If there is none.
    """
    run = RunFolder(path)
    folder = run.model if run.record.is_file() else path
    if folder_kind(folder) == "tokenizer":
        return Tokenizer.load(folder, device=device), None
    model = WorldModel.load(folder, device=device)
    return model.tokenizer, model


def find_agent(path: Path) -> Path | None:
    """Find the agent of the run that a model folder, or a run folder, belongs to."""
    run = _run_of(path)
    return run.agent if run is not None and run.agent.is_file() else None


def find_held_out(path: Path) -> Path | None:
    """Find the held-out episodes of the run that a model folder, or a run folder, belongs to."""
    run = _run_of(path)
    return run.held_out if run is not None and run.held_out.is_dir() else None


def _run_of(path: Path) -> RunFolder | None:
    for run in (RunFolder(path), RunFolder(path.resolve().parent)):
        if run.record.is_file():
            return run
    return None


def sampler_of(model: WorldModel, denoising_steps: int | None) -> SamplerConfig:
    """Give the model's sampler, with `denoising_steps` if that is not None."""
    sampler = model.config.sampler
    if denoising_steps is None:
        return sampler
    return dataclasses.replace(sampler, denoising_steps=denoising_steps)

"""Models and agents that earlier commands saved.

Functions:
    load_model: from a model folder or a run folder.
    find_agent: the agent beside a model, where there is one.
    sampler_of: a model's sampler with another number of denoising steps.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from worldgen.diffusion.masked_diffusion import SamplerConfig
from worldgen.run_folder import RunFolder
from worldgen.world_model import WorldModel

__all__ = ["find_agent", "load_model", "sampler_of"]


def load_model(path: Path, device: str) -> WorldModel:
    """Load the model of a model folder, or of a run folder.

    Raises:
        CheckpointError: If there is none.
    """
    run = RunFolder(path)
    return WorldModel.load(run.model if run.record.is_file() else path, device=device)


def find_agent(path: Path) -> Path | None:
    """Find the agent of the run that a model folder, or a run folder, belongs to."""
    for folder in (path, path.resolve().parent):
        run = RunFolder(folder)
        if run.record.is_file() and run.agent.is_file():
            return run.agent
    return None


def sampler_of(model: WorldModel, denoising_steps: int | None) -> SamplerConfig:
    """Give the model's sampler, with `denoising_steps` if that is not None."""
    sampler = model.config.sampler
    if denoising_steps is None:
        return sampler
    return dataclasses.replace(sampler, denoising_steps=denoising_steps)

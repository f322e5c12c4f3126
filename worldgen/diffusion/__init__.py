"""Diffusion processes over the tokens of a frame, and their samplers."""

from __future__ import annotations

from worldgen.diffusion.sampler_config import SamplerConfig

__all__ = ["SamplerConfig"]

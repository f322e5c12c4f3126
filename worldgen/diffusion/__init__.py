"""Diffusion processes over the tokens of a frame, and their samplers."""

from __future__ import annotations

from worldgen.diffusion.masked_diffusion import SamplerConfig

__all__ = ["SamplerConfig"]

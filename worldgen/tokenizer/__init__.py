"""Observations to discrete tokens and back: one small VQ-VAE for each leaf of the space."""

from __future__ import annotations

from worldgen.tokenizer.tokenizer import Tokenizer, TokenizerConfig
from worldgen.tokenizer.vector_quantizer import VectorQuantizer, VectorQuantizerConfig

__all__ = ["Tokenizer", "TokenizerConfig", "VectorQuantizer", "VectorQuantizerConfig"]

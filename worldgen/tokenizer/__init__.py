"""Observations to discrete tokens and back: one small VQ-VAE for each leaf of the space."""

from __future__ import annotations

from worldgen.tokenizer.quantizer import QuantizerConfig
from worldgen.tokenizer.tokenizer import Tokenizer
from worldgen.tokenizer.tokenizer_config import TokenizerConfig

__all__ = ["QuantizerConfig", "Tokenizer", "TokenizerConfig"]

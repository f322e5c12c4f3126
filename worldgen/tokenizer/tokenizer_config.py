"""Sizes of a tokenizer.

Classes:
    TokenizerConfig.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from worldgen.config import Config, require
from worldgen.tokenizer.modality import ModalityName
from worldgen.tokenizer.quantizer import QuantizerConfig

__all__ = ["TokenizerConfig"]


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(Config):
    """Sizes of the tokenizer."""

    quantizer: QuantizerConfig = QuantizerConfig()
    """Which quantizer, codebook size V, code dimension E, rates."""
    hidden: int = 256
    """Width of the hidden layer of encoders and decoders."""
    patch_shape: tuple[int, int] | None = None
    """Rows and columns of a symbolic grid's patch; None for strips along the second axis, of
    up to 4 cells, or up to 8 where the grid would have more than `max_grid_tokens` of them."""
    max_grid_tokens: int = 14
    """Most patches of up to 4 cells that a symbolic grid is cut into."""
    max_image_tokens: int = 16
    """Most tokens that a picture is cut into."""
    max_text_tokens: int = 16
    """Tokens of a text; one that needs more is refused."""
    max_vector_tokens: int = 8
    """Most tokens that a vector is cut into."""
    max_waveform_tokens: int = 64
    """Most tokens that a waveform is cut into."""
    waveform_residuals: int = 4
    """R of a waveform's quantizer, which is "residual" also where the others are not."""
    modalities: Mapping[str, ModalityName] = field(default_factory=dict)
    """Path -> "symbolic", "image", "vector" or "waveform", for leaves that are not recognised."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(
            isinstance(self.quantizer, QuantizerConfig),
            "quantizer",
            "be a QuantizerConfig, such as QuantizerConfig(kind='fsq')",
            self.quantizer,
        )
        shape = self.patch_shape
        legal = shape is None or (len(shape) == 2 and min(shape) >= 1)
        require(legal, "patch_shape", "be two numbers of at least 1, or None", shape)
        require(
            self.max_waveform_tokens >= self.waveform_residuals,
            "max_waveform_tokens",
            f"be at least `waveform_residuals`, {self.waveform_residuals}",
            self.max_waveform_tokens,
        )
        names = (
            "hidden",
            "max_grid_tokens",
            "max_image_tokens",
            "max_text_tokens",
            "max_vector_tokens",
        )
        for name in (*names, "waveform_residuals"):
            require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))

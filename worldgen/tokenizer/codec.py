"""What encodes and decodes one leaf of an observation.

Functions:
    build_codec: the codec of a leaf space.
    module_name: a leaf's path as the name of a module.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeAlias

from gymnasium import spaces

from worldgen.tokenizer.category import CategoryCodec
from worldgen.tokenizer.image import Image
from worldgen.tokenizer.modality import Modality, modality_name
from worldgen.tokenizer.patch_autoencoder import PatchAutoencoder
from worldgen.tokenizer.symbolic_grid import SymbolicGrid, patch_shape
from worldgen.tokenizer.text import TextCodec
from worldgen.tokenizer.tokenizer_config import TokenizerConfig
from worldgen.tokenizer.vector import Vector
from worldgen.tokenizer.waveform import Waveform

__all__ = ["Codec", "build_codec", "module_name"]

Codec: TypeAlias = PatchAutoencoder | CategoryCodec | TextCodec
_WAVEFORM_SEARCH = 4
"""Least `search_width` of a waveform's quantizer, worth about half a decibel."""


def build_codec(path: str, leaf: spaces.Space[Any], config: TokenizerConfig) -> Codec:
    """Build the untrained codec of a leaf.

    Raises:
        SpaceError: If the leaf is not supported, or could be symbols or a picture.
    """
    name = modality_name(path, leaf, config.modalities.get(path))
    if isinstance(leaf, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return CategoryCodec(leaf, config.quantizer.vector_size)
    if isinstance(leaf, spaces.Text):
        return TextCodec(path, leaf, config.quantizer.vector_size, config.max_text_tokens)
    assert isinstance(leaf, spaces.Box)
    modality: Modality
    if name == "symbolic":
        height, width = leaf.shape[:2]
        shape = config.patch_shape or patch_shape(height, width, config.max_grid_tokens)
        modality = SymbolicGrid(leaf, shape)
    elif name == "image":
        modality = Image(leaf, config.max_image_tokens)
    elif name == "waveform":
        return _build_waveform_codec(leaf, config)
    else:
        modality = Vector(leaf, config.max_vector_tokens)
        if config.quantizer.kind == "fsq":
            levels = _levels(modality.num_features, config.quantizer.codebook_size)
            quantizer = replace(config.quantizer, levels=levels)
            return PatchAutoencoder(modality, config.hidden, quantizer)
    return PatchAutoencoder(modality, config.hidden, config.quantizer)


def _levels(entries: int, codes: int) -> tuple[int, ...]:
    """Give a patch's numbers an entry each, as finely cut as about `codes` codes allow.

    >>> _levels(1, 729), _levels(2, 729), _levels(20, 729)
    ((729,), (27, 27), (3, 3, 3, 3, 3, 3))
    """
    count = max(1, min(entries, int(math.log(codes, 3) + 1e-9)))
    return (max(3, int(codes ** (1 / count) + 1e-9)),) * count


def _build_waveform_codec(leaf: spaces.Box, config: TokenizerConfig) -> PatchAutoencoder:
    """Build the codec of a sound, whose quantizer has R stages of a dimension for each value."""
    modality = Waveform(leaf, config.max_waveform_tokens // config.waveform_residuals)
    kind = config.quantizer.kind
    quantizer = replace(
        config.quantizer,
        kind="gaussian" if kind == "gaussian" else "residual",
        dim=modality.num_features,
        num_residuals=config.waveform_residuals,
        search_width=max(config.quantizer.search_width, _WAVEFORM_SEARCH),
    )
    return PatchAutoencoder(modality, config.hidden, quantizer)


def module_name(path: str) -> str:
    """Make a path a valid module name; "/" and "." cannot be in one."""
    return "leaf_" + path.replace("_", "__").replace("/", "_s").replace(".", "_d")

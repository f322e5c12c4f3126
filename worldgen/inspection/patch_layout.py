"""Where the patches of a frame stand in its picture.

Functions:
    patch_layout: the patches' numbers, laid out as they are drawn.
"""

from __future__ import annotations

import math

import numpy as np

from worldgen.render import leaf_kind
from worldgen.spaces import leaves
from worldgen.tokenizer import Tokenizer
from worldgen.tokenizer.patch_autoencoder import PatchAutoencoder

__all__ = ["patch_layout"]


def patch_layout(tokenizer: Tokenizer, path: str) -> np.ndarray | None:
    """Give the number of the patch at each row and column of a leaf's picture.

    MiniGrid's arrays are [x][y], so its patches are drawn column by column.

    Returns:
        (rows, columns) int64, None for leaves that are no grid and no picture.
    """
    codec, leaf = tokenizer.codec(path), leaves(tokenizer.space)[path]
    if not isinstance(codec, PatchAutoencoder) or codec.modality.linear_skip:
        return None
    shape = leaf.shape or ()
    if len(shape) == 3 and shape[0] < shape[2] and not codec.modality.cell_size:
        shape = shape[1:]  # Channels come first.
    patch = codec.modality.patch_shape
    grid = [math.ceil(side / part) for side, part in zip(shape[:2], patch, strict=True)]
    numbers = np.arange(codec.modality.num_patches).reshape(grid)
    is_minigrid = leaf_kind(leaf, tokenizer.config.modalities.get(path)) == "minigrid"
    return numbers.T if is_minigrid else numbers

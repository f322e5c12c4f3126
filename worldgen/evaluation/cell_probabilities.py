"""From probabilities of codes to probabilities of what a cell holds.

Classes:
    CellProbabilities: of one leaf of symbols or categories.

A patch's cells share its code, so a cell's distribution is the sum over the codes that decode
to the same content there.
"""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from worldgen.tokenizer import Tokenizer

__all__ = ["CellProbabilities"]


class CellProbabilities:
    """The cells of one leaf, M of them, and what each may hold.

    A content is a number: the cell's channels as digits.

    Args:
        tokenizer: Trained.
        path: A leaf of symbols whose patches have one code each, or a category.

    Attributes:
        num_cells: M.
        contents: (n,) int64, sorted, all contents that some code stands for somewhere.
        num_possible: Contents that the space allows for a cell.
    """

    def __init__(self, tokenizer: Tokenizer, path: str, leaf: spaces.Space[object]) -> None:
        place = tokenizer.token_slices[path]
        self._radix = _radix(leaf)
        self.num_possible = int(np.prod(self._radix)) if self._radix is not None else 0
        self._channels = len(self._radix) if self._radix is not None else 1
        decoded = _decode_each_code(tokenizer, path)  # (V, ...)
        numbers = self.numbers(decoded)  # (V, M)
        self.num_cells = numbers.shape[1]
        self._positions = place.start + _positions(tokenizer, path, leaf, self.num_cells)
        legal = np.arange(len(numbers))[:, None] < tokenizer.token_nvec[self._positions]
        self.contents = np.unique(numbers[legal])
        if self._radix is None:
            self.num_possible = len(self.contents)
        index = np.searchsorted(self.contents, numbers).clip(max=len(self.contents) - 1)
        # Beyond a position's codes there is no probability: whatever stands there is harmless.
        self._index = torch.from_numpy(index).to(tokenizer.device)  # (V, M)

    @staticmethod
    def possible(tokenizer: Tokenizer, path: str, leaf: spaces.Space[object]) -> bool:
        """Tell whether each cell of the leaf belongs to one code alone."""
        place = tokenizer.token_slices[path]
        num_tokens = place.stop - place.start
        if isinstance(leaf, spaces.Box):
            frame = np.zeros((1, *leaf.shape), leaf.dtype)
            return bool(tokenizer.patches(path, frame).shape[1] == num_tokens)
        return not isinstance(leaf, spaces.Text)

    def numbers(self, values: np.ndarray) -> np.ndarray:
        """Number the contents of a leaf's frames: (B, ...) -> (B, M) int64."""
        flat = values.reshape(len(values), -1, self._channels).astype(np.int64)
        if self._radix is None:
            return flat[..., 0]
        weights = np.concatenate([[1], np.cumprod(self._radix[:-1])])
        numbers: np.ndarray = (flat * weights).sum(-1)
        return numbers

    def known(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find contents (any shape) in `contents`: their index, and whether they are there."""
        index = np.searchsorted(self.contents, numbers).clip(max=len(self.contents) - 1)
        return index, self.contents[index] == numbers

    def __call__(self, probabilities: Tensor) -> Tensor:
        """Sum the codes' probabilities: (B, K, V) -> (B, M, n)."""
        batch, size = len(probabilities), len(self.contents)
        result = probabilities.new_zeros(batch, self.num_cells, size)
        num_codes = len(self._index)
        for cell, position in enumerate(self._positions.tolist()):
            index = self._index[:, cell].expand(batch, -1)
            result[:, cell].scatter_add_(1, index, probabilities[:, position, :num_codes])
        return result


def _radix(leaf: spaces.Space[object]) -> np.ndarray | None:
    """Give the number of values of each channel of a grid's cells; None for categories."""
    if not isinstance(leaf, spaces.Box):
        return None
    channels = leaf.shape[2] if len(leaf.shape) == 3 else 1
    radix: np.ndarray = leaf.high.reshape(-1, channels).max(0).astype(np.int64) + 1
    return radix


def _decode_each_code(tokenizer: Tokenizer, path: str) -> np.ndarray:
    """Decode frames that have one and the same code everywhere in the leaf: (V, ...)."""
    place = tokenizer.token_slices[path]
    largest = torch.from_numpy(tokenizer.token_nvec[place]).to(tokenizer.device)
    codes = torch.arange(int(largest.max()), device=tokenizer.device)
    tokens = torch.zeros(
        len(codes), tokenizer.num_tokens, dtype=torch.int64, device=tokenizer.device
    )
    tokens[:, place] = torch.minimum(codes.unsqueeze(1), largest - 1)
    return tokenizer.decode_flat(tokens)[path]


def _positions(
    tokenizer: Tokenizer, path: str, leaf: spaces.Space[object], num_cells: int
) -> np.ndarray:
    """Say for each cell which of the leaf's tokens decides about it: (M,)."""
    if not isinstance(leaf, spaces.Box):
        return np.arange(num_cells)
    channels = leaf.shape[2] if len(leaf.shape) == 3 else 1
    # Cut a frame that holds the numbers of its cells, 0 being left for padding.
    numbered = np.arange(1, num_cells + 1).repeat(channels).reshape(1, *leaf.shape)
    patches = tokenizer.patches(path, numbered)[0].cpu().numpy()  # (patches, P)
    found = np.empty(num_cells, np.int64)
    for patch, values in enumerate(patches):
        found[values[values > 0] - 1] = patch
    return found

"""Patches of symbols that were not seen, and may well be.

Functions:
    plausible_patches: unseen patches that differ in one cell from many seen ones.

A codebook that has room to spare keeps it for these, so that a key beside a door of another
color is not lost only because training did not show the pair.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["plausible_patches"]


def plausible_patches(patches: Tensor, cell_size: int, count: int) -> Tensor:
    """List unseen patches, those first that have the most seen neighbours.

    A neighbour differs in one cell, whose content was seen at the same place of some patch.

    Args:
        patches: Different seen patches (M, P) int64, P a multiple of `cell_size`.
        cell_size: Values of a cell, which go together.
        count: Most patches to list.

    Returns:
        (at most `count`, P) int64.

    >>> seen = torch.tensor([[1, 5], [1, 6], [2, 5]])
    >>> plausible_patches(seen, 1, 4).tolist()
    [[2, 6]]
    """
    if count < 1 or not len(patches):
        return patches[:0]
    cells = patches.view(len(patches), -1, cell_size)
    draw = torch.Generator().manual_seed(0)
    odd = torch.randint(-(2**62), 2**62, cells.shape[1:], generator=draw) * 2 + 1
    parts = (cells * odd.to(cells.device)).sum(-1)  # (M, cells): what each adds to the hash.
    hashes = parts.sum(-1)
    contents, changed = [], []
    for place in range(cells.shape[1]):
        content = torch.unique(cells[:, place], dim=0)
        replaced = (content * odd[place].to(cells.device)).sum(-1)
        changed.append((hashes - parts[:, place]).unsqueeze(1) + replaced)  # (M, contents)
        contents.append(content)
    every = torch.cat([part.flatten() for part in changed])
    unique, inverse, neighbours = torch.unique(every, return_inverse=True, return_counts=True)
    neighbours[torch.isin(unique, hashes)] = 0
    best = neighbours.argsort(descending=True, stable=True)[:count]
    best = best[neighbours[best] > 0]
    first = torch.full((len(unique),), len(every), device=every.device)
    first.scatter_reduce_(0, inverse, torch.arange(len(every), device=every.device), "amin")
    return _build(cells, contents, first[best])


def _build(cells: Tensor, contents: list[Tensor], chosen: Tensor) -> Tensor:
    """Make the patches of numbers that count through places, patches and contents."""
    made = []
    for number in chosen.tolist():
        place = 0
        while number >= len(cells) * len(contents[place]):
            number -= len(cells) * len(contents[place])
            place += 1
        patch = cells[number // len(contents[place])].clone()
        patch[place] = contents[place][number % len(contents[place])]
        made.append(patch.flatten())
    return torch.stack(made) if made else cells[:0].flatten(1)

"""The codes in TensorBoard: numbers, the curve of their use, and a page of the atlas.

Functions:
    log_codes: write them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from worldgen.data.episode import Episode
from worldgen.inspection.code_pictures import atlas_pages, code_cards
from worldgen.inspection.code_usage import CodeUsage, LeafUsage, measure_codes
from worldgen.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["log_codes"]

_MOST_FRAMES = 4096
_MOST_CARDS = 60
_MOST_CODEBOOKS = 4
_MOST_RANKS = 500


def log_codes(
    writer: SummaryWriter, tokenizer: Tokenizer, episodes: Sequence[Episode], step: int
) -> CodeUsage | None:
    """Write the use of a tokenizer's codes on up to 4,096 of the newest frames.

    For each leaf: scalars `codes/LEAF/in_use`, `perplexity` and `exact_share` at `step`; the
    curve of use as the scalar `codes_by_rank/LEAF_at_STEP`, whose own step is the rank of a code
    and whose value is its share; and the atlas of the 60 most used codes as a picture.

    Args:
        writer: Of TensorBoard.
        tokenizer: Trained.
        episodes: The newest are the last.
        step: Of the scalars and pictures.

    Returns:
        What was measured; None, and nothing written, where there are no codes.
    """
    if not tokenizer.is_discrete:
        return None
    usage = measure_codes(tokenizer, _newest(episodes), max_frames=_MOST_FRAMES)
    writer.add_scalar("codes/exact_frames", usage.exact_frames, step)
    for path, leaf in usage.leaves.items():
        writer.add_scalar(f"codes/{path}/in_use", leaf.in_use, step)
        writer.add_scalar(f"codes/{path}/perplexity", leaf.perplexity, step)
        writer.add_scalar(f"codes/{path}/exact_share", leaf.exact_share, step)
        _log_ranks(writer, leaf, step)
        for codebook in leaf.codebooks[:_MOST_CODEBOOKS]:
            cards = list(islice(code_cards(tokenizer, leaf, codebook), _MOST_CARDS))
            title = f"{codebook.name}: {codebook.in_use} of {codebook.size} codes in use"
            for page in atlas_pages(cards, title, most=1):
                name = codebook.name.replace(", ", "_").replace(" ", "_")
                writer.add_image(f"atlas/{name}", np.asarray(page), step, dataformats="HWC")
    writer.flush()
    return usage


def _newest(episodes: Sequence[Episode]) -> list[Episode]:
    """Give the last episodes that hold enough frames, in their order."""
    chosen: list[Episode] = []
    frames = 0
    for index in range(len(episodes) - 1, -1, -1):
        chosen.append(episodes[index])
        frames += len(episodes[index]) + 1
        if frames >= _MOST_FRAMES:
            break
    return chosen[::-1]


def _log_ranks(writer: SummaryWriter, leaf: LeafUsage, step: int) -> None:
    """Write the shares of a leaf's codes by rank, over all its codebooks."""
    totals = np.sort(np.concatenate([codebook.totals for codebook in leaf.codebooks]))[::-1]
    shares = totals / max(int(totals.sum()), 1)
    for rank in range(min(leaf.in_use, _MOST_RANKS)):
        name = f"codes_by_rank/{leaf.path}_at_{step}"
        writer.add_scalar(name, float(shares[rank]), rank + 1)

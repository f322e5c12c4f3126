"""Codes of a residual quantizer that are better than the nearest ones of each stage.

Functions:
    search_codes: beam search over the stages.

The nearest vector of a stage may leave over what the later stages cannot say. A beam search
keeps several ways to begin and chooses by what is left over at the end (Chen, Guan and Wang
2010, https://doi.org/10.3390/s101211259, do so for additive vectors without a beam's bound).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["search_codes"]

_SLICE = 2048
"""Latents that are searched for at once, which bounds the memory."""


def search_codes(latents: Tensor, codebooks: Tensor, width: int) -> Tensor:
    """Find codes whose vectors' sum is close to each latent.

    Args:
        latents: (N, G, E).
        codebooks: (R, G, V, E), the stages in their order.
        width: Beginnings that are kept after each stage; 1 takes the nearest vector each time.

    Returns:
        Codes (N, G, R) int64.
    """
    parts = [_search(part, codebooks, width) for part in torch.split(latents, _SLICE)]
    return torch.cat(parts) if parts else latents.new_empty(0, dtype=torch.int64)


def _search(latents: Tensor, codebooks: Tensor, width: int) -> Tensor:
    rest = latents.transpose(0, 1).unsqueeze(2)  # (G, N, 1, E)
    codes = torch.empty(*rest.shape[:3], 0, dtype=torch.int64, device=latents.device)
    groups = torch.arange(rest.shape[0], device=latents.device).view(-1, 1, 1)
    size = codebooks.shape[2]
    for stage, codebook in enumerate(codebooks):
        # Half the square of what would be left over, of each beginning and code; (G, N, W, V)
        norms = codebook.square().sum(-1)[:, None, None] + rest.square().sum(-1, keepdim=True)
        left = norms / 2 - rest @ codebook.mT.unsqueeze(1)
        kept = 1 if stage == len(codebooks) - 1 else min(width, left.shape[2] * size)
        best = left.flatten(2).topk(kept, largest=False).indices  # (G, N, W), best first
        origin, code = (best // size).unsqueeze(-1), best % size
        rest = rest.take_along_dim(origin, 2) - codebook[groups, code]
        codes = torch.cat([codes.take_along_dim(origin, 2), code.unsqueeze(-1)], -1)
    return codes[:, :, 0].transpose(0, 1)

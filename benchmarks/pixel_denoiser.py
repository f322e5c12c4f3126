"""A pixel-space denoiser of the size that DIAMOND published, for the speed benchmark alone.

Classes:
    PixelDenoiser: a U-Net of about four million weights on 64x64 pictures.

DIAMOND, Alonso et al. 2024, https://arxiv.org/abs/2405.12399: a U-Net of four resolutions and 64
channels, conditioned on four past frames and their actions, three denoising steps a frame. This
one has those numbers and no training: only its speed is of use.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["PixelDenoiser"]

_CHANNELS, _LEVELS, _CONDITION = 64, 4, 256
_DOWN, _UP = 2, 3
"""Blocks a resolution, on the way down and on the way up."""


class PixelDenoiser(nn.Module):
    """Denoise (B, 3, 64, 64) pictures, given four past ones (B, 12, 64, 64)."""

    def __init__(self) -> None:
        super().__init__()
        width = _CHANNELS
        self.read = nn.Conv2d(15, width, 3, padding=1)
        self.down = nn.ModuleList(_Residual(width) for _ in range(_DOWN * _LEVELS))
        self.middle = nn.ModuleList([_Residual(width), _Residual(width)])
        self.up = nn.ModuleList(_Residual(2 * width) for _ in range(_UP * _LEVELS))
        self.write = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, noisy: Tensor, past: Tensor, condition: Tensor) -> Tensor:
        """Give the denoised pictures; `condition` is (B, 256)."""
        hidden = self.read(torch.cat([noisy, past], 1))
        skips = [hidden]
        for index, block in enumerate(self.down):
            if index and index % _DOWN == 0:
                hidden = nn.functional.avg_pool2d(hidden, 2)
                skips.append(hidden)
            hidden = block(hidden, condition)
            skips.append(hidden)
        for block in self.middle:
            hidden = block(hidden, condition)
        for index, block in enumerate(self.up):
            if index and index % _UP == 0:
                hidden = nn.functional.interpolate(hidden, scale_factor=2.0)
            hidden = block(torch.cat([hidden, skips.pop()], 1), condition)
        result: Tensor = self.write(hidden)
        return result


class _Residual(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(2, inputs), nn.GroupNorm(2, _CHANNELS)])
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(inputs, _CHANNELS, 3, padding=1),
                nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1),
            ]
        )
        self.conditions = nn.ModuleList(
            [nn.Linear(_CONDITION, 2 * inputs), nn.Linear(_CONDITION, 2 * _CHANNELS)]
        )
        self.skip = nn.Conv2d(inputs, _CHANNELS, 1) if inputs != _CHANNELS else nn.Identity()

    def forward(self, inputs: Tensor, condition: Tensor) -> Tensor:
        hidden = inputs
        for norm, convolution, linear in zip(
            self.norms, self.convolutions, self.conditions, strict=True
        ):
            scale, shift = linear(condition).unsqueeze(-1).unsqueeze(-1).chunk(2, 1)
            hidden = convolution(nn.functional.silu(norm(hidden) * (1 + scale) + shift))
        result: Tensor = self.skip(inputs) + hidden
        return result

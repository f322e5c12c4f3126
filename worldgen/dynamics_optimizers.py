"""What moves the weights of the dynamics, and how fast.

Functions:
    make_optimizers: Muon for matrices of the transformers, AdamW for everything else.
    rate_factor: the learning rate over a fit, as a share of its peak.
"""

from __future__ import annotations

import math

import torch

from worldgen.device import resolve_precision
from worldgen.dynamics import Dynamics
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.muon import Float32Muon

__all__ = ["make_optimizers", "rate_factor"]

_WARM_UP = 50
"""Gradient steps in which the rate rises."""


def make_optimizers(
    dynamics: Dynamics, config: DynamicsTrainingConfig
) -> list[torch.optim.Optimizer]:
    """Build Muon (https://kellerjordan.github.io/posts/muon/) and AdamW for a network.

    Muon multiplies in the precision of the network's own matrix products.
    """
    transformers = [dynamics.transformer]
    if dynamics.config.goal_horizon:
        transformers.append(dynamics.proposer.transformer)
    matrices = [
        p
        for transformer in transformers
        for p in transformer.blocks.parameters()
        if p.requires_grad and p.ndim == 2
    ]
    chosen = {id(p) for p in matrices}
    others = [p for p in dynamics.parameters() if p.requires_grad and id(p) not in chosen]
    rate, decay = config.learning_rate, config.weight_decay
    precision = resolve_precision(dynamics.config.precision, dynamics.device)
    muon = (
        Float32Muon(matrices, lr=rate, weight_decay=decay)
        if precision == torch.float32
        else torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    )
    return [
        muon,
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=decay, fused=True),
    ]


def rate_factor(index: int, total: int, final: float) -> float:
    """Give the rate of gradient step `index` of `total`: it warms up, then falls to `final`."""
    warm_up = max(1, min(_WARM_UP, total // 10))
    if index < warm_up:
        return (index + 1) / warm_up
    progress = (index - warm_up) / max(1, total - warm_up)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

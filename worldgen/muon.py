"""Muon where the processor has no bfloat16.

Classes:
    Float32Muon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Float32Muon"]


class Float32Muon(torch.optim.Muon):
    """`torch.optim.Muon` with its matrix products in float32: settings and state are the same.

    torch's own multiplies in bfloat16 whatever the processor: on one that does not have it, that
    took three quarters of a gradient step (docs/decisions/0030).
    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; the factor of the learning
    rate is "match_rms_adamw", https://arxiv.org/abs/2502.16982.

    Args:
        matrices: What is trained, each (rows, columns).
        lr: Learning rate.
        weight_decay: Decoupled, in units of the learning rate.
    """

    def __init__(self, matrices: Iterable[Tensor], *, lr: float, weight_decay: float) -> None:
        super().__init__(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move each matrix that has a gradient; gives what `closure` gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._move(matrix, matrix.grad, group)
        return loss

    def _move(self, matrix: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(average, group["momentum"]) if group["nesterov"] else average
        orthogonal = _orthogonalise(
            update, group["ns_coefficients"], group["ns_steps"], group["eps"]
        )
        rate = group["lr"]
        matrix.mul_(1 - rate * group["weight_decay"])
        matrix.add_(orthogonal, alpha=-rate * 0.2 * max(matrix.shape) ** 0.5)


def _orthogonalise(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Bring all singular values near 1 (mostly between 0.7 and 1.2) by Newton-Schulz iterations."""
    linear, cubic, quintic = coefficients
    is_tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.mT if is_tall else matrix
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.mT
        odd = torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic)
        wide = torch.addmm(wide, odd, wide, beta=linear)
    return wide.mT if is_tall else wide

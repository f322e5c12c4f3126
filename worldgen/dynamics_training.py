"""Training of the dynamics on windows of tokenized episodes.

Classes:
    DynamicsTrainingConfig, DynamicsTrainer.

Functions:
    dynamics_loss: the loss of one batch, a pure function of prediction and target.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from worldgen.config import Config, require
from worldgen.data.token_dataset import TokenDataset, Windows
from worldgen.diffusion.masked_diffusion import mask_tokens
from worldgen.dynamics import Dynamics, Prediction
from worldgen.errors import TrainingError
from worldgen.two_hot import TwoHot

__all__ = ["DynamicsTrainingConfig", "dynamics_loss", "train_dynamics"]


@dataclass(frozen=True, kw_only=True)
class DynamicsTrainingConfig(Config):
    """How the dynamics learn."""

    gradient_steps: int = 2000
    """Of one call of `fit`."""
    batch_size: int = 8
    """B, windows a gradient step."""
    window: int = 0
    """T, frames of a window; 0 means 2 C, so that all of a context has a past of its own."""
    learning_rate: float = 2e-3
    """Peak of AdamW's rate; it warms up and falls along a cosine in each call of `fit`."""
    final_rate: float = 0.05
    """Rate at the end, as a share of the peak."""
    weight_decay: float = 0.01
    """Of AdamW."""
    max_gradient_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    event_share: float = 0.25
    """Share of windows placed around rewarding or terminating transitions."""
    full_mask_share: float = 0.75
    """Share of frames that are masked whole."""
    corrupted_share: float = 0.03
    """Mean share of past tokens replaced by tokens of other frames, so that dreams survive
    their own mistakes."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("gradient_steps", "window"):
            require(getattr(self, name) >= 0, name, "be at least 0", getattr(self, name))
        require(self.window != 1, "window", "be 0 or at least 2", self.window)
        require(self.batch_size >= 1, "batch_size", "be at least 1", self.batch_size)
        require(self.learning_rate > 0, "learning_rate", "be over 0", self.learning_rate)
        for name in ("event_share", "full_mask_share", "corrupted_share", "final_rate"):
            value = getattr(self, name)
            require(0 <= value <= 1, name, "be in [0, 1]", value)


@dataclass(frozen=True)
class DynamicsLoss:
    """Parts of the loss, scalars; `total` is what is minimised."""

    tokens: Tensor
    """Cross-entropy of masked tokens, in nats a token."""
    reward: Tensor
    """Cross-entropy of the reward's bins, in nats a transition."""
    termination: Tensor
    """Binary cross-entropy, in nats a transition."""

    @property
    def total(self) -> Tensor:
        """Sum of the parts."""
        return self.tokens + self.reward + self.termination


def dynamics_loss(
    prediction: Prediction, windows: Windows, masked: Tensor, two_hot: TwoHot
) -> DynamicsLoss:
    """Score predictions of frames 1..T-1.

    Args:
        prediction: Leading dimensions (B, T - 1).
        windows: The targets, T frames.
        masked: (B, T - 1, K) bool, the tokens to score.
        two_hot: Of the reward head.
    """
    valid = windows.valid[:, 1:]
    scored = masked & valid.unsqueeze(-1)
    cross_entropy = functional.cross_entropy(
        prediction.token_logits.float().flatten(0, 2),
        windows.tokens[:, 1:].flatten(),
        reduction="none",
    ).view_as(scored)
    reward = -(
        two_hot.encode(windows.rewards[:, 1:]) * prediction.reward_logits.float().log_softmax(-1)
    ).sum(-1)
    termination = functional.binary_cross_entropy_with_logits(
        prediction.termination_logits.float(),
        windows.terminated[:, 1:].float(),
        reduction="none",
    )
    return DynamicsLoss(
        _masked_mean(cross_entropy, scored),
        _masked_mean(reward, valid),
        _masked_mean(termination, valid),
    )


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)


def train_dynamics(
    dynamics: Dynamics,
    dataset: TokenDataset,
    config: DynamicsTrainingConfig,
    gradient_steps: int,
    generator: torch.Generator,
    on_gradient_step: Callable[[dict[str, float]], None],
) -> dict[str, float]:
    """Train for some gradient steps, in place.

    Args:
        dynamics: The network.
        dataset: Where windows are drawn from.
        config: How.
        gradient_steps: How many.
        generator: Of windows, masks and corruption; on the network's device.
        on_gradient_step: Called with the losses after each gradient step.

    Returns:
        Mean losses over the last tenth of the gradient steps.

    Raises:
        TrainingError: If the loss is not finite.
    """
    parameters = [p for p in dynamics.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda index: _rate(index, gradient_steps, config.final_rate)
    )
    history: list[dict[str, float]] = []
    dynamics.train()
    for _ in range(gradient_steps):
        losses = _gradient_step(dynamics, dataset, config, optimizer, parameters, generator)
        schedule.step()
        history.append(losses)
        on_gradient_step(losses)
    dynamics.eval()
    tail = history[-max(1, gradient_steps // 10) :]
    return {name: sum(x[name] for x in tail) / len(tail) for name in (tail[0] if tail else {})}


def _rate(index: int, total: int, final: float) -> float:
    warm_up = max(1, min(50, total // 10))
    if index < warm_up:
        return (index + 1) / warm_up
    progress = (index - warm_up) / max(1, total - warm_up)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def _gradient_step(
    dynamics: Dynamics,
    dataset: TokenDataset,
    config: DynamicsTrainingConfig,
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    generator: torch.Generator,
) -> dict[str, float]:
    length = config.window or 2 * dynamics.config.context
    windows = dataset.sample_windows(
        config.batch_size, length, event_share=config.event_share, generator=generator
    )
    shape = (config.batch_size, length - 1, dynamics.num_tokens)
    masked = mask_tokens(shape, config.full_mask_share, generator)
    past = _corrupt(windows.tokens, config.corrupted_share, generator)
    prediction = dynamics(windows, past, masked)
    loss = dynamics_loss(prediction, windows, masked, dynamics.two_hot)
    values = torch.stack([loss.tokens, loss.reward, loss.termination]).detach().tolist()
    if not all(math.isfinite(value) for value in values):
        raise TrainingError(
            f"the dynamics' loss must stay finite, got {values}: lower `learning_rate` or check "
            "the rewards; the weights before this gradient step are kept"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.total.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(parameters, config.max_gradient_norm)
    optimizer.step()
    return dict(zip(("token_loss", "reward_loss", "termination_loss"), values, strict=True))


def _corrupt(tokens: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Replace some tokens by those of another window; half of the windows are left clean."""
    batch, device = len(tokens), tokens.device
    strength = torch.rand(batch, 1, 1, generator=generator, device=device)
    rate = 4 * share * (strength - 0.5).clamp(min=0) * 2
    chosen = torch.rand(tokens.shape, generator=generator, device=device) < rate
    other = tokens[torch.randperm(batch, generator=generator, device=device)]
    return torch.where(chosen, other, tokens)

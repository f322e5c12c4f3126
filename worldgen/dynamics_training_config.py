"""How the dynamics learn.

Classes:
    DynamicsTrainingConfig.
"""

from __future__ import annotations

from dataclasses import dataclass

from worldgen.config import Config, require

__all__ = ["DynamicsTrainingConfig"]


@dataclass(frozen=True, kw_only=True)
class DynamicsTrainingConfig(Config):
    """How the dynamics learn."""

    gradient_steps: int = 2000
    """Of one call of `fit`."""
    batch_size: int = 8
    """B, windows a gradient step."""
    window: int = 0
    """T, frames of a window; 0 means C and half of it, so that most frames have their whole
    context, and the earlier ones stand for the beginning of an episode."""
    learning_rate: float = 2e-3
    """Peak of the rate; it warms up and falls along a cosine in each call of `fit`."""
    final_rate: float = 0.05
    """Rate at the end, as a share of the peak."""
    weight_decay: float = 0.01
    """Decoupled from the gradient."""
    max_gradient_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    ema_decay: float = 0.995
    """Of the moving average of the weights, which is what a fit leaves behind."""
    event_share: float = 0.25
    """Share of windows placed around rewarding or terminating transitions. Of windows of fewer than
    five transitions it is a smaller one, in proportion: events are to be seen often, not to be
    expected everywhere."""
    hard_share: float = 0.5
    """Share of windows placed around transitions whose loss was high when last seen."""
    draft_share: float = 0.25
    """Share of windows in which partly known next frames are refined as well, as in the second
    and further denoising passes."""
    unseen_share: float = 0.5
    """Share of windows with frames that the network does not see, where two frames may be in
    flight; these windows have no drafts."""
    log_sigma_mean: float = 0.0
    """Gaussian diffusion: mean of the logarithm of the drafts' noise levels (EDM: -1.2)."""
    log_sigma_std: float = 1.2
    """Gaussian diffusion: its standard deviation."""
    action_share: float = 1.0
    """Windows from which choosing actions is learned, where `DynamicsConfig.goal_horizon` asks
    for it, as a share of the batch; at least 0. They are drawn for it alone, each as likely."""
    return_share: float = 0.3
    """Share of the actions learned in view of a return; the others are in view of a goal."""
    dropped_share: float = 0.15
    """Share of the actions learned in view of nothing, for guidance (Ho and Salimans: 0.1 to
    0.2)."""
    corrupted_share: float = 0.0
    """Mean share of past tokens replaced by tokens of other frames, meant to let dreams survive
    their own mistakes; all dreams that were measured got worse by it (docs/decisions/0020)."""
    compiled: bool = False
    """Whether the network's layers go through `torch.compile`: gradient steps of the default size
    are 1.3 times as fast on two CPU cores, after a minute of compiling, once a process (seconds
    where torch's cache has it already). On a CPU that takes a C++ compiler."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("gradient_steps", "window"):
            require(getattr(self, name) >= 0, name, "be at least 0", getattr(self, name))
        require(self.window != 1, "window", "be 0 or at least 2", self.window)
        require(self.batch_size >= 1, "batch_size", "be at least 1", self.batch_size)
        require(self.action_share >= 0, "action_share", "be at least 0", self.action_share)
        require(self.log_sigma_std > 0, "log_sigma_std", "be over 0", self.log_sigma_std)
        require(self.learning_rate > 0, "learning_rate", "be over 0", self.learning_rate)
        require(0 <= self.ema_decay < 1, "ema_decay", "be in [0, 1)", self.ema_decay)
        for name in (
            "event_share",
            "hard_share",
            "draft_share",
            "unseen_share",
            "return_share",
            "dropped_share",
            "corrupted_share",
            "final_rate",
        ):
            value = getattr(self, name)
            require(0 <= value <= 1, name, "be in [0, 1]", value)
        share = self.event_share + self.hard_share
        require(share <= 1, "event_share + hard_share", "be at most 1", share)

"""The losses of the dynamics, pure functions of prediction and target.

Classes:
    DynamicsLoss.

Functions:
    dynamics_loss: the loss of one batch.
    denoising_loss: its part for drafts in Gaussian diffusion.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from worldgen.data.token_dataset import Windows
from worldgen.diffusion.gaussian_diffusion import loss_weight
from worldgen.dynamics import Dynamics, NoisyPoints, PointPrediction, Prediction
from worldgen.two_hot import TwoHot

__all__ = ["DynamicsLoss", "denoising_loss", "dynamics_loss"]


@dataclass(frozen=True)
class DynamicsLoss:
    """Parts of the loss, scalars; `total` is what is minimised."""

    tokens: Tensor
    """Cross-entropy of the tokens from a next frame that is all masked, in nats a token."""
    drafts: Tensor
    """Cross-entropy of the masked tokens of drafts, in nats a token; in Gaussian diffusion the
    weighted squared error of their points."""
    reward: Tensor
    """Cross-entropy of the reward's bins, in nats a transition."""
    termination: Tensor
    """Binary cross-entropy, in nats a transition."""
    transitions: Tensor
    """(B, T - 1) float32: tokens, summed, and termination of each transition. The reward is left
    out: its size may depend on what no observation shows, and would then never be learned."""

    actions: Tensor | None = None
    """Cross-entropy of actions, in nats an action; None where none are learned."""

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The parts that there are."""
        known = (self.tokens, self.drafts, self.reward, self.termination)
        return known if self.actions is None else (*known, self.actions)

    @property
    def total(self) -> Tensor:
        """Sum of the parts."""
        total, *rest = self.parts
        for part in rest:
            total = total + part
        return total


def dynamics_loss(
    first: Prediction,
    drafts: Prediction | None,
    windows: Windows,
    masked: Tensor | None,
    two_hot: TwoHot,
) -> DynamicsLoss:
    """Score predictions of frames 1..T-1.

    Means are over all places, those with nothing to predict (an episode's first frames) counting
    as 0: so a batch's loss is the mean of the losses of its parts.

    Args:
        first: (B, T - 1), of the first pass.
        drafts: (R, T - 1), of drafts of the first R windows.
        windows: The targets, B windows of T frames.
        masked: (R, T - 1, K) bool, the tokens of the drafts to score.
        two_hot: Of the reward head.
    """
    follows = windows.follows
    tokens = _cross_entropy(first, windows.tokens[:, 1:])
    reward, termination = _outcome_losses(first, windows, two_hot)
    transitions = tokens.sum(-1) + termination
    made = tokens.new_zeros(())
    if drafts is not None and masked is not None:
        part = windows.rows(slice(len(masked)))
        scored = masked & part.follows.unsqueeze(-1)
        by_token = _cross_entropy(drafts, part.tokens[:, 1:]) * scored
        # A mean over the masked tokens of each frame, whatever their number.
        by_frame = by_token.sum(-1) / masked.sum(-1)
        outcomes = sum(_outcome_losses(drafts, part, two_hot))
        by_window = (by_frame + outcomes * part.follows).mean(1)
        made = by_window.sum() / len(follows)
    return DynamicsLoss(
        (tokens.mean(-1) * follows).mean(),
        made,
        (reward * follows).mean(),
        (termination * follows).mean(),
        (transitions * follows).detach(),
    )


def denoising_loss(
    drafts: PointPrediction, windows: Windows, noisy: NoisyPoints, dynamics: Dynamics, batch: int
) -> Tensor:
    """Score denoised points of the first R windows of a batch, with reward and termination.

    Eq. 2 of EDM with the weight of its Table 1; a mean over a frame's live entries.

    Args:
        drafts: (R, T - 1).
        windows: The targets, B windows of T frames.
        noisy: (R, T - 1), what the drafts were made of.
        dynamics: Knows the points.
        batch: B.
    """
    part = windows.rows(slice(len(noisy.sigma)))
    error = (drafts.denoised - dynamics.points_of(part.tokens[:, 1:])).square()
    # Each position weighs the same, however many entries of its points are live.
    by_frame = (error.sum(-1) / dynamics.code_space.live.sum(-1).clamp(min=1)).mean(-1)
    outcomes = sum(_outcome_losses(drafts, part, dynamics.two_hot))
    by_window = ((by_frame * loss_weight(noisy.sigma) + outcomes) * part.follows).mean(1)
    return by_window.sum() / batch


def _cross_entropy(prediction: Prediction, tokens: Tensor) -> Tensor:
    return functional.cross_entropy(
        prediction.token_logits.float().flatten(0, 2), tokens.flatten(), reduction="none"
    ).view(tokens.shape)


def _outcome_losses(
    prediction: Prediction | PointPrediction, windows: Windows, two_hot: TwoHot
) -> tuple[Tensor, Tensor]:
    """Losses of reward and termination, (B, T - 1) each."""
    reward = -(
        two_hot.encode(windows.rewards[:, 1:]) * prediction.reward_logits.float().log_softmax(-1)
    ).sum(-1)
    termination = functional.binary_cross_entropy_with_logits(
        prediction.termination_logits.float(),
        windows.terminated[:, 1:].float(),
        reduction="none",
    )
    return reward, termination

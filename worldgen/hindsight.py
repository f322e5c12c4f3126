"""Aims that what was really done has reached: what choosing actions is learned from.

Classes:
    AimedWindows: windows, and an aim for the action of each of their frames.

Functions:
    draw_aims: relabel the frames of windows.
    action_loss: the loss of the actions' scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from worldgen.action_proposer import GOAL, NOTHING, RETURN, Aim
from worldgen.data.token_dataset import TokenDataset, Windows

__all__ = ["AimedWindows", "action_loss", "draw_aims"]


@dataclass(frozen=True)
class AimedWindows:
    """B windows of T frames, and aims of the actions taken in frames 0..T-2."""

    windows: Windows
    past: Tensor
    """(B, T, K), the tokens that the network sees (may be corrupted)."""
    aim: Aim
    """(B, T - 1)."""
    known: Tensor
    """(B, T - 1) bool: there is an action, and it is known whether the aim came true."""

    def rows(self, rows: slice) -> AimedWindows | None:
        """Choose every n-th window; None if there is none."""
        if not len(self.known[rows]):
            return None
        return AimedWindows(
            self.windows.rows(rows), self.past[rows], self.aim.rows(rows), self.known[rows]
        )


def draw_aims(
    dataset: TokenDataset,
    windows: Windows,
    horizon: int,
    shares: tuple[float, float],
    generator: torch.Generator,
) -> tuple[Aim, Tensor]:
    """Draw an aim for the action of each of the frames 0..T-2, out of what came after it.

    The number m of steps left is drawn from 1 to `horizon`. A goal is the frame k steps later, k
    drawn from 1 to m: so an action's probability grows with how often the goal is seen in the next
    m environment steps, and sooner is better. A return is the sum of the next m rewards.

    Aims of which the episode does not say whether they came true are not learned from, rather
    than replaced by others, which would prefer actions that end episodes. The aim "nothing" is
    always known.

    Args:
        dataset: Where the windows were drawn from.
        windows: B windows of T frames.
        horizon: N.
        shares: Of nothing among all, and of returns among the rest.
        generator: On the dataset's device.

    Returns:
        The aims and whether they are known, (B, T - 1) each.
    """
    index = windows.index[:, :-1]
    device, shape = index.device, index.shape
    dropped, returns = shares
    uniform = torch.rand((3, *shape), generator=generator, device=device, dtype=torch.float64)
    kind = torch.where(uniform[0] < dropped + (1 - dropped) * returns, RETURN, GOAL)
    kind = torch.where(uniform[0] < dropped, NOTHING, kind)
    steps_left = 1 + (uniform[1] * horizon).long()
    ahead = 1 + (uniform[2] * steps_left).long()
    left = dataset.frames_left(index)
    goal = dataset.tokens[index + torch.minimum(ahead, left)]
    paid = _sum_of_rewards(dataset, index, torch.minimum(steps_left, left), horizon)
    whole = (steps_left <= left) | dataset.terminated[index + left]
    known = (kind == NOTHING) | torch.where(kind == GOAL, ahead <= left, whole)
    return Aim(kind, goal, paid, steps_left), known & windows.follows


def _sum_of_rewards(dataset: TokenDataset, index: Tensor, steps: Tensor, most: int) -> Tensor:
    """Sum the rewards of so many environment steps after each frame."""
    after = torch.arange(1, most + 1, device=index.device)
    later = (index.unsqueeze(-1) + after).clamp(max=dataset.num_frames - 1)
    return (dataset.rewards[later] * (after <= steps.unsqueeze(-1))).sum(-1)


def action_loss(logits: Tensor, choices: Tensor, known: Tensor) -> Tensor:
    """Score actions: nats an action, summed over the windows, a mean over their frames.

    Args:
        logits: (B, T - 1, A, n).
        choices: (B, T - 1, A) int64, what was done.
        known: (B, T - 1) bool, frames that count.
    """
    nats = functional.cross_entropy(
        logits.float().flatten(0, -2), choices.flatten(), reduction="none"
    ).view(choices.shape)
    return (nats.sum(-1) * known).mean(1).sum()

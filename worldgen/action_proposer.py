"""Which action leads to a goal, to a return, or is simply likely: learned from what was done.

Classes:
    Aim: what is to come of an action.
    ActionProposer: the network's part that scores actions.

Functions:
    guided: scores with guidance.

Classifier-free guidance: Ho and Salimans 2022, https://arxiv.org/abs/2207.12598. Goals and returns
of what was really done: hindsight relabelling, Andrychowicz et al. 2017,
https://arxiv.org/abs/1707.01495, and return-conditioned behaviour, Chen et al. 2021,
https://arxiv.org/abs/2106.01345.

The proposer has layers of its own. It reads the keys and values that the dynamics' layers make of
the past, and the dynamics' embedding of the frame, but its gradients stop there: what a model
knows of the world does not change with what it learns of actions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from worldgen.transformer import Past, Transformer, TransformerConfig

__all__ = ["GOAL", "NOTHING", "RETURN", "ActionProposer", "Aim", "guided"]

NOTHING, GOAL, RETURN = range(3)
"""Kinds of aims."""


@dataclass(frozen=True)
class Aim:
    """What is to come of the actions of some moments; "..." are leading dimensions."""

    kind: Tensor
    """(...) int64: `NOTHING`, `GOAL` or `RETURN`; the other fields count by it."""
    goal: Tensor
    """(..., K) int64, the tokens of a frame."""
    wanted: Tensor
    """(...) float32, the sum of the rewards of the next `steps_left` environment steps, or of
    those up to the episode's end."""
    steps_left: Tensor
    """(...) int64, at least 1: environment steps in which it is to come."""

    def rows(self, rows: slice | Tensor) -> Aim:
        """Choose some of the moments."""
        return Aim(*(part[rows] for part in vars(self).values()))

    def nothing(self) -> Aim:
        """Give the same moments without an aim."""
        return Aim(torch.full_like(self.kind, NOTHING), *list(vars(self).values())[1:])


def guided(plain: Tensor, aimed: Tensor, weight: float) -> Tensor:
    """Move scores (..., n) away from what is likely anyway, towards what serves the aim.

    Equation 6 of classifier-free guidance, with the weight counted from the unconditional side:
    0 ignores the aim, 1 draws from what was learned, more overstates it.
    """
    # What is impossible has -inf on both sides, and stays so.
    return torch.where(plain.isinf(), plain, plain + weight * (aimed - plain))


class ActionProposer(nn.Module):
    """Score the actions of frames, in view of aims.

    Args:
        config: Size of its transformer, the dynamics' own.
        context: C.
        num_choices: (A,), values of each dimension of an action.
        horizon: N, most environment steps in which an aim is to come.
        num_bins: In which returns are told.
    """

    def __init__(
        self,
        config: TransformerConfig,
        context: int,
        num_choices: tuple[int, ...],
        horizon: int,
        num_bins: int,
    ) -> None:
        super().__init__()
        width = config.width
        self.num_choices, self.horizon = num_choices, horizon
        self.read_goal = nn.Linear(width, width)
        self.read_return = nn.Linear(num_bins, width, bias=False)
        # Nothing, then the steps left until a goal, then those for a return.
        self.read_aim = nn.Embedding(1 + 2 * horizon, width)
        nn.init.normal_(self.read_aim.weight, std=0.5)
        # It walks the path of the network whose past it reads.
        self.transformer = Transformer(replace(config, path_integration=False), context)
        self.head = nn.Linear(width, sum(num_choices))
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def embed(self, frames: Tensor, goals: Tensor, returns: Tensor, aim: Aim) -> Tensor:
        """Add aims to frames whose action is not known.

        Args:
            frames: (..., K + 1, D), what `Dynamics.embed` gave for "no action".
            goals: (..., K, D), embedded tokens of the aims' goals.
            returns: (..., bins), weights of the aims' returns.
            aim: (...).
        """
        has_goal, has_return = aim.kind == GOAL, aim.kind == RETURN
        index = torch.where(has_goal, aim.steps_left, aim.steps_left + self.horizon)
        told = self.read_aim(torch.where(has_goal | has_return, index, 0))
        told = told + self.read_return(returns) * has_return.unsqueeze(-1)
        read = self.read_goal(goals) * has_goal.view(*has_goal.shape, 1, 1)
        result: Tensor = frames + told.unsqueeze(-2) + nn.functional.pad(read, (0, 0, 1, 0))
        return result

    def forward(self, frames: Tensor, past: list[Past], sees: Tensor) -> Tensor:
        """Score the actions of windows of frames.

        Args:
            frames: (B, F, K + 1, D), what `embed` gave.
            past: What `Transformer.read` gave for the same frames; with C = 1 none are needed.
            sees: What `visible_past` gave for them, (B, F, F).

        Returns:
            (B, F, A, n), -inf at choices that a dimension does not have.
        """
        if self.transformer.context == 1:  # A frame sees itself alone.
            hidden, _ = self.transformer.read(frames, sees)
            return self.read_out(hidden)
        itself = torch.eye(frames.shape[1], dtype=torch.bool, device=frames.device)
        # In the past there stands, beside a frame, the action that is to be found.
        past_only = sees & ~itself
        return self.read_out(self.transformer.draft(frames, past, past_only, before_actions=True))

    def read_out(self, hidden: Tensor) -> Tensor:
        """Turn outputs (..., K + 1, D) into scores (..., A, n)."""
        return split_choices(self.head(hidden[..., 0, :]), self.num_choices)


def split_choices(scores: Tensor, num_choices: tuple[int, ...]) -> Tensor:
    """Lay scores (..., sum of choices) out by dimension, (..., A, n), with -inf where none is."""
    widest = max(num_choices)
    parts = torch.split(scores, list(num_choices), -1)
    padded = [
        nn.functional.pad(part, (0, widest - part.shape[-1]), value=-torch.inf) for part in parts
    ]
    return torch.stack(padded, -2)

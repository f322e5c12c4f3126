"""What one gradient step of the dynamics learns from, and the network that takes it.

Classes:
    Batch: windows, drafts, hidden frames and aims.
    OnTensors: the network with its batch as single tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from torch import Tensor, nn

from worldgen.action_proposer import Aim
from worldgen.data.token_dataset import Windows
from worldgen.dynamics import Dynamics, NoisyPoints, PointPrediction, Prediction
from worldgen.hindsight import AimedWindows

__all__ = ["Batch", "OnTensors"]

_WINDOW, _AIM = len(fields(Windows)), len(fields(Aim))


@dataclass(frozen=True)
class Batch:
    """What one gradient step learns from; drafts are of the first R of B windows."""

    windows: Windows
    past: Tensor
    masked: Tensor | None
    noisy: NoisyPoints | None
    unseen: Tensor | None
    aimed: AimedWindows | None
    """Windows of their own, from which choosing actions is learned."""

    def rows(self, rows: slice) -> Batch:
        """Choose every n-th window, with its draft if it has one."""
        return Batch(
            self.windows.rows(rows),
            self.past[rows],
            None if self.masked is None or not len(self.masked[rows]) else self.masked[rows],
            None if self.noisy is None else NoisyPoints(*(part[rows] for part in self.noisy)),
            None if self.unseen is None else self.unseen[rows],
            None if self.aimed is None else self.aimed.rows(rows),
        )

    def tensors(self) -> list[Tensor | None]:
        """Give all that the network needs, as `OnTensors` takes it."""
        points, sigma = self.noisy or (None, None)
        made = [*vars(self.windows).values(), self.past, self.masked, points, sigma, self.unseen]
        if self.aimed is not None:
            aimed = self.aimed
            made += [*vars(aimed.windows).values(), aimed.past, *vars(aimed.aim).values()]
        return made


class OnTensors(nn.Module):
    """The network with its batch as single tensors, as several processes want their inputs.

    Args:
        dynamics: The network.
        compiles: Whether its layers go through `torch.compile`.
    """

    def __init__(self, dynamics: Dynamics, *, compiles: bool = False) -> None:
        super().__init__()
        self.dynamics = dynamics
        self._compiles = compiles

    def forward(
        self, *inputs: Tensor
    ) -> tuple[Prediction, Prediction | PointPrediction | None, Tensor | None]:
        """Predict next frames, those of drafts, and score actions."""
        windows, rest = Windows(*inputs[:_WINDOW]), inputs[_WINDOW:]
        past, masked, points, sigma, unseen = rest[:5]
        noisy = None if points is None else NoisyPoints(points, sigma)
        first, drafts = self.dynamics(windows, past, masked, noisy, unseen, compiles=self._compiles)
        return first, drafts, self._propose(rest[5:])

    def _propose(self, inputs: Sequence[Tensor]) -> Tensor | None:
        if not inputs:
            return None
        windows, past, aim = inputs[:_WINDOW], inputs[_WINDOW], inputs[-_AIM:]
        return self.dynamics.propose(Windows(*windows), past, Aim(*aim))

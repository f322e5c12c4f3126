"""How surprised the dynamics is by what really happened.

Classes:
    Surprise: nats of each transition.
    WindowNats: the same for windows, on the device.

Functions:
    score_windows: windows of frames, each frame given its clean past.
    score_episodes: every transition of tokenized episodes, each once and with its full context.
    context_windows: the windows which cover that.
    first_pass: what the network says of frames of which it knows no token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from worldgen.data.token_dataset import TokenDataset, Windows
from worldgen.diffusion.likelihood import likelihood_bound
from worldgen.dynamics import Dynamics, Prediction
from worldgen.memory import release_memory
from worldgen.progress import Progress

__all__ = [
    "Surprise",
    "WindowNats",
    "context_windows",
    "first_pass",
    "score_episodes",
    "score_windows",
]

_STRIDE = 16
"""New frames of a window; the context before them is read again."""
_WINDOWS = 8
"""Most windows of a pass: few enough for a processor's caches."""
_MOST_LOGITS = 2**24


@dataclass(frozen=True)
class Surprise:
    """Nats of N transitions: minus the logarithm of the probability of what happened."""

    first_pass: np.ndarray
    """(N,) float32, the frame's tokens, each for itself, as the first denoising step says."""
    bound: np.ndarray
    """(N,) float32, the frame's tokens together: at least minus the log of their probability
    where tokens are drawn one by one in a random order."""
    reward: np.ndarray
    """(N,) float32, the reward's bins: 0 for a reward that was foreseen exactly."""
    termination: np.ndarray
    """(N,) float32, whether the episode terminated."""
    num_tokens: int
    """K, tokens of a frame."""

    def __len__(self) -> int:
        """Give N."""
        return len(self.bound)

    @property
    def total(self) -> np.ndarray:
        """(N,) float32, bound, reward and termination together."""
        total: np.ndarray = self.bound + self.reward + self.termination
        return total


class WindowNats(NamedTuple):
    """Nats of frames 1..T-1 of B windows; what is not valid means nothing."""

    first_pass: Tensor
    """(B, T - 1) float32."""
    bound: Tensor
    """(B, T - 1) float32."""
    reward: Tensor
    """(B, T - 1) float32."""
    termination: Tensor
    """(B, T - 1) float32."""


@torch.no_grad()
def first_pass(dynamics: Dynamics, windows: Windows) -> Prediction:
    """Predict frames 1..T-1 of windows with all of their tokens masked."""
    prediction, _ = dynamics(windows, windows.tokens)
    return prediction  # type: ignore[no-any-return]


@torch.no_grad()
def score_windows(
    dynamics: Dynamics, windows: Windows, num_samples: int, generator: torch.Generator
) -> WindowNats:
    """Score frames 1..T-1, each given the clean frames and the actions before it.

    Args:
        dynamics: The network.
        windows: B windows of T frames. A frame sees what its window holds of its C predecessors.
        num_samples: Masks a frame, for the bound; a network pass each. With 0, and in Gaussian
            diffusion, which has no masks, the first pass stands for the bound.
        generator: Of the masks.
    """
    targets = windows.tokens[:, 1:]

    prediction = first_pass(dynamics, windows)
    all_masked = _token_nats(prediction.token_logits, targets)
    at_once = all_masked.sum(-1)

    def score(masked: Tensor) -> Tensor:
        _, drafts = dynamics(windows, windows.tokens, masked)
        # A frame that is masked whole is the first pass's: drafts are for what is partly known.
        nats = _token_nats(drafts.token_logits, targets)
        return torch.where(masked.all(-1, keepdim=True), all_masked, nats)

    bound = at_once
    if num_samples and dynamics.config.process == "masked":
        bound = likelihood_bound(score, tuple(targets.shape), num_samples, generator)
    wanted = dynamics.two_hot.encode(windows.rewards[:, 1:])
    said = prediction.reward_logits.float().log_softmax(-1)
    # Less the entropy of the two bins between which a reward lies, which is no surprise.
    reward = functional.kl_div(said, wanted, reduction="none").sum(-1)
    termination = functional.binary_cross_entropy_with_logits(
        prediction.termination_logits.float(), windows.terminated[:, 1:].float(), reduction="none"
    )
    return WindowNats(at_once, bound, reward, termination)


def _token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Give -log p of each target token: (..., K, V), (..., K) -> (..., K)."""
    nats = functional.cross_entropy(
        logits.float().flatten(0, -2), targets.flatten(), reduction="none"
    )
    return nats.view(targets.shape)


def context_windows(dataset: TokenDataset, num_codes: int) -> Iterator[tuple[Windows, Tensor]]:
    """Cut episodes into windows in which every frame but the first of an episode comes up once.

    Args:
        dataset: The episodes.
        num_codes: V of the largest codebook, to keep the batches' logits small.

    Yields:
        B windows of T frames; and (B, T - 1) int64, for each of frames 1..T-1 its index among
        the dataset's frames, or -1 where another window has it with its full context, or it
        lies behind the episode's end.
    """
    context = dataset.context_length
    length = context + _STRIDE
    firsts, begins = _first_frames(dataset, length)
    logits = (length - 1) * dataset.tokens.shape[1] * num_codes  # Of one window.
    rows = max(1, min(_WINDOWS, _MOST_LOGITS // logits))
    later = torch.arange(1, length, device=dataset.tokens.device)
    for first, begin in zip(torch.split(firsts, rows), torch.split(begins, rows), strict=True):
        windows = dataset.windows_at(first, length)
        own = windows.episode[:, 1:] == windows.episode[:, :1]
        wanted = own & (begin.unsqueeze(1) | (later >= context))
        yield windows, torch.where(wanted, windows.index[:, 1:], -1)


def _first_frames(dataset: TokenDataset, length: int) -> tuple[Tensor, Tensor]:
    """Give each window's first frame, and whether it is its episode's first: both (W,)."""
    # The first window brings length - 1 frames that are predicted, each further one _STRIDE.
    further = (dataset.lengths - length).clamp(min=0)
    counts = 1 + (further + _STRIDE - 1) // _STRIDE
    firsts = dataset.first_frames.repeat_interleave(counts)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    number = torch.arange(len(firsts), device=firsts.device) - starts
    return firsts + number * _STRIDE, number == 0


def score_episodes(
    dynamics: Dynamics,
    dataset: TokenDataset,
    num_codes: int,
    num_samples: int,
    generator: torch.Generator,
    bar: Progress,
) -> Surprise:
    """Score every transition of a dataset, in the order of its episodes.

    Args:
        dynamics: The network.
        dataset: The episodes.
        num_codes: V, of the largest codebook.
        num_samples: Masks a frame, for the bound.
        generator: Of the masks.
        bar: Is told of each transition.
    """
    parts = [torch.zeros(dataset.num_frames, device=dataset.tokens.device) for _ in range(4)]
    for number, (windows, index) in enumerate(context_windows(dataset, num_codes)):
        if number:
            release_memory()
        nats = score_windows(dynamics, windows, num_samples, generator)
        wanted = index >= 0
        for part, values in zip(parts, nats, strict=True):
            part[index[wanted]] = values[wanted]
        bar.update(int(wanted.sum()))
    is_first = torch.zeros(dataset.num_frames, dtype=torch.bool, device=dataset.tokens.device)
    is_first[dataset.first_frames] = True
    at_once, bound, reward, termination = (part[~is_first].cpu().numpy() for part in parts)
    return Surprise(at_once, bound, reward, termination, dataset.tokens.shape[1])

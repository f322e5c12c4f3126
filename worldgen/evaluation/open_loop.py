"""Dreams that never see a real frame again, beside what really happened.

Classes:
    DreamRecord: of each dream, when it first went wrong and when it ended.
    OpenLoop: makes dreams and takes the record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from worldgen.data.token_dataset import TokenDataset
from worldgen.evaluation.comparison import Comparison, frame_right
from worldgen.evaluation.events import rewards_right
from worldgen.evaluation.intervals import wilson_interval
from worldgen.evaluation.moments import Starts, Truth
from worldgen.evaluation.report import HorizonFidelity
from worldgen.evaluation.view_tracker import ViewTracker, follow_contexts
from worldgen.imagination import ROWS_AT_ONCE
from worldgen.render import LeafKind

if TYPE_CHECKING:
    from worldgen.imagination import ImaginedStep

__all__ = ["DreamRecord", "OpenLoop", "Step"]

Step = Callable[[np.ndarray], "ImaginedStep"]
"""Dreams on: what actions (B, ...) lead to."""

_NEVER = np.iinfo(np.int64).max // 2


@dataclass(frozen=True)
class DreamRecord:
    """D dreams; environment steps count from 1, `_NEVER` stands for none."""

    wrong: np.ndarray
    """(4, D) the first environment step with a wrong frame, determined part of a frame, reward
    or termination; a wrong reward or termination makes the first two wrong as well."""
    real_end: np.ndarray
    """(D,) when the real episode terminated."""
    said_end: np.ndarray
    """(D,) when the dream first did; dreams go on for one environment step after `needed`."""

    def at(
        self,
        horizon: int,
        used: np.ndarray,
        reached: np.ndarray,
        comparison: Comparison,
        determined: list[np.ndarray] | None,
    ) -> HorizonFidelity:
        """Give the shares over the dreams that are used at a horizon.

        Args:
            horizon: In environment steps.
            used: (D,) bool.
            reached: (D,) bool, whether the real episode goes as far.
            comparison: Of the observations at the horizon.
            determined: Shares of determined cells there; None without a partial view.
        """
        right = self.wrong[:, used] > horizon
        exact, certain, rewards, ends = (_mean(part) for part in right)
        exact = exact if comparison.exact_is_defined else None
        certain = None if determined is None else certain
        count = int(used.sum())
        real, said = self.real_end[used], self.said_end[used]
        ended = real <= horizon
        too_soon = (said <= horizon) & (said < real - 1)
        agreement = comparison.agreement()
        return HorizonFidelity(
            horizon=horizon,
            num_dreams=count,
            num_reached=int((used & reached).sum()),
            exact=exact,
            exact_interval=_interval(exact, count),
            determined_exact=certain,
            determined_interval=_interval(certain, count),
            determined_share=_share(determined or []),
            rewards=rewards,
            terminations=ends,
            num_ended=int(ended.sum()),
            end_timing=_mean((np.abs(said - real) <= 1)[ended]),
            false_ends=_mean(too_soon[~ended]),
            agreement=agreement,
        )


class OpenLoop:
    """Dream along real episodes.

    Args:
        truth: The real episodes.
        dataset: The same, as tokens.
        kinds: Path -> how the leaf is compared.
        threshold: Of the rewards.
        view: Path of MiniGrid's partial view, or None.
        begin: Starts dreams at frames (B,).
        decode: Tokens to flat observations.
    """

    def __init__(
        self,
        truth: Truth,
        dataset: TokenDataset,
        kinds: Mapping[str, LeafKind],
        threshold: float,
        view: str | None,
        begin: Callable[[np.ndarray], Step],
        decode: Callable[[torch.Tensor], dict[str, np.ndarray]],
    ) -> None:
        self._truth, self._kinds, self._threshold, self._view = truth, kinds, threshold, view
        self._context = dataset.context_length
        self._begin, self._decode = begin, decode

    @staticmethod
    def num_steps(starts: Starts) -> int:
        """Say how many environment steps `run` will imagine."""
        batches = np.split(starts.needed, range(ROWS_AT_ONCE, len(starts.needed), ROWS_AT_ONCE))
        return sum(len(batch) * (int(batch.max()) + 1) for batch in batches if len(batch))

    def run(
        self, starts: Starts, on_steps: Callable[[int], None] = lambda _: None
    ) -> tuple[HorizonFidelity, ...]:
        """Dream from all starts; `on_steps` is told how many environment steps were imagined."""
        count, truth = len(starts.frames), self._truth
        left = truth.last[starts.frames] - starts.frames
        real_end = np.where(truth.known_end[starts.frames], left, _NEVER)
        record = DreamRecord(np.full((4, count), _NEVER), real_end, np.full(count, _NEVER))
        comparisons = {horizon: Comparison(self._kinds) for horizon in starts.used}
        shares: dict[int, list[np.ndarray]] = {horizon: [] for horizon in starts.used}
        for first in range(0, count, ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
            self._dream(starts, rows, record, comparisons, shares, on_steps)
        return tuple(
            record.at(
                horizon,
                used,
                left >= horizon,
                comparisons[horizon],
                shares[horizon] if self._view else None,
            )
            for horizon, used in starts.used.items()
        )

    def _dream(
        self,
        starts: Starts,
        rows: slice,
        record: DreamRecord,
        comparisons: Mapping[int, Comparison],
        shares: Mapping[int, list[np.ndarray]],
        on_steps: Callable[[int], None],
    ) -> None:
        frames, longest = starts.frames[rows], int(starts.needed[rows].max())
        dream_on = self._begin(frames)
        judge = _Judge(self._truth, frames, self._kinds, self._threshold)
        tracker = self._tracker(frames, longest) if self._view else None
        # One environment step more, for ends that are predicted just behind the last horizon.
        for step in range(1, longest + 2):
            index = np.minimum(frames + step, self._truth.last[frames])
            imagined = dream_on(self._truth.actions[index])
            said = imagined.terminated.cpu().numpy()
            _first(record.said_end[rows], said, step)
            on_steps(len(frames))
            if step > longest:
                break
            predicted = self._decode(imagined.tokens)
            found = judge.wrong(step, predicted, imagined.reward.cpu().numpy(), said)
            determined = None
            if tracker is not None and self._view is not None:
                determined = judge.determined(step, predicted, self._view, tracker, found)
            for wrong, now in zip(record.wrong[:, rows], found, strict=True):
                _first(wrong, now, step)
            if step in comparisons:
                chosen = starts.used[step][rows] & judge.reached(step)
                real = self._truth.at(index[chosen])
                comparisons[step].add({p: v[chosen] for p, v in predicted.items()}, real)
                if determined is not None:
                    shares[step].append(determined[chosen])

    def _tracker(self, frames: np.ndarray, longest: int) -> ViewTracker:
        """Follow the agents through their contexts."""
        truth, path = self._truth, self._view
        assert path is not None
        return follow_contexts(
            truth.observations[path], truth.actions, truth.frame, frames, self._context, longest
        )


class _Judge:
    """Says of a batch of dreams what is wrong at each environment step."""

    def __init__(
        self,
        truth: Truth,
        frames: np.ndarray,
        kinds: Mapping[str, LeafKind],
        threshold: float,
    ) -> None:
        self._truth, self._frames = truth, frames
        self._kinds, self._threshold = kinds, threshold

    def reached(self, step: int) -> np.ndarray:
        reached: np.ndarray = self._frames + step <= self._truth.last[self._frames]
        return reached

    def _index(self, step: int) -> np.ndarray:
        index: np.ndarray = np.minimum(self._frames + step, self._truth.last[self._frames])
        return index

    def wrong(
        self, step: int, predicted: Mapping[str, np.ndarray], reward: np.ndarray, ended: np.ndarray
    ) -> np.ndarray:
        """Give (4, B) bool as in `DreamRecord.wrong`; the second row is not filled yet."""
        index, reached = self._index(step), self.reached(step)
        right = frame_right(self._kinds, predicted, self._truth.at(index))
        paid = rewards_right(reward, self._truth.rewards[index], self._threshold)
        ends = ended == self._truth.terminated[index]
        frame = paid & ends & (True if right is None else right)
        found: np.ndarray = ~np.stack([frame, np.ones_like(frame), paid, ends]) & reached
        return found

    def determined(
        self,
        step: int,
        predicted: Mapping[str, np.ndarray],
        view: str,
        tracker: ViewTracker,
        found: np.ndarray,
    ) -> np.ndarray:
        """Fill the second row of `found`; give the share of determined cells, (B,)."""
        index = self._index(step)
        real = self._truth.at(index)
        tracker.act(self._truth.actions[index])
        said = tracker.expected()
        # What is otherwise than MiniGrid's rules say moved by itself, and is not determined.
        determined = said.determined & (said.cells == real[view]).all(-1)
        right = ((predicted[view] == real[view]).all(-1) | ~determined).all((1, 2))
        others = {path: kind for path, kind in self._kinds.items() if path != view}
        rest = frame_right(others, predicted, real) if others else None
        if rest is not None:
            right &= rest | said.lost
        right &= ~((found[2] | found[3]) & said.outcome)
        found[1] = ~right & self.reached(step)
        share: np.ndarray = determined.mean((1, 2))
        return share


def _first(steps: np.ndarray, happened: np.ndarray, step: int) -> None:
    """Note the environment step where something happened for the first time."""
    steps[happened & (steps == _NEVER)] = step


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _interval(share: float | None, count: int) -> list[float] | None:
    return None if share is None else list(wilson_interval(share, count))


def _share(parts: list[np.ndarray]) -> float | None:
    return _mean(np.concatenate(parts)) if parts else None

"""How often dreams are right, on held-out episodes.

Functions:
    evaluate: open-loop dreams, one-step events and the tokenizer's ceiling in one report.

No wall time enters a report: equal seeds give equal reports.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from worldgen.config import require
from worldgen.data.token_dataset import TokenDataset
from worldgen.errors import DatasetError
from worldgen.evaluation.comparison import Comparison, Truth, frame_right, leaf_kinds
from worldgen.evaluation.report import (
    Agreement,
    EventFidelity,
    FidelityReport,
    HorizonFidelity,
)
from worldgen.progress import Progress
from worldgen.seeding import derived_seed
from worldgen.spaces import flatten

if TYPE_CHECKING:
    from worldgen.data.episodes import Episodes
    from worldgen.diffusion.sampler_config import SamplerConfig
    from worldgen.imagination import Imagination
    from worldgen.world_model import WorldModel

__all__ = ["FidelityReport", "evaluate", "reward_threshold", "rewards_right"]

_ROWS = 256
_MOST_FRAMES = 4096
_MOST_EVENTS = 4096
_OTHERS_PER_DREAM = 4


def evaluate(
    model: WorldModel,
    held_out: Episodes,
    *,
    horizons: Sequence[int] = (1, 5, 10, 15, 30),
    num_dreams: int = 256,
    sampler: SamplerConfig | None = None,
    seed: int = 0,
    progress: bool = True,
) -> FidelityReport:
    """Measure a world model on episodes that it was not trained on.

    *Open loop*: each dream starts at a random moment of a real episode, with that moment's real
    context, and is given the actions that were really taken; it never sees a real frame again.
    A dream counts as far as its real episode goes: behind a real termination there is nothing
    left to get wrong. Moments whose future is unknown, because a time limit or the end of
    the collection cuts the episode within the longest horizon, are used only where there are
    no others.

    A horizon that no real stretch reaches is left out of the report.

    A predicted reward is right when it is nearer to the real one than to 0; where the real one
    is 0, when it is at most half the median magnitude of the nonzero real rewards.

    *Events*: from real contexts, one step. A termination counts when its probability is over
    one half. All real events are asked (up to 4,096 of a kind), and a sample
    of the other transitions, weighted to stand for all of them.

    Args:
        model: Trained.
        held_out: Its environment's episodes.
        horizons: In environment steps.
        num_dreams: Most open-loop dreams; there is one a moment of the episodes at most.
        sampler: How frames are sampled; the model's own by default.
        seed: Of moments and draws.
        progress: Show a progress bar.

    Raises:
        ConfigError: If a horizon or `num_dreams` is below 1.
        SpaceError: If the episodes do not fit the model.
        DatasetError: If there is no episode.
    """
    horizons = tuple(sorted(set(horizons)))
    require(bool(horizons) and horizons[0] >= 1, "horizons", "all be at least 1", horizons)
    require(num_dreams >= 1, "num_dreams", "be at least 1", num_dreams)
    if not len(held_out):
        raise DatasetError("`held_out` must hold at least one episode, got none")
    model.check_compatible(held_out.observation_space, held_out.action_space)
    return _Evaluation(model, held_out, sampler, seed).run(horizons, num_dreams, progress)


def reward_threshold(rewards: np.ndarray) -> float:
    """Half the median magnitude of the nonzero rewards; 0.5 where all are zero.

    >>> reward_threshold(np.array([0.0, 0.0, 1.0, -1.0]))
    0.5
    """
    magnitudes = np.abs(rewards[rewards != 0])
    return float(np.median(magnitudes)) / 2 if len(magnitudes) else 0.5


def rewards_right(predicted: np.ndarray, real: np.ndarray, threshold: float) -> np.ndarray:
    """Say which predicted rewards are nearer to the real one than to 0, or near 0 like it.

    >>> rewards_right(np.array([0.4, 0.6, -0.6, 0.1]), np.array([1.0, 1.0, 1.0, 0.0]), 0.5)
    array([False,  True, False,  True])
    """
    same = (np.sign(predicted) == np.sign(real)) & (np.abs(predicted) > np.abs(real) / 2)
    right: np.ndarray = np.where(real != 0, same, np.abs(predicted) <= threshold)
    return right


class _Evaluation:
    def __init__(
        self, model: WorldModel, held_out: Episodes, sampler: SamplerConfig | None, seed: int
    ) -> None:
        self.model, self.sampler, self.seed = model, sampler, seed
        self.num_episodes = len(held_out)
        self.truth = Truth(held_out)
        self.dataset: TokenDataset = model.dataset(held_out)
        self.kinds = leaf_kinds(model.observation_space, model.tokenizer.config.modalities)
        self.threshold = reward_threshold(self.truth.rewards)
        self.random = np.random.default_rng(seed)
        self.targets = np.flatnonzero(self.truth.frame > 0)

    def run(self, horizons: tuple[int, ...], num_dreams: int, progress: bool) -> FidelityReport:
        starts = self._starts(horizons[-1], num_dreams)
        index, weights = self._transitions(_OTHERS_PER_DREAM * num_dreams)
        total = len(starts) * horizons[-1] + len(index)
        with Progress("evaluate", total, enabled=progress, unit="imagined env steps") as bar:
            reconstruction = self._reconstruction()
            rewarding, terminating = self._events(index, weights, bar)
            entries = self._open_loop(starts, horizons, bar)
        return FidelityReport(
            num_episodes=self.num_episodes,
            num_transitions=len(self.targets),
            num_dreams=len(starts),
            seed=self.seed,
            reward_threshold=self.threshold,
            reconstruction=reconstruction,
            rewarding=rewarding,
            terminating=terminating,
            horizons=entries,
        )

    def _starts(self, longest: int, num_dreams: int) -> np.ndarray:
        """Draw the frames at which dreams begin, each at most once while there are enough."""
        truth = self.truth
        left = truth.last - np.arange(len(truth.last))
        possible = np.flatnonzero(left > 0)
        known = np.flatnonzero((left > 0) & (truth.known_end | (left >= longest)))
        candidates = known if len(known) else possible
        count = min(num_dreams, len(candidates))
        return self.random.choice(candidates, count, replace=False)

    def _transitions(self, num_others: int) -> tuple[np.ndarray, np.ndarray]:
        """Choose transitions for the one-step test, each with the number it stands for."""
        truth = self.truth
        ends = truth.terminated[self.targets]
        pays = truth.rewards[self.targets] != 0
        chosen, weights = [], []
        for stratum, most in (
            (ends, _MOST_EVENTS),
            (pays & ~ends, _MOST_EVENTS),
            (~pays & ~ends, num_others),
        ):
            members = self.targets[stratum]
            sample = self.random.permutation(members)[:most]
            chosen.append(sample)
            weights.append(np.full(len(sample), len(members) / max(len(sample), 1)))
        return np.concatenate(chosen), np.concatenate(weights)

    def _reconstruction(self) -> Agreement:
        frames = np.sort(self.random.permutation(len(self.truth.frame))[:_MOST_FRAMES])
        comparison = Comparison(self.kinds)
        for part in _parts(frames):
            tokens = self.dataset.tokens[torch.from_numpy(part).to(self.dataset.tokens.device)]
            comparison.add(self._decode(tokens), self.truth.at(part))
        return comparison.agreement()

    def _decode(self, tokens: torch.Tensor) -> dict[str, np.ndarray]:
        return flatten(self.model.observation_space, self.model.decode(tokens))

    def _events(
        self, index: np.ndarray, weights: np.ndarray, bar: Progress
    ) -> tuple[EventFidelity, EventFidelity]:
        rewards: list[np.ndarray] = []
        ends: list[np.ndarray] = []
        for part in _parts(index):
            imagination = self._begin(part - 1, "events", len(rewards))
            imagined = imagination.step(self.model.encode_actions(self.truth.actions[part]))
            rewards.append(imagined.reward.cpu().numpy())
            ends.append(imagined.termination_probability.cpu().numpy() > 0.5)
            bar.update(len(part))
        predicted, real = np.concatenate(rewards), self.truth.rewards
        pays = real[index] != 0
        right = rewards_right(predicted, real[index], self.threshold)
        said_to_pay = (np.abs(predicted) > self.threshold) | (pays & right)
        rewarding = _event_fidelity(pays, said_to_pay, right, weights, (real != 0).sum())
        really, said = self.truth.terminated[index], np.concatenate(ends)
        terminating = _event_fidelity(
            really, said, really == said, weights, self.truth.terminated.sum()
        )
        return rewarding, terminating

    def _begin(self, frames: np.ndarray, *purpose: object) -> Imagination:
        """Start an imagination at real frames."""
        context = self.dataset.contexts_at(
            torch.from_numpy(self.truth.episode[frames]), torch.from_numpy(self.truth.frame[frames])
        )
        imagination = self.model.imagination(
            len(frames), sampler=self.sampler, seed=derived_seed(self.seed, *purpose)
        )
        imagination.reset(context)
        return imagination

    def _open_loop(
        self, starts: np.ndarray, horizons: tuple[int, ...], bar: Progress
    ) -> tuple[HorizonFidelity, ...]:
        tallies = {horizon: _Tally(horizon, Comparison(self.kinds)) for horizon in horizons}
        for part in _parts(starts):
            self._dream(part, tallies, bar)
        return tuple(tally.fidelity() for tally in tallies.values() if tally.num_known)

    def _dream(self, starts: np.ndarray, tallies: dict[int, _Tally], bar: Progress) -> None:
        truth = self.truth
        imagination = self._begin(starts, "open loop", int(starts[0]))
        frames_right = all_paid = ends_right = np.ones(len(starts), bool)
        for step in range(1, max(tallies) + 1):
            index = np.minimum(starts + step, truth.last[starts])
            reached = starts + step <= truth.last[starts]
            imagined = imagination.step(self.model.encode_actions(truth.actions[index]))
            observations, real = self._decode(imagined.tokens), truth.at(index)
            reward = imagined.reward.cpu().numpy()
            paid = rewards_right(reward, truth.rewards[index], self.threshold)
            all_paid = all_paid & (~reached | paid)
            said = imagined.terminated.cpu().numpy()
            ends_right = ends_right & (~reached | (said == truth.terminated[index]))
            right = frame_right(self.kinds, observations, real)
            frames_right = frames_right & (~reached | (True if right is None else right))
            if step in tallies:
                known = truth.known_end[starts] | reached
                shares = np.stack([frames_right & all_paid & ends_right, all_paid, ends_right])
                tallies[step].add(shares[:, known], right is not None)
                tallies[step].compare(observations, real, reached)
            bar.update(len(starts))


class _Tally:
    """The dreams at one horizon."""

    def __init__(self, horizon: int, comparison: Comparison) -> None:
        self._horizon, self._comparison = horizon, comparison
        self._rows: list[np.ndarray] = []
        self._has_symbols = False
        self._num_reached = 0

    def add(self, shares: np.ndarray, has_symbols: bool) -> None:
        self._rows.append(shares)
        self._has_symbols = has_symbols

    @property
    def num_known(self) -> int:
        """Dreams whose real future is known as far as this horizon."""
        return sum(rows.shape[1] for rows in self._rows)

    def compare(
        self, observations: dict[str, np.ndarray], real: dict[str, np.ndarray], rows: np.ndarray
    ) -> None:
        self._num_reached += int(rows.sum())
        self._comparison.add(
            {path: values[rows] for path, values in observations.items()},
            {path: values[rows] for path, values in real.items()},
        )

    def fidelity(self) -> HorizonFidelity:
        exact, rewards, ends = np.concatenate(self._rows, axis=1).mean(1)
        return HorizonFidelity(
            horizon=self._horizon,
            exact=float(exact) if self._has_symbols else None,
            rewards=float(rewards),
            terminations=float(ends),
            num_reached=self._num_reached,
            agreement=self._comparison.agreement(),
        )


def _event_fidelity(
    real: np.ndarray, predicted: np.ndarray, right: np.ndarray, weights: np.ndarray, count: int
) -> EventFidelity:
    found = float((weights * (real & predicted & right)).sum())
    num_real, num_predicted = float(weights[real].sum()), float(weights[predicted].sum())
    return EventFidelity(
        num_events=int(count),
        recall=found / num_real if num_real else None,
        precision=found / num_predicted if num_predicted else None,
    )


def _parts(index: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(index), _ROWS):
        yield index[first : first + _ROWS]

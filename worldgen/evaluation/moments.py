"""Which moments of held-out episodes a model is measured at.

Classes:
    Truth: the frames, actions, rewards and ends of episodes in one row.
    Starts: where dreams begin, and which horizons each is for.

Functions:
    choose_starts: for each horizon a fair sample of the moments that are known that far.
    choose_transitions: all events, and a weighted sample of the rest.
    draw_episodes: enough of them for a number of transitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from worldgen.data.episode import Episode

__all__ = ["Starts", "Truth", "choose_starts", "choose_transitions", "draw_episodes"]

_MOST_EVENTS = 4096


class Truth:
    """Episodes laid one after the other; entry n of each array belongs to the step *to* frame n.

    Attributes:
        observations: Path -> (N, ...).
        actions: (N, ...); an episode's first frame repeats its first action.
        rewards: (N,) float32, 0 at first frames.
        terminated: (N,) bool.
        episode: (N,) index of the episode.
        frame: (N,) index within the episode.
        last: (N,) index n of the episode's last frame.
        known_end: (N,) bool, whether the episode ended by termination.
    """

    def __init__(self, episodes: Sequence[Episode]) -> None:
        lengths = np.array([len(episode) + 1 for episode in episodes])
        firsts = lengths.cumsum() - lengths
        self.observations = {
            path: np.concatenate([episode.observations[path] for episode in episodes])
            for path in episodes[0].observations
        }
        self.actions = np.concatenate(
            [np.concatenate([e.actions[:1], e.actions]) for e in episodes]
        )
        self.rewards = np.concatenate([np.append(np.float32(0), e.rewards) for e in episodes])
        self.terminated = np.concatenate([np.append(False, e.terminated) for e in episodes])
        self.episode = np.arange(len(episodes)).repeat(lengths)
        self.frame = np.arange(lengths.sum()) - firsts.repeat(lengths)
        self.last = (firsts + lengths - 1).repeat(lengths)
        self.known_end = self.terminated[self.last]

    def at(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Give the flat observations of some frames."""
        return {path: values[index] for path, values in self.observations.items()}


class Starts(NamedTuple):
    """D dreams, those that go on longest first."""

    frames: np.ndarray
    """(D,) index of the frame at which each dream begins."""
    needed: np.ndarray
    """(D,) environment steps that each goes on for: the longest horizon that it is for, or as
    far as its real episode goes."""
    used: dict[int, np.ndarray]
    """Horizon -> (D,) bool, the dreams that it is measured on."""


def choose_starts(
    truth: Truth, horizons: Sequence[int], num_dreams: int, generator: np.random.Generator
) -> Starts:
    """Draw the moments at which dreams begin.

    Each horizon has its own sample, of up to `num_dreams` of the moments whose future is known
    that far: the episode reaches the horizon, or terminates before. All samples are taken from
    one random order of the moments, so that horizons share what dreams they can.
    """
    left = truth.last - np.arange(len(truth.last))
    order = generator.permutation(np.flatnonzero(left > 0))
    needed = np.zeros(len(truth.last), np.int64)
    chosen = {}
    for horizon in sorted(horizons):
        known = truth.known_end[order] | (left[order] >= horizon)
        chosen[horizon] = order[known][:num_dreams]
        needed[chosen[horizon]] = horizon
    frames = order[needed[order] > 0]
    needed = np.minimum(needed, left)
    frames = frames[np.argsort(-needed[frames], kind="stable")]
    used = {horizon: np.isin(frames, index) for horizon, index in chosen.items()}
    return Starts(frames, needed[frames], used)


def choose_transitions(
    truth: Truth, num_others: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose transitions for the one-step test, each with the number it stands for.

    Args:
        truth: Real episodes.
        num_others: Most transitions that neither reward nor terminate.
        generator: Draws the samples.

    Returns:
        Index of the frames that the transitions lead to, and their weights.
    """
    targets = np.flatnonzero(truth.frame > 0)
    ends, pays = truth.terminated[targets], truth.rewards[targets] != 0
    chosen, weights = [], []
    for stratum, most in (
        (ends, _MOST_EVENTS),
        (pays & ~ends, _MOST_EVENTS),
        (~pays & ~ends, num_others),
    ):
        members = targets[stratum]
        sample = generator.permutation(members)[:most]
        chosen.append(sample)
        weights.append(np.full(len(sample), len(members) / max(len(sample), 1)))
    return np.concatenate(chosen), np.concatenate(weights)


def draw_episodes(
    episodes: Sequence[Episode], num_transitions: int, generator: np.random.Generator
) -> list[Episode]:
    """Draw whole episodes until they hold enough transitions, or there are no more."""
    chosen: list[Episode] = []
    count = 0
    for index in generator.permutation(len(episodes)):
        if count >= num_transitions:
            break
        chosen.append(episodes[int(index)])
        count += len(chosen[-1])
    return chosen

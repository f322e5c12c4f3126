"""How often dreams are right, on held-out episodes.

Classes:
    Measurement: one model, some held-out episodes, and what can be measured of them.

Functions:
    evaluate: open-loop dreams, one-step events, nats of what came next, and the tokenizer's
        ceiling in one report.

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
from worldgen.evaluation.comparison import Comparison, leaf_kinds
from worldgen.evaluation.events import one_step_events, reward_threshold
from worldgen.evaluation.moments import (
    Starts,
    Truth,
    choose_starts,
    choose_transitions,
    draw_episodes,
)
from worldgen.evaluation.open_loop import OpenLoop, Step
from worldgen.evaluation.report import (
    Agreement,
    EventFidelity,
    FidelityReport,
    HorizonFidelity,
    TokenFidelity,
)
from worldgen.evaluation.view_tracker import tracked_view
from worldgen.imagination import ROWS_AT_ONCE, ImaginedStep, batches
from worldgen.memory import release_memory
from worldgen.progress import Progress
from worldgen.seeding import derived_seed
from worldgen.spaces import flatten, leaves

if TYPE_CHECKING:
    from worldgen.data.episodes import Episodes
    from worldgen.diffusion.sampler_config import SamplerConfig
    from worldgen.world_model import WorldModel

__all__ = ["HORIZONS", "FidelityReport", "Measurement", "check_arguments", "evaluate"]

HORIZONS = (1, 5, 10, 15, 30, 100)
"""Default horizons of a report, in environment steps."""
_MOST_FRAMES = 4096
_MOST_SCORED = 4096
_OTHERS_PER_DREAM = 4
_MASKS = 4
"""Masks a frame for the bound on its nats."""


def evaluate(
    model: WorldModel,
    held_out: Episodes,
    *,
    horizons: Sequence[int] = HORIZONS,
    num_dreams: int = 256,
    sampler: SamplerConfig | None = None,
    seed: int = 0,
    progress: bool = True,
) -> FidelityReport:
    """Measure a world model on episodes that it was not trained on.

    *Open loop*: each dream starts at a random moment of a real episode, with that moment's real
    context, and is given the actions that were really taken; it never sees a real frame again.
    A dream counts as far as its real episode goes: behind a real termination there is nothing
    left to get wrong. Each horizon has dreams of its own, from moments whose future is known
    that far; where a time limit or the end of the collection cuts the episode before, it is not.
    A horizon without such moments has None for its shares.

    *Determined*: of MiniGrid's partial view also the share of dreams that have right so far what
    the frames before the dream determine, see `worldgen.evaluation.view_tracker`. Nobody can
    foresee what comes into sight for the first time.

    *Termination*: counts when its probability is over one half. A predicted reward is right when
    it is nearer to the real one than to 0; where the real one is 0, when it is at most half the
    median magnitude of the nonzero real rewards.

    *Events*: from real contexts, one step. All real events are asked (up to 4,096 of a kind), and
    a sample of the other transitions, weighted to stand for all of them.

    *Tokens*: nats of the real next frame given the real past, over about 4,096 transitions.

    Args:
        model: Trained.
        held_out: Its environment's episodes.
        horizons: In environment steps.
        num_dreams: Most open-loop dreams of a horizon; a moment has one dream at most.
        sampler: How frames are sampled; the model's own by default.
        seed: Of moments and draws.
        progress: Show progress bars.

    Raises:
        ConfigError: If a horizon or `num_dreams` is below 1.
        SpaceError: If the episodes do not fit the model.
        DatasetError: If there is no episode.
    """
    horizons = tuple(sorted(set(horizons)))
    check_arguments(model, held_out, horizons, num_dreams)
    return Measurement(model, held_out, sampler, seed).run(horizons, num_dreams, progress)


def check_arguments(
    model: WorldModel, held_out: Episodes, horizons: tuple[int, ...], num_dreams: int
) -> None:
    """Make sure that a measurement has something to measure."""
    require(bool(horizons) and horizons[0] >= 1, "horizons", "all be at least 1", horizons)
    require(num_dreams >= 1, "num_dreams", "be at least 1", num_dreams)
    if not len(held_out):
        raise DatasetError("`held_out` must hold at least one episode, got none")
    model.check_compatible(held_out.observation_space, held_out.action_space)


class Measurement:
    """Measure a model on held-out episodes.

    Args:
        model: Trained.
        held_out: Its environment's episodes, at least one.
        sampler: How frames are sampled, or None for the model's own; may be changed at any time.
        seed: Of all draws.
    """

    def __init__(
        self, model: WorldModel, held_out: Episodes, sampler: SamplerConfig | None, seed: int
    ) -> None:
        self.model, self.sampler, self.seed = model, sampler, seed
        self.held_out = held_out
        self.truth = Truth(held_out)
        self.dataset: TokenDataset = model.dataset(held_out)
        self.kinds = leaf_kinds(model.observation_space, model.tokenizer.config.modalities)
        self.threshold = reward_threshold(self.truth.rewards)
        self.random = np.random.default_rng(seed)

    def run(self, horizons: tuple[int, ...], num_dreams: int, progress: bool) -> FidelityReport:
        """Measure everything that a report holds."""
        starts = choose_starts(self.truth, horizons, num_dreams, self.random)
        index, weights = choose_transitions(self.truth, _OTHERS_PER_DREAM * num_dreams, self.random)
        total = OpenLoop.num_steps(starts) + len(index)
        with Progress("evaluate", total, enabled=progress, unit="imagined env steps") as bar:
            reconstruction = self._reconstruction()
            rewarding, terminating = self._events(index, weights, bar)
            entries = self.open_loop(starts, bar)
        tokens = self._tokens(progress)
        return FidelityReport(
            num_episodes=len(self.held_out),
            num_transitions=int((self.truth.frame > 0).sum()),
            num_dreams=len(starts.frames),
            seed=self.seed,
            reward_threshold=self.threshold,
            reconstruction=reconstruction,
            rewarding=rewarding,
            terminating=terminating,
            tokens=tokens,
            horizons=entries,
        )

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
            dream_on = self._begin(part - 1, "events", len(rewards))
            imagined = dream_on(self.truth.actions[part])
            rewards.append(imagined.reward.cpu().numpy())
            ends.append(imagined.termination_probability.cpu().numpy() > 0.5)
            bar.update(len(part))
        return one_step_events(
            self.truth,
            index,
            weights,
            np.concatenate(rewards),
            np.concatenate(ends),
            self.threshold,
        )

    def _begin(self, frames: np.ndarray, *purpose: object) -> Step:
        """Start dreams at real frames, at most `ROWS_AT_ONCE`, in what others have freed."""
        release_memory()
        count = len(frames)
        (rows,) = (part.cpu().numpy() for part in batches(count, self.dataset.tokens.device))
        frames = frames[rows]
        context = self.dataset.contexts_at(
            torch.from_numpy(self.truth.episode[frames]), torch.from_numpy(self.truth.frame[frames])
        )
        imagination = self.model.imagination(
            len(rows), sampler=self.sampler, seed=derived_seed(self.seed, *purpose)
        )
        imagination.reset(context)

        def dream_on(actions: np.ndarray) -> ImaginedStep:
            return imagination.step(self.model.encode_actions(actions[rows])).first(count)

        return dream_on

    def open_loop(self, starts: Starts, bar: Progress) -> tuple[HorizonFidelity, ...]:
        """Dream from all starts."""
        view = tracked_view(
            leaves(self.model.observation_space),
            self.model.action_space,
            self.truth.observations,
        )
        loop = OpenLoop(
            self.truth,
            self.dataset,
            self.kinds,
            self.threshold,
            view,
            lambda frames: self._begin(frames, "open loop", int(frames[0])),
            self._decode,
        )
        return loop.run(starts, bar.update)

    def _tokens(self, progress: bool) -> TokenFidelity:
        """Score whole episodes, drawn at random."""
        chosen = draw_episodes(self.held_out, _MOST_SCORED, self.random)
        found = self.model.surprise(chosen, num_samples=_MASKS, seed=self.seed, progress=progress)
        return TokenFidelity(
            num_transitions=len(found),
            num_tokens=found.num_tokens,
            first_pass=float(found.first_pass.mean() / found.num_tokens),
            bound=float(found.bound.mean() / found.num_tokens),
            reward=float(found.reward.mean()),
            termination=float(found.termination.mean()),
        )


def _parts(index: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(index), ROWS_AT_ONCE):
        yield index[first : first + ROWS_AT_ONCE]

"""Whether the network's probabilities are the frequencies of what happens.

Classes:
    CalibrationReport, GroupCalibration, PredictorNats: what was found.

Functions:
    calibrate: measure it on held-out episodes.

These are the network's own probabilities in the first denoising step, one frame ahead of a real
past. What a dream draws differs from them where the sampler has another temperature than 1 or
leaves out unlikely tokens (`SamplerConfig.min_probability_ratio`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from worldgen.checkpoint import write_json
from worldgen.errors import DatasetError
from worldgen.evaluation.baselines import CellBaselines, smooth
from worldgen.evaluation.cell_probabilities import CellProbabilities
from worldgen.evaluation.comparison import leaf_kinds
from worldgen.evaluation.moments import Truth, draw_episodes
from worldgen.evaluation.reliability import Reliability, reliability
from worldgen.evaluation.view_tracker import follow_contexts, tracked_view
from worldgen.progress import Progress
from worldgen.spaces import leaves
from worldgen.surprise import context_windows, first_pass

if TYPE_CHECKING:
    from worldgen.data.episode import Episode
    from worldgen.data.episodes import Episodes
    from worldgen.world_model import WorldModel

__all__ = ["CalibrationReport", "GroupCalibration", "PredictorNats", "calibrate"]

_MOST_SCORED = 4096
_LEAST_PROBABILITY = 0.01
_EXACT = ("minigrid", "symbols", "words")


@dataclass(frozen=True, kw_only=True)
class GroupCalibration:
    """Predictions of one kind of thing."""

    likeliest: Reliability
    """Of the content that the network finds likeliest: is it right as often as it says?"""
    contents: Reliability
    """Of every content to which it gives at least 0.01."""


@dataclass(frozen=True, kw_only=True)
class PredictorNats:
    """Cross-entropy in nats a cell, of the cells that a view newly reveals."""

    num_cells: int
    model: float
    copy: float
    """The last frame's content at the same place of the view, with the probability that this is
    right, and else the marginal."""
    marginal: float
    """Frequencies at this place of the view."""


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """How far the network's probabilities can be believed. Holds no time and no path."""

    num_transitions: int
    groups: dict[str, GroupCalibration]
    """Kind -> its predictions. "revealed cells" are those of MiniGrid's partial view that the
    context does not determine, "cells" all symbols and categories, "tokens" all tokens."""
    predictors: PredictorNats | None
    """Beside two simple predictors; None where there is no partial view, or only one episode."""

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON values."""
        return dataclasses.asdict(self)

    def save(self, path: str | Path) -> None:
        """Write the report as JSON, replacing one that is there."""
        write_json(Path(path), self.to_dict())

    def __str__(self) -> str:
        """Lay the report out in lines."""
        lines = [f"calibration over {self.num_transitions} transitions, one step ahead:"]
        for name, group in self.groups.items():
            if group.likeliest.error is not None:
                lines.append(
                    f"  {name}: expected calibration error {group.likeliest.error:.4f} "
                    f"({sum(group.likeliest.counts):,} predictions)"
                )
        if self.predictors is not None:
            found = self.predictors
            lines.append(
                f"  nats a revealed cell: model {found.model:.3f}, copying the last frame "
                f"{found.copy:.3f}, marginal frequencies {found.marginal:.3f}"
            )
        return "\n".join(lines)


def calibrate(
    model: WorldModel,
    held_out: Episodes,
    *,
    training: Sequence[Episode] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> CalibrationReport:
    """Compare the network's probabilities with frequencies, one step ahead of real contexts.

    Args:
        model: Trained.
        held_out: Episodes that it was not trained on.
        training: What the simple predictors count; by default one half of the held-out
            episodes, of which the other half is then scored.
        seed: Of the choice of episodes, of which about 4,096 transitions are scored.
        progress: Show a progress bar.

    Raises:
        SpaceError: If the episodes do not fit the model.
        DatasetError: If there is no episode, or the model has not been trained.
    """
    if not len(held_out):
        raise DatasetError("`held_out` must hold at least one episode, got none")
    if not model.is_fitted:
        raise DatasetError("the world model has not been trained: call `fit` first")
    model.check_compatible(held_out.observation_space, held_out.action_space)
    generator = np.random.default_rng(seed)
    counted: Sequence[Episode] = training or []
    scored: Sequence[Episode] = list(held_out)
    if training is None and len(held_out) > 1:
        order = generator.permutation(len(held_out))
        counted = [held_out[int(index)] for index in order[::2]]
        scored = [held_out[int(index)] for index in order[1::2]]
    scored = draw_episodes(scored, _MOST_SCORED, generator)
    counted = draw_episodes(counted, _MOST_SCORED, generator)
    calibration = _Calibration(model, scored)
    count = calibration.num_transitions
    with Progress("calibrate", count, enabled=progress, unit="transitions") as bar:
        return calibration.run(counted, bar)


class _Gathered:
    """Predictions of one group, batch by batch."""

    def __init__(self) -> None:
        self._top: list[tuple[np.ndarray, np.ndarray]] = []
        self._all: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, probabilities: np.ndarray, real: np.ndarray) -> None:
        """Add distributions (N, n) and the index of what happened (N,), -1 for none of them."""
        top = probabilities.argmax(1)
        self._top.append((probabilities.max(1), top == real))
        row, content = np.nonzero(probabilities >= _LEAST_PROBABILITY)
        self._all.append((probabilities[row, content], real[row] == content))

    def calibration(self) -> GroupCalibration:
        return GroupCalibration(likeliest=_together(self._top), contents=_together(self._all))


def _together(parts: list[tuple[np.ndarray, np.ndarray]]) -> Reliability:
    if not parts:
        return reliability(np.empty(0), np.empty(0))
    predicted, happened = (np.concatenate(part) for part in zip(*parts, strict=True))
    return reliability(predicted, happened)


class _Calibration:
    def __init__(self, model: WorldModel, scored: Sequence[Episode]) -> None:
        self.model, self.truth = model, Truth(scored)
        self.dataset = model.dataset(scored)
        parts, tokenizer = leaves(model.observation_space), model.tokenizer
        kinds = leaf_kinds(model.observation_space, tokenizer.config.modalities)
        self.cells = {
            path: CellProbabilities(tokenizer, path, leaf)
            for path, leaf in parts.items()
            if kinds[path] in _EXACT and CellProbabilities.possible(tokenizer, path, leaf)
        }
        view = tracked_view(parts, model.action_space, self.truth.observations)
        self.view = view if view in self.cells else None
        self.revealed, self.all, self.tokens = _Gathered(), _Gathered(), _Gathered()
        self.chances: list[np.ndarray] = []

    @property
    def num_transitions(self) -> int:
        return int((self.truth.frame > 0).sum())

    def run(self, counted: Sequence[Episode], bar: Progress) -> CalibrationReport:
        num_codes = int(self.model.tokenizer.token_nvec.max())
        for windows, index in context_windows(self.dataset, num_codes):
            logits = first_pass(self.model.dynamics, windows).token_logits[index >= 0]
            targets = index[index >= 0]
            self._add(logits.float().softmax(-1), targets)
            bar.update(len(targets))
        groups = {"revealed cells": self.revealed} if self.view else {}
        groups |= {"cells": self.all} if self.cells else {}
        groups |= {"tokens": self.tokens}
        return CalibrationReport(
            num_transitions=self.num_transitions,
            groups={name: gathered.calibration() for name, gathered in groups.items()},
            predictors=self._predictors(counted),
        )

    def _add(self, probabilities: torch.Tensor, targets: torch.Tensor) -> None:
        """Add the predictions (N, K, V) of frames `targets` (N,)."""
        real = self.dataset.tokens[targets]
        self.tokens.add(probabilities.flatten(0, 1).cpu().numpy(), real.flatten().cpu().numpy())
        index = targets.cpu().numpy()
        for path, cells in self.cells.items():
            said = cells(probabilities).cpu().numpy()  # (N, M, n)
            numbers = cells.numbers(self.truth.observations[path][index])
            place, there = cells.known(numbers)
            place = np.where(there, place, -1)
            self.all.add(said.reshape(-1, said.shape[-1]), place.ravel())
            if path == self.view:
                self._add_revealed(said, place, _revealed(self.truth, path, index, self._context))

    @property
    def _context(self) -> int:
        return self.dataset.context_length

    def _add_revealed(self, said: np.ndarray, place: np.ndarray, revealed: np.ndarray) -> None:
        said, place = said[revealed], place[revealed]
        self.revealed.add(said, place)
        chance = np.where(place >= 0, said[np.arange(len(said)), place], 0.0)
        self.chances.append(chance)

    def _predictors(self, counted: Sequence[Episode]) -> PredictorNats | None:
        if self.view is None or not len(counted) or not self.chances:
            return None
        cells = self.cells[self.view]
        size = cells.num_possible
        baselines = CellBaselines(
            *_revealed_cells(Truth(counted), self.view, self._context, cells),
            cells.num_cells,
            size,
        )
        last, real, place = _revealed_cells(self.truth, self.view, self._context, cells)
        chance = smooth(np.concatenate(self.chances), size)
        if not len(real):
            return None
        return PredictorNats(
            num_cells=len(real),
            model=float(-np.log(chance).mean()),
            copy=float(-np.log(baselines.copy(last, real, place)).mean()),
            marginal=float(-np.log(baselines.marginal(real, place)).mean()),
        )


def _revealed(truth: Truth, view: str, index: np.ndarray, context: int) -> np.ndarray:
    """Say which cells of frames `index` (N,) their contexts do not determine: (N, M) bool."""
    tracker = follow_contexts(
        truth.observations[view], truth.actions, truth.frame, index - 1, context, 1
    )
    tracker.act(truth.actions[index])
    revealed: np.ndarray = ~tracker.expected().determined.reshape(len(index), -1)
    return revealed


def _revealed_cells(
    truth: Truth, view: str, context: int, cells: CellProbabilities
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give last content, real content and place of all newly revealed cells: (N,) each."""
    index = np.flatnonzero(truth.frame > 0)
    row, place = np.nonzero(_revealed(truth, view, index, context))
    numbers = cells.numbers(truth.observations[view])
    return numbers[index[row] - 1, place], numbers[index[row], place], place

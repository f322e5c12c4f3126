"""How far an agent may trust its model: as far as it foresaw what it has not been trained on.

Functions:
    foreseen: shares of dreams of new episodes that are right, by horizon.
    trusted_horizon: the length of dreams that these shares allow.
"""

from __future__ import annotations

from collections.abc import Mapping

from worldgen.data.episodes import Episodes
from worldgen.evaluation.fidelity import Measurement
from worldgen.evaluation.moments import choose_starts
from worldgen.evaluation.report import HorizonFidelity
from worldgen.progress import Progress
from worldgen.world_model import WorldModel

__all__ = ["foreseen", "trusted_horizon"]

_DREAMS = 32


def foreseen(model: WorldModel, new: Episodes, longest: int, seed: int) -> dict[int, float]:
    """Let the model dream along episodes that it was not trained on.

    A dream is right as far as all is that the frames before it determine: symbols, the sign of
    each reward, each end. Of reals it is the R2 at the horizon. The least of these counts.

    Args:
        model: Trained.
        new: Episodes of its environment, at least one.
        longest: Horizons are 1, 4, 16, ... and this one.
        seed: Of moments and draws.

    Returns:
        Horizon -> share in [0, 1], without horizons that no episode reaches.
    """
    horizons = (*(4**k for k in range(longest) if 4**k < longest), longest)
    measurement = Measurement(model, new, None, seed)
    starts = choose_starts(measurement.truth, horizons, _DREAMS, measurement.random)
    with Progress("foresee", 1, enabled=False) as bar:
        entries = measurement.open_loop(starts, bar)
    return {entry.horizon: _right(entry) for entry in entries if entry.num_dreams}


def _right(entry: HorizonFidelity) -> float:
    symbols = entry.exact if entry.determined_exact is None else entry.determined_exact
    shares = [symbols, entry.rewards, entry.terminations, *entry.agreement.r2.values()]
    return max(0.0, min(share for share in shares if share is not None))


def trusted_horizon(right: Mapping[int, float], longest: int, least: float, shortest: int) -> int:
    """Choose the longest horizon up to which enough dreams are right.

    >>> trusted_horizon({1: 0.9, 2: 0.8, 4: 0.4, 8: 0.5, 16: 0.1}, 16, 0.5, 1)
    2
    >>> trusted_horizon({}, 16, 0.5, 1)  # nothing is known against it
    16

    Args:
        right: As `foreseen` gives it.
        longest: Given where no horizon is too long.
        least: Share of dreams that must be right.
        shortest: Given at least.
    """
    trusted = shortest
    for horizon in sorted(right):
        if right[horizon] < least:
            return max(trusted, shortest)
        trusted = horizon
    return longest

"""What `evaluate` found, as numbers that go to JSON and back.

Classes:
    Agreement: how well predicted observations agree with the real ones.
    HorizonFidelity: the same for dreams of one length, with rewards and terminations.
    EventFidelity: recall and precision on rare transitions.
    FidelityReport: all of them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from worldgen.checkpoint import write_json
from worldgen.errors import CheckpointError

__all__ = ["Agreement", "EventFidelity", "FidelityReport", "HorizonFidelity", "percent"]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Predicted against real observations. What a space has no parts for is None or empty."""

    frames_exact: float | None = None
    """Share of frames whose symbols and categories are all right."""
    cells: float | None = None
    """Share of single symbols and categories that are right."""
    objects: dict[str, float] = field(default_factory=dict)
    """MiniGrid object -> share of its cells that are right in all three channels."""
    r2: dict[str, float] = field(default_factory=dict)
    """Path of a vector -> mean over its entries of the explained share of the variance."""
    psnr: dict[str, float] = field(default_factory=dict)
    """Path of a picture -> peak signal-to-noise ratio in dB, over all pixels."""


@dataclass(frozen=True, kw_only=True)
class HorizonFidelity:
    """Open-loop dreams after `horizon` environment steps."""

    horizon: int
    exact: float | None
    """Share of dreams that were right so far: each symbol and category of each frame, the sign
    of each reward and each termination. None without symbols and categories."""
    rewards: float
    """Share of dreams that had the sign of every reward right so far."""
    terminations: float
    """Share of dreams that had every termination right so far."""
    num_reached: int
    """Dreams whose real episode reached this horizon; `agreement` is over these."""
    agreement: Agreement
    """Observations at this horizon alone."""


@dataclass(frozen=True, kw_only=True)
class EventFidelity:
    """One-step predictions of rewarding or terminating transitions, from real contexts."""

    num_events: int
    """Real events in the held-out episodes."""
    recall: float | None
    """Share of the real events that were predicted; None without a real event."""
    precision: float | None
    """Share of the predicted events that were real; None without a predicted event."""


@dataclass(frozen=True, kw_only=True)
class FidelityReport:
    """How good a world model is on held-out episodes. Holds no time and no path."""

    num_episodes: int
    num_transitions: int
    num_dreams: int
    seed: int
    reward_threshold: float
    """A predicted reward counts as nonzero when its magnitude is above this."""
    reconstruction: Agreement
    """The tokenizer alone: a dream's frames cannot be better than this."""
    rewarding: EventFidelity
    terminating: EventFidelity
    horizons: tuple[HorizonFidelity, ...]

    def at(self, horizon: int) -> HorizonFidelity:
        """Give the entry of one horizon.

        Raises:
            KeyError: If the report does not hold it.
        """
        for entry in self.horizons:
            if entry.horizon == horizon:
                return entry
        raise KeyError(f"horizon {horizon} is not among {[e.horizon for e in self.horizons]}")

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON values."""
        return {**dataclasses.asdict(self), "horizons": [_plain(entry) for entry in self.horizons]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Undo `to_dict`.

        Raises:
            CheckpointError: If a part is missing or unknown.
        """
        try:
            parts = dict(values)
            horizons = tuple(
                HorizonFidelity(**{**entry, "agreement": Agreement(**entry["agreement"])})
                for entry in parts.pop("horizons")
            )
            return cls(
                reconstruction=Agreement(**parts.pop("reconstruction")),
                rewarding=EventFidelity(**parts.pop("rewarding")),
                terminating=EventFidelity(**parts.pop("terminating")),
                horizons=horizons,
                **parts,
            )
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"this is no fidelity report: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write the report as JSON, replacing a report that is there."""
        write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            CheckpointError: If the file is missing or is no report.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read as a fidelity report: {error}") from error
        return cls.from_dict(values)

    def __str__(self) -> str:
        """Lay the report out as a table."""
        lines = [
            f"{self.num_dreams} dreams of {self.num_episodes} held-out episodes "
            f"({self.num_transitions} transitions)",
            f"{'horizon':>14} {'exact':>7} {'rewards':>8} {'ends':>7}  observations",
            _row("(tokenizer)", self.reconstruction.frames_exact, None, None, self.reconstruction),
        ]
        lines += [
            _row(str(e.horizon), e.exact, e.rewards, e.terminations, e.agreement)
            for e in self.horizons
        ]
        lines += [
            f"{name} transitions: recall {percent(event.recall)}, precision "
            f"{percent(event.precision)} ({event.num_events} real ones)"
            for name, event in (("rewarding", self.rewarding), ("terminating", self.terminating))
        ]
        return "\n".join(lines)


def _plain(entry: HorizonFidelity) -> dict[str, Any]:
    return dataclasses.asdict(entry)


def _row(
    label: str,
    exact: float | None,
    rewards: float | None,
    terminations: float | None,
    agreement: Agreement,
) -> str:
    parts = [] if agreement.cells is None else [f"cells {percent(agreement.cells)}"]
    parts += [f"{path} R2 {value:.3f}" for path, value in agreement.r2.items()]
    parts += [f"{path} {value:.1f} dB" for path, value in agreement.psnr.items()]
    numbers = f"{percent(exact):>7} {percent(rewards):>8} {percent(terminations):>7}"
    return f"{label:>14} {numbers}  {', '.join(parts)}"


def percent(value: float | None) -> str:
    """Write a share in percent, without rounding up to 100.

    >>> percent(0.9996), percent(1.0), percent(None)
    ('99.9%', '100%', '-')
    """
    if value is None:
        return "-"
    return "100%" if value == 1 else f"{int(value * 1000) / 10:.1f}%"

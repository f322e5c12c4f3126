"""What `evaluate` found, as numbers that go to JSON and back.

Classes:
    Agreement: how well predicted observations agree with the real ones.
    HorizonFidelity: the same for dreams of one length, with rewards and terminations.
    EventFidelity: recall and precision on rare transitions.
    TokenFidelity: nats of the real next frames.
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
from worldgen.evaluation.intervals import wilson_interval

__all__ = [
    "Agreement",
    "EventFidelity",
    "FidelityReport",
    "HorizonFidelity",
    "TokenFidelity",
    "percent",
]


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
    r2_worst: dict[str, float] = field(default_factory=dict)
    """Path of a vector -> the lowest of its entries."""
    r2_entries: dict[str, list[float | None]] = field(default_factory=dict)
    """Path of a vector -> each entry, None for one that does not vary."""
    psnr: dict[str, float] = field(default_factory=dict)
    """Path of a picture -> peak signal-to-noise ratio in dB, over all pixels."""


@dataclass(frozen=True, kw_only=True)
class HorizonFidelity:
    """Open-loop dreams after `horizon` environment steps.

    Shares are None where there is nothing to take a share of.
    """

    horizon: int
    num_dreams: int
    """Dreams whose real future is known as far as this horizon, which the shares are over: the
    real episode reached the horizon, or terminated before."""
    num_reached: int
    """Those whose real episode reached this horizon; `agreement` is over these."""
    exact: float | None
    """Share of dreams that were right so far: each symbol and category of each frame, the sign
    of each reward and each termination. None without symbols and categories."""
    exact_interval: list[float] | None
    """Its 95% interval, Wilson's, which takes the dreams to be independent of each other."""
    determined_exact: float | None
    """The same for what the frames before the dream determine. None but for MiniGrid's partial
    view, see `worldgen.evaluation.view_tracker`."""
    determined_interval: list[float] | None
    """Its 95% interval."""
    determined_share: float | None
    """Share of the view's cells at this horizon that are determined."""
    rewards: float | None
    """Share of dreams that had the sign of every reward right so far."""
    terminations: float | None
    """Share of dreams that had every termination right so far."""
    num_ended: int
    """Dreams whose real episode terminated within the horizon."""
    end_timing: float | None
    """Share of those whose first predicted end is at most one environment step off."""
    false_ends: float | None
    """Share of the other dreams that ended, and not just one environment step early."""
    agreement: Agreement
    """Observations at this horizon alone."""

    def interval(self, share: float | None) -> tuple[float, float] | None:
        """Give the 95% interval of any share of this horizon's dreams, None for none."""
        return None if share is None else wilson_interval(share, self.num_dreams)


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
class TokenFidelity:
    """How likely the network finds what really came next, given the real past.

    These are the network's own probabilities: no setting of the sampler has a part in them.
    """

    num_transitions: int
    """Transitions that were scored."""
    num_tokens: int
    """K, tokens of a frame."""
    first_pass: float
    """Cross-entropy of the first denoising step, in nats a token."""
    bound: float
    """Bound on the nats a token where tokens are drawn one by one in a random order."""
    reward: float
    """Nats a transition of the reward's bins; 0 is certainty."""
    termination: float
    """Nats a transition of whether the episode terminates."""


@dataclass(frozen=True, kw_only=True)
class FidelityReport:
    """How good a world model is on held-out episodes. Holds no time and no path."""

    num_episodes: int
    num_transitions: int
    num_dreams: int
    """Dreams in all; each horizon has its own number."""
    seed: int
    reward_threshold: float
    """A predicted reward counts as nonzero when its magnitude is above this."""
    reconstruction: Agreement
    """The tokenizer alone: a dream's frames cannot be better than this."""
    rewarding: EventFidelity
    terminating: EventFidelity
    tokens: TokenFidelity
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
        return {
            **dataclasses.asdict(self),
            "horizons": [dataclasses.asdict(entry) for entry in self.horizons],
        }

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
                tokens=TokenFidelity(**parts.pop("tokens")),
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
        partial = any(entry.determined_exact is not None for entry in self.horizons)
        header = ["horizon", "dreams", "exact", *(["determined"] if partial else []), "rewards"]
        ends = any(entry.num_ended for entry in self.horizons)
        header += ["ends", *(["timing"] if ends else [])]
        lines = [
            f"{self.num_dreams} dreams of {self.num_episodes} held-out episodes "
            f"({self.num_transitions} transitions)",
            _line([*header, "observations"]),
            _line(
                ["(tokenizer)", "", percent(self.reconstruction.frames_exact)]
                + [""] * (len(header) - 3)
                + [_observations(self.reconstruction)]
            ),
        ]
        lines += [_line(_cells(entry, partial, ends)) for entry in self.horizons]
        lines += [
            f"{name} transitions: recall {percent(event.recall)}, precision "
            f"{percent(event.precision)} ({event.num_events} real ones)"
            for name, event in (("rewarding", self.rewarding), ("terminating", self.terminating))
        ]
        tokens = self.tokens
        lines.append(
            f"next frame's tokens: {tokens.first_pass:.4f} nats each in the first pass, "
            f"{tokens.bound:.4f} one by one ({tokens.num_tokens} a frame)"
        )
        return "\n".join(lines)


def _cells(entry: HorizonFidelity, partial: bool, ends: bool) -> list[str]:
    return [
        str(entry.horizon),
        str(entry.num_dreams),
        percent(entry.exact),
        *([percent(entry.determined_exact)] if partial else []),
        percent(entry.rewards),
        percent(entry.terminations),
        *([percent(entry.end_timing)] if ends else []),
        _observations(entry.agreement),
    ]


def _line(cells: list[str]) -> str:
    first, *numbers, last = cells
    return f"{first:>11}" + "".join(f"{cell:>11}" for cell in numbers) + f"  {last}".rstrip()


def _observations(agreement: Agreement) -> str:
    parts = [] if agreement.cells is None else [f"cells {percent(agreement.cells)}"]
    parts += [
        f"{path} R2 {value:.3f}"
        + (f" (worst {worst:.3f})" if (worst := agreement.r2_worst[path]) != value else "")
        for path, value in agreement.r2.items()
    ]
    parts += [f"{path} {value:.1f} dB" for path, value in agreement.psnr.items()]
    return ", ".join(parts)


def percent(value: float | None) -> str:
    """Write a share in percent, without rounding up to 100.

    >>> percent(0.9996), percent(1.0), percent(None)
    ('99.9%', '100%', '-')
    """
    if value is None:
        return "-"
    return "100%" if value == 1 else f"{int(value * 1000) / 10:.1f}%"

"""Progress of long work on stderr: a bar in a terminal, a line every few seconds elsewhere.

Classes:
    Progress: counts what was done; shows the quantity that matters and the time left.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Never, Protocol, Self, TextIO

from tqdm import tqdm

__all__ = ["Progress"]

_BAR_INTERVAL = 0.5
"""Least seconds between two refreshes of the bar."""
_LINE_INTERVAL = 4.0
"""Least seconds between two plain lines; under 5, so that a slow update keeps to 5 too."""
_PACE_LINES = 6
"""Lines over which the pace is taken, so that a slow beginning is soon forgotten."""


class Progress:
    """Show how far a piece of work is; a context manager.

    In a terminal this is a bar; where stderr is a file or a pipe it is one plain line every
    few seconds and one at the end.

    Args:
        description: What is being done, in one or two words.
        total: How many units there are to do.
        enabled: False shows nothing.
        unit: What is counted, in the plural: "env steps", "gradient steps".
        initial: Units that were done before, which say nothing about the time left.

    >>> with Progress("collect", total=8, enabled=False) as progress:
    ...     progress.update(8, mean_return=0.5)
    """

    def __init__(
        self,
        description: str,
        total: int,
        *,
        enabled: bool = True,
        unit: str = "env steps",
        initial: int = 0,
    ) -> None:
        self._display: _Display | None = None
        stream: TextIO | None = sys.stderr
        if enabled and stream is not None:
            kind = _Bar if stream.isatty() else _Lines
            self._display = kind(description, total, unit, initial, stream)

    def update(self, n: int = 1, **quantities: float) -> None:
        """Count `n` more units as done.

        Args:
            n: Units done since the last call.
            **quantities: The latest values of what matters; those given before stay shown.
        """
        if self._display is not None:
            self._display.update(n, quantities)

    def extend(self, n: int) -> None:
        """Take `n` more units as what there is to do."""
        if self._display is not None:
            self._display.extend(n)

    def finish(self) -> None:
        """Take what is done as all there was to do, where work ends early because it is good."""
        if self._display is not None:
            self._display.finish()

    def close(self) -> None:
        """Show the last state and leave the line; further calls do nothing."""
        if self._display is not None:
            self._display.close()
            self._display = None

    def __enter__(self) -> Self:
        """Give this object."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close, whether or not the work went well."""
        self.close()


class _Display(Protocol):
    def update(self, n: int, quantities: Mapping[str, float]) -> None: ...

    def extend(self, n: int) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


class _Bar:
    """A tqdm bar."""

    def __init__(
        self, description: str, total: int, unit: str, initial: int, stream: TextIO
    ) -> None:
        self._quantities: dict[str, float] = {}
        self._bar: tqdm[Never] = tqdm(
            desc=description,
            total=total,
            initial=initial,
            unit=f" {unit}",
            file=stream,
            mininterval=_BAR_INTERVAL,
            miniters=1,  # tqdm's own guess leaves the bar behind when the work slows down
            dynamic_ncols=True,
        )

    def update(self, n: int, quantities: Mapping[str, float]) -> None:
        if quantities:
            self._quantities.update(quantities)
            self._bar.set_postfix_str(_format(self._quantities), refresh=False)
        self._bar.update(n)

    def extend(self, n: int) -> None:
        self._bar.total = (self._bar.total or 0) + n

    def finish(self) -> None:
        self._bar.total = self._bar.n

    def close(self) -> None:
        self._bar.refresh()
        self._bar.close()


class _Lines:
    """Plain lines for logs and pipes."""

    def __init__(
        self, description: str, total: int, unit: str, initial: int, stream: TextIO
    ) -> None:
        self._description, self._total, self._unit = description, total, unit
        self._stream = stream
        self._quantities: dict[str, float] = {}
        self._count = initial
        self._start = self._last_line = time.monotonic()
        self._shown = deque([(self._start, initial)], maxlen=_PACE_LINES)

    def update(self, n: int, quantities: Mapping[str, float]) -> None:
        self._count += n
        self._quantities.update(quantities)
        now = time.monotonic()
        if now - self._last_line >= _LINE_INTERVAL:
            self._last_line = now
            self._write(f"{self._time_left(now)} left")
            self._shown.append((now, self._count))

    def extend(self, n: int) -> None:
        self._total += n

    def finish(self) -> None:
        self._total = self._count

    def close(self) -> None:
        self._write(f"{_duration(time.monotonic() - self._start)} in all")

    def _time_left(self, now: float) -> str:
        then, count = self._shown[0]
        if self._count <= count:
            return "unknown time"
        pace = (now - then) / (self._count - count)
        return _duration(pace * max(0, self._total - self._count))

    def _write(self, ending: str) -> None:
        done = f"no {self._unit} needed"
        if self._total > 0:
            share = self._count / self._total
            done = f"{self._count:,} of {self._total:,} {self._unit} ({share:.0%})"
        parts = [done]
        parts += [_format(self._quantities)] if self._quantities else []
        self._stream.write(f"{self._description}: {', '.join([*parts, ending])}\n")
        self._stream.flush()


def _format(quantities: Mapping[str, float]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in quantities.items())


def _duration(seconds: float) -> str:
    """Write a duration in at most two units.

    >>> _duration(7.6), _duration(125), _duration(7260)
    ('8 s', '2 min 5 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

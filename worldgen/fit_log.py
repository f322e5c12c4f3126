"""What a fit says while it runs: TensorBoard and the caller's callback.

Classes:
    FitLog.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from worldgen.data.episode import Episode
from worldgen.inspection import log_codes
from worldgen.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["FitLog"]

_LOG_EVERY = 20


class FitLog:
    """Scalars to TensorBoard and to a callback, every 20 gradient steps.

    Args:
        log_dir: TensorBoard folder, or None.
        on_log: Called with the gradient step and the scalars, or None.
    """

    def __init__(
        self,
        log_dir: str | Path | None,
        on_log: Callable[[int, Mapping[str, float]], None] | None = None,
    ) -> None:
        self._log_dir, self._on_log = log_dir, on_log
        self._writer: SummaryWriter | None = None
        self._count = 0

    def is_due(self) -> bool:
        """Count a gradient step; true at every so many."""
        self._count += 1
        return self._count % _LOG_EVERY == 0

    def skip(self, count: int) -> None:
        """Count gradient steps that were made elsewhere."""
        self._count += count

    def write(self, values: Mapping[str, float]) -> None:
        """Write scalars, if there are any."""
        if not values:
            return
        writer = self._open()
        if writer is not None:
            for name, value in values.items():
                writer.add_scalar(name, value, self._count)
        if self._on_log is not None:
            self._on_log(self._count, values)

    def write_codes(self, tokenizer: Tokenizer, episodes: Sequence[Episode]) -> None:
        """Show in TensorBoard what the codes stand for and how often they are used."""
        writer = self._open()
        if writer is not None:
            log_codes(writer, tokenizer, episodes, self._count)

    def _open(self) -> SummaryWriter | None:
        if self._writer is None and self._log_dir is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._log_dir))
        return self._writer

    def close(self) -> None:
        """Write what is left; the log may be written to again."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

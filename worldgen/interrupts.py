"""What a person does to a command that is running.

Classes:
    PostponedInterrupt: Ctrl-C that waits until work is at a place where it can be kept.

Functions:
    reader_is_gone: whether an error came because nobody reads the output any more.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Self

__all__ = ["PostponedInterrupt", "reader_is_gone"]


class PostponedInterrupt:
    """Note Ctrl-C instead of raising it in the middle of a step; a context manager.

    A second Ctrl-C is raised at once. Where another handler than Python's own is installed, or
    in a thread of its own, where signals do not arrive, nothing is changed.

    Args:
        enabled: False changes nothing either.

    Attributes:
        pending: Whether Ctrl-C was pressed.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.pending = False
        self._enabled, self._installed = enabled, False

    def deliver(self) -> None:
        """Raise what was postponed.

        Raises:
            KeyboardInterrupt: If Ctrl-C was pressed.
        """
        if self.pending:
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        """Take the place of Python's handler."""
        in_main = threading.current_thread() is threading.main_thread()
        usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._enabled and in_main and usual:
            signal.signal(signal.SIGINT, self._note)
            self._installed = True
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        """Give Python its handler back; a Ctrl-C that nobody has asked for is raised."""
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if kind is None:
            self.deliver()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.pending:
            signal.default_int_handler(number, frame)
        self.pending = True


def reader_is_gone(error: BaseException) -> bool:
    """Say whether an error came because the output's reader is gone, as `head` soon is.

    Other pipes may break too. If it is gone, what is still written goes nowhere: Python flushes
    once more at its end, and would complain.
    """
    if not isinstance(error, BrokenPipeError):
        return False
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False

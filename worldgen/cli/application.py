"""The command `worldgen`: finds the verb, runs it, turns errors into one line.

Functions:
    main: the entry point.
    module_of: where a verb's options and work are.

Exit codes: 0, 2 for a wrong argument, 1 for anything else.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from worldgen.errors import ConfigError, EnvironmentIdError, WorldgenError
from worldgen.interrupts import reader_is_gone
from worldgen.version import __version__

if TYPE_CHECKING:
    from worldgen.cli.arguments import CommonArguments

__all__ = ["VERBS", "main", "module_of"]

VERBS = {
    "collect": "gather episodes of a Gymnasium environment",
    "fit": "train a world model on episodes",
    "evaluate": "measure how often a model's dreams are right",
    "dream": "film a dream beside reality",
    "codes": "show what a tokenizer's codes stand for, and how often they are used",
    "export": "write episodes as a Minari dataset",
    "train": "all of it: collect, fit, train an agent in the dream, measure, film",
}
"""Verb -> what it does, in the order of the help."""

_OK, _FAILED, _WRONG_ARGUMENT = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and give its exit code.

    Args:
        argv: Arguments behind the program's name; the process's own by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    first = arguments[0] if arguments else None
    if first in ("-h", "--help"):
        return _say(_overview())
    if first == "--version":
        return _say(f"worldgen {__version__}")
    if first not in VERBS:
        _complain(_which_verb(first))
        return _WRONG_ARGUMENT
    return _run_verb(first, arguments[1:], debug="--debug" in arguments)


def _run_verb(verb: str, arguments: list[str], *, debug: bool) -> int:
    parsed: CommonArguments | None = None
    try:
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        logging.getLogger("worldgen").setLevel(logging.DEBUG if debug else logging.INFO)
        with _loading():
            name = module_of(verb, arguments)
            module = importlib.import_module(f"worldgen.cli.{name}")
            from worldgen.cli.arguments import parse
        named = verb if name == verb else f"{verb} --offline"  # as its help is asked for
        parsed = parse(module.Arguments, named, module.__doc__ or "", arguments)
        parsed.prepare()
        module.run(parsed)
    except SystemExit as error:  # tyro's way to end after --help
        return error.code if isinstance(error.code, int) else _WRONG_ARGUMENT
    except KeyboardInterrupt:
        how = _how_to_go_on(parsed)
        _complain("; ".join(["interrupted", *([how] if how else [])]))
        return _FAILED
    except Exception as error:
        if reader_is_gone(error):
            how = _how_to_go_on(parsed)
            if how:
                _complain(f"nobody reads the output any more; {how}")
            return _FAILED
        if debug:
            raise
        return _report(error)
    return _OK


def module_of(verb: str, arguments: Sequence[str]) -> str:
    """Name the verb's module: training from a dataset has options of its own."""
    offline = verb == "train" and "--offline" in arguments
    if verb == "train" and not offline and "--dataset" in arguments and not _wants_help(arguments):
        raise ConfigError("`--dataset` must be given together with --offline")
    return "train_offline" if offline else verb


def _how_to_go_on(parsed: CommonArguments | None) -> str:
    """Say how to go on with what was broken off; nothing where nothing was begun."""
    return parsed.goes_on() if parsed is not None else ""


def _wants_help(arguments: Sequence[str]) -> bool:
    return "--help" in arguments or "-h" in arguments


@contextlib.contextmanager
def _loading() -> Iterator[None]:
    """Say in a terminal that torch is being loaded, which takes seconds, and take it back."""
    message = "loading torch ..." if sys.stderr.isatty() else ""
    print(message, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r" + " " * len(message) + "\r" if message else "", end="", file=sys.stderr)


def _say(text: str) -> int:
    """Print and give the exit code."""
    try:
        print(text, flush=True)
    except OSError as error:
        return _FAILED if reader_is_gone(error) else _report(error)
    return _OK


def _report(error: Exception) -> int:
    """Say an error in one line and give its exit code."""
    if isinstance(error, WorldgenError | OSError):
        _complain(str(error))
    else:
        hint = "--debug shows where it happened"
        _complain(f"{type(error).__name__}: {error} ({hint})")
    wrong_argument = isinstance(error, ConfigError | EnvironmentIdError)
    return _WRONG_ARGUMENT if wrong_argument else _FAILED


def _complain(message: str) -> None:
    print(f"worldgen: error: {' '.join(message.split())}", file=sys.stderr)


def _which_verb(given: str | None) -> str:
    names = ", ".join(VERBS)
    if given is None:
        return f"a verb is missing, one of {names}; see worldgen --help"
    close = difflib.get_close_matches(given, VERBS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"the verbs are {names};"
    return f"there is no verb {given!r}: {hint} See worldgen --help"


def _overview() -> str:
    width = max(map(len, VERBS)) + 2
    lines = [
        "usage: worldgen VERB [OPTIONS]",
        "",
        "Learn an environment, dream it, and train agents in the dream.",
        "",
        "verbs:",
        *(f"  {verb:{width}}{what}" for verb, what in VERBS.items()),
        "",
        "options:",
        f"  {'--help':{width}}  show this, or with a verb its options",
        f"  {'--version':{width}}  show the version",
        f"  {'--debug':{width}}  with a verb: show a traceback where something fails",
        "",
        "start here: worldgen train MiniGrid-Empty-5x5-v0",
    ]
    return "\n".join(lines)

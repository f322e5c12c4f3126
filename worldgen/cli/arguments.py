"""Options from dataclasses, and what all verbs share.

Classes:
    CommonArguments: base of every verb's `Arguments`.

Functions:
    parse: a command line to a dataclass, with errors of one line.
    refuse_existing: nothing is overwritten unasked.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self, TypeVar

import tyro

from worldgen.config import require
from worldgen.errors import CheckpointError, ConfigError, WorldgenError

__all__ = [
    "CommonArguments",
    "Environment",
    "EpisodesFolder",
    "Flag",
    "ModelFolder",
    "Wrappers",
    "parse",
    "refuse_existing",
]

Environment = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV")]
"""A Gymnasium id as the first argument."""
ModelFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
"""A folder of a model, or of a run, as an argument without a name."""
EpisodesFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="EPISODES")]
"""A folder of episodes, as an argument without a name."""
Wrappers = Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="WRAPPER")]
"""`--wrapper`, as often as wanted."""
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""An option without a value."""

_HELP = ("-h", "--help")


@dataclass(frozen=True, kw_only=True)
class CommonArguments:
    """Options that every verb has."""

    seed: int = 0
    """Of everything that is drawn; equal seeds give equal results."""
    threads: int | None = None
    """CPU threads of torch; all cores by default."""
    debug: Flag = False
    """Show a traceback where something fails."""

    def suited(self) -> Self | None:
        """Give the defaults that suit what is named here; None where they are the usual ones.

        Raises:
            WorldgenError: If what is named is not there.
        """
        return None

    def goes_on(self) -> str:
        """Say how to go on after Ctrl-C; nothing where nothing was kept."""
        return ""

    def prepare(self) -> None:
        """Check and apply what all verbs share.

        Raises:
            ConfigError: If `seed` is negative or `threads` below 1.
        """
        require(0 <= self.seed < 2**31, "seed", "be in [0, 2**31)", self.seed)
        if self.threads is not None:
            require(self.threads >= 1, "threads", "be at least 1", self.threads)
            import torch

            torch.set_num_threads(self.threads)


_Arguments = TypeVar("_Arguments", bound=CommonArguments)


def parse(
    kind: type[_Arguments], verb: str, description: str, arguments: Sequence[str]
) -> _Arguments:
    """Read a verb's options, once more where its defaults depend on what is named.

    Args:
        kind: The verb's dataclass.
        verb: Its name.
        description: Text of its help.
        arguments: What stands behind the verb.

    Raises:
        ConfigError: If an option is unknown, missing or cannot be read.
        WorldgenError: If what decides about the defaults is not there.
        SystemExit: After `--help`.
    """
    read = functools.partial(_read, kind, verb, description)
    named = [argument for argument in arguments if argument not in _HELP]
    if len(named) == len(arguments):
        parsed = read(arguments)
        defaults = parsed.suited()
        return parsed if defaults is None else read(arguments, defaults)
    try:
        defaults = read(named).suited()
    except WorldgenError:  # nothing is named, or it is not there: help is wanted all the same
        defaults = None
    return read(arguments, defaults)


def _read(
    kind: type[_Arguments],
    verb: str,
    description: str,
    arguments: Sequence[str],
    defaults: _Arguments | None = None,
) -> _Arguments:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                kind,
                prog=f"worldgen {verb}",
                description=description,
                args=list(arguments),
                config=(tyro.conf.OmitSubcommandPrefixes,),
                default=tyro.MISSING_NONPROP if defaults is None else defaults,
            )
    except SystemExit as error:
        if not error.code:
            raise
        raise ConfigError(_one_line(said.getvalue(), verb)) from None


def _one_line(boxed: str, verb: str) -> str:
    r"""Take the message out of tyro's box, and the options that it suggests.

    >>> _one_line("╭─ Value error ───╮\n│ Bad --seed: 'x' │\n│ ─── │\n│ more │\n╰───╯", "fit")
    "Bad --seed: 'x'; see worldgen fit --help"
    >>> known = "Perhaps you meant:\n      --seed INT"
    >>> _one_line(f" E\n ---\n  Unrecognized options: --see, 3\n  ---\n  {known}", "fit")
    'there is no option --see; did you mean --seed? See worldgen fit --help'
    """
    parts: list[list[str]] = [[]]
    for line in (re.sub(r"^│ |\s*│?$", "", line) for line in boxed.splitlines()):
        if line.strip() and set(line.strip()) <= set("─-"):
            parts.append([])
        elif line.strip() and not line.startswith(("╭", "╰")):
            parts[-1].append(line)
    # Where a terminal has no box to draw, a line of its own says what kind of error it is.
    message, *others = parts if "╭" in boxed else parts[1:] or parts
    text = re.sub(r"\s+", " ", " ".join(message)).strip().rstrip(".:") or "wrong arguments"
    words = text.removeprefix("Unrecognized options: ")
    if words != text:
        options = [word for word in words.split(", ") if word.startswith("-")]
        text = f"there is no option {' and no '.join(options)}" if options else text
    unread = re.match(
        r"Error parsing (\S+): no type matching (.+) could be .* from \[(.*?)\]", text
    )
    if unread:
        kinds = re.sub("[{}]", "", unread[2]).replace("|", " or ")
        text = f"{unread[1]} must be {kinds}, got {unread[3]}"
    # The parts stand in a random order, one for each option that was not read.
    suggested = [option for part in sorted(others) for option in _suggested(part)]
    if suggested:
        return f"{text}; did you mean {' or '.join(suggested)}? See worldgen {verb} --help"
    return f"{text}; see worldgen {verb} --help"


def _suggested(part: Sequence[str]) -> list[str]:
    """Find the options in a part of tyro's box; what stands further in is their help."""
    if not part or not re.match(r"\s*(Perhaps you meant|Arguments similar to)", part[0]):
        return []
    option = re.compile(re.match(r"\s*", part[0])[0] + r"    (?=--)")  # type: ignore[index]
    lines = [line for line in part[1:] if option.match(line)]
    return [name for line in lines for name in re.findall(r"(?<=\s)--[\w.-]+", line)]


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Make sure, before any work, that a result may be written.

    Raises:
        CheckpointError: If something is there and `overwrite` is not set.
    """
    if path.exists() and not overwrite:
        raise CheckpointError(f"{path} exists already: pass --overwrite, or another --output")

"""Write a folder of episodes as a Minari dataset, for other libraries to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from worldgen.cli.arguments import CommonArguments, EpisodesFolder
from worldgen.data.episodes import Episodes
from worldgen.data.minari_episodes import export_minari

__all__ = ["Arguments", "run"]


@dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    """Options of `worldgen export`."""

    episodes: EpisodesFolder
    """Folder that `worldgen collect` wrote, or `episodes` in the folder of a run."""
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID")]
    """Id of the new Minari dataset, such as doorkey/random-v0."""
    author: str | None = None
    """Who made it."""
    author_email: str | None = None
    """How to reach them."""
    description: str | None = None
    """What it is."""


def run(arguments: Arguments) -> None:
    """Export, and say where it is."""
    given = {
        name: value
        for name in ("author", "author_email", "description")
        if (value := getattr(arguments, name)) is not None
    }
    dataset = export_minari(Episodes.load(arguments.episodes), arguments.dataset, **given)
    print(
        f"{dataset.total_episodes:,} episodes, {dataset.total_steps:,} environment steps: "
        f"Minari dataset {arguments.dataset} in {dataset.storage.data_path.parent}"
    )

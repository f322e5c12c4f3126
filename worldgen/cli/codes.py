"""Show what a tokenizer's codes stand for and how often they are used: a page, plots, a film."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worldgen.cli.arguments import CommonArguments, Flag, ModelFolder
from worldgen.config import require
from worldgen.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from worldgen.data.episodes import Episodes
    from worldgen.inspection.code_usage import CodeUsage
    from worldgen.world_model import WorldModel

__all__ = ["Arguments", "run"]

_NEW_STEPS = 5_000


@dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    """Options of `worldgen codes`."""

    model: ModelFolder
    """Folder of a world model, of a tokenizer, or of a run."""
    episodes: Path | None = None
    """Folder of episodes to encode; by default the held_out/ of the run that the model belongs
    to, or where there is none new ones, played at random in the model's environment."""
    output: Path | None = None
    """Folder to write; by default codes/ in MODEL."""
    examples: int = 4
    """Most real patches to show beside each code."""
    episode: int | None = None
    """Which of the episodes to film, from 0; by default the one with most to see."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    overwrite: Flag = False
    """Replace the folder."""


def run(arguments: Arguments) -> None:
    """Load, measure, write, and say what was found."""
    require(arguments.examples >= 1, "examples", "be at least 1", arguments.examples)
    from worldgen.cli.saved import find_held_out, load_tokenizer
    from worldgen.data.episodes import Episodes
    from worldgen.evaluation.code_atlas import check_atlas_folder, write_code_atlas
    from worldgen.evaluation.plot_style import require_matplotlib
    from worldgen.inspection.code_usage import require_codes
    from worldgen.spaces import in_short

    require_matplotlib()
    output = arguments.output or arguments.model / "codes"
    check_atlas_folder(output, arguments.overwrite)
    tokenizer, model = load_tokenizer(arguments.model, arguments.device)
    require_codes(tokenizer)
    folder = arguments.episodes or find_held_out(arguments.model)
    episodes = _played(arguments, model) if folder is None else Episodes.load(folder)
    if episodes.observation_space != tokenizer.space:
        raise DatasetError(
            f"the model was built for the observation space {in_short(tokenizer.space)}, "
            f"{folder} has {in_short(episodes.observation_space)}: pass --episodes of the model's "
            "own environment"
        )
    usage = write_code_atlas(
        tokenizer,
        episodes,
        output,
        title=f"Codes of {arguments.model.resolve().name}",
        facts=_facts(arguments, episodes, folder),
        examples=arguments.examples,
        film_episode=arguments.episode,
        overwrite=arguments.overwrite,
    )
    print(_table(usage))
    print(f"codes: {output / 'index.html'}")


def _played(arguments: Arguments, model: WorldModel | None) -> Episodes:
    """Play new episodes in the model's environment."""
    from worldgen.data.collect import collect

    if model is None or model.environment is None:
        raise ConfigError(
            f"`episodes` must be given, since {arguments.model} does not say how to make its "
            "environment: pass --episodes"
        )
    return collect(model.environment, _NEW_STEPS, seed=arguments.seed)


def _facts(arguments: Arguments, episodes: Episodes, folder: Path | None) -> dict[str, str]:
    environment = episodes.environment
    return {
        "model": str(arguments.model),
        "environment": environment.id if environment is not None else "not known",
        "data": f"{folder or 'played at random'}, {len(episodes):,} episodes",
    }


def _table(usage: CodeUsage) -> str:
    from worldgen.inspection.code_pictures import percent

    lines = [
        f"{usage.num_frames:,} frames, {percent(usage.exact_frames)} of them come back exactly"
        f"{usage.tolerance}",
        f"{'leaf':16} {'codes':>7} {'in use':>7} {'perplexity':>11} {'exact patches':>14}",
    ]
    for path, leaf in usage.leaves.items():
        lines.append(
            f"{path:16} {leaf.num_codes:7,} {leaf.in_use:7,} {leaf.perplexity:11.1f} "
            f"{percent(leaf.exact_share):>14}"
        )
    return "\n".join(lines)

"""The codes of a tokenizer as files to look at: a page, pictures, plots, a film, and numbers.

Functions:
    write_code_atlas: write them all to a folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from worldgen.checkpoint import write_json
from worldgen.config import require
from worldgen.data.episode import Episode
from worldgen.errors import DatasetError
from worldgen.evaluation.code_page import code_page
from worldgen.evaluation.code_plots import usage_figure
from worldgen.evaluation.film import best_moment
from worldgen.evaluation.output_folder import check_output
from worldgen.evaluation.plot_style import figure_png, require_matplotlib
from worldgen.evaluation.token_film import token_film
from worldgen.inspection.code_pictures import atlas_pages, code_cards
from worldgen.inspection.code_usage import CodeUsage, LeafUsage, measure_codes, require_codes
from worldgen.inspection.patch_layout import patch_layout
from worldgen.tokenizer import Tokenizer

__all__ = ["check_atlas_folder", "write_code_atlas"]

_NUMBERS = "codes.json"
_PAGE, _FILM = "index.html", "tokens.gif"


def write_code_atlas(
    tokenizer: Tokenizer,
    episodes: Sequence[Episode],
    output: str | Path,
    *,
    title: str = "Codes",
    facts: Mapping[str, str] | None = None,
    examples: int = 4,
    film_episode: int | None = None,
    overwrite: bool = False,
) -> CodeUsage:
    """Measure the codes on episodes and write what there is to see to a folder.

    The folder gets `index.html`, which holds all the rest but the numbers; `codes.json`; pages
    of the atlas `atlas-LEAF-01.png` and on; `usage-LEAF.png`; and `tokens.gif`.

    Args:
        tokenizer: Trained, with codes.
        episodes: In the tokenizer's space.
        output: The folder; its parents are made.
        title: Of the page.
        facts: Of the model and the data, for the header of the page and codes.json.
        examples: Most real patches to show beside each code.
        film_episode: Which episode to film; by default the one with most to see.
        overwrite: Replace what an earlier call wrote to the folder.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
        CheckpointError: If the folder holds something and `overwrite` is not set, or something
            that is no atlas.
        ConfigError: If the tokenizer has no codes, or an argument is out of range.
        DatasetError: If there are no episodes.
    """
    require_matplotlib()
    require_codes(tokenizer)
    require(examples >= 1, "examples", "be at least 1", examples)
    if not len(episodes):
        raise DatasetError("`episodes` must hold at least one episode, got none")
    filmed = best_moment(episodes, 60)[0] if film_episode is None else film_episode
    require(0 <= filmed < len(episodes), "film_episode", f"be in [0, {len(episodes)})", filmed)
    output = Path(output)
    check_atlas_folder(output, overwrite)
    usage = measure_codes(tokenizer, episodes)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    # The numbers come first: by them the folder is known to be an atlas.
    write_json(output / _NUMBERS, {**(facts or {}), **usage.to_dict()})
    plots = {path: _plot(tokenizer, leaf, output) for path, leaf in usage.leaves.items()}
    token_film(tokenizer, episodes[filmed], output / _FILM)
    page = code_page(
        tokenizer,
        usage,
        title=title,
        facts=facts or {},
        plots=plots,
        film=(output / _FILM).read_bytes(),
        examples=examples,
    )
    (output / _PAGE).write_text(page, encoding="utf-8")
    for leaf in usage.leaves.values():
        _write_pages(tokenizer, leaf, output, examples)
    return usage


def check_atlas_folder(output: Path, overwrite: bool) -> None:
    """Make sure, before any work, that an atlas may be written; see `check_output`."""
    check_output(output, overwrite, marker=_NUMBERS, holds="codes")


def _plot(tokenizer: Tokenizer, leaf: LeafUsage, output: Path) -> bytes:
    png = figure_png(usage_figure(leaf, patch_layout(tokenizer, leaf.path)))
    (output / f"usage-{_file_name(leaf.path)}.png").write_bytes(png)
    return png


def _write_pages(tokenizer: Tokenizer, leaf: LeafUsage, output: Path, examples: int) -> None:
    number = 0
    for codebook in leaf.codebooks:
        cards = list(code_cards(tokenizer, leaf, codebook, examples=examples))
        title = (
            f"{codebook.name}: {codebook.in_use:,} of {codebook.size:,} codes in use, "
            f"perplexity {codebook.perplexity:.1f}"
        )
        for page in atlas_pages(cards, title):
            number += 1
            page.save(output / f"atlas-{_file_name(leaf.path)}-{number:02d}.png", optimize=True)


def _file_name(path: str) -> str:
    """Make a leaf's path a file's name."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in path)

"""How much of what environments show comes back from the tokens of each quantizer.

    python -m benchmarks.tokenizer                        # everything; about 40 minutes
    python -m benchmarks.tokenizer --tasks doorkey-8x8 --quantizers vq --num-frames 5000

Each task has training frames of mixed random and scripted play, and held-out frames of other
seeds. Each finished (task, quantizer, seed) is a JSON file in `--parts` and is not done again;
the table and the plot in `--output` are made from all of them together.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

import worldgen
from benchmarks.minigrid_player import collect_mixed
from benchmarks.reconstruction import measure_reconstruction
from benchmarks.results import Parts, markdown_table, one_line_errors, provenance, write_json
from worldgen import Tokenizer, TokenizerConfig
from worldgen.data import EnvironmentSpec, Episodes
from worldgen.errors import MissingDependencyError
from worldgen.spaces import leaves
from worldgen.tokenizer import QuantizerConfig

__all__ = ["TASKS", "Config", "Task", "main"]

QuantizerName = Literal["vq", "fsq", "residual", "gaussian"]
_HELD_OUT = 1_000_000
"""Added to a seed for held-out data."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """An environment, and the codes that its tokenizer may have."""

    environment: EnvironmentSpec
    num_codes: int = 512
    levels: tuple[int, ...] = (3,) * 6
    """Of "fsq", which needs more codes than patches."""
    num_seeds: int = 3
    """Seeds of the default quantizer; the others have one."""
    image_alone: bool = False
    """Take the part `image` of the observation and leave the rest."""
    num_frames: int = 50_000


def _minigrid(name: str, *wrappers: str, text: bool = False) -> EnvironmentSpec:
    return EnvironmentSpec(id=f"MiniGrid-{name}", wrappers=wrappers, text=text)


_RGB = "minigrid.wrappers:RGBImgPartialObsWrapper"
TASKS = {
    "doorkey-8x8": Task(
        environment=_minigrid("DoorKey-8x8-v0"), num_codes=192, num_seeds=5, image_alone=True
    ),
    "keycorridor-s3r3": Task(
        environment=_minigrid("KeyCorridorS3R3-v0"),
        num_codes=2048,
        levels=(3,) * 7,
        num_seeds=5,
        image_alone=True,
    ),
    "multiroom-n4-s5": Task(
        environment=_minigrid("MultiRoom-N4-S5-v1"), num_seeds=5, image_alone=True
    ),
    "obstructedmaze-1dlh": Task(
        environment=_minigrid("ObstructedMaze-1Dlh-v0"), num_seeds=5, image_alone=True
    ),
    "doorkey-8x8-full": Task(
        environment=_minigrid("DoorKey-8x8-v0", "worldgen.envs:FullyObservedMiniGrid"),
        num_codes=48,
        num_seeds=5,
    ),
    "doorkey-8x8-rgb": Task(
        environment=_minigrid("DoorKey-8x8-v0", _RGB), image_alone=True, num_frames=20_000
    ),
    "keycorridor-mission": Task(
        environment=_minigrid("KeyCorridorS3R3-v0", text=True), num_codes=2048, levels=(3,) * 7
    ),
    "cartpole": Task(environment=EnvironmentSpec(id="CartPole-v1")),
    "acrobot": Task(environment=EnvironmentSpec(id="Acrobot-v1")),
    "pendulum": Task(environment=EnvironmentSpec(id="Pendulum-v1")),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """Names in `TASKS`."""
    quantizers: tuple[QuantizerName, ...] = ("vq", "residual", "fsq", "gaussian")
    """Which quantizers; all have the same data and the same gradient steps."""
    gradient_steps: int = 1000
    """Most gradient steps of a leaf; training stops early where everything comes back."""
    num_frames: int | None = None
    """Training frames; None takes the task's."""
    held_out_frames: int = 20_000
    """Held-out frames."""
    max_seeds: int = 5
    """Most seeds of a task."""
    parts: Path = Path("runs/benchmarks/tokenizer")
    """Folder of the finished pieces."""
    output: Path = Path("docs/benchmarks")
    """Folder of tokenizer.json, tokenizer.md and tokenizer.png."""

    def __post_init__(self) -> None:
        """Check the names of the tasks."""
        unknown = sorted(set(self.tasks) - set(TASKS))
        if unknown:
            raise SystemExit(f"`tasks` must be among {', '.join(TASKS)}, got {unknown}")


def main(config: Config) -> dict[str, Any]:
    """Measure what is not yet measured, and write JSON, table and plot."""
    pieces = []
    for name in config.tasks:
        task = TASKS[name]
        for seed in range(min(task.num_seeds, config.max_seeds)):
            frames: list[dict[str, np.ndarray]] = []  # Collected once, and only if needed.
            for kind in config.quantizers if seed == 0 else config.quantizers[:1]:
                settings = {
                    "task": name,
                    "quantizer": kind,
                    "seed": seed,
                    "gradient_steps": config.gradient_steps,
                    "num_frames": config.num_frames or task.num_frames,
                    "held_out_frames": config.held_out_frames,
                }
                piece = Parts(config.parts).get(
                    f"{name}-{kind}-{seed}",
                    settings,
                    lambda s=settings, f=frames: _measure(TASKS[s["task"]], s, f),  # type: ignore[misc]
                )
                pieces.append(piece)
                print(_line(piece), flush=True)
    result = {"provenance": provenance(), "pieces": pieces}
    config.output.mkdir(parents=True, exist_ok=True)
    write_json(config.output / "tokenizer.json", result)
    page = f"{_summary(pieces)}\n\nEach seed and quantizer:\n\n{_table(pieces)}\n"
    (config.output / "tokenizer.md").write_text(page)
    _plot(pieces, config.output / "tokenizer.png")
    return result


def _measure(
    task: Task, settings: dict[str, Any], frames: list[dict[str, np.ndarray]]
) -> dict[str, Any]:
    seed = settings["seed"]
    if not frames:
        frames.append(_flat(_collect(task, settings["num_frames"], seed)))
        frames.append(_flat(_collect(task, settings["held_out_frames"], seed + _HELD_OUT)))
    training, held_out = frames
    tokenizer = _tokenizer(task, settings)
    paths = list(leaves(tokenizer.space))
    if task.image_alone:
        training, held_out = ({paths[0]: part["image"]} for part in (training, held_out))
    steps = 0

    def count(_: float) -> None:
        nonlocal steps
        steps += 1

    begin = time.perf_counter()
    tokenizer.fit(
        worldgen.spaces.unflatten(tokenizer.space, training),
        gradient_steps=settings["gradient_steps"],
        seed=seed,
        on_gradient_step=count,
    )
    return {
        "fit_seconds": round(time.perf_counter() - begin, 1),
        "gradient_steps_taken": steps,
        "tokens": tokenizer.num_tokens,
        **measure_reconstruction(tokenizer, training, held_out),
    }


def _tokenizer(task: Task, settings: dict[str, Any]) -> Tokenizer:
    env = task.environment.make()
    space: Any = env.observation_space
    space = space["image"] if task.image_alone else space
    env.close()
    quantizer = QuantizerConfig(
        kind=settings["quantizer"], num_codes=task.num_codes, levels=task.levels
    )
    return Tokenizer.for_space(space, TokenizerConfig(quantizer=quantizer), seed=settings["seed"])


def _collect(task: Task, count: int, seed: int) -> Episodes:
    if task.environment.id.startswith("MiniGrid"):
        return collect_mixed(task.environment, count, seed=seed)
    return worldgen.collect(task.environment, count, seed=seed, progress=False)


def _flat(episodes: Episodes) -> dict[str, np.ndarray]:
    paths = list(episodes[0].observations)
    return {path: np.concatenate([e.observations[path] for e in episodes]) for path in paths}


def _line(piece: dict[str, Any]) -> str:
    return "  ".join(_row(piece))


_HEADER = [
    "task", "quantizer", "seed", "tokens", "codes", "in use", "whole frames exact",
    "worst recall", "tiles", "PSNR", "worst R2", "training",
]  # fmt: skip


def _row(piece: dict[str, Any]) -> list[str]:
    settings = piece["settings"]

    def shown(key: str, form: str, scale: float = 1.0) -> str:
        return "" if piece.get(key) is None else form.format(scale * piece[key])

    return [
        settings["task"],
        settings["quantizer"],
        str(settings["seed"]),
        str(piece["tokens"]),
        shown("codes", "{:.0f}"),
        shown("codes_in_use_share", "{:.0f}%", 100),
        shown("exact", "{:.2f}%", 100),
        shown("worst_recall", "{:.2f}%", 100),
        shown("tiles", "{:.2f}%", 100),
        shown("psnr", "{:.1f} dB"),
        shown("worst_r_squared", "{:.5f}"),
        f"{piece['gradient_steps_taken']} steps, {piece['fit_seconds']:.0f} s",
    ]


def _table(pieces: Sequence[dict[str, Any]]) -> str:
    return markdown_table(_HEADER, [_row(piece) for piece in pieces])


def _summary(pieces: Sequence[dict[str, Any]]) -> str:
    """Lay out the worst seed of each task with the first quantizer."""
    default = pieces[0]["settings"]["quantizer"]
    of_task: dict[str, list[dict[str, Any]]] = {}
    for piece in pieces:
        if piece["settings"]["quantizer"] == default:
            of_task.setdefault(piece["settings"]["task"], []).append(piece)
    rows = []
    for found in of_task.values():
        lowest = dict(found[0])
        for key in ("codes_in_use_share", "exact", "worst_recall", "tiles", "psnr"):
            if lowest.get(key) is not None:
                lowest[key] = min(piece[key] for piece in found)
        row = _row(lowest)
        rows.append([row[0], str(len(found)), *row[3:11]])
    header = [_HEADER[0], "seeds", *_HEADER[3:11]]
    return f"`{default}`, the lowest of all seeds:\n\n{markdown_table(header, rows)}"


def _plot(pieces: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the share of frames that are wrong, by task and quantizer, on a log scale."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "the plot needs matplotlib: pip install 'worldgen[plot]'"
        ) from error
    shown = [piece for piece in pieces if piece.get("exact") is not None]
    tasks = list(dict.fromkeys(piece["settings"]["task"] for piece in shown))
    kinds = list(dict.fromkeys(piece["settings"]["quantizer"] for piece in shown))
    if not tasks:
        return
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    for offset, kind in enumerate(kinds):
        of_kind = [piece for piece in shown if piece["settings"]["quantizer"] == kind]
        places = [tasks.index(p["settings"]["task"]) + 0.15 * offset for p in of_kind]
        wrong = [max(100 * (1 - piece["exact"]), 1e-3) for piece in of_kind]
        axes.scatter(places, wrong, label=kind, s=28, alpha=0.8)
    axes.axhline(0.5, color="gray", linewidth=1, linestyle="--", label="99.5% exact")
    axes.set_yscale("log")
    axes.set_ylabel("held-out frames with any mistake, %\n(0.001 stands for none)")
    axes.set_xticks(np.arange(len(tasks)) + 0.15, tasks, rotation=20, ha="right")
    axes.legend(ncols=len(kinds) + 1, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Config, description=__doc__))

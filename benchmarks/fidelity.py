"""How far a dream can be trusted: exact symbols, calibrated views, drift of numbers.

    python -m benchmarks.fidelity    # every task and seed, one after the other
    python -m benchmarks.fidelity --tasks doorkey-6x6-full --seeds 0 --gradient-steps 500
    python -m benchmarks.fidelity --tasks MiniGrid-KeyCorridorS3R1-v0 --whole --seeds 0

Each task and seed has its own data of mixed random and scripted play, its own model, and
held-out episodes of other seeds. A finished one is a JSON file in `parts` and is not repeated;
the table and the plots in `docs/benchmarks/` are made from those files alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.fidelity_report import write_report
from benchmarks.fidelity_tasks import TASKS, Task, collect_play, task_named
from benchmarks.results import Parts, one_line_errors, provenance
from worldgen import WorldModel
from worldgen.config import Config, require
from worldgen.evaluation import calibrate, compare_samplers, evaluate

__all__ = ["FidelityConfig", "main"]

_HELD_OUT = 1_000_000
"""Added to a seed for held-out data."""


@dataclass(frozen=True, kw_only=True)
class FidelityConfig(Config):
    """What to measure, and with how much training."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """Names in `fidelity_tasks.TASKS`, or Gymnasium ids."""
    whole: bool = False
    """Whether MiniGrid ids show their whole grid, in place of the agent's view."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """A model of each task for each; of data, weights and training."""
    training_steps: int = 50_000
    """Environment steps to learn from."""
    held_out_steps: int = 20_000
    """Environment steps to measure on."""
    gradient_steps: int | None = None
    """Of the dynamics; None takes the task's."""
    compiled: bool = False
    """Whether training goes through `torch.compile`, which takes a C++ compiler."""
    horizons: tuple[int, ...] = (1, 5, 10, 15, 30, 100)
    """In environment steps."""
    dreams: int = 512
    """Most dreams of a horizon."""
    denoising_steps: tuple[int, ...] = (1, 2, 3, 4)
    """Compared with each other and with one token a pass; without a number, none."""
    sampler_dreams: int = 128
    """Most dreams of a horizon in that comparison, which goes up to 30 environment steps."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        require(len(self.tasks) >= 1, "tasks", "name at least one task", self.tasks)
        require(len(self.seeds) >= 1, "seeds", "name at least one seed", self.seeds)
        for name in ("training_steps", "held_out_steps", "dreams", "sampler_dreams"):
            require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))


_PUBLISHED = FidelityConfig()


def main(
    config: Annotated[FidelityConfig, tyro.conf.arg(name="")] = _PUBLISHED,
    *,
    parts: Path = Path("runs/benchmarks/fidelity"),
    output: Path = Path("docs/benchmarks"),
) -> dict[str, Any]:
    """Measure what is not yet measured, and write JSON, table and plots.

    Args:
        config: What is measured.
        parts: Folder of the finished tasks and seeds, and of their models.
        output: Folder of fidelity.json, fidelity.md and fidelity.png.
    """
    pieces = []
    for label, task in _tasks(config).items():
        for seed in config.seeds:
            name = f"{label.replace('/', '-').replace(':', '-')}-{seed}"
            piece = Parts(parts).get(
                name,
                _settings(config, label, task, seed),
                lambda n=name, t=task, s=seed: _measure(config, t, s, parts / f"{n}-model"),  # type: ignore[misc]
            )
            pieces.append(piece)
            print(f"{label}, seed {seed}:\n{_described(piece)}", flush=True)
    return write_report(pieces, provenance(), output)


def _tasks(config: FidelityConfig) -> dict[str, Task]:
    """Give the tasks by what tables call them."""
    tasks = {}
    for name in config.tasks:
        task = task_named(name, whole=config.whole)
        training = replace(task.model.training, compiled=config.compiled)
        label = f"{name}-whole" if config.whole and name not in TASKS else name
        tasks[label] = replace(task, model=replace(task.model, training=training))
    return tasks


def _settings(config: FidelityConfig, label: str, task: Task, seed: int) -> dict[str, Any]:
    """Give all that decides about one piece, and nothing else."""
    settings = config.to_dict()
    for field in ("tasks", "whole", "seeds", "compiled"):  # The task's settings say it.
        del settings[field]
    return {"task": label, **task.to_dict(), "seed": seed, **settings}


def _measure(config: FidelityConfig, task: Task, seed: int, folder: Path) -> dict[str, Any]:
    """Train a model, which goes to `folder`, and measure it."""
    training = collect_play(task, config.training_steps, seed=seed)
    held_out = collect_play(task, config.held_out_steps, seed=seed + _HELD_OUT)
    model = WorldModel.for_env(task.environment, config=task.model, seed=seed)
    began = time.perf_counter()
    model.fit(training, dynamics_steps=config.gradient_steps)
    seconds = time.perf_counter() - began
    model.save(folder, overwrite=True)
    dreams = partial(
        evaluate, model, held_out, horizons=config.horizons, num_dreams=config.dreams, seed=seed
    )
    report = dreams()
    piece = {
        "fit_seconds": round(seconds, 1),
        "tokens": model.tokenizer.num_tokens,
        "context": model.config.context,
        "parameters": sum(weights.numel() for weights in model.dynamics.parameters()),
        "table": str(report),
        "report": report.to_dict(),
        "calibration": calibrate(model, held_out, training=training, seed=seed).to_dict(),
    }
    if any(entry.determined_exact is not None for entry in report.horizons):
        likeliest = replace(model.config.sampler, temperature=0.0)
        piece["likeliest"] = dreams(sampler=likeliest).to_dict()
    if config.denoising_steps:
        samplers = compare_samplers(
            model,
            held_out,
            denoising_steps=(*config.denoising_steps, model.tokenizer.num_tokens),
            horizons=tuple(horizon for horizon in config.horizons if horizon <= 30),
            num_dreams=config.sampler_dreams,
            seed=seed,
        )
        piece["samplers"] = samplers.to_dict()
    return piece


def _described(piece: dict[str, Any]) -> str:
    return f"{piece['table']}\ntrained for {piece['fit_seconds']:.0f} s"


if __name__ == "__main__":
    with one_line_errors():
        tyro.cli(main, description=__doc__)

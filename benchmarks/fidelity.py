"""How far a dream can be trusted: exact symbols, calibrated views, drift of numbers.

    python -m benchmarks.fidelity    # every task and seed, one after the other
    python -m benchmarks.fidelity --tasks doorkey-6x6-full --seeds 0 --gradient-steps 500

Each task and seed has its own data of mixed random and scripted play, its own model, and
held-out episodes of other seeds. A finished one is a JSON file in `parts` and is not repeated;
the table and the plots in `docs/benchmarks/` are made from those files alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.control_player import CONTROLLERS, collect_controlled
from benchmarks.fidelity_report import write_report
from benchmarks.minigrid_player import collect_mixed
from benchmarks.results import Parts, provenance
from worldgen import TokenizerConfig, WorldModel, WorldModelConfig
from worldgen.config import Config, require
from worldgen.data import EnvironmentSpec, Episodes
from worldgen.diffusion.sampler_config import SamplerConfig
from worldgen.dynamics import DynamicsConfig
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.evaluation import calibrate, compare_samplers, evaluate
from worldgen.tokenizer import QuantizerConfig
from worldgen.transformer import TransformerConfig

__all__ = ["TASKS", "FidelityConfig", "Task", "main"]

_HELD_OUT = 1_000_000
"""Added to a seed for held-out data."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """An environment and the settings of its model."""

    environment: EnvironmentSpec
    """What is dreamt."""
    model: WorldModelConfig
    """The world model, with its numbers of gradient steps."""


def _minigrid(name: str, *wrappers: str) -> EnvironmentSpec:
    return EnvironmentSpec(id=f"MiniGrid-{name}-v0", wrappers=wrappers)


def _with_codes(num_codes: int) -> TokenizerConfig:
    return TokenizerConfig(quantizer=QuantizerConfig(num_codes=num_codes))


def _whole_grid(name: str, num_codes: int) -> Task:
    """Give a task whose frames say everything, in a world without chance."""
    return Task(
        environment=_minigrid(name, "worldgen.envs:FullyObservedMiniGrid"),
        model=WorldModelConfig(
            tokenizer=_with_codes(num_codes),
            dynamics=DynamicsConfig(context=1, transformer=TransformerConfig(layers=3)),
            training=DynamicsTrainingConfig(batch_size=96, gradient_steps=10_000),
            sampler=SamplerConfig(temperature=0.0),
        ),
    )


def _view(name: str, num_codes: int) -> Task:
    """Give a task whose frames are what the agent sees in front of it."""
    return Task(
        environment=_minigrid(name),
        model=WorldModelConfig(
            tokenizer=_with_codes(num_codes),
            dynamics=DynamicsConfig(transformer=TransformerConfig(layers=3)),
            training=DynamicsTrainingConfig(batch_size=16, gradient_steps=6_000),
        ),
    )


def _numbers(environment: str) -> Task:
    """Give a task of real numbers, which are dreamt as what the model expects of them."""
    return Task(
        environment=EnvironmentSpec(id=environment),
        model=WorldModelConfig(
            training=DynamicsTrainingConfig(gradient_steps=6_000),
            sampler=SamplerConfig(numbers="mean"),
        ),
    )


TASKS = {
    "doorkey-6x6-full": _whole_grid("DoorKey-6x6", 48),
    "doorkey-8x8-full": _whole_grid("DoorKey-8x8", 48),
    "unlock-full": _whole_grid("Unlock", 128),
    "doorkey-6x6": _view("DoorKey-6x6", 192),
    "doorkey-8x8": _view("DoorKey-8x8", 192),
    "cartpole": _numbers("CartPole-v1"),
    "pendulum": _numbers("Pendulum-v1"),
}
"""To change how a task's model is trained, edit its line."""


@dataclass(frozen=True, kw_only=True)
class FidelityConfig(Config):
    """What to measure, and with how much training."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """Names in `TASKS`."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """A model of each task for each; of data, weights and training."""
    training_steps: int = 50_000
    """Environment steps to learn from."""
    held_out_steps: int = 20_000
    """Environment steps to measure on."""
    gradient_steps: int | None = None
    """Of the dynamics; None takes the task's."""
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
        unknown = sorted(set(self.tasks) - set(TASKS))
        require(not unknown, "tasks", f"be among {', '.join(TASKS)}", unknown)
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
    for name in config.tasks:
        for seed in config.seeds:
            settings = _settings(config, name, seed)
            piece = Parts(parts).get(
                f"{name}-{seed}",
                settings,
                lambda n=name, s=seed: _measure(config, n, s, parts),  # type: ignore[misc]
            )
            pieces.append(piece)
            print(f"{name}, seed {seed}:\n{_described(piece)}", flush=True)
    return write_report(pieces, provenance(), output)


def _settings(config: FidelityConfig, name: str, seed: int) -> dict[str, Any]:
    """Give all that decides about one piece, and nothing else."""
    settings = config.to_dict()
    del settings["tasks"], settings["seeds"]
    task = TASKS[name]
    return {
        "task": name,
        "environment": task.environment.to_dict(),
        "seed": seed,
        "model": task.model.to_dict(),
        **settings,
    }


def _measure(config: FidelityConfig, name: str, seed: int, parts: Path) -> dict[str, Any]:
    task = TASKS[name]
    training = _collect(task, config.training_steps, seed)
    held_out = _collect(task, config.held_out_steps, seed + _HELD_OUT)
    model = WorldModel.for_env(task.environment, config=task.model, seed=seed)
    began = time.perf_counter()
    model.fit(training, dynamics_steps=config.gradient_steps)
    seconds = time.perf_counter() - began
    model.save(parts / f"{name}-{seed}-model", overwrite=True)
    report = evaluate(
        model, held_out, horizons=config.horizons, num_dreams=config.dreams, seed=seed
    )
    piece = {
        "fit_seconds": round(seconds, 1),
        "tokens": model.tokenizer.num_tokens,
        "context": model.config.context,
        "parameters": sum(weights.numel() for weights in model.dynamics.parameters()),
        "table": str(report),
        "report": report.to_dict(),
        "calibration": calibrate(model, held_out, training=training, seed=seed).to_dict(),
    }
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


def _collect(task: Task, num_steps: int, seed: int) -> Episodes:
    if task.environment.id in CONTROLLERS:
        return collect_controlled(task.environment, num_steps, seed=seed)
    return collect_mixed(task.environment, num_steps, seed=seed)


def _described(piece: dict[str, Any]) -> str:
    return f"{piece['table']}\ntrained for {piece['fit_seconds']:.0f} s"


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

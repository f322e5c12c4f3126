"""How fast dreams are, beside what the machine can do and beside other ways to dream.

    python -m benchmarks.imagination                 # about eight minutes; run it alone

Counts the floating-point operations of one imagined environment step, measures the machine's own
matrix rate in the same run, and times

- the engine, for several numbers of rows and of denoising steps, and compiled by `torch.compile`;
- raster order: the same network and cache, one token a pass (as IRIS decodes,
  https://arxiv.org/abs/2209.00588);
- a pixel-space denoiser of the size that DIAMOND published, three passes a frame;
- the real environment.

It also asks whether the thousandth environment step of a dream costs more, in time or memory,
than the tenth. Rates are medians of several rounds in which everything takes turns.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.minigrid_player import collect_mixed
from benchmarks.pixel_denoiser import PixelDenoiser
from benchmarks.results import markdown_table, one_line_errors, provenance, write_json
from worldgen import SamplerConfig, WorldModel, WorldModelConfig
from worldgen.data import EnvironmentSpec
from worldgen.data.token_dataset import TokenDataset
from worldgen.device import resolve_precision
from worldgen.dynamics import DynamicsConfig
from worldgen.frozen_dynamics import FrozenDynamics
from worldgen.imagination import Imagination
from worldgen.transformer import KeyValueCache, TransformerConfig

__all__ = ["Config", "main"]

_MATRIX = 1024
_PIXEL_BATCHES = (1, 16)
_PIXEL_PASSES = 3


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure."""

    env: str = "MiniGrid-DoorKey-8x8-v0"
    """A MiniGrid environment; fully observed."""
    layers: int = 3
    """Of the transformer; as in `benchmarks.fidelity`."""
    context: int = 1
    """C, frames that a prediction sees; as in `benchmarks.fidelity`, where a frame says all."""
    batches: tuple[int, ...] = (1, 16, 64, 256)
    """Rows of a dream."""
    denoising_steps: tuple[int, ...] = (1, 2, 3)
    """S."""
    compiled: bool = True
    """Whether the least of these is timed with compiled layers too."""
    rounds: int = 7
    """Of which the median counts."""
    seconds: float = 0.4
    """Least time of each measurement in a round."""
    threads: int = 2
    """Of the matrix products."""
    horizon: int = 1000
    """Environment steps of the long dream."""
    output: Path = Path("docs/benchmarks")
    """Folder of imagination.json and imagination.md."""


def main(config: Config) -> dict[str, Any]:
    """Measure, print and write."""
    torch.set_num_threads(config.threads)
    spec = EnvironmentSpec(id=config.env, wrappers=("worldgen.envs:FullyObservedMiniGrid",))
    episodes = collect_mixed(spec, 10_000, seed=0)
    transformer = TransformerConfig(layers=config.layers)
    model = WorldModel.for_spaces(
        episodes.observation_space,
        episodes.action_space,
        config=WorldModelConfig(
            dynamics=DynamicsConfig(transformer=transformer, context=config.context)
        ),
    )
    # Untrained weights dream as fast as trained ones; the codes that occur must be known.
    model.fit(episodes, dynamics_steps=20, progress=False)
    starts = model.dataset(episodes)
    result = {
        "provenance": provenance(),
        "layers": config.layers,
        "context": config.context,
        "weights": sum(p.numel() for p in model.dynamics.parameters()),
        "tokens": model.dynamics.num_tokens,
        **_rates(model, starts, spec, config),
        "long_dream": _long_dream(model, starts, config.horizon),
    }
    config.output.mkdir(parents=True, exist_ok=True)
    write_json(config.output / "imagination.json", result)
    text = _report(result)
    (config.output / "imagination.md").write_text(text)
    print(text)
    return result


def _rates(
    model: WorldModel, starts: TokenDataset, spec: EnvironmentSpec, config: Config
) -> dict[str, Any]:
    """Time everything in turns, so that all meet the same machine."""
    dtype = resolve_precision(model.config.dynamics.precision, model.device)
    tasks: dict[str, Callable[[], Any]] = {}
    left, right = (torch.randn(_MATRIX, _MATRIX, device=model.device, dtype=dtype) for _ in "ab")
    tasks["matrix"] = lambda: left @ right
    operations: dict[str, float] = {}
    for batch in config.batches:
        for steps in config.denoising_steps:
            name = f"S={steps} B={batch}"
            tasks[name] = _dreamer(model, starts, batch, steps)
            operations[name] = _operations(tasks[name]) / batch
        if config.compiled:
            least = min(config.denoising_steps)
            name = f"S={least}, compiled B={batch}"
            tasks[name] = _dreamer(model, starts, batch, least, compiled=True)
            operations[name] = operations[f"S={least} B={batch}"]
        tasks[f"raster B={batch}"] = _Raster(model, batch).step
    for batch in _PIXEL_BATCHES:
        tasks[f"pixels B={batch}"] = _pixel_dreamer(batch, dtype)
    tasks["real"] = _RealEnvironment(spec).step
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(config.rounds):
        for name, task in tasks.items():
            seconds[name].append(_seconds(task, config.seconds))
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    rate = 2 * _MATRIX**3 / medians["matrix"]
    rows = {
        name: {
            "batch": batch,
            "steps_per_second": batch / medians[name],
            "operations_per_step": operations.get(name),
            "share_of_matrix_rate": operations[name] * batch / medians[name] / rate
            if name in operations
            else None,
        }
        for name in tasks
        if name not in ("matrix", "real")
        for batch in [int(name.rpartition("=")[2])]
    }
    real = 1 / medians["real"]
    return {
        "precision": str(dtype).removeprefix("torch."),
        "matrix_rate_flops": rate,
        "real_steps_per_second": real,
        "rows": rows,
    }


def _seconds(task: Callable[[], Any], least: float) -> float:
    """Time a call: repeated until `least` seconds have passed."""
    task()
    count, begin = 0, time.perf_counter()
    while True:
        task()
        count += 1
        elapsed = time.perf_counter() - begin
        if elapsed >= least:
            return elapsed / count


def _operations(task: Callable[[], Any]) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        task()
    return float(counter.get_total_flops())


def _engine(
    model: WorldModel, starts: TokenDataset, batch: int, steps: int, *, compiled: bool = False
) -> Imagination:
    sampler = SamplerConfig(denoising_steps=steps, compiled=compiled)
    engine = model.imagination(batch, sampler=sampler)
    engine.reset(starts.sample_contexts(batch, generator=torch.Generator(model.device)))
    return engine


def _dreamer(
    model: WorldModel, starts: TokenDataset, batch: int, steps: int, *, compiled: bool = False
) -> Callable[[], Any]:
    engine = _engine(model, starts, batch, steps, compiled=compiled)
    actions = torch.ones(batch, model.action_codec.num_dims, dtype=torch.int64, device=model.device)
    return lambda: engine.step(actions)


class _Raster:
    """The same network, one token a pass: an action, then each token of the next frame."""

    def __init__(self, model: WorldModel, batch: int) -> None:
        dynamics = model.dynamics
        self.batch, self.size = batch, dynamics.frame_size
        dtype = resolve_precision(dynamics.config.precision, model.device)
        self._network = FrozenDynamics(dynamics, dtype)
        self._context = dynamics.config.context
        self._cache = KeyValueCache(
            dynamics.config.transformer, batch, self._context, self.size, model.device, dtype
        )
        self._tokens = torch.zeros(batch, dynamics.num_tokens, dtype=torch.int64)
        self._tokens = self._tokens.to(model.device)
        self._actions = torch.ones(batch, model.action_codec.num_dims, dtype=torch.int64)
        room = self._cache.keys.shape[3]
        self._hidden = torch.full((batch, 1, 1, room), -torch.inf, device=model.device)
        self._hidden[:, :, :, : self._context * self.size] = 0

    @torch.inference_mode()
    def step(self) -> None:
        """Decode one frame."""
        frame = self._network.embed(self._tokens, self._actions.to(self._tokens.device))
        first = (self._context - 1) * self.size
        for index in range(self.size):
            place = slice(first + index, first + index + 1)
            inputs = frame[:, index : index + 1]
            outputs = self._network.extend(inputs, 0, self._hidden, self._cache, place)
            # All heads' scores of one position would be of its own head: the widest stands for it.
            logits = self._network.widest_logits(outputs)
            self._tokens[:, min(index, self.size - 2)] = logits.argmax(-1)[:, 0] * 0


def _pixel_dreamer(batch: int, dtype: torch.dtype) -> Callable[[], Any]:
    network = PixelDenoiser().to(dtype).eval()
    past = torch.randn(batch, 12, 64, 64, dtype=dtype)
    condition = torch.randn(batch, 256, dtype=dtype)

    @torch.inference_mode()
    def dream() -> None:
        frame = torch.randn(batch, 3, 64, 64, dtype=dtype)
        for _ in range(_PIXEL_PASSES):
            frame = network(frame, past, condition)

    return dream


class _RealEnvironment:
    def __init__(self, spec: EnvironmentSpec) -> None:
        self._env: gym.Env[Any, Any] = gym.make(spec.id)
        self._env.reset(seed=0)
        self._env.action_space.seed(0)

    def step(self) -> None:
        """Take a random action."""
        _, _, terminated, truncated, _ = self._env.step(self._env.action_space.sample())
        if terminated or truncated:
            self._env.reset()


def _long_dream(model: WorldModel, starts: TokenDataset, horizon: int) -> dict[str, float]:
    """Compare the steps of the first and the last tenth of a dream of 64 rows."""
    engine = _engine(model, starts, 64, 1)
    actions = torch.ones(64, model.action_codec.num_dims, dtype=torch.int64, device=model.device)
    times = []
    memory = 0.0
    for step in range(horizon):
        if step == horizon // 10:
            memory = _resident_megabytes()
        begin = time.perf_counter()
        engine.step(actions)
        times.append(time.perf_counter() - begin)
    tenth = max(1, horizon // 10)
    return {
        "horizon": horizon,
        "first_tenth_ms": 1e3 * statistics.median(times[:tenth]),
        "last_tenth_ms": 1e3 * statistics.median(times[-tenth:]),
        "memory_growth_megabytes": _resident_megabytes() - memory,
    }


def _resident_megabytes() -> float:
    """Give the most memory that the process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _report(result: dict[str, Any]) -> str:
    rows = result["rows"]
    lines = []
    for name, row in rows.items():
        raster = rows.get(f"raster B={row['batch']}")
        times = row["steps_per_second"] / raster["steps_per_second"] if raster else None
        operations, share = row["operations_per_step"], row["share_of_matrix_rate"]
        lines.append(
            (
                name.rpartition(" ")[0],
                str(row["batch"]),
                f"{row['steps_per_second']:,.0f}",
                "" if operations is None else f"{operations / 1e6:.1f}",
                "" if share is None else f"{share:.0%}",
                "" if times is None or name.startswith("raster") else f"{times:.1f}",
                f"{row['steps_per_second'] / result['real_steps_per_second']:.2f}",
            )
        )
    header = ("way", "rows", "env steps/s", "MFLOP a step", "of the matrix rate")
    table = markdown_table((*header, "times raster", "times real"), lines)
    long = result["long_dream"]
    return (
        f"{result['weights']:,} weights in {result['layers']} layers, {result['tokens']} tokens a "
        f"frame, a context of {result['context']} (frames), "
        f"{result['precision']}; matrix rate {result['matrix_rate_flops'] / 1e9:.0f} GFLOP/s; the "
        f"real environment makes {result['real_steps_per_second']:,.0f} steps/s.\n\n{table}\n\n"
        f"A dream of {long['horizon']:,} environment steps, 64 rows: "
        f"{long['first_tenth_ms']:.1f} ms a step in its first tenth, "
        f"{long['last_tenth_ms']:.1f} ms in its last; the memory held "
        f"grew by {long['memory_growth_megabytes']:.1f} MB between.\n"
    )


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Config, description=__doc__))

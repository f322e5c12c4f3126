"""How fast the tokenizer is, beside what the machine can do.

    python -m benchmarks.tokenizer_speed

Counts the floating-point operations of the encoder's matrix products (decoding looks codes up
and has none), measures the machine's own matrix rate in the same run, and steps a MiniGrid
environment with and without `TokenObservation`. Every figure is the median of several rounds;
run it alone, since it uses all cores.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
import tyro

import worldgen
from benchmarks.results import markdown_table, one_line_errors, provenance, write_json
from worldgen import Tokenizer
from worldgen.envs import TokenObservation
from worldgen.tokenizer.grouped_linear import GroupedLinear
from worldgen.tokenizer.patch_autoencoder import PatchAutoencoder

__all__ = ["Config", "main"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure."""

    env: str = "MiniGrid-DoorKey-8x8-v0"
    """A MiniGrid environment."""
    batch: int = 256
    """Frames that are encoded and decoded together."""
    rounds: int = 7
    """Rounds, of which the median counts."""
    num_steps: int = 2_000
    """Environment steps a round."""
    threads: int = 2
    """Threads of the batched part."""
    output: Path = Path("docs/benchmarks")
    """Folder of tokenizer_speed.json and tokenizer_speed.md."""


def main(config: Config) -> dict[str, Any]:
    """Measure, print and write."""
    torch.set_num_threads(config.threads)
    episodes = worldgen.collect(config.env, 10_000, seed=0, progress=False)
    tokenizer = Tokenizer.for_env(config.env, device="cpu")
    tokenizer.fit(episodes)
    result = {
        "provenance": provenance(),
        **_batched(tokenizer, episodes[0].observations, config),
        **_stepped(tokenizer, config),
    }
    config.output.mkdir(parents=True, exist_ok=True)
    write_json(config.output / "tokenizer_speed.json", result)
    table = markdown_table(["what", "figure"], _rows(result))
    (config.output / "tokenizer_speed.md").write_text(table + "\n")
    print(table)
    return result


def _batched(tokenizer: Tokenizer, observations: dict[str, Any], config: Config) -> dict[str, Any]:
    frames = {
        path: values[torch.arange(config.batch).numpy() % len(values)]
        for path, values in observations.items()
    }
    size = 1024
    left, right = torch.randn(size, size), torch.randn(size, size)
    rates, encodes, decodes = [], [], []
    tokens = tokenizer.encode_flat(frames)
    for _ in range(config.rounds):  # Interleaved, so that all meet the same machine.
        rates.append(2 * size**3 / _seconds(lambda: left @ right))
        encodes.append(_seconds(lambda: tokenizer.encode_flat(frames)))
        decodes.append(_seconds(lambda: tokenizer.decode_flat(tokens)))
    operations = config.batch * _operations(tokenizer)
    seconds = statistics.median(encodes) + statistics.median(decodes)
    rate = statistics.median(rates)
    return {
        "matrix_rate_flops": rate,
        "encode_seconds": statistics.median(encodes),
        "decode_seconds": statistics.median(decodes),
        "frames_per_second": config.batch / seconds,
        "operations_per_frame": operations / config.batch,
        "share_of_matrix_rate": operations / seconds / rate,
    }


def _seconds(call: Callable[[], Any], repeats: int = 20) -> float:
    for _ in range(3):
        call()
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begin) / repeats


def _operations(tokenizer: Tokenizer) -> float:
    """Count two operations for each weight and entry of a code vector that a patch meets."""
    total = 0
    for codec in tokenizer.codecs.values():
        if isinstance(codec, PatchAutoencoder):
            layers = [layer for layer in codec.encoder if isinstance(layer, GroupedLinear)]
            weights = sum(layer.weight[0].numel() for layer in layers)
            codes = codec.quantizer.vectors()[:, 0].numel()
            total += 2 * codec.modality.num_patches * (weights + codes)
    return total


def _stepped(tokenizer: Tokenizer, config: Config) -> dict[str, float]:
    envs = {"plain": gym.make(config.env)}
    for mode in ("tokens", "embeddings", "decoded"):
        envs[mode] = TokenObservation(gym.make(config.env), tokenizer, mode=mode)
    rates: dict[str, list[float]] = {name: [] for name in envs}
    for _ in range(config.rounds):
        for name, env in envs.items():
            rates[name].append(_steps_per_second(env, config.num_steps))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    slower = {f"{name}_times_slower": medians["plain"] / medians[name] for name in medians}
    return {f"{name}_steps_per_second": rate for name, rate in medians.items()} | slower


def _steps_per_second(env: gym.Env[Any, Any], num_steps: int) -> float:
    env.reset(seed=0)
    env.action_space.seed(0)
    begin = time.perf_counter()
    for _ in range(num_steps):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    return num_steps / (time.perf_counter() - begin)


def _rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    stepped = [
        (
            f"environment steps/s, `TokenObservation` {mode}",
            f"{result[f'{mode}_steps_per_second']:,.0f}, "
            f"{result[f'{mode}_times_slower']:.2f} times slower",
        )
        for mode in ("tokens", "embeddings", "decoded")
    ]
    return [
        ("matrix rate, GFLOP/s float32", f"{result['matrix_rate_flops'] / 1e9:.0f}"),
        ("encoded and decoded frames/s", f"{result['frames_per_second']:,.0f}"),
        ("its operations a frame, MFLOP", f"{result['operations_per_frame'] / 1e6:.2f}"),
        ("share of the matrix rate", f"{result['share_of_matrix_rate']:.0%}"),
        ("environment steps/s, plain", f"{result['plain_steps_per_second']:,.0f}"),
        *stepped,
    ]


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Config, description=__doc__))

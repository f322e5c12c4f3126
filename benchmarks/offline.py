"""Learning from logged episodes alone: DoorKey-6x6 from a player that mostly fails.

    python -m benchmarks.offline                    # every seed, one after the other
    python -m benchmarks.offline --seeds 0 --rounds 2

The data are 20,000 transitions of a scripted player whose actions are random with a probability
from 0.75 to 1; episodes are broken off after 100 environment steps. From them a world model is
fitted and a policy trained in its dreams, in rounds, with no environment. Then, and not before,
the agent of each round plays the same 100 held-out seeds, its actions drawn from its policy. The
last round's is the result; the others show how it came about.

A seed that is killed goes on with the phase it was in; a finished one is a JSON file in `parts`
and is not repeated. The table in `docs/benchmarks/` is made from those files alone.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from benchmarks.minigrid_player import collect_mixed
from benchmarks.results import Parts, markdown_table, one_line_errors, provenance, write_json
from worldgen import Episodes, WorldModelConfig
from worldgen.agents import (
    OFFLINE_CONFIG,
    OFFLINE_ROUNDS,
    DreamConfig,
    DreamPPO,
    PhaseCallback,
    evaluate_agent,
    train_offline,
)
from worldgen.checkpoint import write_atomically
from worldgen.config import Config, require
from worldgen.data import EnvironmentSpec
from worldgen.evaluation import evaluate
from worldgen.fit_checkpoint import remove_checkpoint
from worldgen.run_folder import read_json

__all__ = ["OfflineBenchmark", "main"]


@dataclass(frozen=True, kw_only=True)
class OfflineBenchmark(Config):
    """What to measure, and with how much training."""

    environment: EnvironmentSpec = EnvironmentSpec(id="MiniGrid-DoorKey-6x6-v0")
    """Where the data come from, and where the agent is measured."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of data, weights and training."""
    steps: int = 20_000
    """Environment steps of the data."""
    lowest_share: float = 0.75
    """Share of random actions of the best of the 8 players; the worst one's is 1."""
    max_episode_steps: int = 100
    """Environment steps after which an episode of the data is broken off."""
    held_out_share: float = 0.1
    """Share of the episodes that nothing is learnt from, to measure the model on."""
    rounds: int = OFFLINE_ROUNDS
    """Fits, each with a dream after it."""
    dream: DreamConfig = OFFLINE_CONFIG
    """The loop, and PPO in the dream."""
    model: WorldModelConfig = WorldModelConfig()
    """The world model."""
    episodes: int = 100
    """Held-out seeds that are played."""
    dreams: int = 256
    """Dreams in the fidelity report."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(len(self.seeds) >= 1, "seeds", "name at least one seed", self.seeds)
        for name in ("steps", "max_episode_steps", "rounds", "episodes", "dreams"):
            require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))


_PUBLISHED = OfflineBenchmark()


def main(
    config: Annotated[OfflineBenchmark, tyro.conf.arg(name="")] = _PUBLISHED,
    *,
    parts: Path = Path("runs/benchmarks/offline"),
    output: Path = Path("docs/benchmarks"),
) -> dict[str, Any]:
    """Measure what is not yet measured, and write JSON and table.

    Args:
        config: What is measured.
        parts: Folder of the finished seeds, and of the agents.
        output: Folder of offline.json and offline.md.
    """
    pieces = []
    for seed in config.seeds:
        settings = {**config.to_dict(), "seed": seed}
        del settings["seeds"]
        piece = Parts(parts).get(
            f"seed-{seed}",
            settings,
            lambda s=seed: _measure(config, s, parts / f"seed-{s}"),  # type: ignore[misc]
        )
        pieces.append(piece)
        print(f"seed {seed}: success {piece['success'][-1]:.0%}", flush=True)
    result = {"provenance": provenance(), "parts": pieces}
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "offline.json", result)
    (output / "offline.md").write_text(_report(pieces), encoding="utf-8")
    return result


def _measure(config: OfflineBenchmark, seed: int, folder: Path) -> dict[str, Any]:
    config = replace(config, seeds=(seed,))
    data = _data(config, seed)
    training, held_out = data.split(config.held_out_share, seed)
    agent = _train(config, seed, folder, training)
    # Training is over: from here on the environment may be touched.
    players = [
        DreamPPO.load(_snapshot(folder, number), device="cpu")
        for number in range(1, config.rounds + 1)
    ]
    played = [evaluate_agent(one, config.environment, config.episodes) for one in players]
    report = evaluate(agent.world_model, held_out, num_dreams=config.dreams, seed=seed)
    random = evaluate_agent(None, config.environment, config.episodes)
    return {
        "data": {
            "environment_steps": data.num_steps,
            "episodes": len(data),
            "success": float(np.mean([_succeeded(episode) for episode in data])),
            "successes": sum(map(_succeeded, data)),
            "mean_return": float(np.mean([episode.total_reward for episode in data])),
        },
        "random_success": random.success_rate,
        "success": [one.success_rate for one in played],
        "mean_return": [one.mean_return for one in played],
        "mean_length": [one.mean_length for one in played],
        "real_environment_steps_while_training": agent.num_timesteps,
        "imagined_environment_steps": agent.imagined_timesteps,
        "seconds": _read_seconds(folder),
        "fidelity": report.to_dict(),
    }


def _data(config: OfflineBenchmark, seed: int) -> Episodes:
    found = collect_mixed(
        config.environment,
        config.steps,
        seed=seed,
        lowest_share=config.lowest_share,
        max_episode_steps=config.max_episode_steps,
    )
    return Episodes(
        found.observation_space, found.action_space, found, environment=config.environment
    )


def _succeeded(episode: Any) -> bool:
    return bool(episode.terminated[-1] and episode.rewards[-1] > 0)


def _train(config: OfflineBenchmark, seed: int, folder: Path, episodes: Episodes) -> DreamPPO:
    """Train, or go on where a killed training was."""
    folder.mkdir(parents=True, exist_ok=True)
    agent = _agent(config, seed, folder, episodes)
    agent.fit_checkpoint = folder / "fit.safetensors"
    if agent.round < config.rounds:
        train_offline(agent, config.rounds - agent.round, _Saver(folder), progress_bar=True)
    return agent


def _agent(config: OfflineBenchmark, seed: int, folder: Path, episodes: Episodes) -> DreamPPO:
    settings = folder / "settings.json"
    same = settings.is_file() and OfflineBenchmark.from_dict(read_json(settings)) == config
    if same and (folder / "agent.zip").is_file():
        return DreamPPO.load(folder / "agent.zip", device="cpu", episodes=episodes)
    shutil.rmtree(folder)
    folder.mkdir()
    write_json(settings, config.to_dict())
    agent = DreamPPO(
        "MultiInputPolicy",
        None,
        episodes=episodes,
        config=config.dream,
        model_config=config.model,
        seed=seed,
        device="cpu",
    )
    agent.save(folder / "agent.zip")  # so that even the first fit can be gone on with
    return agent


class _Saver(PhaseCallback):
    """Save the agent after each phase, keep that of each round, and add up the time."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder, self._began = folder, 0.0

    def on_phase_start(self, phase: str) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_phase_end(self, phase: str, metrics: Mapping[str, float]) -> None:
        """Save, and say how it goes."""
        agent: Any = self.model
        paths = [self._folder / "agent.zip"]
        if phase == "dream":
            paths.append(_snapshot(self._folder, agent.round))
        for path in paths:
            write_atomically(path, agent.save)
        if phase == "fit":
            remove_checkpoint(agent.fit_checkpoint)
        seconds = time.perf_counter() - self._began
        with (self._folder / "seconds.txt").open("a") as file:
            file.write(f"{phase} {seconds:.1f}\n")
        shown = {name: round(value, 4) for name, value in metrics.items()}
        print(f"round {agent.round} {phase}: {shown} ({seconds:.0f} s)", flush=True)


def _snapshot(folder: Path, number: int) -> Path:
    return folder / f"round-{number}.zip"


def _read_seconds(folder: Path) -> dict[str, float]:
    total: dict[str, float] = {}
    for line in (folder / "seconds.txt").read_text().splitlines():
        phase, seconds = line.split()
        total[phase] = round(total.get(phase, 0.0) + float(seconds), 1)
    return total


def _report(pieces: list[dict[str, Any]]) -> str:
    rows = [
        [
            str(piece["settings"]["seed"]),
            f"{piece['data']['environment_steps']:,} in {piece['data']['episodes']:,}",
            f"{piece['data']['success']:.0%} ({piece['data']['successes']})",
            f"{piece['random_success']:.0%}",
            " ".join(f"{100 * success:.0f}" for success in piece["success"]),
            f"**{piece['success'][-1]:.0%}**",
            f"{piece['mean_length'][-1]:.0f}",
            f"{sum(piece['seconds'].values()) / 60:.0f}",
        ]
        for piece in pieces
    ]
    header = [
        "seed",
        "transitions in episodes",
        "success in the data",
        "random policy",
        "agent after each round, %",
        "agent",
        "its mean length",
        "minutes of training",
    ]
    first = pieces[0]["settings"]
    return (
        f"# Offline training on {first['environment']['id']}\n\n"
        "Made by `python -m benchmarks.offline`, whose docstring says what is measured. Each agent "
        f"plays {first['episodes']} held-out seeds, its actions drawn from its policy; no "
        "environment is touched before training is over.\n\n"
        f"{markdown_table(header, rows)}\n"
    )


if __name__ == "__main__":
    with one_line_errors():
        tyro.cli(main, description=__doc__)

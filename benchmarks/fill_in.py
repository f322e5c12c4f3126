"""How often dreamt actions reach a goal frame, in the dream and for real.

    python -m benchmarks.fill_in

A world model that has learned actions is asked to go from a real moment to the frame that the real
episode showed n environment steps later, in at most n. Its actions are then played in the real
environment from the same state. Writes fill_in.json and fill_in.md.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro

import worldgen
from benchmarks.minigrid_player import MiniGridPlayer, collect_mixed
from benchmarks.results import Parts, markdown_table, one_line_errors, provenance, write_json
from worldgen import Episode, SamplerConfig, WorldModel, WorldModelConfig
from worldgen.config import Config as Settings
from worldgen.data import EnvironmentSpec, EpisodeBuilder
from worldgen.dynamics import DynamicsConfig
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.spaces import flatten
from worldgen.tokenizer import QuantizerConfig, TokenizerConfig

__all__ = ["Config", "main"]

_SPEC = EnvironmentSpec(
    id="MiniGrid-DoorKey-6x6-v0", wrappers=("worldgen.envs:FullyObservedMiniGrid",)
)
_HELD_OUT = 1_000_000
"""Added to a seed for held-out episodes."""


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """What to measure."""

    num_steps: int = 30_000
    """Environment steps of mixed random and scripted play to learn from."""
    gradient_steps: int = 1_000
    """Of the dynamics."""
    batch_size: int = 96
    """Windows a gradient step, of two frames."""
    goal_horizon: int = 16
    """N, most environment steps until a goal."""
    steps_ahead: tuple[int, ...] = (1, 5, 10, 15)
    """How far ahead the goals lie, in environment steps."""
    weights: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0)
    """Of the guidance."""
    candidates: tuple[int, ...] = (1, 8)
    """Dreams of a start, of which one is kept."""
    temperatures: tuple[float, ...] = (1.0,)
    """Of the frames."""
    pairs: int = 200
    """Starts and goals at each distance."""
    held_out_episodes: int = 64
    """Episodes that they come from, by players with all shares of random actions."""
    timed_steps: int = 40
    """Gradient steps with and without actions, to compare their processor time."""
    seed: int = 0
    """Of data, weights, training and draws."""

    def model(self, goal_horizon: int) -> WorldModelConfig:
        """Give the model's settings."""
        return WorldModelConfig(
            tokenizer=TokenizerConfig(quantizer=QuantizerConfig(num_codes=48)),
            dynamics=DynamicsConfig(context=1, goal_horizon=goal_horizon),
            training=DynamicsTrainingConfig(
                gradient_steps=self.gradient_steps, batch_size=self.batch_size, window=2
            ),
        )


def main(
    config: Config = Config(),
    *,
    parts: Path = Path("runs/benchmarks/fill_in"),
    output: Path = Path("docs/benchmarks"),
) -> dict[str, Any]:
    """Measure, print and write.

    Args:
        config: What is measured.
        parts: Folder of the models.
        output: Folder of fill_in.json and fill_in.md.
    """
    torch.set_num_threads(1)
    settings = {"model": config.model(config.goal_horizon).to_dict(), "num_steps": config.num_steps}
    name = f"model-{config.seed}"
    trained = Parts(parts).get(name, settings, lambda: _train(config, parts))
    bench = _Bench(WorldModel.load(trained["folder"]), config)
    result = {
        "provenance": provenance(),
        "config": config.to_dict(),
        "training": trained,
        "cost": _cost(config),
        "rows": bench.goals(),
        "returns": bench.returns(),
    }
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "fill_in.json", result)
    (output / "fill_in.md").write_text(_page(result))
    print(_page(result))
    return result


def _train(config: Config, parts: Path) -> dict[str, Any]:
    """Train the model; gives its folder, processor seconds and losses."""
    episodes = collect_mixed(_SPEC, config.num_steps, seed=config.seed)
    settings = config.model(config.goal_horizon)
    model = WorldModel.for_env(_SPEC, config=settings, seed=config.seed)
    begun = time.process_time()
    fitted = model.fit(episodes, progress=False)
    seconds = time.process_time() - begun
    folder = parts / f"trained-{config.seed}"
    model.save(folder, overwrite=True)
    return {"folder": str(folder), "seconds": seconds, "metrics": fitted.metrics}


def _cost(config: Config) -> dict[str, Any]:
    """Make a few gradient steps with and without actions: processor time, and what differs."""
    episodes = collect_mixed(_SPEC, 4_000, seed=config.seed)
    steps, seconds, weights = config.timed_steps, {}, {}
    for horizon in (0, config.goal_horizon):
        model = WorldModel.for_env(_SPEC, config=config.model(horizon), seed=config.seed)
        model.fit(episodes, dynamics_steps=0, progress=False)
        begun = time.process_time()
        model.fit(episodes, dynamics_steps=steps, progress=False)
        seconds[horizon] = (time.process_time() - begun) / steps
        weights[horizon] = model.dynamics.state_dict()
    without, learned = weights.values()
    return {
        "seconds_without": seconds[0],
        "seconds_with": seconds[config.goal_horizon],
        "other_weights_equal": all(torch.equal(v, learned[name]) for name, v in without.items()),
        "weights_without": sum(value.numel() for value in without.values()),
        "weights_with": sum(value.numel() for value in learned.values()),
    }


class _Bench:
    """Held-out episodes whose states can be gone back to."""

    def __init__(self, model: WorldModel, config: Config) -> None:
        self.model, self.config = model, config
        self.seeds = [_HELD_OUT + config.seed + i for i in range(config.held_out_episodes)]
        shares = np.linspace(0.05, 1, len(self.seeds))
        self.episodes = [
            _episode(seed, share) for seed, share in zip(self.seeds, shares, strict=True)
        ]
        self.dataset = model.dataset(self.episodes)

    def goals(self) -> list[dict[str, Any]]:
        """Fill in between starts and goals at all distances, in all ways."""
        config, rows = self.config, []
        for ahead in config.steps_ahead:
            moments = self._moments(ahead)
            states = [self._state(*moment) for moment in moments]
            goals = [self._frame(index, frame + ahead) for index, frame in moments]
            for weight in config.weights:
                for count in config.candidates:
                    for temperature in config.temperatures:
                        row = {
                            "ahead": ahead,
                            "guidance": weight,
                            "candidates": count,
                            "temperature": temperature,
                            "pairs": len(moments),
                        }
                        row |= self._fill_in(moments, states, goals, row)
                        rows.append(row)
                        print(row, flush=True)
        return rows

    def _fill_in(
        self, moments: np.ndarray, states: Sequence[Any], goals: Sequence[Any], row: dict[str, Any]
    ) -> dict[str, Any]:
        stacked = {path: np.stack([goal[path] for goal in goals]) for path in goals[0]}
        filled = self.model.fill_in(
            self.dataset.contexts_at(*torch.from_numpy(moments.T)),
            worldgen.spaces.unflatten(self.model.observation_space, stacked),
            horizon=row["ahead"],
            guidance=row["guidance"],
            num_candidates=row["candidates"],
            sampler=replace(self.model.config.sampler, temperature=row["temperature"]),
            seed=self.config.seed,
        )
        played = zip(states, filled.actions, goals, strict=True)
        real = np.array([_reaches(*each) for each in played])
        return {
            "dreamt": float(filled.reached.mean()),
            "real": float(real.mean()),
            "real_of_dreamt": float(real[filled.reached].mean()) if filled.reached.any() else None,
        }

    def returns(self) -> list[dict[str, Any]]:
        """Ask for the reward from the last moments before it; random play shows the floor."""
        config = self.config
        horizon = max(config.steps_ahead)
        ends = [i for i, episode in enumerate(self.episodes) if episode.rewards[-1] > 0]
        moments = np.array([(i, max(0, len(self.episodes[i]) - horizon)) for i in ends])
        states = [self._state(*moment) for moment in moments]
        rows = []
        for weight in config.weights:
            filled = self.model.fill_in(
                self.dataset.contexts_at(*torch.from_numpy(moments.T)),
                desired_return=1.0,
                horizon=horizon,
                guidance=weight,
                sampler=SamplerConfig(temperature=0.0),
                seed=config.seed,
            )
            real = [_paid(*each) for each in zip(states, filled.actions, strict=True)]
            dreamt, paid = float(filled.returns.mean()), float(np.mean(real))
            rows.append(
                {"guidance": weight, "starts": len(moments), "dreamt": dreamt, "real": paid}
            )
            print(rows[-1], flush=True)
        return rows

    def _moments(self, ahead: int) -> np.ndarray:
        """Draw (episode, frame) pairs whose frame differs from the one `ahead` steps later."""
        random = np.random.default_rng([self.config.seed, ahead])
        possible = [
            (index, frame)
            for index, episode in enumerate(self.episodes)
            for frame in range(len(episode) - ahead + 1)
            if not _equal(self._frame(index, frame), self._frame(index, frame + ahead))
        ]
        return random.permutation(np.array(possible))[: self.config.pairs]

    def _frame(self, index: int, frame: int) -> dict[str, np.ndarray]:
        observations = self.episodes[index].observations
        return {path: values[frame] for path, values in observations.items()}

    def _state(self, index: int, frame: int) -> gym.Env[Any, Any]:
        """Bring a real environment to a moment."""
        env = _SPEC.make()
        env.reset(seed=self.seeds[index])
        for action in self.episodes[index].actions[:frame]:
            observation = env.step(action)[0]
        if frame:
            assert _equal(flatten(env.observation_space, observation), self._frame(index, frame))
        return env


def _episode(seed: int, random_share: float) -> Episode:
    env = _SPEC.make()
    player = MiniGridPlayer(env, random_share, np.random.default_rng(seed))
    builder = EpisodeBuilder(1)
    space = env.observation_space
    builder.begin(0, flatten(space, env.reset(seed=seed)[0]))
    while True:
        action = np.array(player.act())
        observation, reward, terminated, truncated, _ = env.step(int(action))
        episode = builder.add(
            0, action, float(reward), terminated, truncated, flatten(space, observation)
        )
        if episode is not None:
            return episode


def _equal(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(value, second[path]) for path, value in first.items())


def _reaches(state: gym.Env[Any, Any], actions: np.ndarray, goal: dict[str, np.ndarray]) -> bool:
    """Play actions from a state until the goal or the end."""
    env = copy.deepcopy(state)
    for action in actions:
        observation, _, terminated, _, _ = env.step(action)
        if _equal(flatten(env.observation_space, observation), goal):
            return True
        if terminated:
            return False
    return False


def _paid(state: gym.Env[Any, Any], actions: np.ndarray) -> float:
    """Play actions from a state to the end; gives the sum of the rewards."""
    env, total = copy.deepcopy(state), 0.0
    for action in actions:
        _, reward, terminated, _, _ = env.step(action)
        total += float(reward)
        if terminated:
            break
    return total


def _page(result: dict[str, Any]) -> str:
    rows = [
        [
            str(row["ahead"]),
            f"{row['guidance']:g}",
            str(row["candidates"]),
            f"{row['temperature']:g}",
            *(_percent(row[name]) for name in ("dreamt", "real", "real_of_dreamt")),
        ]
        for row in result["rows"]
    ]
    header = ["steps ahead", "guidance", "candidates", "temperature", "in the dream", "for real"]
    table = markdown_table([*header, "real of those dreamt"], rows)
    paid = [
        [f"{row['guidance']:g}", f"{row['dreamt']:.3f}", f"{row['real']:.3f}"]
        for row in result["returns"]
    ]
    returns = markdown_table(["guidance", "return in the dream", "for real"], paid)
    return f"# Fill-ins\n\nMade by `{result['provenance']['command']}`.\n\n{table}\n\n{returns}\n"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}%"


if __name__ == "__main__":
    with one_line_errors():
        tyro.cli(main)

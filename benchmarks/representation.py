"""How many real environment steps SB3's PPO needs on tokens, and how many on one-hot cells.

The same PPO learns MiniGrid-DoorKey-5x5 from the same partial view and direction, shown in
different ways:

- "one-hot": the cells as `SymbolicExtractor` gives them;
- "tokens": the code vectors that `VecTokenObservation(mode="embeddings")` gives, of a tokenizer
  that was fitted to random play and then frozen;
- "trained-extractor": the token numbers through a trainable `TokenExtractor`;
- "one-hot-tokens": the token numbers as SB3 encodes them.

Each finished run is a JSON file in the output folder and is not repeated. The report in
`docs/benchmarks/` is made from the results alone, see `benchmarks.representation_report`.

    python -m benchmarks.representation
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

import worldgen
from benchmarks.representation_report import Result, write_report
from benchmarks.results import one_line_errors
from worldgen import Tokenizer
from worldgen.agents import SymbolicExtractor, TokenExtractor
from worldgen.agents.real_env import as_vec_env
from worldgen.checkpoint import write_json
from worldgen.config import Config, require
from worldgen.envs import VecTokenObservation
from worldgen.run_folder import RunFolder, read_json

__all__ = ["Arm", "RepresentationConfig", "main"]

Arm = Literal["one-hot", "tokens", "trained-extractor", "one-hot-tokens"]

_NUM_ENVS, _ROLLOUT_STEPS = 8, 128
_PPO = {
    "n_steps": _ROLLOUT_STEPS,
    "batch_size": 256,
    "n_epochs": 4,
    "learning_rate": 5e-4,
    "ent_coef": 0.01,
    "gamma": 0.99,
}
_HEADS = [64, 64]
_SEEDS_APART = 1000
"""Between the environments' seeds of two runs."""


@dataclass(frozen=True, kw_only=True)
class RepresentationConfig(Config):
    """What is compared, and for how long."""

    environment: str = "MiniGrid-DoorKey-5x5-v0"
    """Gymnasium id."""
    arms: tuple[Arm, ...] = ("one-hot", "tokens")
    """What the agent is shown; the first is what the others are compared with."""
    seeds: tuple[int, ...] = tuple(range(20))
    """A run of each arm for each. With five, the ratio of two equal arms strays by a third."""
    success: float = 0.9
    """Share of the last `window` training episodes at which the task counts as solved."""
    window: int = 100
    """Episodes."""
    max_steps: int = 200_000
    """Real environment steps after which a run is given up."""
    tokenizer_steps: int = 8192
    """Real environment steps of random play that each seed's tokenizer is fitted to."""
    gradient_steps: int = 1000
    """Of the tokenizer, at most."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("window", "max_steps", "tokenizer_steps", "gradient_steps"):
            require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))
        require(0 < self.success <= 1, "success", "be in (0, 1]", self.success)
        require(len(self.seeds) >= 1, "seeds", "name at least one seed", self.seeds)
        known = all(arm in get_args(Arm) for arm in self.arms) and len(self.arms) >= 1
        require(known, "arms", f"be some of {', '.join(get_args(Arm))}", self.arms)


_PUBLISHED = RepresentationConfig()


def main(
    config: RepresentationConfig = _PUBLISHED,
    *,
    output: Path = Path("runs/representation"),
    report: Path = Path("docs/benchmarks"),
    jobs: int = 1,
) -> Result:
    """Run what is not finished yet, and write the report.

    Args:
        config: What is compared; the published comparison by default.
        output: Folder of the runs; a run that it holds is not repeated.
        report: Folder of representation.json, .md and .png.
        jobs: Runs at the same time, each in a process of one thread.
    """
    command = " ".join(["python -m benchmarks.representation", *sys.argv[1:]])
    folder = RunFolder.create(
        output, config.to_dict(), seed=config.seeds[0], command=command, resume=True
    )
    wanted = [(config, arm, seed, output) for seed in config.seeds for arm in config.arms]
    if jobs > 1:
        with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
            runs = pool.starmap(_finished_run, wanted, chunksize=1)
    else:
        runs = [_finished_run(*run) for run in wanted]
    record = read_json(folder.record)
    result = Result(settings=config.to_dict(), record=record, ppo=_PPO, runs=tuple(runs))
    write_report(result, report)
    return result


def _finished_run(config: RepresentationConfig, arm: Arm, seed: int, output: Path) -> Any:
    """Read the run's results, or run it and write them."""
    path = output / "finished" / f"{arm}-{seed}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, _run(config, arm, seed))
    run = read_json(path)
    print(
        f"{arm}, seed {seed}: solved at {run['solved_at']}, {run['steps']} environment steps in "
        f"{run['seconds']:.0f} s",
        flush=True,
    )
    return run


def _run(config: RepresentationConfig, arm: Arm, seed: int) -> dict[str, Any]:
    """Train one agent until it solves the task or its environment steps are used up."""
    torch.set_num_threads(1)
    real = as_vec_env(config.environment, _NUM_ENVS)
    tokenizer, cost = None, {"tokenizer_steps": 0, "tokenizer_seconds": 0.0}
    if arm != "one-hot":
        tokenizer, cost = _tokenizer(config, seed)
    env, policy_kwargs = _shown(arm, real, tokenizer)
    agent = PPO(
        "MultiInputPolicy" if arm == "one-hot" else "MlpPolicy",
        env,
        policy_kwargs={"net_arch": _HEADS, **policy_kwargs},
        seed=_SEEDS_APART * seed,
        device="cpu",
        **_PPO,  # type: ignore[arg-type]
    )
    until_solved = _UntilSolved(config)
    began = time.perf_counter()
    agent.learn(config.max_steps, callback=until_solved)
    seconds = time.perf_counter() - began
    env.close()
    return {
        "arm": arm,
        "seed": seed,
        "solved_at": until_solved.solved_at,
        "steps": int(agent.num_timesteps),
        "seconds": round(seconds, 2),
        "inputs": int(agent.policy.features_dim),
        **cost,
        "curve": until_solved.curve,
    }


def _tokenizer(config: RepresentationConfig, seed: int) -> tuple[Tokenizer, dict[str, Any]]:
    """Fit a tokenizer to random play; say what that cost."""
    began = time.perf_counter()
    own_seed = _SEEDS_APART * seed + _SEEDS_APART // 2
    episodes = worldgen.collect(
        config.environment, config.tokenizer_steps, seed=own_seed, progress=False
    )
    tokenizer = Tokenizer.for_space(episodes.observation_space, seed=seed, device="cpu")
    tokenizer.fit(episodes, gradient_steps=config.gradient_steps, seed=seed)
    seconds = round(time.perf_counter() - began, 2)
    steps = sum(len(episode) for episode in episodes)
    return tokenizer, {"tokenizer_steps": steps, "tokenizer_seconds": seconds}


def _shown(arm: Arm, env: VecEnv, tokenizer: Tokenizer | None) -> tuple[VecEnv, dict[str, Any]]:
    """Give the environment as the arm shows it, and the policy's arguments."""
    if tokenizer is None:
        return env, {"features_extractor_class": SymbolicExtractor}
    if arm == "tokens":
        return VecTokenObservation(env, tokenizer, mode="embeddings"), {}
    tokens = VecTokenObservation(env, tokenizer, mode="tokens")
    if arm == "one-hot-tokens":
        return tokens, {}
    return tokens, TokenExtractor.policy_kwargs(tokenizer, trainable=True)


class _UntilSolved(BaseCallback):
    """Stop when the success of the last training episodes is high enough."""

    def __init__(self, config: RepresentationConfig) -> None:
        super().__init__()
        self._config = config
        self._recent: deque[bool] = deque(maxlen=config.window)
        self.solved_at: int | None = None
        self.curve: list[tuple[int, float]] = []
        """Real environment steps, and the share of successful ones among recent episodes."""

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        for row in np.flatnonzero(self.locals["dones"]):
            terminated = not infos[row].get("TimeLimit.truncated", False)
            self._recent.append(bool(terminated and infos[row]["episode"]["r"] > 0))
        full = len(self._recent) == self._config.window
        rate = sum(self._recent) / self._config.window  # What is not yet played is no success.
        solved = full and rate >= self._config.success
        if solved or self.n_calls % _ROLLOUT_STEPS == 0:
            self.curve.append((int(self.num_timesteps), round(rate, 4)))
        if solved:
            self.solved_at = int(self.num_timesteps)
        return not solved


if __name__ == "__main__":
    with one_line_errors():
        tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))

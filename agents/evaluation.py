"""How good an agent is in the real environment.

Classes:
    AgentResult.

Functions:
    evaluate_agent: one episode for each held-out seed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from worldgen.acting import Acting
from worldgen.config import require
from worldgen.data.environment import EnvLike, episode_success, make_env
from worldgen.data.policy_check import check_fits
from worldgen.errors import ConfigError
from worldgen.seeding import derived_seed, seeded_torch
from worldgen.spaces import stack, unflatten

__all__ = ["AgentResult", "Predicts", "evaluate_agent"]


class Predicts(Protocol):
    """What SB3's algorithms and policies have in common."""

    def predict(self, observation: Any, *, deterministic: bool = False) -> tuple[Any, Any]:
        """Choose an action for each row of a nested batch of observations."""


@dataclass(frozen=True, kw_only=True)
class AgentResult:
    """What an evaluation found; entry i of a tuple belongs to the i-th held-out seed."""

    mean_return: float
    """Mean undiscounted return."""
    std_return: float
    """Standard deviation of the returns over episodes."""
    success_rate: float | None
    """Share of episodes that reached the goal; None where the environment has no goal."""
    mean_length: float
    """Mean number of environment steps of an episode."""
    returns: tuple[float, ...]
    """Return of each episode."""
    lengths: tuple[int, ...]
    """Environment steps of each episode."""

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON values, without the single episodes."""
        return {
            "episodes": len(self.returns),
            "mean_return": self.mean_return,
            "std_return": self.std_return,
            "success_rate": self.success_rate,
            "mean_length": self.mean_length,
        }


def evaluate_agent(
    policy: Predicts | Callable[[Any], Any] | None,
    environment: EnvLike,
    num_episodes: int = 100,
    *,
    seed: int = 1_000_000,
    deterministic: bool = False,
    max_parallel: int = 25,
    max_episode_steps: int = 10_000,
) -> AgentResult:
    """Let an agent play one episode of each of the seeds `seed`, `seed + 1`, ...

    By default it acts as in training, by sampling: an agent that always takes the most likely
    action can stay in a loop for ever. The global generator of torch, which SB3 samples from,
    is seeded here and put back afterwards.

    Args:
        policy: An SB3 model or policy, a function from a nested batch of observations to
            actions, or None for random actions. A model that gives a state beside its actions
            gets it back at the next step.
        environment: An id, an `EnvironmentSpec` or a function, or one environment object.
        num_episodes: Episodes to play.
        seed: First seed; training should not have seen it.
        deterministic: Whether SB3 policies take the most likely action.
        max_parallel: Most environments that are played side by side.
        max_episode_steps: Environment steps after which an episode is broken off, for
            environments without a limit of their own.

    Raises:
        ConfigError: If a number is out of range.
        SpaceError: If an SB3 policy was made for other observations or actions.
    """
    require(num_episodes >= 1, "num_episodes", "be at least 1", num_episodes)
    require(max_parallel >= 1, "max_parallel", "be at least 1", max_parallel)
    require(max_episode_steps >= 1, "max_episode_steps", "be at least 1", max_episode_steps)
    rows = 1 if isinstance(environment, gym.Env) else min(num_episodes, max_parallel)
    envs = [make_env(environment) for _ in range(rows)]
    try:
        check_fits(policy, envs[0].observation_space, envs[0].action_space)
        choose = _chooser(policy, envs[0].action_space, deterministic, seed)
        with seeded_torch(derived_seed(seed, "evaluation")):
            played = _play(envs, choose, range(seed, seed + num_episodes), max_episode_steps)
    finally:
        if not isinstance(environment, gym.Env):
            for env in envs:
                env.close()
    return _summary([played[number] for number in sorted(played)])


@dataclass
class _Game:
    """An episode that is being played."""

    seed: int
    env: gym.Env[Any, Any]
    observation: Any
    total: float = 0.0
    length: int = 0
    success: bool | None = None


def _play(
    envs: list[gym.Env[Any, Any]],
    choose: _Chooser,
    seeds: range,
    max_episode_steps: int,
) -> dict[int, _Game]:
    """Play every seed once, as many side by side as there are environments."""
    waiting = iter(seeds)
    games = [game for env in envs if (game := _next_game(env, waiting)) is not None]
    played: dict[int, _Game] = {}
    space = envs[0].observation_space
    while games:
        batch = unflatten(space, stack(space, [game.observation for game in games]))
        actions = np.asarray(choose(batch, np.array([game.length == 0 for game in games])))
        going: list[_Game] = []
        kept: list[int] = []
        for row, (game, action) in enumerate(zip(games, actions, strict=True)):
            over = _step(game, action) or game.length >= max_episode_steps
            if over:
                played[game.seed] = game
            following = _next_game(game.env, waiting) if over else game
            if following is not None:
                going.append(following)
                kept.append(row)
        if len(kept) < len(games):
            choose.keep(kept)
        games = going
    return played


def _next_game(env: gym.Env[Any, Any], waiting: Iterator[int]) -> _Game | None:
    seed = next(waiting, None)
    return None if seed is None else _Game(seed, env, env.reset(seed=seed)[0])


def _step(game: _Game, action: Any) -> bool:
    """Take an action; true at the episode's end."""
    game.observation, reward, terminated, truncated, info = game.env.step(action)
    game.total += float(reward)
    game.length += 1
    over = bool(terminated or truncated)
    if over:
        game.success = episode_success(game.env, game.total, float(reward), bool(terminated), info)
    return over


class _Chooser(Protocol):
    """Actions for a batch of observations, and which of them are first ones."""

    def __call__(self, batch: Any, begun: np.ndarray, /) -> Any: ...

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the rows."""


class _ByObservation:
    """A `_Chooser` that knows nothing but the newest observations."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def __call__(self, batch: Any, begun: np.ndarray, /) -> Any:
        return self._function(batch)

    def keep(self, rows: Sequence[int]) -> None:
        """Remember nothing of any row."""


def _chooser(
    policy: Predicts | Callable[[Any], Any] | None,
    action_space: spaces.Space[Any],
    deterministic: bool,
    seed: int,
) -> _Chooser:
    if policy is None:
        space = copy.deepcopy(action_space)
        space.seed(derived_seed(seed, "random actions") % 2**32)
        return _ByObservation(lambda batch: [space.sample() for _ in range(_rows(batch))])
    if hasattr(policy, "predict"):
        return Acting(policy.predict, deterministic=deterministic)
    if callable(policy):
        return _ByObservation(policy)
    raise ConfigError(
        f"`policy` must be None, callable or have `predict`, got {type(policy).__name__}"
    )


def _rows(batch: Any) -> int:
    while isinstance(batch, dict | tuple):
        batch = next(iter(batch.values())) if isinstance(batch, dict) else batch[0]
    return len(batch)


def _summary(games: list[_Game]) -> AgentResult:
    returns = np.array([game.total for game in games])
    successes = [game.success for game in games if game.success is not None]
    lengths = tuple(game.length for game in games)
    return AgentResult(
        mean_return=float(returns.mean()),
        std_return=float(returns.std()),
        success_rate=sum(successes) / len(games) if successes else None,
        mean_length=float(np.mean(lengths)),
        returns=tuple(returns.tolist()),
        lengths=lengths,
    )

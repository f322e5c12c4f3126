"""In-filling: dreams, actions included, that lead from a start to a goal or to a return.

Classes:
    AimedRollout: the trajectories, and when they reach their goals.

Functions:
    fill_in: the work behind `WorldModel.fill_in`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from worldgen.action_proposer import GOAL, RETURN, Aim, guided
from worldgen.config import require
from worldgen.data.token_dataset import Context
from worldgen.diffusion.masked_diffusion import draw_tokens
from worldgen.diffusion.sampler_config import SamplerConfig
from worldgen.errors import ConfigError, ShapeError
from worldgen.imagination import Imagination, ImaginedStep
from worldgen.rollout import Rollout, stack_steps
from worldgen.seeding import derived_seed

if TYPE_CHECKING:
    from worldgen.world_model import WorldModel

__all__ = ["AimedRollout", "fill_in"]

_EXACTLY = SamplerConfig(min_probability_ratio=0.0)
"""Actions are drawn as they were scored, tails included."""


@dataclass(frozen=True, repr=False)
class AimedRollout(Rollout):
    """B imagined trajectories of H environment steps, made for a goal or a return."""

    reached_after: np.ndarray
    """(B,) int64: environment steps until the imagined frame has all the tokens of the goal; 0
    where it never does, or there is no goal. What comes after a predicted end does not count."""

    @property
    def reached(self) -> np.ndarray:
        """(B,) bool: whether the dream reaches the goal."""
        reached: np.ndarray = self.reached_after > 0
        return reached


def fill_in(
    model: WorldModel,
    context: Context | Any,
    goal: Any,
    *,
    desired_return: Any,
    horizon: int,
    guidance: float,
    num_candidates: int,
    sampler: SamplerConfig | None,
    seed: int,
) -> AimedRollout:
    """Dream actions and frames; see `WorldModel.fill_in`."""
    _check(model, goal, desired_return, horizon, guidance, num_candidates)
    if not isinstance(context, Context):
        context = model.first_frames(model.encode(context))
    engine = model.imagination(len(context) * num_candidates, sampler=sampler, seed=seed)
    if engine.sampler.frames_in_flight > 1:
        raise ConfigError(
            "`frames_in_flight` must be 1 where actions are dreamt too, got "
            f"{engine.sampler.frames_in_flight}: an action depends on the frame before it"
        )
    aim = _first_aim(model, context, goal, desired_return, horizon)
    candidates = torch.arange(len(context), device=model.device).repeat_interleave(num_candidates)
    engine.reset(context.rows(candidates))
    generator = torch.Generator(model.device).manual_seed(derived_seed(seed, "actions"))
    steps, taken = _dream(engine, aim.rows(candidates), horizon, guidance, generator)
    dreams, actions = stack_steps(steps), torch.stack(taken, 1)
    after = _reached_after(dreams, aim.goal[candidates]) if desired_return is None else None
    worth = _worth(dreams, aim.rows(candidates), after)
    best = worth.view(-1, num_candidates).argmax(1)
    rows = torch.arange(len(context), device=model.device) * num_candidates + best
    chosen = Rollout.of(
        ImaginedStep(*(part[rows] for part in dreams)),
        model.action_codec.decode(actions[rows]),
        model.tokenizer,
        model.observation_space,
    )
    reached_after = np.zeros(len(rows), np.int64) if after is None else after[rows].cpu().numpy()
    return AimedRollout(**vars(chosen), reached_after=reached_after)


def _check(
    model: WorldModel, goal: Any, wanted: Any, horizon: int, guidance: float, candidates: int
) -> None:
    if (goal is None) == (wanted is None):
        given = "neither" if goal is None else "both"
        raise ConfigError(f"`fill_in` must be given either `goal` or `desired_return`, got {given}")
    longest = model.config.dynamics.goal_horizon
    if not longest:
        raise ConfigError(
            "`fill_in` needs a model that has learned actions, got `goal_horizon` 0: build it with "
            "`DynamicsConfig(goal_horizon=...)` and `fit` it"
        )
    rule = f"be in [1, {longest}], for which the model was trained"
    require(1 <= horizon <= longest, "horizon", rule, horizon)
    require(0 <= guidance < float("inf"), "guidance", "be at least 0 and finite", guidance)
    require(candidates >= 1, "num_candidates", "be at least 1", candidates)


def _first_aim(model: WorldModel, context: Context, goal: Any, wanted: Any, horizon: int) -> Aim:
    """Give what is aimed at from each start."""
    batch, device = len(context), model.device
    tokens = torch.zeros(context.tokens.shape[::2], dtype=torch.int64, device=device)
    returns = np.zeros(batch)
    if goal is not None:
        tokens = model.encode(goal)
        if len(tokens) != batch:
            raise ShapeError(
                f"`goal` must hold one frame for each of {batch} starts, got {len(tokens)}"
            )
    else:
        returns = np.asarray(wanted, np.float64)
        if returns.shape not in ((), (batch,)) or not np.isfinite(returns).all():
            raise ShapeError(
                f"`desired_return` must be a finite number or an array of shape ({batch},), got "
                f"{wanted!r}"
            )
        returns = np.broadcast_to(returns, (batch,))
    return Aim(
        torch.full((batch,), RETURN if goal is None else GOAL, device=device),
        tokens,
        torch.tensor(returns, dtype=torch.float32, device=device),
        torch.full((batch,), horizon, device=device),
    )


def _dream(
    engine: Imagination, aim: Aim, horizon: int, guidance: float, generator: torch.Generator
) -> tuple[list[ImaginedStep], list[Tensor]]:
    """Draw each action from its frame and the aim, and its frame from the dynamics."""
    codec = engine.dynamics.codec
    steps, taken = [], []
    wanted = aim.wanted
    for time in range(horizon):
        now = Aim(aim.kind, aim.goal, wanted, aim.steps_left - time)
        choices, _ = draw_tokens(_scores(engine, now, guidance), _EXACTLY, generator)
        taken.append(codec.from_choices(choices))
        steps.append(engine.step(taken[-1]))
        wanted = wanted - steps[-1].reward
    return steps, taken


def _scores(engine: Imagination, aim: Aim, guidance: float) -> Tensor:
    """Score the choices; a weight of 0 or 1 takes one pass, others two."""
    if guidance == 1:
        return engine.propose(aim)
    plain = engine.propose(aim.nothing())
    return plain if guidance == 0 else guided(plain, engine.propose(aim), guidance)


def _alive(dreams: ImaginedStep) -> Tensor:
    """(R, H) bool: no end was predicted before this environment step."""
    ended = dreams.terminated.long().cumsum(1)
    return ended - dreams.terminated.long() == 0


def _reached_after(dreams: ImaginedStep, goal: Tensor) -> Tensor:
    """(R,) int64: the first environment step with the goal's tokens (R, K), or 0."""
    there = (dreams.tokens == goal.unsqueeze(1)).all(-1) & _alive(dreams)
    return torch.where(there.any(1), there.long().argmax(1) + 1, 0)


def _worth(dreams: ImaginedStep, aim: Aim, reached_after: Tensor | None) -> Tensor:
    """(R,) what the dream itself says of its success: sooner, closer, or nearer the return."""
    alive = _alive(dreams)
    if reached_after is None:
        return -((dreams.reward * alive).sum(1) - aim.wanted).abs()
    # Of those that miss it, the dream with the frame that has most tokens right, always under 1.
    right = (dreams.tokens == aim.goal.unsqueeze(1)).float().mean(-1) * alive
    sooner = dreams.tokens.shape[1] + 1 - reached_after
    return torch.where(reached_after > 0, sooner.float(), right.amax(1).clamp(max=0.999))

"""A world that counts, and a model of it whose mistakes are known."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from worldgen.actions import ActionCodec
from worldgen.data.episode import Episode
from worldgen.data.token_dataset import TokenDataset
from worldgen.imagination import ImaginedStep
from worldgen.surprise import Surprise

GOAL = 9
COUNT = spaces.Discrete(GOAL + 1)
OBSERVATIONS = spaces.Dict(count=COUNT)
MIXED = spaces.Dict(count=COUNT, speed=spaces.Box(-np.inf, np.inf, (2,), np.float32))
ACTIONS = spaces.Discrete(2)


class Held(list):
    """Episodes with their spaces."""

    observation_space, action_space = OBSERVATIONS, ACTIONS


def episode(actions, start=0, speed=False):
    """Action 1 counts up; reaching 9 pays 1 and ends."""
    counts = start + np.concatenate([[0], np.cumsum(actions)])
    reached = counts[1:] == GOAL
    return Episode(
        observations=observed(counts.astype(np.int64), speed),
        actions=np.array(actions, np.int64),
        rewards=reached.astype(np.float32),
        terminated=reached,
        truncated=np.zeros(len(actions), bool),
    )


def observed(counts, speed):
    pair = {"speed": np.stack([counts, -counts], 1).astype(np.float32)}
    return {"count": counts, **(pair if speed else {})}


@dataclass
class CountingModel:
    """Knows the world, but for the mistakes that it is told to make."""

    misread: tuple[int, ...] = ()
    """Counts that the tokenizer decodes as 0."""
    blind_after: int = 1000
    """Environment steps of a dream after which the count stands still."""
    reward_size: float = 1.0
    """What the goal pays in the dream."""
    false_reward_at: int | None = None
    """A count that pays in the dream, and does not in the world."""
    endless: bool = False
    """Whether the dream never ends."""
    ends_late_by: int = 0
    """Environment steps by which a dream's end is late."""
    ends_at: int = GOAL
    """Count from which on the dream ends."""

    speed: bool = False
    """Whether a vector is observed beside the count."""

    def __post_init__(self):
        self.observation_space = MIXED if self.speed else OBSERVATIONS
        self.action_space = ACTIONS
        self.environment = None
        self.tokenizer = SimpleNamespace(config=SimpleNamespace(modalities={}))
        self.codec = ActionCodec(ACTIONS)

    def check_compatible(self, observation_space, action_space):
        assert (observation_space, action_space) == (OBSERVATIONS, ACTIONS)

    def dataset(self, episodes):
        tokens = torch.from_numpy(np.concatenate([e.observations["count"] for e in episodes]))
        return TokenDataset(tokens.unsqueeze(1), episodes, self.codec, 3)

    def decode(self, tokens):
        counts = tokens[:, 0].numpy().copy()
        counts[np.isin(counts, self.misread)] = 0
        return observed(counts, self.speed)

    def encode_actions(self, actions):
        return self.codec.encode(actions)

    def imagination(self, num_rows, *, sampler=None, seed=0):
        return _Counting(self)

    def surprise(self, episodes, *, num_samples=4, seed=0, progress=False):
        count = sum(map(len, episodes))
        nats = np.full(count, 0.5, np.float32)
        return Surprise(nats, nats / 2, 0 * nats, 0 * nats, 1)

    def imagine(self, context, actions, *, sampler=None, seed=0):
        engine = _Counting(self)
        engine.reset(context)
        steps = [engine.step(self.encode_actions(actions[:, t])) for t in range(actions.shape[1])]
        frames = [self.decode(step.tokens) for step in steps]
        return SimpleNamespace(
            observations={key: np.stack([f[key] for f in frames], 1) for key in frames[0]},
            rewards=torch.stack([step.reward for step in steps], 1).numpy(),
            terminated=torch.stack([step.terminated for step in steps], 1).numpy(),
        )


class _Counting:
    def __init__(self, model):
        self.model, self.time = model, 0

    def reset(self, context):
        self.count = context.tokens[:, -1, 0].clone()
        self.since = torch.zeros_like(self.count)

    def step(self, actions):
        self.time += 1
        if self.time <= self.model.blind_after:
            self.count = (self.count + actions[:, 0] - 1).clamp(max=GOAL)
        reached = self.count >= self.model.ends_at
        self.since = torch.where(reached, self.since + 1, 0)
        ended = (self.since > self.model.ends_late_by) & torch.tensor(not self.model.endless)
        reward = (self.count == GOAL).float() * self.model.reward_size
        if self.model.false_reward_at is not None:
            reward += (self.count == self.model.false_reward_at).float()
        return ImaginedStep(self.count.unsqueeze(1), reward, ended.float(), ended)


@pytest.fixture
def counting_model():
    """Makes models; its keyword arguments are their mistakes."""
    return CountingModel


@pytest.fixture
def counted():
    """Makes an episode from its actions."""
    return episode


@pytest.fixture
def held():
    """Makes held-out episodes from a list."""
    return Held


@pytest.fixture
def held_out():
    """Three wins of 9 steps, and one episode that is cut after 20 steps."""
    return Held([episode([1] * 9), episode([1] * 9), episode([1] * 9), episode([0] * 20, start=4)])

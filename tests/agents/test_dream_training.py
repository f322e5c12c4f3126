"""What happens to a policy before a dream."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy

from tests.agents.small_agents import (
    GRID,
    VECTOR,
    Diary,
    assert_equal_weights,
    gone_on_with,
    make_agent,
    some_episodes,
    some_model,
)
from worldgen.agents import DreamPPO, dream_ppo, dream_training, train_offline
from worldgen.agents.dream_training import (
    DreamProgress,
    learner_for,
    shrink_logits,
    train_in_dream,
)
from worldgen.agents.round_returns import RoundReturns
from worldgen.envs import ImaginedVecEnv

SEEN = spaces.Box(-1.0, 1.0, (3,))
OBSERVATIONS = torch.tensor([[0.5, -1.0, 0.2], [1.0, 0.0, -0.3]])


def made(actions: spaces.Space) -> ActorCriticPolicy:
    torch.manual_seed(0)
    return ActorCriticPolicy(SEEN, actions, lambda _: 1e-3)


def test_what_was_given_up_becomes_likelier_again():
    policy = made(spaces.Discrete(3))
    with torch.no_grad():
        bias = policy.action_net.bias
        assert isinstance(bias, torch.Tensor)
        bias.copy_(torch.tensor([9.0, 0.0, -3.0]))
    before = policy.get_distribution(OBSERVATIONS).distribution.logits.detach()
    value = policy.predict_values(OBSERVATIONS)
    shrink_logits(policy, 0.3)
    after = policy.get_distribution(OBSERVATIONS).distribution
    gaps = before - before[:, :1]
    assert torch.allclose(after.logits - after.logits[:, :1], 0.3 * gaps, atol=1e-5)
    assert after.probs[:, 2].min() > 0.02
    assert torch.equal(after.probs.argmax(1), before.argmax(1))
    assert torch.equal(policy.predict_values(OBSERVATIONS), value)


@pytest.mark.parametrize(
    ("actions", "changes"),
    [
        (spaces.MultiDiscrete([2, 3]), True),
        (spaces.MultiBinary(2), True),
        (spaces.Box(-1.0, 1.0, (2,)), False),
    ],
)
def test_actions_that_are_chosen_are_tried_again_and_others_left(actions, changes):
    policy = made(actions)
    before = [parameter.clone() for parameter in policy.parameters()]
    shrink_logits(policy, 0.5)
    same = [torch.equal(*pair) for pair in zip(before, policy.parameters(), strict=True)]
    assert all(same) != changes


def test_other_heads_are_left_alone():
    policy = made(spaces.Discrete(3))
    assert not shrink_logits(policy, 1.0)
    policy.action_net = torch.nn.Sequential(policy.action_net, torch.nn.ReLU())
    before = [parameter.clone() for parameter in policy.parameters()]
    assert not shrink_logits(policy, 0.5)
    del policy.action_net
    assert not shrink_logits(policy, 0.5)
    assert len(before) > len(list(policy.parameters()))


class Paid(DreamPPO):
    """An agent whose rounds bring what a test says."""

    script: ClassVar[list[float]] = []

    def _tries_again(self) -> bool:
        round_index = len(self._returns.by_policy) + (self._returns.random > -np.inf)
        paid = self.script[round_index]
        real, self._episodes = self.episodes, Fixed(paid)  # type: ignore[assignment]
        try:
            return super()._tries_again()
        finally:
            self._episodes = real


class Fixed:
    num_steps = 0

    def __init__(self, paid: float) -> None:
        self.total_reward = paid

    def since(self, _: int) -> list[Fixed]:
        return [self, self]


def rounds_that_tried_again(monkeypatch, script: list[float], agent: DreamPPO, learn) -> list[int]:
    tried = []

    def listening(policy, factor):
        assert (policy, factor) == (agent.policy, 0.4)
        tried.append(agent.round)
        return True

    monkeypatch.setattr(dream_ppo, "shrink_logits", listening)
    monkeypatch.setattr(Paid, "script", script)
    learn(agent)
    return tried


def paid_agent(**arguments) -> DreamPPO:
    agent = make_agent(GRID, logit_shrink=0.4, patience=2, **arguments)
    agent.__class__ = Paid
    return agent


@pytest.mark.parametrize(
    ("script", "tried"),
    [
        ([0.0, 1.0, 0.9, 0.8, 1.0, 0.5, 0.5, 0.5, 0.5], [3, 6]),
        ([0.0, 1.0, 0.9, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6], []),
        ([0.2, 0.0, 0.0, 0.1, 0.2, 0.0, 0.0, 0.0, 0.0], []),  # never better than at random
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 5.0, 5.0], []),  # only behind the last collection
    ],
)
def test_an_agent_that_is_stuck_tries_again(monkeypatch, script, tried):
    def learn(agent):
        agent.learn(64 + 8 * 32)

    agent = paid_agent()
    assert rounds_that_tried_again(monkeypatch, script, agent, learn) == tried
    assert agent.gamma == (0.95 if tried else 0.98)


@pytest.mark.parametrize(("gamma", "after"), [(0.97, 0.95), (0.9, 0.9)])
def test_from_then_on_its_dreams_look_less_far_ahead_and_go_on(monkeypatch, tmp_path, gamma, after):
    seen, longest = [], []

    def noting(agent, dream, *arguments, **options):
        seen.append(agent.gamma)
        longest.append(options["most"])
        assert learner_for(agent, dream).gamma == agent.gamma
        return real(agent, dream, *arguments, **options)

    real = dream_ppo.train_in_dream
    monkeypatch.setattr(dream_ppo, "train_in_dream", noting)
    agent = paid_agent(gamma=gamma, stuck_dream_steps=64)

    def learn(agent):
        agent.learn(64 + 5 * 32)

    rounds_that_tried_again(monkeypatch, [0.0, 1.0, 0.9, 0.8, 2.0, 3.0], agent, learn)
    assert seen == [gamma] * 3 + [after] * 3
    assert longest == [0] * 3 + [64] * 3
    agent.save(tmp_path / "agent.zip")
    loaded = DreamPPO.load(tmp_path / "agent.zip", device="cpu")
    assert loaded.gamma == after
    assert loaded._returns.were_stuck
    for _ in range(2):
        agent._forget_returns()
        assert agent.gamma == gamma
        assert not agent._returns.were_stuck
    agent.gamma = 0.8  # the user's
    agent._forget_returns()
    assert agent.gamma == 0.8


@pytest.mark.parametrize("phase", ["collect", "fit", "dream"])
def test_stuck_saved_amid_and_loaded_equals_undisturbed(monkeypatch, tmp_path, phase):
    def are_stuck(returns: RoundReturns, patience: int) -> bool:
        return len(returns.by_policy) == patience

    monkeypatch.setattr(RoundReturns, "are_stuck", are_stuck)
    timesteps = 64 + 4 * 32
    undisturbed, broken = (make_agent(stuck_dream_steps=64) for _ in range(2))
    diary = Diary()
    undisturbed.learn(timesteps, callback=diary)
    dreamt = [metrics["dream/timesteps"] for metrics in diary.metrics[2::3]]
    assert dreamt == [32, 32, 64, 64, 64]
    assert undisturbed.imagined_timesteps == sum(dreamt)
    broken.learn(timesteps, callback=Diary(stop_after=(2, phase)))
    loaded = gone_on_with(broken, tmp_path / "agent.zip", timesteps)
    assert loaded.imagined_timesteps == undisturbed.imagined_timesteps
    assert loaded.gamma == undisturbed.gamma == 0.95
    assert_equal_weights(loaded, undisturbed)


def test_a_trained_agent_that_is_stuck_from_the_beginning_tries_again(monkeypatch):
    own = some_episodes(GRID)[:]  # a copy: the agent adds to its episodes
    agent = paid_agent(episodes=own, initial_steps=0)

    def learn(agent):
        agent.learn(5 * 32)

    assert rounds_that_tried_again(monkeypatch, [0.7] * 5, agent, learn) == [3]


def test_another_learning_begins_to_watch_anew(monkeypatch):
    def learn(agent):
        agent.learn(64 + 2 * 32)
        agent.learn(3 * 32)

    agent = paid_agent()
    assert rounds_that_tried_again(monkeypatch, [0.0, 1.0, 0.9, 0.8], agent, learn) == []
    assert len(agent._returns.by_policy) == 3


def test_a_dream_that_is_made_again_counts_its_round_once(monkeypatch):
    agent = paid_agent()
    dreams = []

    def breaking(*arguments, **options):
        dreams.append(agent.round)
        if len(dreams) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    real = dream_ppo.train_in_dream
    monkeypatch.setattr(dream_ppo, "train_in_dream", breaking)

    def learn(agent):
        with pytest.raises(KeyboardInterrupt):
            agent.learn(64 + 4 * 32)
        agent.learn(2 * 32, reset_num_timesteps=False)

    rounds_that_tried_again(monkeypatch, [0.0, 0.5, 0.4, 0.6, 0.7, 0.8], agent, learn)
    assert dreams == [0, 1, 2, 2, 3, 4]
    assert agent._returns.by_policy == [0.5, 0.4, 0.6, 0.7]


def test_a_rounds_return_is_that_of_its_episodes(tmp_path):
    agent = make_agent(VECTOR).learn(64 + 32)
    episodes = list(agent.episodes)
    counts = np.cumsum([len(episode) for episode in episodes])
    first = [e.total_reward for e, count in zip(episodes, counts, strict=True) if count <= 64]
    later = [e.total_reward for e, count in zip(episodes, counts, strict=True) if count > 64]
    assert agent._returns.random == pytest.approx(np.mean(first))
    assert agent._returns.by_policy == pytest.approx([np.mean(later)])
    assert np.mean(first) != np.mean(later)
    agent.save(tmp_path / "agent.zip")
    loaded = DreamPPO.load(tmp_path / "agent.zip", device="cpu")
    assert loaded._returns == agent._returns
    assert loaded._noted_round == 1


@pytest.mark.parametrize(
    ("brought", "most", "dreamt"),
    [
        ([[0.1], [0.3], [0.2, 0.5], [0.2, 0.5], [0.9]], 1_000, 4),
        ([[0.1], [0.3], [0.5], [0.7], [0.9]], 3 * 20, 3),  # asked for, rollouts are 32
        ([[0.1], [0.3], [0.5], [0.7], [0.9]], 4 * 20 - 1, 3),
        ([[0.1], [0.3], [0.5], [0.7], [0.9]], 0, 1),
        ([[], [0.3], [0.5]], 1_000, 1),  # nobody can say whether it rose
        ([[0.3], [], [0.5]], 1_000, 2),
        ([[-3.0], [-2.0], [-2.5]], 1_000, 3),
    ],
)
def test_a_dream_goes_on_as_long_as_its_return_rises(monkeypatch, brought, most, dreamt):
    agent, dream = make_agent(), ImaginedVecEnv(some_model(), 8, 3, starts=some_episodes(), seed=0)

    class Learner(PPO):
        def learn(self, total_timesteps, *arguments, **options):
            noted = list(self.ep_info_buffer or [])  # what was not cleared counts
            chunks.append(total_timesteps)
            super().learn(total_timesteps, *arguments, **options)
            self.ep_info_buffer.clear()
            noted += [{"r": value, "l": 3} for value in brought[len(chunks) - 1]]
            self.ep_info_buffer.extend(noted)
            return self

    chunks: list[int] = []
    monkeypatch.setattr(dream_training, "PPO", Learner)
    bar = Counter()
    count, metrics = train_in_dream(
        agent, dream, 20, imagined_timesteps=100, most=most, callback=DreamProgress(bar)
    )
    assert chunks == [20] * dreamt
    assert count - 100 == bar.done == 32 * dreamt  # whole rollouts
    assert bar.total == bar.done
    assert metrics["dream/timesteps"] == 32 * dreamt
    newest = brought[dreamt - 1]
    assert metrics.get("dream/ep_rew_mean") == (np.mean(newest) if newest else None)


def test_a_dream_gives_freed_memory_back_before_each_rollout(monkeypatch):
    released: list[int] = []
    agent, dream = make_agent(), ImaginedVecEnv(some_model(), 8, 3, starts=some_episodes(), seed=0)
    bar = Counter()
    monkeypatch.setattr(dream_training, "release_memory", lambda: released.append(bar.done))
    bar.total = 96
    train_in_dream(agent, dream, 96, imagined_timesteps=0, callback=DreamProgress(bar))
    assert released == [0, 32, 64]
    released.clear()
    train_in_dream(agent, dream, 32, imagined_timesteps=0)
    assert released == [96]


class Counter:
    """What `DreamProgress` tells a bar of the first rollout."""

    def __init__(self) -> None:
        self.done, self.total = 0, 32

    def update(self, n: int, **_: float) -> None:
        self.done += n

    def extend(self, n: int) -> None:
        self.total += n


def test_without_a_collection_a_dream_does_not_go_on(monkeypatch):
    longest = []

    def noting(*arguments, **options):
        longest.append(options["most"])
        return real(*arguments, **options)

    real = dream_ppo.train_in_dream
    monkeypatch.setattr(dream_ppo, "train_in_dream", noting)
    agent = make_agent(stuck_dream_steps=64).learn(64)
    agent._returns.try_again()
    train_offline(agent, rounds=1)
    agent.learn(32, reset_num_timesteps=False)
    assert longest == [0, 0, 64]


def test_another_learning_knows_what_random_actions_brought():
    agent = make_agent().learn(64)
    brought = agent._returns.random
    agent.learn(32)
    assert agent._returns.random == brought > -np.inf

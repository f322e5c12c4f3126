"""What happens to a policy before a dream."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy

from tests.agents.small_agents import GRID, make_agent
from worldgen.agents import dream_ppo
from worldgen.agents.dream_training import is_stuck, shrink_logits

SEEN = spaces.Box(-1.0, 1.0, (3,))
OBSERVATIONS = torch.tensor([[0.5, -1.0, 0.2], [1.0, 0.0, -0.3]])


def made(actions: spaces.Space) -> ActorCriticPolicy:
    torch.manual_seed(0)
    return ActorCriticPolicy(SEEN, actions, lambda _: 1e-3)


def test_what_was_given_up_becomes_likelier_again():
    policy = made(spaces.Discrete(3))
    with torch.no_grad():
        policy.action_net.bias.copy_(torch.tensor([9.0, 0.0, -3.0]))
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


@pytest.mark.parametrize(
    ("returns", "begin", "stuck"),
    [
        ([0.0, 0.1, 0.4, 0.3, 0.4, 0.2], 0, True),
        ([0.0, 0.1, 0.4, 0.3, 0.4], 0, False),  # two rounds only
        ([0.0, 0.1, 0.4, 0.3, 0.2, 0.5], 0, False),
        ([0.0, 0.1, 0.4, 0.3, 0.4, 0.2, 0.1], 6, False),  # it has just tried again
        ([0.0, 0.1, 0.4, 0.3, 0.4, 0.2, 0.1, 0.0, 0.1, 0.1], 6, True),
        ([-5.0, -5.0, -5.0, -5.0, -5.0], 0, False),  # nothing was ever learned
        ([-5.0, -4.0, -4.5, -4.2, -4.0], 0, True),
    ],
)
def test_it_is_stuck_when_rounds_bring_no_more(returns, begin, stuck):
    assert is_stuck(returns, begin, patience=3) == stuck


def test_an_agent_that_is_stuck_tries_again(monkeypatch, tmp_path):
    shrunk = []
    monkeypatch.setattr(dream_ppo, "shrink_logits", lambda _, factor: shrunk.append(agent.round))
    paid = iter([0.0, 1.0, 0.9, 0.8, 1.0, 0.5, 0.5, 0.5])
    agent = make_agent(GRID, logit_shrink=0.4, patience=2)
    seen = []

    def noted(*_):
        agent._round_returns[-1] = next(paid)
        seen.append(len(agent._round_returns))
        return is_stuck(*_)

    with monkeypatch.context() as patch:
        patch.setattr(dream_ppo, "is_stuck", lambda r, b, p: noted(r, b, p))
        agent.learn(64 + 7 * 32)
    assert shrunk == [3, 6]
    agent.save(tmp_path / "agent.zip")
    loaded = type(agent).load(tmp_path / "agent.zip", device="cpu")
    assert loaded._round_returns == agent._round_returns
    assert loaded._tried_again == agent._tried_again == 7


def test_a_rounds_return_is_that_of_its_episodes():
    agent = make_agent(GRID).learn(64 + 32)
    episodes = list(agent.episodes)
    counts = np.cumsum([len(episode) for episode in episodes])
    first = [e.total_reward for e, count in zip(episodes, counts, strict=True) if count <= 64]
    later = [e.total_reward for e, count in zip(episodes, counts, strict=True) if count > 64]
    assert agent._round_returns == pytest.approx([np.mean(first), np.mean(later)])

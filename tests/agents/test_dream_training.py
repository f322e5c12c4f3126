"""What happens to a policy before a dream."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy

from tests.agents.small_agents import GRID, make_agent
from worldgen.agents import dream_ppo
from worldgen.agents.dream_training import shrink_logits

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


@pytest.mark.parametrize("factor", [0.3, 1.0])
def test_each_dream_but_the_first_begins_so(monkeypatch, factor):
    seen = []

    def listening(policy, given):
        seen.append((agent.round, agent.phase, given))

    monkeypatch.setattr(dream_ppo, "shrink_logits", listening)
    agent = make_agent(GRID, logit_shrink=factor)
    agent.learn(64 + 32 + 32)
    assert seen == [(1, "dream", factor), (2, "dream", factor)]
    assert np.isfinite(agent.policy.action_net.bias.detach().numpy()).all()

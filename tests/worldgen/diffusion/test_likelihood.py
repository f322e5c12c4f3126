"""The bound on a frame's nats, against enumeration."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from worldgen.diffusion.likelihood import draw_masks, likelihood_bound, masked_nats
from worldgen.errors import ConfigError

K, V = 4, 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Joint:
    """A network whose conditionals are those of one joint distribution of K tokens."""

    def __init__(self, seed=0):
        logits = 2 * torch.randn((V,) * K, generator=generator(seed), dtype=torch.float64)
        self.joint = logits.flatten().softmax(0).view((V,) * K)

    def nats(self, frames, masked):
        """-log p(x_i | the tokens that are not masked): (B, K), frame by frame."""
        result = torch.zeros(masked.shape)
        for row, (frame, mask) in enumerate(zip(frames.tolist(), masked.tolist(), strict=True)):
            known = tuple(slice(None) if m else v for v, m in zip(frame, mask, strict=True))
            rest = self.joint[known]
            for axis, place in enumerate(i for i in range(K) if mask[i]):
                others = [a for a in range(rest.ndim) if a != axis]
                marginal = rest.sum(others) if others else rest
                result[row, place] = -math.log(marginal[frame[place]] / marginal.sum())
        return result


class Inconsistent(Joint):
    """Conditionals that belong to no joint distribution: what is known is partly ignored."""

    def nats(self, frames, masked):
        flat = 0.5 + 0.1 * masked.sum(-1, keepdim=True) + 0.2 * frames
        return flat.expand(masked.shape).float()


def enumerated(network, frame):
    """The mean over all orders of what drawing the tokens one by one costs."""
    costs = []
    for order in itertools.permutations(range(K)):
        masked = torch.ones(1, K, dtype=torch.bool)
        cost = 0.0
        for place in order:
            cost += float(network.nats(frame[None], masked)[0, place])
            masked[0, place] = False
        costs.append(cost)
    return sum(costs) / len(costs)


@pytest.mark.parametrize("network", [Joint(), Joint(1), Inconsistent()])
def test_all_masks_give_the_mean_over_all_orders(network):
    frames = torch.randint(V, (5, K), generator=generator(3))
    bound = likelihood_bound(
        lambda masked: network.nats(frames, masked), (5, K), 2**K - 1, generator()
    )
    expected = torch.tensor([enumerated(network, frame) for frame in frames])
    torch.testing.assert_close(bound, expected, rtol=1e-5, atol=1e-5)


def test_a_joint_distributions_bound_is_its_likelihood():
    network = Joint()
    frames = torch.randint(V, (6, K), generator=generator(4))
    bound = likelihood_bound(
        lambda masked: network.nats(frames, masked), (6, K), 2**K - 1, generator()
    )
    exact = -network.joint[tuple(frames.T)].log().float()
    torch.testing.assert_close(bound, exact, rtol=1e-5, atol=1e-5)
    # One pass for all tokens at once costs more on average: it knows of no dependence.
    everything = torch.ones(6, K, dtype=torch.bool)
    probability = network.joint.flatten()
    all_frames = torch.cartesian_prod(*[torch.arange(V)] * K)
    at_once = network.nats(all_frames, torch.ones(len(all_frames), K, dtype=torch.bool)).sum(-1)
    assert (probability * at_once).sum() > -(probability * probability.log()).sum()
    assert torch.equal(masked_nats(torch.ones(6, K), everything), torch.full((6,), float(K)))


def test_sampled_masks_come_near_the_enumerated_value():
    network = Inconsistent()
    frame = torch.tensor([[0, 1, 2, 1]])
    bound = likelihood_bound(lambda masked: network.nats(frame, masked), (1, K), 14, generator(5))
    many = torch.stack(
        [
            likelihood_bound(lambda m: network.nats(frame, m), (1, K), 14, generator(seed))
            for seed in range(400)
        ]
    ).mean()
    assert float(many) == pytest.approx(enumerated(network, frame[0]), rel=0.01)
    assert float(bound) == pytest.approx(float(many), rel=0.5)


def test_one_token_is_its_cross_entropy():
    nats = torch.rand(7, 1, generator=generator())
    bound = likelihood_bound(lambda masked: nats, (7, 1), 3, generator())
    torch.testing.assert_close(bound, nats[:, 0])


def test_numbers_of_masked_tokens_are_spread_evenly():
    draw = draw_masks((50, 6), 6, generator())
    counts = draw.masked.sum(-1)  # (6, 50)
    assert torch.equal(counts, torch.arange(1, 7).unsqueeze(-1).expand(6, 50))
    assert draw.weights.sum() == pytest.approx(1)
    few = draw_masks((20_000, 6), 1, generator()).masked
    shares = torch.bincount(few.sum(-1).flatten(), minlength=7)[1:] / 20_000
    torch.testing.assert_close(shares, torch.full((6,), 1 / 6), atol=0.01, rtol=0)
    each = few.float().mean((0, 1))
    torch.testing.assert_close(each, torch.full((6,), 3.5 / 6), atol=0.015, rtol=0)


def test_equal_seeds_give_equal_masks():
    first, second = (draw_masks((9, 5), 4, generator(8)).masked for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, draw_masks((9, 5), 4, generator(9)).masked)
    with pytest.raises(ConfigError, match="`num_samples` must be at least 1"):
        draw_masks((9, 5), 0, generator())

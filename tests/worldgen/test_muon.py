"""Muon in float32, with torch's own as the oracle."""

from __future__ import annotations

import copy

import gymnasium as gym
import pytest
import torch
from torch import Tensor, nn

from worldgen.actions import ActionCodec
from worldgen.codes import Codebook
from worldgen.dynamics import Dynamics, DynamicsConfig
from worldgen.dynamics_optimizers import make_optimizers
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.muon import Float32Muon

_SHAPES = (16, 48), (48, 16), (24, 24)
_CODEBOOK = Codebook(size=4, first_token=0, num_tokens=2, num_features=3, numbers=False)


def _matrices(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in _SHAPES]


def _give_gradients(matrices: list[Tensor], seed: int) -> None:
    for matrix, gradient in zip(matrices, _matrices(seed), strict=True):
        matrix.grad = gradient.detach()


def _oracle(matrices: list[Tensor]) -> torch.optim.Muon:
    return torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")


def test_it_moves_as_torchs_own_but_for_bfloat16() -> None:
    ours, theirs = _matrices(0), _matrices(0)
    optimizer, oracle = Float32Muon(ours, lr=0.02, weight_decay=0.1), _oracle(theirs)
    for seed in range(1, 6):
        for matrices in (ours, theirs):
            _give_gradients(matrices, seed)
        optimizer.step()
        oracle.step()
    for start, mine, other in zip(_matrices(0), ours, theirs, strict=True):
        assert (mine - other).norm() < 0.02 * (start - other).norm()


def test_an_update_is_nearly_orthogonal() -> None:
    matrices = _matrices(0)
    optimizer = Float32Muon(matrices, lr=1.0, weight_decay=0.0)
    _give_gradients(matrices, 1)
    before = copy.deepcopy(matrices)
    optimizer.step()
    for old, new in zip(before, matrices, strict=True):
        values = torch.linalg.svdvals((old - new).detach()) / (0.2 * max(old.shape) ** 0.5)
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_states_are_torchs() -> None:
    ours, theirs = _matrices(0), _matrices(0)
    optimizer, oracle = Float32Muon(ours, lr=0.02, weight_decay=0.1), _oracle(theirs)
    _give_gradients(ours, 1)
    optimizer.step()
    oracle.load_state_dict(optimizer.state_dict())
    again = Float32Muon(theirs, lr=0.5, weight_decay=0.0)
    again.load_state_dict(oracle.state_dict())
    for mine, other in zip(ours, theirs, strict=True):
        momentum = again.state[other]["momentum_buffer"]
        assert torch.equal(momentum, optimizer.state[mine]["momentum_buffer"])
    assert again.param_groups[0]["lr"] == 0.02


def test_what_has_no_gradient_stays() -> None:
    matrices = _matrices(0)
    _give_gradients(matrices, 1)
    matrices[1].grad = None
    before = matrices[1].detach().clone()
    Float32Muon(matrices, lr=0.1, weight_decay=0.1).step()
    assert torch.equal(matrices[1], before)
    assert not torch.equal(matrices[0], _matrices(0)[0])


@pytest.mark.parametrize(("precision", "kind"), [("float32", True), ("bfloat16", False)])
def test_it_multiplies_as_the_network_does(precision: str, kind: bool) -> None:
    config = DynamicsConfig(precision=precision)  # type: ignore[arg-type]
    dynamics = Dynamics(config, [_CODEBOOK], ActionCodec(gym.spaces.Discrete(3)))
    muon, _ = make_optimizers(dynamics, DynamicsTrainingConfig())
    assert isinstance(muon, torch.optim.Muon)
    assert isinstance(muon, Float32Muon) == kind

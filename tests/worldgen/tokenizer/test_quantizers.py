"""The four quantizers against vector-quantize-pytorch and against their equations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from vector_quantize_pytorch import FSQ, ResidualVQ, VectorQuantize

from worldgen.errors import ConfigError
from worldgen.tokenizer import QuantizerConfig
from worldgen.tokenizer.finite_scalar_quantizer import FiniteScalarQuantizer
from worldgen.tokenizer.gaussian_bottleneck import GaussianBottleneck
from worldgen.tokenizer.residual_quantizer import ResidualQuantizer

DIM, CODES = 6, 32


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def residual(stages: int, **settings: Any) -> ResidualQuantizer:
    kind = "vq" if stages == 1 else "residual"
    config = QuantizerConfig(kind=kind, num_codes=CODES, dim=DIM, num_residuals=stages, **settings)
    made = ResidualQuantizer(1, config)
    for index, stage in enumerate(made._stages()):
        stage.codebook.copy_(draw(1, CODES, DIM, seed=10 + index) * 0.5**index)
        stage.ema_count.fill_(1.0)
        stage.ema_sum.copy_(stage.codebook)
    return made


def copy_codebook(theirs: Any, codebook: Tensor) -> None:
    theirs._codebook.embed.data.copy_(codebook)
    theirs._codebook.embed_avg.data.copy_(codebook)
    theirs._codebook.cluster_size.data.fill_(1.0)


def test_vq_agrees_with_the_oracle() -> None:
    ours = residual(1)
    theirs = VectorQuantize(DIM, CODES, decay=0.95, commitment_weight=0.25, eps=1e-9)
    copy_codebook(theirs, ours.vectors()[0])
    latents = draw(200, 1, DIM, seed=1)
    result = ours(latents)
    their_vectors, their_codes, their_loss = theirs.train()(latents.transpose(0, 1))
    assert torch.equal(result.codes.flatten(), their_codes.flatten())
    assert torch.allclose(result.vectors.flatten(), their_vectors.flatten(), atol=1e-5)
    assert result.loss.mean() == pytest.approx(float(their_loss.detach()), rel=1e-4)
    ours.update(latents, result.codes)  # Theirs moved its codebook in the forward pass.
    assert torch.allclose(ours.vectors()[0], theirs._codebook.embed, atol=1e-4)


def test_residual_vq_agrees_with_the_oracle() -> None:
    ours = residual(3)
    theirs = ResidualVQ(dim=DIM, num_quantizers=3, codebook_size=CODES).eval()
    for layer, codebook in zip(theirs.layers, ours.vectors(), strict=True):
        copy_codebook(layer, codebook)
    latents = draw(100, 1, DIM, seed=2)
    their_vectors, their_codes, _ = theirs(latents.transpose(0, 1))
    assert torch.equal(ours.encode(latents).flatten(), their_codes.flatten())
    assert torch.allclose(ours.project(latents).flatten(), their_vectors.flatten(), atol=1e-5)


def test_stages_of_residual_vq_leave_less_and_less() -> None:
    ours = ResidualQuantizer(
        2, QuantizerConfig(kind="residual", num_codes=CODES, dim=DIM, num_residuals=4)
    )
    latents = draw(2000, 2, DIM, seed=3)
    ours.initialize(latents, torch.Generator().manual_seed(0))
    codes = ours.encode(latents)
    lefts = []
    for stages in range(1, 5):
        vectors = sum(
            stage.decode(codes[..., r]) for r, stage in enumerate(ours._stages()[:stages])
        )
        lefts.append(float((latents - vectors).square().mean()))
    assert lefts[1] < 0.7 * lefts[0]
    assert lefts[2] < 0.7 * lefts[1]
    assert lefts[3] < 0.7 * lefts[2]


@pytest.mark.parametrize("levels", [(8, 8, 8), (8, 5, 5, 5), (7, 4), (5,)])
def test_fsq_agrees_with_the_oracle(levels: tuple[int, ...]) -> None:
    ours = FiniteScalarQuantizer(1, QuantizerConfig(kind="fsq", levels=levels))
    theirs = FSQ(list(levels))
    latents = 2 * draw(500, 1, len(levels), seed=4)
    their_vectors, their_codes = theirs(latents.transpose(0, 1))
    assert torch.equal(ours.encode(latents).flatten(), their_codes.flatten().long())
    assert torch.allclose(ours(latents).vectors.flatten(), their_vectors.flatten(), atol=1e-6)
    assert torch.allclose(ours.project(latents).flatten(), their_vectors.flatten(), atol=1e-6)


def test_fsq_starts_with_latents_on_all_levels() -> None:
    ours = FiniteScalarQuantizer(1, QuantizerConfig(kind="fsq", levels=(4, 4)))
    latents = 1e-3 * draw(4000, 1, 2, seed=5) + 7  # What an untrained encoder may give.
    assert len(ours.encode(latents).unique()) == 1
    ours.initialize(latents, torch.Generator())
    assert len(ours.encode(latents).unique()) == 16
    most = ours.encode(latents).flatten().bincount().max() / len(latents)
    assert most < 0.2  # The paper's own start has 30% of such latents on one of the 16.


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(3, 9), min_size=1, max_size=4), st.integers(0, 999))
def test_fsq_codes_and_grid_points_are_one_to_one(levels: list[int], seed: int) -> None:
    ours = FiniteScalarQuantizer(2, QuantizerConfig(kind="fsq", levels=tuple(levels)))
    size = ours.grid.shape[0]
    assert len(ours.grid.unique(dim=0)) == size
    assert ours.grid.abs().max() <= 1
    codes = torch.randint(size, (20, 2, 1), generator=torch.Generator().manual_seed(seed))
    points = ours.decode(codes)
    bounded = points * (ours.levels // 2)  # Invert the squashing, which keeps whole numbers.
    half_width = (ours.levels - 1) * (1 + 1e-3) / 2
    offset = torch.where(ours.levels % 2 == 0, 0.5, 0.0)
    latents = ((bounded + offset) / half_width).atanh() - (offset / half_width).atanh()
    assert torch.equal(ours.encode(latents), codes)


@pytest.mark.parametrize("kind", ["vq", "fsq", "residual"])
def test_the_gradient_goes_straight_through(kind: str) -> None:
    config = QuantizerConfig(kind=kind, num_codes=CODES, dim=3, levels=(8, 8, 8))
    made = FiniteScalarQuantizer(1, config) if kind == "fsq" else ResidualQuantizer(1, config)
    latents = draw(50, 1, 3, seed=6).requires_grad_()
    weights = draw(50, 1, 3, seed=7)
    (made(latents).vectors * weights).sum().backward()
    if kind == "fsq":  # Through the rounding, and on through the squashing of latents.
        assert latents.grad is not None
        assert (latents.grad * weights > 0).all()
    else:
        assert torch.allclose(latents.grad, weights)


def test_the_divergence_is_that_of_the_standard_normal() -> None:
    made = GaussianBottleneck(1, QuantizerConfig(kind="gaussian", dim=DIM, kl_weight=0.5))
    latents = draw(40, 1, 2 * DIM, seed=8)
    mean, log_variance = latents.split(DIM, -1)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    prior = torch.distributions.Normal(0.0, 1.0)
    expected = 0.5 * torch.distributions.kl_divergence(posterior, prior).sum(-1)
    result = made(latents, torch.Generator().manual_seed(0))
    assert torch.allclose(result.loss, expected, atol=1e-5)
    assert result.codes.shape == (40, 1, 0)
    assert torch.equal(made.project(latents), mean)


def test_samples_have_the_mean_and_the_deviation_that_the_latents_say() -> None:
    made = GaussianBottleneck(1, QuantizerConfig(kind="gaussian", dim=1))
    latents = torch.tensor([[[3.0, 2 * torch.tensor(0.5).log()]]]).expand(20_000, 1, 2)
    samples = made(latents, torch.Generator().manual_seed(0)).vectors
    assert samples.mean() == pytest.approx(3.0, abs=0.02)
    assert samples.std() == pytest.approx(0.5, abs=0.02)


def test_gaussian_latents_have_no_codes() -> None:
    made = GaussianBottleneck(1, QuantizerConfig(kind="gaussian"))
    with pytest.raises(ConfigError, match="has no codes and so no tokens"):
        made.encode(torch.zeros(1, 1, 32))


@pytest.mark.parametrize(
    "field",
    [
        {"kind": "vqvae"},
        {"num_codes": 1},
        {"dim": 0},
        {"decay": 1.0},
        {"num_residuals": 0},
        {"levels": (8, 2)},
        {"kl_weight": -1.0},
    ],
)
def test_bad_settings_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"`{next(iter(field))}` must"):
        QuantizerConfig(**field)


def test_config_round_trips() -> None:
    config = QuantizerConfig(kind="fsq", levels=(7, 5))
    assert QuantizerConfig.from_dict(config.to_dict()) == config

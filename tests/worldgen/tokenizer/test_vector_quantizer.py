"""EMA vector quantization against the equations written naively."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldgen.errors import ShapeError
from worldgen.tokenizer.vector_quantizer import VectorQuantizer


def quantizer(groups: int = 2, codes: int = 8, dim: int = 3, decay: float = 0.9) -> VectorQuantizer:
    made = VectorQuantizer(groups, codes, dim, decay)
    generator = torch.Generator().manual_seed(0)
    made.codebook.copy_(torch.randn(made.codebook.shape, generator=generator))
    return made


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(0, 1000))
def test_codes_are_the_nearest(groups: int, count: int, seed: int) -> None:
    made = quantizer(groups)
    latents = torch.randn(count, groups, 3, generator=torch.Generator().manual_seed(seed))
    codes = made.encode(latents)
    for index in range(count):
        for group in range(groups):
            distances = (latents[index, group] - made.codebook[group]).square().sum(-1)
            assert distances[codes[index, group]] <= distances.min() + 1e-5


def test_the_update_is_the_moving_average_of_the_paper() -> None:
    made = quantizer(groups=1, codes=2, dim=1, decay=0.5)
    made.codebook[0] = torch.tensor([[0.0], [10.0]])
    made.ema_count[0] = torch.tensor([4.0, 1.0])
    made.ema_sum[0] = torch.tensor([[0.0], [10.0]])
    latents = torch.tensor([[[1.0]], [[3.0]]])
    made.update(latents, made.encode(latents))
    # N <- 0.5 * 4 + 0.5 * 2 = 3, m <- 0.5 * 0 + 0.5 * 4 = 2, e = 2 / 3; the other code stays.
    assert made.codebook[0, 0, 0] == pytest.approx(2 / 3)
    assert made.codebook[0, 1, 0] == pytest.approx(10.0)


def test_kmeans_start_gives_each_distinct_latent_its_code() -> None:
    made = quantizer(groups=1, codes=16, dim=3)
    distinct = torch.randn(12, 1, 3, generator=torch.Generator().manual_seed(1))
    made.initialize(distinct.repeat(5, 1, 1), torch.Generator().manual_seed(2))
    codes = made.encode(distinct)
    assert len(codes.unique()) == 12
    assert torch.allclose(made.decode(codes), distinct, atol=1e-6)


def test_settled_codes_lose_as_little_as_even_cells_from_any_start() -> None:
    latents = torch.linspace(0, 1, 4_096).view(-1, 1, 1)
    for start in (torch.linspace(0, 1, 64), torch.linspace(0.9, 0.91, 64)):  # Spread out; a crowd.
        made = quantizer(groups=1, codes=64, dim=1)
        made.codebook[0] = start.view(-1, 1)
        made.settle(latents)
        error = (latents - made.decode(made.encode(latents))).square().mean()
        # A cell of width 1 / 64 has the variance of a uniform distribution.
        assert float(error) == pytest.approx(1 / 64**2 / 12, rel=0.1)


def test_settled_codes_are_the_means_of_what_chooses_them() -> None:
    made = quantizer(groups=2, codes=8, dim=3)
    latents = torch.randn(500, 2, 3, generator=torch.Generator().manual_seed(3))
    made.settle(latents)
    codes = made.encode(latents)
    for group in range(2):
        for code in codes[:, group].unique():
            mean = latents[codes[:, group] == code, group].mean(0)
            assert torch.allclose(made.codebook[group, code], mean, atol=0.05)


@pytest.mark.parametrize("values", [[0.0, 1.0, 3.0], [0.0]])
def test_settled_codes_without_a_latent_are_no_ones_doubles(values: list[float]) -> None:
    made = quantizer(groups=1, codes=16, dim=4)
    latents = torch.zeros(30, 1, 4)
    latents[..., 0] = torch.tensor(values).repeat(30 // len(values)).view(-1, 1)
    made.initialize(latents, torch.Generator().manual_seed(0))
    made.settle(latents)
    assert len(made.codebook[0].unique(dim=0)) == 16
    codes = made.encode(latents)
    assert torch.allclose(made.decode(codes), latents, atol=1e-6)
    assert all(torch.equal(made.encode(latents[i : i + 1])[0], codes[i]) for i in range(30))


def test_restart_moves_dead_codes_only() -> None:
    made = quantizer(groups=1, codes=4, dim=1)
    made.codebook[0] = torch.tensor([[0.0], [1.0], [50.0], [60.0]])
    latents = torch.tensor([[[0.0]], [[1.0]], [[2.0]]])
    errors = torch.tensor([[0.0], [0.0], [3.0]])
    assert made.restart_dead(latents, errors) == 1
    assert made.codebook[0].flatten().tolist() == [0.0, 1.0, 2.0, 60.0]


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(codebooks, dim\) = \(2, 3\), got \(5, 2, 4\)"):
        quantizer().encode(torch.zeros(5, 2, 4))

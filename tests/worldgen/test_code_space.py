"""Points of code vectors: distinct, of comparable scale, whatever the codebook looks like."""

from __future__ import annotations

import pytest
import torch

from worldgen.code_space import CodeSpace, NoiseModulation
from worldgen.codes import Codebook
from worldgen.diffusion.gaussian_diffusion import Guess
from worldgen.transformer import Transformer, TransformerConfig, visible_past

ENTRIES = 6


def space_of(vectors: torch.Tensor, seen: torch.Tensor, positions: int = 2) -> CodeSpace:
    codebook = Codebook(len(vectors), 0, positions, num_features=1, numbers=False)
    space = CodeSpace([codebook], ENTRIES, 8)
    space.set_vectors([vectors], [seen])
    return space


def draw(count: int, entries: int = ENTRIES) -> torch.Tensor:
    return torch.randn(count, entries, generator=torch.Generator().manual_seed(0))


def test_codes_in_use_have_mean_0_and_unit_variance_in_each_direction() -> None:
    vectors = draw(40) * torch.tensor([20.0, 10, 1, 0.2, 5, 2]) + 7
    seen = torch.arange(0, 40, 2)
    points = space_of(vectors, seen).points[seen]
    assert torch.allclose(points.mean(0), torch.zeros(ENTRIES), atol=1e-4)
    covariance = points.T @ points / len(points)
    assert torch.allclose(covariance, torch.eye(ENTRIES), atol=1e-3)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_codes_are_equally_far_from_each_other(count: int) -> None:
    # A small tail and a large offset, as in codebooks that hardly trained.
    vectors = 1e-3 * draw(8) + 50 * draw(1)
    seen = torch.arange(count)
    space = space_of(vectors, seen)
    assert space.live.sum(1).tolist() == [count - 1] * 2
    distances = torch.cdist(space.points[seen], space.points[seen])
    expected = (2 * count) ** 0.5 * (1 - torch.eye(count))
    assert torch.allclose(distances, expected, atol=0.05)


def test_numbers_on_a_line_stay_in_their_order() -> None:
    vectors = torch.linspace(-1, 1, 200).unsqueeze(1) * draw(1)
    space = space_of(vectors, torch.arange(200))
    assert space.live.sum(1).tolist() == [1, 1]
    steps = space.points[:, 0].diff()
    assert (steps > 0).all() or (steps < 0).all()
    assert space.points[:, 1:].abs().max() == 0


def test_a_single_code_needs_no_denoising() -> None:
    space = space_of(draw(4), torch.tensor([2]))
    assert space.live.sum() == 0
    noisy = torch.zeros(3, 2, ENTRIES)
    guess = Guess(noisy, torch.ones_like(noisy))
    denoised = space.denoise(torch.randn(3, 2, 8), noisy, torch.ones(3), guess)
    assert torch.equal(denoised, torch.zeros_like(denoised))


def test_the_denoiser_is_preconditioned() -> None:
    space = space_of(draw(40), torch.arange(40))
    noisy, hidden = torch.randn(3, 2, ENTRIES), torch.randn(3, 2, 8)
    guess = Guess(torch.full_like(noisy, 3.0), torch.ones_like(noisy))
    nearly_clean = space.denoise(hidden, noisy, torch.full((3,), 1e-4), guess)
    assert torch.allclose(nearly_clean, noisy, atol=1e-3)
    # At sigma = sigma_data = 1: c_skip 1/2 and c_out 1/sqrt(2).
    expected = 3 + 0.5 * (noisy - 3) + 0.5**0.5 * space.write[0](hidden)
    assert torch.allclose(space.denoise(hidden, noisy, torch.ones(3), guess), expected, atol=1e-6)
    sure = guess._replace(std=torch.full_like(noisy, 1e-4))
    kept = space.denoise(hidden, noisy, torch.ones(3), sure)
    assert torch.allclose(kept, guess.mean, atol=1e-3)


def test_a_guess_has_the_moments_of_the_codes() -> None:
    space = space_of(draw(40), torch.arange(0, 40, 2))
    guess = space.guess(torch.ones(3, 2, 40))  # all seen codes alike: mean 0, variance 1
    assert torch.allclose(guess.mean, torch.zeros(3, 2, ENTRIES), atol=1e-5)
    assert torch.allclose(guess.std, torch.ones(3, 2, ENTRIES), atol=1e-5)
    certain = torch.nn.functional.one_hot(torch.full((3, 2), 4), 40)
    guess = space.guess(certain)
    assert torch.allclose(guess.mean, space.points[4].expand(3, 2, -1))
    assert guess.std.max() < 0.01


def test_an_untrained_noise_level_changes_nothing_and_a_trained_one_only_drafts() -> None:
    torch.manual_seed(0)
    config = TransformerConfig(width=16, layers=2, heads=2)
    transformer = Transformer(config, context=2)
    told = NoiseModulation(2, 16)
    clean, drafts = torch.randn(1, 3, 4, 16), torch.randn(1, 3, 4, 16)
    sees = visible_past(torch.zeros(1, 3, dtype=torch.int64), 2)
    sigma = torch.tensor([0.1, 1.0, 10.0])
    with torch.no_grad():
        plain = transformer(clean, sees, drafts)
        begun = transformer(clean, sees, drafts, told(sigma))
        assert torch.allclose(plain[1], begun[1])
        for layer in told.layers:
            torch.nn.init.normal_(layer.weight, std=0.5)
        trained = transformer(clean, sees, drafts, told(sigma))
        other = transformer(clean, sees, drafts, told(sigma * torch.tensor([1.0, 2.0, 1.0])))
    assert torch.equal(plain[0], trained[0])
    same = (trained[1] - other[1]).abs().amax((0, 2, 3)) < 1e-6
    assert same.tolist() == [True, False, True]

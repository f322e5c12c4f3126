"""Predicted observations against real ones, leaf by leaf."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from worldgen.evaluation.comparison import Comparison, frame_right, leaf_kinds

MINIGRID = spaces.Box(
    0, np.ascontiguousarray(np.broadcast_to(np.uint8([10, 5, 3]), (2, 2, 3))), dtype=np.uint8
)


def compare(space, predicted, real):
    comparison = Comparison(leaf_kinds(space))
    comparison.add({"observation": predicted}, {"observation": real})
    return comparison.agreement()


def test_objects_are_counted_one_by_one():
    real = np.zeros((3, 2, 2, 3), np.uint8)
    real[..., 0] = 2  # walls
    real[0, 0, 0] = (5, 4, 0)  # a yellow key
    real[1, 1, 1] = (5, 4, 0)
    predicted = real.copy()
    predicted[0, 0, 0, 1] = 2  # of another colour
    agreement = compare(MINIGRID, predicted, real)
    assert agreement.objects == {"wall": 1.0, "key": 0.5}
    assert agreement.frames_exact == pytest.approx(2 / 3)
    assert agreement.cells == pytest.approx(1 - 1 / 36)


def test_r2_is_one_for_equal_and_zero_for_the_mean():
    space = spaces.Box(-np.inf, np.inf, (2,))
    real = np.random.default_rng(0).normal(size=(100, 2))
    assert compare(space, real, real).r2["observation"] == 1
    mean = np.broadcast_to(real.mean(0), real.shape)
    assert compare(space, mean, real).r2["observation"] == pytest.approx(0)
    constant = np.ones((100, 2))
    assert compare(space, constant, constant).r2 == {}
    assert compare(space, real, real).frames_exact is None


def test_r2_of_each_entry_is_the_naive_one():
    space = spaces.Box(-np.inf, np.inf, (3,))
    rng = np.random.default_rng(2)
    real = rng.normal(size=(50, 3))
    real[:, 1] = 2.0
    predicted = real + rng.normal(size=real.shape) * [0.1, 0.1, 0.5]
    agreement = compare(space, predicted, real)
    naive = [
        1
        - ((predicted[:, i] - real[:, i]) ** 2).sum()
        / ((real[:, i] - real[:, i].mean()) ** 2).sum()
        for i in (0, 2)
    ]
    first, constant, last = agreement.r2_entries["observation"]
    assert constant is None
    assert [first, last] == pytest.approx(naive)
    assert agreement.r2_worst["observation"] == pytest.approx(min(naive))
    assert agreement.r2["observation"] == pytest.approx(np.mean(naive))


def test_what_is_symbols_to_the_tokenizer_is_compared_as_symbols():
    space = spaces.Dict(
        flags=spaces.Box(0, 1, (3, 3), np.bool_),
        layers=spaces.Box(0, 3, (4, 4, 6), np.uint8),
        vector=spaces.Box(0, 3, (4, 4), np.float32),
    )
    kinds = leaf_kinds(space)
    assert kinds == {"flags": "symbols", "layers": "symbols", "vector": "numbers"}
    assert leaf_kinds(space, {"layers": "vector"})["layers"] == "numbers"
    rng = np.random.default_rng(0)
    real = {"flags": rng.random((5, 3, 3)) < 0.5, "layers": rng.integers(0, 4, (5, 4, 4, 6))}
    predicted = {path: values.copy() for path, values in real.items()}
    predicted["layers"][0, 0, 0, 0] ^= 1
    comparison = Comparison({path: kinds[path] for path in real})
    comparison.add(predicted, real)
    assert comparison.agreement().frames_exact == 0.8
    assert comparison.agreement().cells == pytest.approx(1 - 1 / (5 * (9 + 96)))


def test_psnr_of_a_known_error():
    space = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    real = np.full((4, 16, 16, 3), 100, np.uint8)
    noisy = real + np.uint8(10)
    expected = 10 * np.log10(255**2 / 100)
    assert compare(space, noisy, real).psnr["observation"] == pytest.approx(expected)
    assert compare(space, real, real).psnr["observation"] == 100


def test_batches_equal_the_whole():
    space = spaces.Box(0, 3, (4, 4), np.uint8)
    rng = np.random.default_rng(1)
    real, predicted = rng.integers(0, 4, (2, 10, 4, 4), dtype=np.uint8)
    whole = compare(space, predicted, real)
    comparison = Comparison(leaf_kinds(space))
    for part in (slice(0, 3), slice(3, 3), slice(3, 10)):
        comparison.add({"observation": predicted[part]}, {"observation": real[part]})
    assert comparison.agreement() == whole


def test_a_frame_is_right_when_all_its_categories_are():
    space = spaces.Dict(a=spaces.Discrete(3), b=spaces.MultiBinary(2))
    real = {"a": np.array([0, 1, 2]), "b": np.zeros((3, 2), np.int8), "c": np.zeros((3, 1))}
    predicted = {"a": np.array([0, 1, 1]), "b": real["b"].copy(), "c": np.ones((3, 1))}
    predicted["b"][1, 0] = 1
    assert frame_right(leaf_kinds(space), predicted, real).tolist() == [True, False, False]
    # Beside a vector or a picture, "exactly right" would not say what was compared.
    assert frame_right({**leaf_kinds(space), "c": "numbers"}, predicted, real) is None

"""Observations as pictures."""

from __future__ import annotations

import gymnasium as gym
import minigrid  # noqa: F401
import numpy as np
import pytest
from gymnasium import spaces

from worldgen.errors import ConfigError, ShapeError
from worldgen.render import leaf_kind, picture, render, side_by_side, words

MINIGRID = spaces.Box(
    0, np.ascontiguousarray(np.broadcast_to(np.uint8([10, 5, 3]), (7, 7, 3))), dtype=np.uint8
)


@pytest.mark.parametrize(
    ("leaf", "declared", "kind"),
    [
        (MINIGRID, None, "minigrid"),
        (spaces.Box(0, 4, (5, 6, 2), np.uint8), None, "symbols"),
        (spaces.Box(0, 9, (5, 6), np.int64), None, "symbols"),
        (spaces.Box(0, 255, (32, 32, 3), np.uint8), None, "image"),
        (spaces.Box(0, 255, (3, 32, 32), np.uint8), None, "image"),
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), "symbolic", "symbols"),
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), "vector", "numbers"),
        (spaces.Box(-1, 1, (4,)), None, "numbers"),
        (spaces.Discrete(4), None, "words"),
        (spaces.MultiBinary(3), None, "words"),
    ],
)
def test_each_leaf_has_its_kind(leaf, declared, kind):
    assert leaf_kind(leaf, declared) == kind


def test_minigrids_own_view_is_drawn_as_minigrid_draws_it():
    env = gym.make("MiniGrid-DoorKey-6x6-v0", agent_pov=True, tile_size=16, render_mode="rgb_array")
    observation, _ = env.reset(seed=3)
    own = render(MINIGRID, {"observation": observation["image"]}, size=7 * 16)
    assert own.shape == (112, 112, 3)
    assert np.array_equal(own, env.render())
    env.close()


def test_a_full_grid_shows_the_agent_where_it_stands():
    cells = np.zeros((4, 4, 3), np.uint8)
    cells[..., 0] = 1
    cells[2, 1] = (10, 0, 0)
    space = spaces.Box(0, MINIGRID.high[:4, :4], dtype=np.uint8)
    drawn = render(space, {"observation": cells}, size=64)
    red = (drawn[..., 0] > 200) & (drawn[..., 1] < 50)
    rows, columns = np.nonzero(red)
    assert rows.min() >= 16
    assert rows.max() < 32
    assert columns.min() >= 32
    assert columns.max() < 48


def test_symbols_that_differ_look_different():
    space = spaces.Box(0, 4, (2, 2, 2), np.uint8)
    pictures = set()
    for channel in (0, 1):
        for value in range(5):
            cells = np.zeros((2, 2, 2), np.uint8)
            cells[0, 1, channel] = value
            pictures.add(render(space, {"observation": cells}, size=32).tobytes())
    assert len(pictures) == 9


def test_pixels_are_enlarged_by_whole_factors():
    pixels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    space = spaces.Box(0, 255, pixels.shape, np.uint8)
    drawn = render(space, {"observation": pixels}, size=50)
    assert drawn.shape == (48, 48, 3)
    assert np.array_equal(drawn[1::3, 1::3], pixels)


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 1), (1, 16, 16), (3, 16, 16), (16, 16, 4)])
def test_every_layout_of_pixels_becomes_rgb(shape):
    pixels = np.full(shape, 77, np.uint8)
    drawn = picture("image", spaces.Box(0, 255, shape, np.uint8), pixels, size=16)
    assert drawn.shape == (16, 16, 3)
    assert (drawn == 77).all()


def test_large_pictures_are_reduced():
    space = spaces.Box(0, 255, (400, 600, 3), np.uint8)
    drawn = render(space, {"observation": np.zeros(space.shape, np.uint8)}, size=200)
    assert drawn.shape == (200, 300, 3)


@pytest.mark.parametrize("size", [4, 40])
def test_vectors_move_with_their_values(size):
    space = spaces.Box(-np.inf, np.inf, (size,))
    low, high = np.zeros(size, np.float32), np.full(size, 0.9, np.float32)
    first, second = (render(space, {"observation": v}, size=96) for v in (low, high))
    assert 88 <= first.shape[0] == first.shape[1] <= 96
    assert not np.array_equal(first, second)


def test_leaves_stand_side_by_side():
    space = spaces.Dict(image=MINIGRID, direction=spaces.Discrete(4))
    observation = {"image": np.zeros((7, 7, 3), np.uint8), "direction": np.int64(2)}
    drawn = render(space, observation, size=70)
    assert drawn.shape[0] == 70
    assert drawn.shape[1] > 70
    assert drawn.dtype == np.uint8
    assert words("direction", np.int64(2)) == "direction 2"


def test_pictures_of_unequal_height_are_centred():
    row = side_by_side([np.full((10, 4, 3), 1, np.uint8), np.full((4, 4, 3), 2, np.uint8)], gap=0)
    assert row.shape == (10, 8, 3)
    assert (row[3:7, 4:] == 2).all()
    assert (row[:3, 4:] != 2).all()


def test_wrong_shapes_and_sizes_are_refused():
    with pytest.raises(ShapeError, match=r"'observation' with shape \(7, 7, 3\), got \(7, 7\)"):
        render(MINIGRID, {"observation": np.zeros((7, 7), np.uint8)})
    with pytest.raises(ShapeError, match="got nothing"):
        render(MINIGRID, {})
    with pytest.raises(ConfigError, match="`size` must be at least 16"):
        render(MINIGRID, {"observation": np.zeros((7, 7, 3), np.uint8)}, size=3)

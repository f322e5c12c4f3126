"""Films: what they show, how large they are, where the first difference is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from worldgen.data.environment import EnvironmentSpec
from worldgen.errors import ConfigError
from worldgen.evaluation import best_moment, dream_along, dream_film, dream_strip
from worldgen.evaluation.film import action_names
from worldgen.evaluation.film_frames import draw_frames, write_gif
from worldgen.evaluation.paired_dream import PairedDream

MINIGRID = spaces.Box(
    0, np.ascontiguousarray(np.broadcast_to(np.uint8([10, 5, 3]), (7, 7, 3))), dtype=np.uint8
)


def paired(real, imagined, steps, wrong_from=None):
    """A dream of given observations, without rewards."""
    differs = np.zeros(steps + 1, bool)
    if wrong_from is not None:
        differs[wrong_from:] = True
    return PairedDream(
        real={"observation": real},
        imagined={"observation": imagined},
        actions=np.zeros(steps, np.int64),
        real_rewards=np.zeros(steps, np.float32),
        imagined_rewards=np.zeros(steps, np.float32),
        real_ended=np.zeros(steps, bool),
        imagined_ended=np.zeros(steps, bool),
        differs=differs,
    )


def test_a_perfect_dream_has_no_difference(counting_model, counted):
    dream = dream_along(counting_model(), counted([1] * 9))
    assert len(dream) == 9
    assert dream.first_difference is None
    assert np.array_equal(dream.real["count"], dream.imagined["count"])
    assert dream.imagined_ended.tolist() == [False] * 8 + [True]
    assert dream.imagined_rewards[-1] == 1


def test_the_first_difference_is_the_first_wrong_frame(counting_model, counted):
    blind = dream_along(counting_model(blind_after=3), counted([1] * 9))
    assert blind.first_difference == 4
    misread = dream_along(counting_model(misread=(0, 2)), counted([0] * 20))
    assert misread.first_difference is None
    misread = dream_along(counting_model(misread=(2,)), counted([1] * 9), start=2)
    assert misread.first_difference == 0


def test_a_wrong_reward_or_end_is_a_difference_too(counting_model, counted):
    assert dream_along(counting_model(reward_size=0.2), counted([1] * 9)).first_difference == 9
    assert dream_along(counting_model(endless=True), counted([1] * 9)).first_difference == 9
    early = dream_along(counting_model(), counted([1] * 5, start=3), start=1, horizon=3)
    assert len(early) == 3
    assert early.first_difference is None


def test_vectors_and_pixels_differ_when_one_sees_it(counting_model, counted):
    model = counting_model(speed=True)
    exact = model.decode
    model.decode = lambda tokens: {**exact(tokens), "speed": exact(tokens)["speed"] + 0.5}
    assert dream_along(model, counted([1] * 9, speed=True)).first_difference is None  # 0.9
    model.decode = lambda tokens: {**exact(tokens), "speed": exact(tokens)["speed"] + 1.5}
    assert dream_along(model, counted([1] * 9, speed=True)).first_difference == 0


def test_a_film_has_a_picture_for_each_step(counting_model, counted, tmp_path):
    path = tmp_path / "films" / "dream.gif"
    film = dream_film(counting_model(blind_after=3), counted([1] * 9), path, horizon=6)
    assert film.path == path
    assert film.num_frames == 7
    assert film.first_difference == 4
    with Image.open(path) as gif:
        assert gif.format == "GIF"
        assert gif.n_frames == 7
        assert gif.info["loop"] == 0
    assert path.stat().st_size < 100_000
    assert [file.name for file in path.parent.iterdir()] == ["dream.gif"]


def test_equal_films_are_equal_files(counting_model, counted, tmp_path):
    for name in ("a.gif", "b.gif"):
        dream_film(counting_model(blind_after=2), counted([1] * 9), tmp_path / name)
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()


def test_wrong_frames_turn_red_and_mark_the_cells():
    real = np.zeros((3, 7, 7, 3), np.uint8)
    real[..., 0] = 1
    imagined = real.copy()
    imagined[2, 1, 2, 0] = 2
    dream = paired(real, imagined, 2, wrong_from=2)
    frames = draw_frames(dream, MINIGRID, {"observation": "minigrid"}, ["left", "right"])
    red = [reddish(frame) for frame in frames]
    assert red[0] == red[1] == 0
    assert red[2] > 1000


def reddish(frame):
    return int((np.abs(np.asarray(frame).astype(int) - (248, 80, 80)).sum(-1) < 6).sum())


@pytest.mark.parametrize(
    ("space", "kind"),
    [
        (spaces.Box(-np.inf, np.inf, (4,)), "numbers"),
        (spaces.Box(-1, 1, (30,)), "numbers"),
        (spaces.Box(0, 255, (56, 56, 3), np.uint8), "image"),
        (spaces.Box(0, 3, (5, 4, 2), np.uint8), "symbols"),
        (spaces.MultiDiscrete([4, 5]), "words"),
    ],
)
def test_every_kind_of_observation_can_be_filmed(space, kind, tmp_path):
    space.seed(0)
    real = np.stack([space.sample() for _ in range(31)])
    imagined = np.stack([space.sample() for _ in range(31)])
    if kind == "image":  # of 8x8 tiles, since noise is no picture
        real, imagined = (x[:, ::8, ::8].repeat(8, 1).repeat(8, 2) for x in (real, imagined))
    dream = paired(real, imagined, 30, wrong_from=1)
    frames = draw_frames(dream, space, {"observation": kind}, ["act"] * 30)
    assert len({frame.size for frame in frames}) == 1
    assert len({frame.tobytes() for frame in frames}) == 31
    write_gif(frames, tmp_path / "a.gif", 4.0)
    assert (tmp_path / "a.gif").stat().st_size < 1_000_000


def test_a_strip_shows_both_sides(counting_model, counted):
    model = counting_model(blind_after=3, speed=True)
    strip = dream_strip(model, dream_along(model, counted([1] * 9, speed=True)))
    assert strip.dtype == np.uint8
    upper, lower = strip[: len(strip) // 2 - 4], strip[len(strip) // 2 + 4 :]
    assert upper.shape == lower.shape
    assert not np.array_equal(upper, lower)


def paying(episode, reward):
    """The episode with another reward at its end."""
    rewards = episode.rewards.copy()
    rewards[-1] = reward
    return dataclasses.replace(episode, rewards=rewards)


def test_the_best_moment_is_the_longest_successful_stretch(counted):
    long_win, short_win = counted([0] * 50 + [1] * 9), counted([1] * 2, start=7)
    cut = counted([0] * 60)
    assert best_moment([paying(short_win, 5.0), long_win], 30) == (1, 29)
    assert best_moment([long_win, paying(long_win, 2.0)], 30) == (1, 29)
    assert best_moment([paying(long_win, -1.0), paying(cut, 1.0)], 30) == (1, 30)
    assert best_moment([cut, paying(short_win, -1.0)], 30) == (1, 0)
    assert best_moment([cut, short_win, long_win], 30) == (2, 29)
    assert best_moment([cut, short_win], 30) == (1, 0)
    assert best_moment([cut], 40) == (0, 20)
    with pytest.raises(ConfigError, match="at least one episode"):
        best_moment([], 5)


def test_minigrids_actions_have_names(counting_model):
    model = counting_model()
    assert action_names(model) is None
    model.environment = EnvironmentSpec(id="MiniGrid-Empty-5x5-v0")
    assert action_names(model) is None
    model.action_space = spaces.Discrete(7)
    names = action_names(model)
    assert names is not None
    assert names[2] == "forward"


def test_minigrids_action_names_are_minigrids():
    from minigrid.core.actions import Actions

    model = dataclasses.make_dataclass("Model", ["environment", "action_space"])(
        EnvironmentSpec(id="BabyAI-GoToObj-v0"), spaces.Discrete(len(Actions))
    )
    names = [name.replace(" ", "") for name in action_names(model)]
    assert names == [action.name for action in Actions]


def test_wrong_arguments_are_refused(counting_model, counted, tmp_path):
    model, episode = counting_model(), counted([1] * 9)
    with pytest.raises(ConfigError, match=r"`path` must end in \.gif"):
        dream_film(model, episode, tmp_path / "dream.mp4")
    with pytest.raises(ConfigError, match=r"`start` must be in \[0, 9\), got 9"):
        dream_film(model, episode, tmp_path / "a.gif", start=9)
    with pytest.raises(ConfigError, match="`horizon` must be at least 1, got 0"):
        dream_film(model, episode, tmp_path / "a.gif", horizon=0)
    with pytest.raises(ConfigError, match="`frames_per_second` must be above 0"):
        dream_film(model, episode, tmp_path / "a.gif", frames_per_second=0)
    assert list(tmp_path.iterdir()) == []

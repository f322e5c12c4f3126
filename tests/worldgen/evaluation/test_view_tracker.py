"""What the past determines of a partial view, against MiniGrid itself."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from minigrid.core.grid import Grid
from minigrid.core.world_object import Wall

import worldgen
from benchmarks.minigrid_player import collect_mixed
from worldgen.evaluation import view_tracker
from worldgen.evaluation.view_tracker import ViewTracker, tracked_view, visible_cells
from worldgen.spaces import leaves

DONE = 6


def test_light_spreads_as_in_minigrid():
    rng = np.random.default_rng(0)
    opaque = rng.random((200, 7, 7)) < rng.random((200, 1, 1)) * 0.6
    opaque[:, 3, 6] = False
    for walls, lit in zip(opaque, visible_cells(opaque), strict=True):
        grid = Grid(7, 7)
        for x, y in np.argwhere(walls):
            grid.set(x, y, Wall())
        assert np.array_equal(lit, grid.process_vis((3, 6)))


def test_fewer_walls_show_more():
    rng = np.random.default_rng(1)
    opaque = rng.random((300, 7, 7)) < 0.3
    fewer = opaque & (rng.random(opaque.shape) < 0.7)
    assert not (visible_cells(opaque) & ~visible_cells(fewer)).any()


@pytest.mark.parametrize(
    "name",
    [
        "DoorKey-8x8",
        "Unlock",
        "KeyCorridorS3R3",
        "ObstructedMaze-1Dlh",
        "MultiRoom-N4-S5",
        "LavaGapS7",
    ],
)
@pytest.mark.parametrize("context", [1, 4])
def test_what_is_determined_is_so_in_reality(name, context):
    """Along real episodes, from many moments: each determined cell is as expected."""
    version = 1 if "MultiRoom" in name else 0
    episodes = collect_mixed(f"MiniGrid-{name}-v{version}", 700, seed=3)
    checked = determined = lost = 0
    for episode in episodes:
        views, actions = episode.observations["image"], episode.actions
        for start in range(context - 1, len(episode), 31):
            begin = start - context + 1
            tracker = ViewTracker(views[begin][None], context + 30)
            for time in range(begin, start):
                tracker.act(actions[time][None])
                tracker.observe(views[time + 1][None])
            for time in range(start, min(start + 30, len(episode))):
                tracker.act(actions[time][None])
                said = tracker.expected()
                right = (said.cells[0] == views[time + 1]).all(-1)
                if said.outcome[0] and actions[time] in (0, 1):
                    assert not episode.terminated[time]
                assert right[said.determined[0]].all()
                checked += 49
                determined += int(said.determined.sum())
                lost += int(said.lost.sum())
    assert checked > 5_000
    assert 0.2 < determined / checked < 0.98
    assert lost > 0


def test_a_known_world_is_determined_for_ever():
    """Turning on the spot, everything is determined once each direction was seen."""
    env = worldgen.make_env("MiniGrid-DoorKey-8x8-v0")
    observation, _ = env.reset(seed=0)
    tracker = ViewTracker(observation["image"][None], 12)
    for _ in range(4):
        observation = env.step(1)[0]
        tracker.act(np.array([1]))
        tracker.observe(observation["image"][None])
    for _ in range(8):
        observation = env.step(0)[0]
        tracker.act(np.array([0]))
        said = tracker.expected()
        assert said.determined.all()
        assert np.array_equal(said.cells[0], observation["image"])


def test_rows_do_not_disturb_each_other():
    episodes = collect_mixed("MiniGrid-DoorKey-6x6-v0", 400, seed=1)
    chosen = [e for e in episodes if len(e) >= 10][:3]
    together = ViewTracker(np.stack([e.observations["image"][0] for e in chosen]), 10)
    apart = [ViewTracker(e.observations["image"][:1], 10) for e in chosen]
    for time in range(10):
        together.act(np.array([e.actions[time] for e in chosen]))
        for tracker, episode in zip(apart, chosen, strict=True):
            tracker.act(episode.actions[time : time + 1])
        said = together.expected()
        for row, tracker in enumerate(apart):
            for whole, part in zip(said, tracker.expected(), strict=True):
                assert np.array_equal(whole[row], part[0])


def test_a_step_into_the_unknown_loses_the_way():
    view = np.zeros((1, 7, 7, 3), np.uint8)
    view[..., 0] = 1
    tracker = ViewTracker(view, 8)
    tracker.act(np.array([1]))
    assert not tracker.expected().lost[0]
    tracker.act(np.array([1]))  # Now it looks back, where it has never looked.
    tracker.act(np.array([3]))
    said = tracker.expected()
    assert not said.outcome[0]
    assert not said.determined[0, 3, 6]  # Whether it carries something is open.
    assert not said.lost[0]
    tracker.act(np.array([2]))
    assert tracker.expected().lost[0]
    assert not tracker.expected().determined.any()


def test_a_map_that_goes_round_is_as_good_as_a_large_one(monkeypatch):
    episodes = collect_mixed("MiniGrid-DoorKey-8x8-v0", 600, seed=4)
    episode = max(episodes, key=len)
    views = episode.observations["image"]
    large = ViewTracker(views[:1], len(episode))
    monkeypatch.setattr(view_tracker, "_LARGEST_MAP", 21)  # 8 cells of the world, 13 of two views.
    small = ViewTracker(views[:1], len(episode))
    for time in range(len(episode)):
        for tracker in (large, small):
            tracker.act(episode.actions[time][None])
        first, second = large.expected(), small.expected()
        assert np.array_equal(first.determined, second.determined)
        assert np.array_equal(first.cells[first.determined], second.cells[second.determined])
        for tracker in (large, small):
            tracker.observe(views[time + 1][None])


def test_only_partial_views_are_tracked():
    env = worldgen.make_env("MiniGrid-DoorKey-6x6-v0")
    parts = leaves(env.observation_space)
    view = env.reset(seed=0)[0]
    frames = {path: np.asarray(view[path])[None] for path in parts}
    assert tracked_view(parts, env.action_space, frames) == "image"
    assert tracked_view(parts, spaces.Discrete(3), frames) is None
    frames["image"] = frames["image"].copy()
    frames["image"][0, 0, 0, 0] = 10  # The agent: this is a whole grid.
    assert tracked_view(parts, env.action_space, frames) is None
    full = worldgen.make_env(
        "MiniGrid-DoorKey-6x6-v0", wrappers=("worldgen.envs:FullyObservedMiniGrid",)
    )
    seen = full.reset(seed=0)[0]
    frames = {path: np.asarray(seen[path])[None] for path in leaves(full.observation_space)}
    assert tracked_view(leaves(full.observation_space), full.action_space, frames) is None
    assert isinstance(env, gym.Env)

"""The fidelity benchmark in the small, and the players whose data it learns from."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import worldgen
from benchmarks import fidelity
from benchmarks.control_player import CONTROLLERS, collect_controlled
from benchmarks.fidelity import FidelityConfig, main
from benchmarks.fidelity_tasks import TASKS, Task, collect_play, task_named
from benchmarks.minigrid_player import collect_mixed
from worldgen import WorldModelConfig
from worldgen.data import EnvironmentSpec
from worldgen.dynamics import DynamicsConfig
from worldgen.errors import ConfigError, EnvironmentIdError
from worldgen.transformer import TransformerConfig

pytest.importorskip("matplotlib")

TINY = FidelityConfig(
    tasks=("doorkey-6x6", "unlock-full"),
    seeds=(0, 5),
    training_steps=300,
    held_out_steps=120,
    gradient_steps=2,
    horizons=(1, 3, 400),
    dreams=4,
    denoising_steps=(1, 2),
    sampler_dreams=2,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: tmp_path_factory.mktemp(name) for name in ("parts", "output")}


def tiny(task: Task) -> Task:
    tokenizer = replace(task.model.tokenizer, hidden=32)
    dynamics = DynamicsConfig(context=2, transformer=TransformerConfig(width=32, layers=1))
    model = WorldModelConfig(tokenizer=tokenizer, tokenizer_gradient_steps=10, dynamics=dynamics)
    return replace(task, model=model)


@pytest.fixture(scope="module")
def result(folders):
    with pytest.MonkeyPatch.context() as patch:
        for name in TINY.tasks:
            patch.setitem(TASKS, name, tiny(TASKS[name]))
        yield main(TINY, **folders)


def test_each_task_and_seed_is_measured(result, folders):
    named = [(p["settings"]["task"], p["settings"]["seed"]) for p in result["pieces"]]
    assert named == [(task, seed) for task in TINY.tasks for seed in TINY.seeds]
    written = json.loads((folders["output"] / "fidelity.json").read_text())
    assert written["pieces"] == result["pieces"]
    assert {"commit", "versions", "processor"} <= set(written["provenance"])
    page = (folders["output"] / "fidelity.md").read_text()
    # Exactness, views with drawn and with the likeliest tokens, denoising steps.
    assert page.count("| doorkey-6x6 | 2 |") == 4
    assert page.count("| unlock-full | 2 |") == 2
    assert (folders["output"] / "fidelity.png").read_bytes().startswith(b"\x89PNG")


def test_the_model_is_the_tasks(result):
    for piece in result["pieces"]:
        assert piece["settings"]["model"] == TASKS[piece["settings"]["task"]].model.to_dict()


def test_what_is_finished_is_not_done_again(result, folders, monkeypatch):
    monkeypatch.setattr(fidelity, "_measure", lambda *_: pytest.fail("measured again"))
    assert main(TINY, **folders)["pieces"] == result["pieces"]


def test_a_name_that_is_neither_a_tasks_nor_an_id_is_refused(folders):
    with pytest.raises(EnvironmentIdError, match="doorkey"):
        main(replace(TINY, tasks=("doorkey",)), **folders)
    with pytest.raises(ConfigError, match="`whole` must be left out for CartPole-v1"):
        task_named("CartPole-v1", whole=True)
    with pytest.raises(ConfigError, match="`whole` must be left out for doorkey-6x6, whose line"):
        task_named("doorkey-6x6", whole=True)


@pytest.mark.parametrize(
    ("name", "whole", "context"),
    [
        ("MiniGrid-KeyCorridorS3R1-v0", True, 1),
        ("MiniGrid-KeyCorridorS3R1-v0", False, 16),
        ("Acrobot-v1", False, 8),
        ("FrozenLake-v1", False, 8),
    ],
)
def test_any_id_is_a_task(name, whole, context):
    task = task_named(name, whole=whole)
    assert task.environment.id == name
    assert task.model.dynamics.context == context
    assert (task.model.sampler.numbers == "mean") == (name == "Acrobot-v1")
    play = collect_play(task, 600, seed=0)
    assert play.num_steps == 600
    if "MiniGrid" in name:  # Random play earns nothing in so few steps.
        assert any(episode.total_reward > 0 for episode in play)


def test_the_whole_grid_and_the_view_of_an_id_are_two_tasks(folders, monkeypatch):
    made = []

    def measure(config, task, seed, folder):
        made.append((task.environment.wrappers, folder.name))
        raise KeyboardInterrupt

    monkeypatch.setattr(fidelity, "_measure", measure)
    for whole in (False, True):
        config = replace(TINY, tasks=("MiniGrid-Unlock-v0",), seeds=(3,), whole=whole)
        with pytest.raises(KeyboardInterrupt):
            main(config, **folders)
    assert made == [
        ((), "MiniGrid-Unlock-v0-3-model"),
        (("worldgen.envs:FullyObservedMiniGrid",), "MiniGrid-Unlock-v0-whole-3-model"),
    ]


@pytest.mark.parametrize("name", [n for n, t in TASKS.items() if "MiniGrid" in t.environment.id])
def test_the_player_earns_rewards(name):
    episodes = collect_mixed(TASKS[name].environment, 1500, seed=0)
    rewarding = sum(int((episode.rewards > 0).sum()) for episode in episodes)
    assert rewarding >= 10
    assert {int(a) for e in episodes for a in e.actions} == set(range(7))


def test_the_controllers_control():
    play = {
        name: worldgen.collect(name, 4000, controller, seed=1, progress=False)
        for name, controller in CONTROLLERS.items()
    }
    assert min(len(episode) for episode in play["CartPole-v1"]) > 200
    finished = [e.total_reward for e in play["Pendulum-v1"] if e.truncated[-1]]
    assert np.mean(finished) > -300  # At random it is about -1,200.


def test_controlled_play_is_mixed_with_chance():
    spec = EnvironmentSpec(id="CartPole-v1")
    episodes = collect_controlled(spec, 1500, seed=0)
    lengths = [len(episode) for episode in episodes]
    assert min(lengths) < 30 < 100 < max(lengths)
    again = collect_controlled(spec, 1500, seed=0)
    for first, second in zip(episodes, again, strict=True):
        assert np.array_equal(first.actions, second.actions)

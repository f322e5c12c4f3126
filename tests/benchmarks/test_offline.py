"""The benchmark of offline training, in small."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import offline
from benchmarks.minigrid_player import collect_mixed
from benchmarks.offline import OfflineBenchmark, main
from worldgen.data import EnvironmentSpec
from worldgen.dynamics_trainer import DynamicsTrainer
from worldgen.errors import ConfigError

TINY = OfflineBenchmark(
    environment=EnvironmentSpec(id="worlds/Empty-v0"),
    seeds=(3,),
    steps=200,
    max_episode_steps=20,
    rounds=2,
    dream=replace(
        OfflineBenchmark().dream,
        tokenizer_steps=20,
        initial_model_steps=3,
        model_steps_per_round=2,
        initial_dream_steps=64,
        dream_steps_per_round=64,
        dream_envs=8,
        n_steps=8,
        batch_size=16,
    ),
    episodes=3,
    dreams=8,
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What the benchmark gave, and its folder."""
    folder = tmp_path_factory.mktemp("offline")
    return main(TINY, parts=folder / "parts", output=folder / "docs"), folder


def test_it_measures_each_round_and_repeats_nothing(measured, monkeypatch):
    result, folder = measured
    (piece,) = result["parts"]
    assert piece["data"]["environment_steps"] == 200
    assert piece["real_environment_steps_while_training"] == 0
    assert piece["imagined_environment_steps"] == 128
    assert len(piece["success"]) == 2
    assert json.loads((folder / "docs" / "offline.json").read_text()) == result
    assert "| 3 | 200 in " in (folder / "docs" / "offline.md").read_text()
    monkeypatch.setattr(offline, "_data", None)
    assert main(TINY, parts=folder / "parts", output=folder / "docs")["parts"] == [piece]


@pytest.mark.parametrize(
    ("owner", "name", "count"),
    [(DynamicsTrainer, "step", 2), (offline._Saver, "on_phase_end", 1)],
)
def test_a_killed_seed_goes_on_where_it_was(measured, owner, name, count, tmp_path, monkeypatch):
    (whole,) = measured[0]["parts"]
    real, calls = getattr(owner, name), []

    def killed(self, *arguments):
        result = real(self, *arguments)
        calls.append(name)
        if len(calls) == count:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        with pytest.raises(KeyboardInterrupt):
            main(TINY, parts=tmp_path / "parts", output=tmp_path / "docs")
    again = []
    monkeypatch.setattr(offline.shutil, "rmtree", lambda path: again.append(path))
    resumed = main(TINY, parts=tmp_path / "parts", output=tmp_path / "docs")["parts"][0]
    assert not again
    assert resumed["fidelity"] == whole["fidelity"]
    assert resumed["mean_length"] == whole["mean_length"]


def test_the_player_breaks_off_and_fails_as_it_is_told():
    episodes = collect_mixed(
        "MiniGrid-DoorKey-6x6-v0", 600, seed=0, lowest_share=1.0, max_episode_steps=50
    )
    assert max(map(len, episodes)) == 50
    assert np.mean([episode.total_reward > 0 for episode in episodes]) < 0.3


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match="`rounds` must be at least 1"):
        OfflineBenchmark(rounds=0)

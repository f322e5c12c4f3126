"""The comparison of agents with imagined transitions and without, in small."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks import imagined_replay
from benchmarks.imagined_replay import ImaginedReplayBenchmarkConfig, main
from worldgen.agents import ImaginedReplayConfig
from worldgen.errors import CheckpointError, ConfigError

pytest.importorskip("matplotlib")

TINY = ImaginedReplayBenchmarkConfig(
    seeds=(3,),
    updates=2,
    evaluate_every=60,
    episodes=2,
    max_steps=120,
    buffer=ImaginedReplayConfig(
        first_fit=60, tokenizer_steps=5, first_model_steps=2, model_steps_per_fit=2, rollouts=16
    ),
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "out", tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def result(folders):
    return main(TINY, output=folders[0], report=folders[1])


def test_every_arm_runs_and_is_censored_where_it_does_not_get_there(result, folders):
    assert [run["arm"] for run in result.runs] == list(TINY.arms)
    for run in result.runs:
        assert run["reached_at"] is None
        assert run["steps"] == 120
        assert [steps for steps, _ in run["curve"]] == [60, 120]
    plain, many, imagined = (run["gradient_steps"] for run in result.runs)
    assert many == imagined == 2 * plain
    page = (folders[1] / "imagined_replay.md").read_text()
    assert "| plain | 0 of 1 | at least 120 (120 to 120) | unknown |" in page
    assert "| imagined | not reached in 120 |" in page
    assert (folders[1] / "imagined_replay.png").read_bytes().startswith(b"\x89PNG")
    values = json.loads((folders[1] / "imagined_replay.json").read_text())
    assert values["agent"] == {"algorithm": "SAC", "learning_rate": 0.001}
    assert values["settings"]["buffer"]["rollouts"] == 16


def test_a_finished_run_is_not_repeated(result, folders, monkeypatch):
    def fail(*_):
        raise AssertionError("it ran again")

    monkeypatch.setattr(imagined_replay, "_run", fail)
    assert main(TINY, output=folders[0], report=folders[1]).runs == result.runs
    with pytest.raises(CheckpointError, match="was begun with max_steps = 120"):
        main(replace(TINY, max_steps=240), output=folders[0], report=folders[1])


def test_the_goal_is_reached_at_the_second_good_evaluation_in_a_row():
    callback = imagined_replay._UntilReached(replace(TINY, evaluate_every=1), goal=-1e9)
    agent = imagined_replay.SAC("MlpPolicy", "Pendulum-v1", seed=0, device="cpu")
    agent.learn(50, callback=callback)
    assert callback.reached_at == agent.num_timesteps == 2


def test_cartpole_is_learnt_by_dqn():
    run = imagined_replay._run(
        replace(TINY, environment="CartPole-v1", max_steps=60), "imagined", 0
    )
    assert run["steps"] >= 60
    assert run["curve"][0][1] > 5


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="`environment` must be one of Pendulum-v1, CartPole-v1"):
        replace(TINY, environment="Acrobot-v1")
    with pytest.raises(ConfigError, match="`arms` must be some of plain, plain-many, imagined"):
        replace(TINY, arms=("best",))

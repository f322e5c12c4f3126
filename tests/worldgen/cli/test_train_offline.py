"""`worldgen train --offline` from episodes to a report, killed and resumed; `worldgen export`."""

from __future__ import annotations

import functools
import json

import pytest
from PIL import Image
from worlds import GridWorld

from tests.worldgen.cli.short_runs import DREAM, Killed, kill_at, number_of_films
from worldgen import Episodes
from worldgen.agents import DreamPPO
from worldgen.cli.offline_judgement import OfflineJudgement
from worldgen.cli.stages import Stages
from worldgen.cli.training import Checkpoints
from worldgen.data import import_minari
from worldgen.dynamics_trainer import DynamicsTrainer
from worldgen.evaluation import FidelityReport
from worldgen.run_folder import RunFolder
from worldgen.world_model import WorldModel

ENV = "worlds:worlds/Grid-v0"
LOOP = [
    "--rounds=2",
    *DREAM,
    "--judgement.episodes=3",
    "--judgement.held-out-share=0.25",
    "--judgement.dreams=8",
    "--judgement.film-steps=6",
]


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def dataset(command, tmp_path_factory):
    """A folder of episodes."""
    folder = tmp_path_factory.mktemp("offline") / "grid"
    ended = command("collect", ENV, "--output", folder, "--timesteps", 400, "--num-envs", 4)
    assert ended.code == 0, ended.err
    return folder


@pytest.fixture(scope="module")
def train(command, dataset, small_model):
    """Runs a very short `worldgen train --offline`."""

    def run(folder, *more, data=dataset):
        options = [*LOOP, *small_model, "--run", folder, "--dataset", data]
        return command("train", "--offline", *options, *more)

    return run


@pytest.fixture(scope="module")
def finished(train, tmp_path_factory):
    """A finished run and what it said."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    ended = train(folder)
    assert ended.code == 0, ended.err
    return folder, ended


def test_a_run_leaves_everything_that_it_promises(finished, dataset):
    folder, ended = finished
    run = RunFolder.open(folder)
    everything, held_out = Episodes.load(dataset), Episodes.load(run.held_out)
    assert len(held_out) == round(len(everything) / 4)
    model = WorldModel.load(run.model)
    assert model.environment.id == ENV
    agent = DreamPPO.load(run.agent)
    assert (agent.num_timesteps, agent.imagined_timesteps, agent.round) == (0, 128, 2)
    with Image.open(run.films / "held_out.gif") as film:
        assert 2 <= film.n_frames <= 7
    report = read(run.report)
    assert report["environment"]["id"] == ENV
    assert report["real_environment_steps"] == 0
    assert report["dataset"]["environment_steps"] == 400
    learnt_from = report["dataset"]["training_environment_steps"]
    assert learnt_from == 400 - held_out.num_steps
    assert report["agent"]["episodes"] == report["random"]["episodes"] == 3
    assert FidelityReport.from_dict(report["fidelity"]).num_transitions == held_out.num_steps
    assert len(everything) == len(Episodes.load(dataset)), "the dataset was written to"
    for part in (
        "environment steps of the dataset that were learnt from",
        "mean return over 3 held-out episodes, agent",
        "round 2  dream",
    ):
        assert part in ended.out
    assert not list(folder.rglob("*.tmp"))


def test_the_page_stands_alone_and_shows_the_run(finished, dataset):
    run = RunFolder.open(finished[0])
    curve = read(run.curve)
    assert [entry["round"] for entry in curve] == [1, 2]
    assert not {"success_rate", "mean_return"} & curve[-1].keys(), "nobody played while training"
    assert not run.best_agent.exists()
    text = run.page.read_text()
    assert number_of_films(text) == 1
    for part in (f"{dataset}, offline, seed 0", "World model: loss of a token", "Right so far"):
        assert part in text
    assert text.count("<polyline") >= 5


def test_the_environment_is_not_touched_before_the_end(train, tmp_path, monkeypatch):
    order = []
    for name in ("reset", "step"):
        original = getattr(GridWorld, name)

        @functools.wraps(original)
        def noted(self, *arguments, _original=original, **named):
            order.append("environment")
            return _original(self, *arguments, **named)

        monkeypatch.setattr(GridWorld, name, noted)
    finish = RunFolder.finish_stage

    def finished_stage(self, name, result):
        order.append(name)
        finish(self, name, result)

    monkeypatch.setattr(RunFolder, "finish_stage", finished_stage)
    assert train(tmp_path / "run").code == 0
    assert order[:3] == ["training", "dataset", "environment"]
    order.clear()
    ended = train(tmp_path / "alone", "--no-environment")
    assert ended.code == 0, ended.err
    assert "environment" not in order
    report = read(tmp_path / "alone" / "report.json")
    assert report["environment"] is None
    assert not {"agent", "random"} & report.keys()


def test_equal_seeds_give_equal_reports(train, finished, tmp_path):
    assert train(tmp_path / "again", "--resume").code == 0
    first, second = finished[0] / "report.json", tmp_path / "again" / "report.json"
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("owner", "name", "count", "after", "due"),
    [
        (DynamicsTrainer, "step", 2, True, "next is fit of round 1"),
        (Checkpoints, "on_phase_end", 1, True, "next is dream of round 1"),
        (Checkpoints, "on_phase_end", 2, True, "next is fit of round 2"),
        (Checkpoints, "on_phase_end", 4, True, "next is measuring"),
        (Stages, "_measure", 1, False, "next is measuring"),
        (OfflineJudgement, "_film", 1, False, "next is measuring"),
    ],
)
def test_a_killed_run_ends_with_the_same_report(
    train, finished, tmp_path, monkeypatch, owner, name, count, after, due
):
    with monkeypatch.context() as patch:
        kill_at(patch, owner, name, count, after=after)
        with pytest.raises(Killed):
            train(tmp_path / "run")
    ended = train(tmp_path / "run", "--resume")
    assert ended.code == 0, ended.err
    assert due in ended.out
    assert (tmp_path / "run" / "report.json").read_bytes() == (
        finished[0] / "report.json"
    ).read_bytes()
    curve = json.loads((tmp_path / "run" / "curve.json").read_text())
    assert [entry["round"] for entry in curve] == [1, 2]


def test_another_dataset_is_not_gone_on_with(train, finished, command, tmp_path):
    other = tmp_path / "other"
    command("collect", ENV, "--output", other, "--timesteps", 100, "--num-envs", 4)
    ended = train(finished[0], "--resume", data=other)
    assert ended.code == 1
    assert "was begun with dataset = " in ended.err


def test_a_dataset_that_teaches_nothing_is_said_so(command, train, finished, tmp_path):
    assert "nothing for an agent to learn from" not in finished[1].out
    data = tmp_path / "cut"
    command("collect", ENV, "--output", data, "--timesteps", 8, "--num-envs", 4)
    assert not any(episode.is_over for episode in Episodes.load(data))
    ended = train(tmp_path / "run", data=data)
    assert ended.code == 0, ended.err
    assert "nothing for an agent to learn from" in ended.out


def test_a_minari_dataset_is_trained_on(command, train, dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    ended = command("export", dataset, "grid/random-v0", "--author", "somebody")
    assert ended.code == 0, ended.err
    assert "400 environment steps: Minari dataset grid/random-v0 in " in ended.out
    assert import_minari("grid/random-v0").num_steps == 400
    ended = train(tmp_path / "run", data="grid/random-v0")
    assert ended.code == 0, ended.err
    assert read(tmp_path / "run" / "report.json")["agent"]["episodes"] == 3
    again = command("export", dataset, "grid/random-v0")
    assert again.code == 2
    assert "already exists" in again.err


def test_an_environment_that_cannot_be_made_does_not_cost_the_training(train, dataset, tmp_path):
    episodes = Episodes.load(dataset)
    copy = Episodes.create(tmp_path / "data", episodes.observation_space, episodes.action_space)
    copy.extend(episodes)
    header = read(tmp_path / "data" / "episodes.json")
    header["environment"] = {"id": "nowhere:Nothing-v0", "wrappers": [], "text": False}
    (tmp_path / "data" / "episodes.json").write_text(json.dumps(header))
    ended = train(tmp_path / "run", data=tmp_path / "data")
    assert ended.code == 0, ended.err
    assert "not played in the environment: environment 'nowhere:Nothing-v0'" in ended.out
    assert "agent" not in read(tmp_path / "run" / "report.json")


def test_another_environment_may_be_named(train, tmp_path):
    ended = train(tmp_path / "run", ENV)
    assert ended.code == 0, ended.err
    assert read(tmp_path / "run" / "report.json")["agent"]["episodes"] == 3


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["CartPole-v1"], 1, "CartPole-v1 has the observation space"),
        (["Nothing-v0"], 2, "'Nothing-v0' is not registered"),
        (["--rounds", "0"], 2, "`rounds` must be at least 1"),
        ([ENV, "--no-environment"], 2, "must be left out with --no-environment"),
        (["--wrapper", "a:B"], 2, "must be left out without ENV"),
        (["--judgement.held-out-share", "1"], 2, "held_out_share"),
        (["--model.training.gradient-steps", "7"], 2, "--dream.initial-model-steps"),
        (["--device", "abacus"], 2, "`device` must be 'auto', 'cpu' or a device"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_written(train, tmp_path, more, code, message):
    ended = train(tmp_path / "run", *more)
    assert message in ended.err
    assert ended.code == code
    assert not (tmp_path / "run").exists()


def test_what_is_no_dataset_is_refused(train, command, tmp_path):
    assert "must be a folder of episodes" in train(tmp_path / "run", data=tmp_path).err
    ended = command("train", "CartPole-v1", "--dataset", "x")
    assert ended.code == 2
    assert "must be given together with --offline" in ended.err
    ended = command("train", "--offline")
    assert ended.code == 2
    assert "`--dataset` must be given" in ended.err

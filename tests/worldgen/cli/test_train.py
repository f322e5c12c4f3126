"""`worldgen train` from an id to films and numbers, killed and resumed."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.worldgen.cli.conftest import EMPTY, JUDGEMENT, LOOP, MODEL, PPO
from tests.worldgen.cli.short_runs import Killed, kill_at, number_of_films
from worldgen.agents import DreamPPO
from worldgen.cli.judgement import Judgement
from worldgen.cli.run_curve import RunCurve
from worldgen.cli.train import Arguments
from worldgen.cli.training import Checkpoints, load_agent
from worldgen.data.environment import EnvironmentSpec
from worldgen.data.episode import EpisodeBuilder
from worldgen.data.episodes import Episodes
from worldgen.dynamics_trainer import DynamicsTrainer
from worldgen.errors import ConfigError
from worldgen.evaluation import FidelityReport
from worldgen.run_folder import RunFolder
from worldgen.world_model import WorldModel


def read(path):
    return json.loads(path.read_text())


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_run_leaves_everything_that_it_promises(finished):
    folder, _ = finished
    run = RunFolder.open(folder)
    assert Episodes.load(run.episodes).num_steps == 96
    assert Episodes.load(run.held_out).num_steps == 96
    model = WorldModel.load(run.model)
    assert model.environment.id == EMPTY
    agent = DreamPPO.load(run.agent)
    assert (agent.num_timesteps, agent.imagined_timesteps) == (96, 128)
    weights = agent.world_model.state_dict()
    assert all(bool((weights[name] == value).all()) for name, value in model.state_dict().items())
    for name in ("agent", "random"):
        with Image.open(run.films / f"{name}.gif") as film:
            assert 2 <= film.n_frames <= 7
    assert read(run.record)["starts"][0]["command"].startswith("worldgen")
    assert read(run.config)["dream"]["horizon"] == 8
    assert not list(folder.rglob("*.tmp"))


def test_the_report_holds_results_alone(finished):
    folder, _ = finished
    report = read(folder / "report.json")
    assert report["environment"] == {
        "id": EMPTY,
        "wrappers": [],
        "text": False,
    }
    assert report["real_environment_steps"] == 96
    assert report["imagined_environment_steps"] == 128
    assert len(report["agent"]["returns"]) == report["random"]["episodes"] == 3
    assert 0 <= report["random"]["success_rate"] <= 1
    assert len(report["ppo"]["returns"]) == 3
    fidelity = FidelityReport.from_dict(report["fidelity"])
    assert fidelity == FidelityReport.load(folder / "model" / "report.json")
    assert fidelity.num_transitions == 96
    assert str(folder) not in (folder / "report.json").read_text()


def test_the_output_ends_with_the_table_and_the_paths(finished):
    folder, ended = finished
    for part in (
        "real environment steps used",
        "imagined environment steps used",
        "success over 3 held-out episodes, random policy",
        "success over 3 held-out episodes, agent",
        "success over 3 held-out episodes, PPO after as many real steps",
        "dreams exactly right after 5 steps",
        "recall on rewarding transitions",
        "wall time: dream",
    ):
        assert part in ended.out
    last = ended.out.splitlines()[-8:]
    assert [line.split()[0] for line in last] == [
        *("film", "film", "model", "agent", "best", "report", "page", "TensorBoard")
    ]
    for phase in ("collect", "fit", "dream"):
        assert f"round 2  {phase}" in ended.out
    assert read(folder / "timings.json").keys() >= {"collect", "fit", "dream", "fidelity", "films"}


def test_each_round_is_played_on_held_out_seeds(finished):
    run = RunFolder.open(finished[0])
    curve = read(run.curve)
    assert [entry["round"] for entry in curve] == [1, 2]
    assert [entry["real_environment_steps"] for entry in curve] == [48, 96]
    assert [entry["imagined_environment_steps"] for entry in curve] == [64, 128]
    for entry in curve:
        assert 0 <= entry["success_rate"] <= 1
        assert entry["dynamics/token_loss"] > 0
        assert "dream/ep_rew_mean" in entry
        assert entry["resident_mib"] > 50
    assert not any(name.startswith("unseen/") for name in curve[0])  # there was no model yet
    assert any(name.startswith("unseen/") for name in curve[1])
    best = max(
        curve, key=lambda entry: (entry["success_rate"], entry["mean_return"], entry["round"])
    )
    assert DreamPPO.load(run.best_agent).num_timesteps == best["real_environment_steps"]


def test_the_page_stands_alone_and_shows_the_run(finished):
    run = RunFolder.open(finished[0])
    text = run.page.read_text()
    assert number_of_films(text) == 2
    report = read(run.report)
    for part in (
        f"{EMPTY}, seed 0",
        f"{report['real_environment_steps']:,}",
        "PPO after as many real steps",
        "Success on held-out seeds",
        "Right so far",
        "&quot;horizon&quot;: 8",
    ):
        assert part in text
    assert text.count("<polyline") >= 8


def test_tensorboard_gets_scalars_and_dreams(finished):
    folder, _ = finished
    scalars, images = set(), set()
    for events in (folder / "tensorboard").rglob("events.out.tfevents.*"):
        accumulator = EventAccumulator(str(events))
        accumulator.Reload()
        scalars |= set(accumulator.Tags()["scalars"])
        images |= set(accumulator.Tags()["images"])
    assert {"dream/ep_rew_mean", "fidelity/exact_by_horizon"} <= scalars
    assert any(name.startswith("model/dynamics") for name in scalars)
    assert images == {"dream/real_above_imagined", "atlas/direction", "atlas/image"}


def test_equal_seeds_give_equal_reports(train, finished, tmp_path):
    # Asked to go on where there is nothing yet, it begins.
    assert train(tmp_path / "again", PPO, "--resume").code == 0
    first, second = finished[0] / "report.json", tmp_path / "again" / "report.json"
    assert first.read_bytes() == second.read_bytes()
    films = [
        (path / "films" / "agent.gif").read_bytes() for path in (finished[0], tmp_path / "again")
    ]
    assert films[0] == films[1]


def test_a_run_is_not_overwritten_unasked(train, finished):
    folder, _ = finished
    ended = train(folder)
    assert ended.code == 1
    assert "--resume" in ended.err
    assert "--overwrite" in ended.err
    assert (folder / "report.json").is_file()


def test_resuming_a_finished_run_shows_the_same_again(train, finished):
    folder, ended = finished
    before = (folder / "report.json").read_bytes()
    again = train(folder, PPO, "--resume")
    assert again.code == 0, again.err
    assert (folder / "report.json").read_bytes() == before
    assert "nothing is left to do" in again.out
    assert "round" not in again.out
    assert ended.out.splitlines()[-5:] == again.out.splitlines()[-5:]
    measured = FidelityReport.load(folder / "model" / "report.json")
    assert max(entry.num_dreams for entry in measured.horizons) == 8


def test_resuming_wants_the_same_settings(train, finished):
    ended = train(finished[0], PPO, "--resume", "--seed", 5)
    assert ended.code == 1
    assert "was begun with seed = 0 (now 5)" in ended.err


def test_a_finished_run_is_given_more_steps(train, command, finished, tmp_path):
    folder, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    shutil.copytree(finished[0], folder)
    fewer = train(folder, PPO, "--resume", "--timesteps", 48)
    assert "was begun with timesteps = 96 (now 48)" in fewer.err
    assert "timesteps may become more" in fewer.err
    assert train(folder, PPO, "--resume", "--timesteps", 144).code == 0
    assert train(undisturbed, PPO, "--timesteps", 144).code == 0
    assert Episodes.load(RunFolder.open(folder).episodes).num_steps == 144
    assert read(folder / "report.json")["real_environment_steps"] == 144
    assert read(folder / "report.json") == read(undisturbed / "report.json")
    assert comparable(read(folder / "curve.json")) == comparable(read(undisturbed / "curve.json"))
    unsaid = [option for option in (*LOOP, *MODEL, *JUDGEMENT) if "timesteps" not in option]
    again = command("train", EMPTY, "--run", folder, *unsaid, PPO, "--resume")
    assert again.code == 0, again.err
    assert "nothing is left to do" in again.out
    assert read(folder / "config.json")["timesteps"] == 144


def test_a_training_stops_once_two_rounds_in_a_row_bring_enough(train, finished, tmp_path):
    folder = tmp_path / "run"
    longer = ("--timesteps", 192, "--stop-at-return")
    ended = train(folder, *longer, -1.0)
    assert ended.code == 0, ended.err
    report = read(folder / "report.json")
    assert (report["real_environment_steps"], report["timesteps"]) == (96, 192)
    returns = [entry["mean_return"] for entry in read(folder / "curve.json")]
    assert report["stopped"] == {"target": -1, "mean_returns": returns}
    said = f"held-out mean return {returns[0]:.3g}, then {returns[1]:.3g}: enough for -1"
    assert f"stopped  {said}" in ended.out
    page = (folder / "page.html").read_text()
    for place in (ended.out, page):
        assert "stopped at a held-out mean return of -1" in place
        assert f"{returns[0]:.3g}, {returns[1]:.3g}" in place
    assert comparable(read(folder / "curve.json")) == comparable(read(finished[0] / "curve.json"))
    logged = []
    for events in (folder / "tensorboard").rglob("events.out.tfevents.*"):
        accumulator = EventAccumulator(str(events)).Reload()
        if "held_out/mean_return" in accumulator.Tags()["scalars"]:
            logged += [point.step for point in accumulator.Scalars("held_out/mean_return")]
    assert logged == [48, 96]  # the last one, too
    again = train(folder, "--timesteps", 192, "--resume")
    assert again.code == 0, again.err
    assert "nothing is left to do" in again.out
    assert read(folder / "config.json")["stop_at_return"] == -1
    best = 2 * max(entry["mean_return"] for entry in read(folder / "curve.json")) + 1
    higher = train(folder, *longer, best, "--resume")  # which nobody can reach
    assert higher.code == 0, higher.err
    assert "resume   96 of 192 real environment steps" in higher.out
    assert "evaluate random success" not in higher.out  # which did not change
    assert "evaluate agent  success" in higher.out
    assert read(folder / "report.json")["real_environment_steps"] == 192
    assert read(folder / "report.json")["stopped"] is None


def test_a_target_that_was_reached_before_measures_nothing_again(train, finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    before, model = read(folder / "report.json"), contents(folder / "model")
    lower = train(folder, PPO, "--resume", "--stop-at-return", -1)
    assert lower.code == 0, lower.err
    assert "nothing is left to do" in lower.out
    after = read(folder / "report.json")
    assert after["stopped"]["target"] == -1
    assert {**after, "stopped": None} == before
    assert contents(folder / "model") == model
    never = train(folder, PPO, "--resume", "--stop-at-return", "inf")
    assert never.code == 0, never.err
    assert read(folder / "config.json")["stop_at_return"] is None
    assert read(folder / "report.json") == before


@pytest.mark.parametrize("target", ["nan", "-inf"])
def test_a_target_that_is_no_number_is_refused(train, tmp_path, target):
    ended = train(tmp_path / "run", f"--stop-at-return={target}")
    assert ended.code == 2
    assert "`stop_at_return` must be a number, or inf for never" in ended.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_is_killed_as_it_has_enough_stops_too(train, tmp_path, monkeypatch, after):
    options = (tmp_path / "run", "--timesteps", 144, "--stop-at-return", -1)
    with monkeypatch.context() as patch:
        kill_at(patch, RunCurve, "_played", 2, after=after)
        with pytest.raises(Killed):
            train(*options)
    ended = train(*options, "--resume")
    assert ended.code == 0, ended.err
    report = read(tmp_path / "run" / "report.json")
    assert (report["real_environment_steps"], report["imagined_environment_steps"]) == (96, 128)


def test_nothing_stops_a_training_that_nobody_watches(train, tmp_path):
    options = ("--stop-at-return", 0.5, "--judgement.round-episodes", 0)
    ended = train(tmp_path / "run", *options)
    assert ended.code == 2
    assert "`stop_at_return` must be left out where `judgement.round_episodes` is 0" in ended.err


@pytest.mark.parametrize("device", ["abacus", "cuda:77"])
def test_a_device_that_is_not_there_is_named_before_anything_is_written(train, tmp_path, device):
    ended = train(tmp_path / "run", "--device", device)
    assert ended.code == 2
    assert (
        f"`device` must be 'auto', 'cpu' or a device of this machine, got '{device}'" in ended.err
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("owner", "name", "count", "after", "kept_steps"),
    [
        pytest.param(DreamPPO, "learn", 1, False, 0, id="before the first phase"),
        pytest.param(Checkpoints, "on_phase_end", 1, False, 48, id="before the first is saved"),
        pytest.param(DynamicsTrainer, "step", 2, False, 48, id="in the first fit"),
        pytest.param(WorldModel, "fit", 1, True, 48, id="after a fit, before it is saved"),
        pytest.param(DynamicsTrainer, "step", 5, True, 96, id="in the last fit"),
        pytest.param(Checkpoints, "on_phase_end", 3, True, 48, id="between rounds"),
        pytest.param(Checkpoints, "on_phase_end", 4, False, 96, id="in the last collection"),
        pytest.param(EpisodeBuilder, "add", 30, True, None, id="amid the first collection"),
        pytest.param(EpisodeBuilder, "add", 80, True, None, id="amid the last collection"),
        pytest.param(RunCurve, "_played", 1, False, 48, id="before the first round is played"),
        pytest.param(RunCurve, "_played", 2, True, 96, id="after the last round is played"),
        pytest.param(Judgement, "_collect", 1, True, 96, id="while measuring"),
        pytest.param(Judgement, "_film", 1, False, 96, id="before the films"),
    ],
)
def test_a_killed_run_goes_on(
    train, finished, tmp_path, monkeypatch, owner, name, count, after, kept_steps
):
    folder = tmp_path / "run"
    compared = [PPO] if owner is Judgement else []
    with monkeypatch.context() as patch:
        kill_at(patch, owner, name, count, after=after)
        with pytest.raises(Killed):
            train(folder, *compared)
    run = RunFolder.open(folder)
    spent = run.times()
    assert (sum(spent.values()) > 0) == (name != "learn")  # of what was broken off, too
    kept = {file.name: file.read_bytes() for file in run.episodes.glob("episode-*")}
    if kept_steps is not None:
        assert Episodes.load(run.episodes).num_steps == kept_steps
    stages = run.stages()
    ended = train(folder, *compared, "--resume")
    assert ended.code == 0, ended.err
    still = {file.name: file.read_bytes() for file in run.episodes.glob("**/episode-*")}
    aside = {file.name: file.read_bytes() for file in run.episodes.glob("set-aside/*")}
    assert {**still, **aside}.items() >= kept.items()  # nothing that was made is lost
    assert run.stages().items() >= stages.items()
    assert all(run.times()[name] >= seconds for name, seconds in spent.items())
    report = read(run.report)
    assert (report["real_environment_steps"], report["imagined_environment_steps"]) == (96, 128)
    assert len(read(run.record)["starts"]) == 2
    assert FidelityReport.load(run.model / "report.json").to_dict() == report["fidelity"]
    assert not run.fit_checkpoint.exists()
    undisturbed = finished[0] / "report.json"
    if compared:
        assert run.report.read_bytes() == undisturbed.read_bytes()
    else:
        without = {name: value for name, value in read(undisturbed).items() if name != "ppo"}
        assert json.dumps(report) == json.dumps(without)  # the order of the entries too
    assert comparable(read(run.curve)) == comparable(read(RunFolder.open(finished[0]).curve))
    for weights in ("tokenizer.safetensors", "dynamics.safetensors"):
        ours, theirs = run.model / weights, finished[0] / "model" / weights
        assert ours.read_bytes() == theirs.read_bytes()


def comparable(curve):
    machines = ("training_seconds", "resident_mib")
    return [{k: v for k, v in entry.items() if k not in machines} for entry in curve]


def test_an_agent_that_is_whole_is_not_called_damaged(train, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at(patch, Checkpoints, "on_phase_end", 1, after=True)
        with pytest.raises(Killed):
            train(tmp_path / "run")
    folder = RunFolder.open(tmp_path / "run")
    with pytest.raises(ConfigError, match="'gpu'"):
        load_agent(folder, None, "gpu")
    with pytest.raises(ConfigError, match="must be the one that"):
        load_agent(folder, EnvironmentSpec(id="worlds/Vector-v0"), "cpu", 4)


def test_a_damaged_agent_is_said_so(train, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at(patch, Checkpoints, "on_phase_end", 1, after=True)
        with pytest.raises(Killed):
            train(tmp_path / "run")
    (tmp_path / "run" / "agent.zip").write_bytes(b"PK\x03\x04 torn")
    ended = train(tmp_path / "run", "--resume")
    assert ended.code == 1
    assert "agent.zip is damaged" in ended.err


@pytest.mark.parametrize("world", ["worlds/Vector-v0", "worlds/Image-v0"])
def test_other_spaces_go_the_same_way(train, tmp_path, world):
    ended = train(tmp_path / "run", env=world)
    assert ended.code == 0, ended.err
    assert "R2 of" in ended.out or "PSNR of" in ended.out
    assert "success" not in ended.out


def test_evaluate_takes_the_runs_own_held_out_episodes(command, finished, tmp_path):
    folder, _ = finished
    for number, model in enumerate((folder, folder / "model")):
        outputs = tmp_path / f"default-{number}", tmp_path / f"given-{number}"
        options = ("--dreams", 4, "--horizons", 1, "--samplers", "--no-plots", "--output")
        assert command("evaluate", model, *options, outputs[0]).code == 0
        assert command("evaluate", model, folder / "held_out", *options, outputs[1]).code == 0
        first, second = (output / "report.json" for output in outputs)
        assert first.read_bytes() == second.read_bytes()


def test_the_default_folder_names_the_wrappers():
    wrappers = ("minigrid.wrappers:RGBImgPartialObsWrapper", "minigrid.wrappers:ImgObsWrapper")
    names = {
        Arguments(env="a_package:Some/World-v0", wrapper=wrappers[:count]).folder.as_posix()
        for count in range(3)
    }
    assert names == {
        "runs/a_package-Some-World-v0",
        "runs/a_package-Some-World-v0-RGBImgPartialObsWrapper",
        "runs/a_package-Some-World-v0-RGBImgPartialObsWrapper-ImgObsWrapper",
    }


def test_wrappers_are_part_of_the_environment(train, command, tmp_path):
    wrappers = ("minigrid.wrappers:RGBImgPartialObsWrapper", "minigrid.wrappers:ImgObsWrapper")
    options = [part for wrapper in wrappers for part in ("--wrapper", wrapper)]
    folder = tmp_path / "run"
    ended = train(folder, *options)
    assert ended.code == 0, ended.err
    assert WorldModel.load(folder / "model").environment.wrappers == wrappers
    film = tmp_path / "dream.gif"
    episodes = ("--episodes", folder / "held_out")
    assert command("dream", folder, *episodes, "--output", film, "--horizon", 3).code == 0
    assert film.is_file()

"""collect, fit, evaluate and dream, one after the other, on a world of the tests."""

from __future__ import annotations

import json
import re
import signal

import pytest
from PIL import Image

from tests.agents.small_agents import GRID, make_agent
from worldgen.data.episodes import Episodes
from worldgen.dynamics_trainer import DynamicsTrainer
from worldgen.evaluation import FidelityReport
from worldgen.tokenizer import Tokenizer
from worldgen.world_model import WorldModel

WORLD = "worlds/Dict-v0"


@pytest.fixture(scope="module")
def episodes(command, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "episodes"
    ended = command("collect", WORLD, "--output", path, "--timesteps", 200, "--seed", 3)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("200 environment steps in ")
    assert ended.out.endswith(f": {path}\n")
    return path


@pytest.fixture(scope="module")
def model(command, episodes, small_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model"
    steps = ("--tokenizer-steps", 20, "--dynamics-steps", 25)
    log = path.parent / "log"
    ended = command("fit", episodes, "--output", path, "--log-dir", log, *steps, *small_model)
    assert ended.code == 0, ended.err
    assert re.match(r"frames 2\d\d, kept by the tokenizer [\d.]+%, token loss \d", ended.out)
    assert ended.out.endswith(f": {path}\n")
    assert list(log.glob("events.out.tfevents.*"))
    return path


def test_collect_writes_what_it_says(episodes):
    loaded = Episodes.load(episodes)
    assert loaded.num_steps == 200
    assert loaded.environment.id == WORLD


def test_an_interrupted_collection_says_what_is_left(command, tmp_path, monkeypatch):
    append, output = Episodes.append, tmp_path / "episodes"
    first = ("collect", WORLD, "--output", output, "--timesteps", 200)

    def broken_off(episodes, episode):
        if len(episodes) == 3:
            raise KeyboardInterrupt
        append(episodes, episode)

    with monkeypatch.context() as patch:
        patch.setattr(Episodes, "append", broken_off)
        ended = command(*first)
    kept = f"{output} keeps 3 episodes; --overwrite begins anew"
    assert ended.code == 1
    assert ended.err.splitlines()[-1] == f"worldgen: error: interrupted; {kept}"
    assert len(Episodes.load(output)) == 3
    assert command(*first, "--overwrite").code == 0


def test_an_agent_of_another_environment_collects_nothing(command, tmp_path):
    make_agent().save(tmp_path / "agent.zip")
    output, agent = tmp_path / "episodes", ("--agent", tmp_path / "agent.zip")
    ended = command("collect", WORLD, "--output", output, *agent)
    assert ended.code == 1
    assert "the policy must have been made for the observation space" in ended.err
    assert not output.exists()
    assert command("collect", GRID, "--output", output, "--timesteps", 20, *agent).code == 0


def test_fit_takes_its_settings_and_goes_on_from_a_model(command, episodes, model, tmp_path):
    loaded = WorldModel.load(model)
    assert loaded.config.dynamics.transformer.width == 32
    assert loaded.environment.id == WORLD
    output = tmp_path / "longer"
    few = ("--tokenizer-steps", 1, "--dynamics-steps", 1)
    ended = command("fit", episodes, "--start", model, "--output", output, *few)
    assert ended.code == 0, ended.err
    assert WorldModel.load(output).config == loaded.config
    for given in (("--seed", 3), ("--model.dynamics.context", 3)):
        ended = command("fit", episodes, "--start", model, "--output", tmp_path / "no", *given)
        assert ended.code == 2
        assert "must be left out with --start, whose model has its own" in ended.err


def test_a_fit_over_too_many_processes_is_refused(command, episodes, small_model, tmp_path):
    ended = command("fit", episodes, "--output", tmp_path / "m", "--devices", 3, *small_model)
    assert ended.code == 2
    assert "`devices` must divide the batch size, 4, got 3" in ended.err


@pytest.mark.slow
def test_a_fit_over_two_processes(command, episodes, small_model, tmp_path):
    steps = ("--tokenizer-steps", 5, "--dynamics-steps", 7, "--devices", 2)
    ended = command("fit", episodes, "--output", tmp_path / "m", *steps, *small_model)
    assert ended.code == 0, ended.err
    assert "dynamics: 7 of 7 gradient steps (100%)" in ended.err
    assert WorldModel.load(tmp_path / "m").is_fitted
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_evaluate_prints_a_table_and_writes_a_folder(command, episodes, model, tmp_path):
    path = tmp_path / "fidelity"
    arguments = ("evaluate", model, episodes, "--dreams", 16, "--horizons", 1, 4, "--output", path)
    ended = command(*arguments, "--denoising-steps", 2, "--samplers", 1, 2)
    assert ended.code == 0, ended.err
    report = FidelityReport.load(path / "report.json")
    assert str(report) in ended.out
    assert [entry.horizon for entry in report.horizons] == [1, 4]
    assert sorted(file.name for file in path.iterdir()) == [
        "calibration.json",
        "calibration.png",
        "drift.png",
        "report.json",
        "samplers.json",
        "samplers.png",
    ]
    again = command(*arguments)
    assert again.code == 1
    assert "--overwrite" in again.err
    assert command(*arguments, "--overwrite", "--samplers", "--no-plots").code == 0


def test_evaluate_keeps_its_report_when_what_follows_is_broken_off(
    command, episodes, model, tmp_path, monkeypatch
):
    def broken_off(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("worldgen.evaluation.calibrate", broken_off)
    few = ("--dreams", 4, "--horizons", 1)
    ended = command("evaluate", model, episodes, *few, "--output", tmp_path / "fidelity")
    assert ended.code == 1
    assert ended.err.splitlines()[-1] == "worldgen: error: interrupted"
    written = ["drift.png", "report.json"]
    assert sorted(file.name for file in (tmp_path / "fidelity").iterdir()) == written
    # Nothing of another model's report is left beside it.
    (tmp_path / "fidelity" / "calibration.json").write_text("{}")
    assert (
        command(
            "evaluate", model, episodes, *few, "--output", tmp_path / "fidelity", "--overwrite"
        ).code
        == 1
    )
    assert sorted(file.name for file in (tmp_path / "fidelity").iterdir()) == written


def test_ctrl_c_keeps_what_was_fitted(command, episodes, small_model, tmp_path, monkeypatch):
    steps = ("--tokenizer-steps", 20, "--dynamics-steps", 12)
    undisturbed, output = tmp_path / "undisturbed", tmp_path / "model"
    assert command("fit", episodes, "--output", undisturbed, *steps, *small_model).code == 0
    fit = ("fit", episodes, "--output", output, *steps, *small_model)
    original = DynamicsTrainer.step

    def pressed(trainer):
        if trainer.gradient_step == 7:
            signal.raise_signal(signal.SIGINT)
        return original(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(DynamicsTrainer, "step", pressed)
        ended = command(*fit)
    assert ended.code == 1
    last = ended.err.splitlines()[-1]
    assert last == f"worldgen: error: interrupted; --resume goes on with {output}.fit"
    ended = command(*fit, "--resume")
    assert ended.code == 0
    assert "dynamics: 12 of 12" in ended.err
    for name in ("tokenizer.safetensors", "dynamics.safetensors"):
        assert (output / name).read_bytes() == (undisturbed / name).read_bytes()


def test_a_finished_fit_has_nothing_to_go_on_with(command, episodes, small_model, tmp_path):
    output = tmp_path / "model"
    fit = ("fit", episodes, "--output", output, *small_model, "--tokenizer-steps", 5)
    steps = ("--dynamics-steps", 3)
    assert command(*fit, *steps).code == 0
    before = (output / "dynamics.safetensors").read_bytes()
    ended = command(*fit, *steps, "--resume")
    assert ended.code == 0, ended.err
    assert ended.out == f"finished before, nothing to go on with: {output}\n"
    for other, named in (
        ((*steps, "--seed", 3), "seed"),
        (("--dynamics-steps", 4), "gradient steps"),
        ((*steps, "--model.dynamics.context", 4), "settings"),
    ):
        ended = command(*fit, *other, "--resume")
        assert ended.code == 1
        assert f"finished model of another fit, which differs in {named}: pass" in ended.err
    start = ("fit", episodes, "--output", output, "--start", output, "--tokenizer-steps", 5, *steps)
    ended = command(*start, "--resume")
    assert "differs in number of earlier fits" in ended.err
    assert (output / "dynamics.safetensors").read_bytes() == before
    assert command(*start, "--resume", "--overwrite").code == 0
    assert (output / "dynamics.safetensors").read_bytes() != before


def test_a_finished_fit_whose_model_is_not_written_is_not_lost(
    command, episodes, small_model, tmp_path, monkeypatch
):
    output = tmp_path / "model"
    fit = ("fit", episodes, "--output", output, *small_model, "--tokenizer-steps", 5)

    def broken_off(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WorldModel, "save", broken_off)
        ended = command(*fit, "--dynamics-steps", 3)
    assert ended.err.splitlines()[-1].endswith(f"interrupted; --resume goes on with {output}.fit")
    kept = (tmp_path / "model.fit").read_bytes()
    ended = command(*fit, "--dynamics-steps", 4, "--resume")
    assert ended.code == 1
    assert "holds a finished fit with other settings or episodes" in ended.err
    assert (tmp_path / "model.fit").read_bytes() == kept
    assert command(*fit, "--dynamics-steps", 3, "--resume").code == 0
    assert output.exists()


def test_dream_films_given_episodes(command, episodes, model, tmp_path):
    path = tmp_path / "dream.gif"
    ended = command("dream", model, "--episodes", episodes, "--output", path, "--horizon", 5)
    assert ended.code == 0, ended.err
    assert str(path) in ended.out
    with Image.open(path) as gif:
        assert 2 <= gif.n_frames <= 6
    assert command("dream", model, "--output", path).code == 1
    last = len(Episodes.load(episodes)) - 1
    chosen = ("--episode", last, "--start", 0, "--overwrite")
    assert command("dream", model, "--episodes", episodes, "--output", path, *chosen).code == 0
    beyond = ("--episode", last + 1, "--overwrite")
    ended = command("dream", model, "--episodes", episodes, "--output", path, *beyond)
    assert ended.code == 2
    assert "`episode` must be in" in ended.err


def test_dream_plays_the_models_own_environment(command, model, tmp_path):
    path = tmp_path / "dream.gif"
    ended = command("dream", model, "--output", path, "--horizon", 3)
    assert ended.code == 0, ended.err
    assert path.stat().st_size < 300_000


def test_dream_needs_an_environment_or_episodes(command, model, tmp_path):
    nowhere = tmp_path / "model"
    nowhere.mkdir()
    for file in model.iterdir():
        (nowhere / file.name).write_bytes(file.read_bytes())
    config = json.loads((nowhere / "config.json").read_text())
    (nowhere / "config.json").write_text(json.dumps({**config, "environment": None}))
    ended = command("dream", nowhere, "--output", tmp_path / "dream.gif")
    assert ended.code == 2
    assert "pass --episodes" in ended.err


def test_episodes_of_another_environment_are_refused(command, model, tmp_path):
    other = tmp_path / "other"
    assert command("collect", "worlds/Grid-v0", "--output", other, "--timesteps", 20).code == 0
    for arguments in (("evaluate", model, other), ("dream", model, "--episodes", other)):
        ended = command(
            *arguments, *(("--output", tmp_path / "a.gif") if "dream" in arguments else ())
        )
        assert ended.code == 1
        assert "the model was built for the observation space" in ended.err


@pytest.mark.parametrize("verb", ["collect", "fit"])
def test_nothing_is_overwritten_unasked(command, verb, episodes, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    source = WORLD if verb == "collect" else episodes
    ended = command(verb, source, "--output", kept)
    assert ended.code == 1
    assert "pass --overwrite" in ended.err


def test_a_fit_that_was_broken_off_goes_on(command, episodes, small_model, tmp_path, monkeypatch):
    steps = ("--tokenizer-steps", 20, "--dynamics-steps", 12, "--checkpoint-every", 5)
    undisturbed, output = tmp_path / "undisturbed", tmp_path / "model"
    assert command("fit", episodes, "--output", undisturbed, *steps, *small_model).code == 0
    fit = ("fit", episodes, "--output", output, *steps, *small_model)

    class Killed(BaseException):
        pass

    def killed(*_, **__):
        raise Killed

    def killed_at_8(trainer):
        if trainer.gradient_step == 8:
            raise Killed
        return trainer.gradient_step >= trainer.gradient_steps

    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "fit", killed)
        with pytest.raises(Killed):
            command(*fit)
    with monkeypatch.context() as patch:
        patch.setattr(DynamicsTrainer, "is_finished", property(killed_at_8))
        with pytest.raises(Killed):
            command(*fit, "--resume")  # There is nothing yet to go on with.
    assert not output.exists()
    ended = command(*fit)
    assert ended.code == 1
    assert "--resume goes on with it, --overwrite begins anew" in ended.err
    with monkeypatch.context() as patch:
        patch.setattr("worldgen.cli.fit.remove_checkpoint", killed)
        with pytest.raises(Killed):
            command(*fit, "--resume")
    assert output.exists()  # Killed just after it was written.
    assert command(*fit, "--resume").code == 0
    for name in ("tokenizer.safetensors", "dynamics.safetensors"):
        assert (output / name).read_bytes() == (undisturbed / name).read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model", "undisturbed"]

"""The command line's own part: verbs, exit codes, errors of one line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from worldgen.cli import application, train
from worldgen.cli.application import VERBS
from worldgen.errors import SpaceError
from worldgen.version import __version__


def one_line(ended):
    lines = ended.err.strip().splitlines()
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("worldgen: error: ")
    return lines[0]


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_every_verb(command, option):
    ended = command(option)
    assert ended.code == 0
    assert all(f"  {verb} " in ended.out for verb in VERBS)


def test_version(command):
    assert command("--version").out == f"worldgen {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(command, verb):
    ended = command(verb, "--help")
    assert ended.code == 0
    assert f"usage: worldgen {verb}" in ended.out
    assert "--seed INT" in ended.out


def test_help_loads_no_torch():
    script = (
        "import sys; from worldgen.cli import main; code = main(['--help']); "
        "heavy = {'torch', 'gymnasium', 'stable_baselines3', 'numpy'} & set(sys.modules); "
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a verb is missing"),
        (["trains"], "did you mean 'train'?"),
        (["zzz"], "the verbs are collect, fit"),
        (["collect"], "ENV"),
        (["collect", "CartPole-v1", "--timesteps", "many"], "Error parsing --timesteps"),
        (["fit", "e", "--dynamics-steps", "three"], "--dynamics-steps must be None or INT, got"),
        (["evaluate", "m", "--no-plot"], "did you mean --plots or --no-plots? See"),
        (
            ["fit", "e", "--dynamics-stps", "3", "--tokenizer-stps", "3"],
            "did you mean --dynamics-steps or --tokenizer-steps? See worldgen fit --help",
        ),
        (["fit", "e", "--checkpoint-ever", "3"], "did you mean --checkpoint-every? See"),
        (["fit", "e", "--dynamics-step", "3"], "did you mean --dynamics-steps? See worldgen fit"),
        (
            ["train", "CartPole-v1", "--batch-size", "3"],
            "did you mean --dream.batch-size or --model.training.batch-size? See",
        ),
        (["collect", "CartPole-v1", "--timestep", "3"], "there is no option --timestep;"),
        (["collect", "CartPole-v1", "--timesteps", "0"], "`timesteps` must be at least 1, got 0"),
        (["collect", "CartPole-v1", "--seed", "-1"], "`seed` must be in [0, 2**31), got -1"),
        (["collect", "CartPole-v1", "--threads", "0"], "`threads` must be at least 1, got 0"),
        (["dream", "m", "--horizon", "0"], "`horizon` must be at least 1, got 0"),
        (["dream", "m", "--output", "a.mp4"], "`output` must end in .gif, got 'a.mp4'"),
        (
            ["train", "CartPole-v1", "--timesteps", "3", "--num-envs", "4"],
            "`timesteps` must be at least 4",
        ),
        (["train", "CartPole-v1", "--dream.horizon", "0"], "`horizon` must be at least 1, got 0"),
        (
            ["train", "CartPole-v1", "--model.training.gradient-steps", "9"],
            "`--dream.initial-model-steps` and `--dream.model-steps-per-round` instead, got 9",
        ),
        (
            ["train", "CartPole-v1", "--model.tokenizer-gradient-steps", "9"],
            "`--model.tokenizer-gradient-steps` must be left out, since DreamPPO does not use it: "
            "set `--dream.tokenizer-steps` instead, got 9",
        ),
        (["train", "--dataset", "d"], "`--dataset` must be given together with --offline"),
        (
            ["train", "--offline", "--dataset", "d", "--timesteps", "3"],
            "see worldgen train --offline --help",
        ),
        (["evaluate", "m"], "`EPISODES` must be given, since m belongs to no run with held_out/"),
    ],
)
def test_wrong_arguments_end_with_2(command, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = command(*arguments)
    assert ended.code == 2
    assert message in one_line(ended)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verb", "names"),
    [("evaluate", "MODEL EPISODES"), ("dream", "MODEL"), ("fit", "EPISODES"), ("train", "ENV")],
)
def test_help_names_what_stands_without_an_option(command, verb, names):
    usage = " ".join(command(verb, "--help").out.split("\n\n")[0].split())
    assert usage.endswith(names)


@pytest.mark.parametrize("verb", ["collect", "train"])
def test_unknown_environments_end_with_2_and_the_closest_id(command, verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = command(verb, "MiniGrid-DoorKy-5x5-v0")
    assert ended.code == 2
    assert "did you mean 'MiniGrid-DoorKey-5x5-v0'" in one_line(ended)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["evaluate", "dream"])
def test_missing_models_end_with_1(command, verb, tmp_path):
    arguments = [tmp_path / "none"] if verb == "dream" else [tmp_path / "none", tmp_path]
    ended = command(verb, *arguments)
    assert ended.code == 1
    assert "must be a folder with config.json" in one_line(ended)


def failing(error):
    def run(arguments):
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (SpaceError("one\n  two"), 1, "one two"),
        (FileNotFoundError(2, "No such file", "x"), 1, "No such file"),
        (ZeroDivisionError("oh"), 1, "ZeroDivisionError: oh (--debug shows where it happened)"),
        (KeyboardInterrupt(), 1, "interrupted"),
    ],
)
def test_failures_are_one_line(command, monkeypatch, error, code, message):
    monkeypatch.setattr("worldgen.cli.collect.run", failing(error))
    ended = command("collect", "CartPole-v1")
    assert ended.code == code
    assert message in one_line(ended)


def test_debug_shows_the_traceback(command, monkeypatch):
    monkeypatch.setattr("worldgen.cli.collect.run", failing(ZeroDivisionError("oh")))
    with pytest.raises(ZeroDivisionError):
        command("collect", "CartPole-v1", "--debug")


def test_threads_are_set_where_asked_for(command, monkeypatch):
    seen = []
    monkeypatch.setattr("torch.set_num_threads", seen.append)
    monkeypatch.setattr("worldgen.cli.collect.run", lambda arguments: None)
    assert command("collect", "CartPole-v1", "--threads", "3").code == 0
    assert seen == [3]


def test_python_m_worldgen(capsys, monkeypatch):
    import runpy

    monkeypatch.setattr(sys, "argv", ["worldgen", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("worldgen", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"worldgen {__version__}\n"
    assert application.VERBS


@pytest.mark.parametrize("arguments", [["--help"], ["collect", "--help"]])
def test_a_reader_who_has_seen_enough_is_no_error(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    script = f"from worldgen.cli import main; raise SystemExit(main({arguments}))"
    try:
        ended = subprocess.run(
            [sys.executable, "-c", script], stdout=writing, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_who_stops_reading_is_told_how_to_go_on(command, monkeypatch, tmp_path):
    def run(arguments):
        (tmp_path / "run").mkdir()
        raise BrokenPipeError

    monkeypatch.setattr(train, "run", run)
    monkeypatch.setattr(application, "reader_is_gone", lambda error: True)
    ended = command("train", "CartPole-v1", "--run", tmp_path / "run")
    assert ended.code == 1
    assert one_line(ended).endswith(
        f"nobody reads the output any more; --resume goes on with {tmp_path / 'run'}"
    )

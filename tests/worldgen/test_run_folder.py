"""The folder of a run: begun, gone on with, never overwritten unasked."""

from __future__ import annotations

import json

import pytest

from worldgen.errors import CheckpointError
from worldgen.run_folder import RunFolder, read_json, write_json

CONFIG = {"seed": 3, "model": {"width": 64}}


def begin(path, config=CONFIG, **options):
    return RunFolder.create(path, config, seed=3, command="worldgen train", **options)


def test_a_new_run_says_how_it_was_made(tmp_path):
    folder = begin(tmp_path / "runs" / "a")
    record = read_json(folder.record)
    assert read_json(folder.config) == CONFIG
    assert record["seed"] == 3
    assert record["starts"][0]["command"] == "worldgen train"
    assert {"torch", "gymnasium", "stable-baselines3", "python"} <= record["versions"].keys()
    assert record["hardware"]["cores"] >= 1
    assert {"worldgen_version", "commit"} <= record.keys()


def test_a_run_is_not_overwritten_unasked(tmp_path):
    folder = begin(tmp_path)
    folder.agent.write_text("precious")
    with pytest.raises(CheckpointError, match=r"--resume .* --overwrite"):
        begin(tmp_path)
    assert folder.agent.read_text() == "precious"


def test_overwrite_removes_what_the_run_wrote_and_nothing_else(tmp_path):
    folder = begin(tmp_path)
    folder.finish_stage("training", 1)
    folder.episodes.mkdir()
    (folder.episodes / "episode").write_text("old")
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    begin(tmp_path, {"seed": 4}, overwrite=True)
    assert notes.read_text() == "mine"
    assert not folder.episodes.exists()
    assert folder.stages() == {}
    assert read_json(folder.config) == {"seed": 4}
    assert len(read_json(folder.record)["starts"]) == 1


def test_a_folder_of_something_else_is_never_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("years")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(CheckpointError, match="holds no run"):
            begin(tmp_path, **options)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is a file"):
        begin(tmp_path / "file")
    assert (tmp_path / "thesis.txt").read_text() == "years"


def test_resume_keeps_everything_and_notes_the_start(tmp_path):
    folder = begin(tmp_path)
    folder.finish_stage("training", {"steps": 8})
    folder.add_time("fit", 2.0)
    again = begin(tmp_path, resume=True)
    again.add_time("fit", 1.5)
    assert again.stages() == {"training": {"steps": 8}}
    assert again.times() == {"fit": 3.5}
    assert len(read_json(folder.record)["starts"]) == 2


def test_resume_begins_where_there_is_nothing(tmp_path):
    assert begin(tmp_path / "new", resume=True).stages() == {}


@pytest.mark.parametrize("left_behind", [[], [".run.json.77.tmp"], ["run.json"]])
def test_resume_after_a_kill_in_the_first_moment(tmp_path, left_behind):
    for name in left_behind:
        write_json(tmp_path / name, {"starts": []})
    assert read_json(begin(tmp_path, resume=True).config) == CONFIG


def test_resume_wants_the_same_settings(tmp_path):
    begin(tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.width = 64 \(now 32\)"):
        begin(tmp_path, {"seed": 3, "model": {"width": 32}}, resume=True)
    both = {"seed": 3, "model": {"width": 32}, "environment": {"id": "Other-v0"}}
    alone = r"with environment\.id = None \(now 'Other-v0'\): resume"
    with pytest.raises(CheckpointError, match=alone):
        begin(tmp_path, both, resume=True)
    with pytest.raises(CheckpointError, match=r"64 \(now 32\), seed = 3 \(now 4\): resume"):
        begin(tmp_path, {"seed": 4, "model": {"width": 32}}, resume=True)
    with pytest.raises(CheckpointError, match=r"settings \(seed may become more, not fewer\) or"):
        begin(tmp_path, {**CONFIG, "seed": 2}, resume=True, may_grow="seed")
    with pytest.raises(CheckpointError, match="exclude each other"):
        begin(tmp_path, overwrite=True, resume=True)


def test_a_run_may_be_given_more_of_one_thing(tmp_path):
    folder = begin(tmp_path)
    folder.finish_stage("training", {"steps": 8})
    for other in ({**CONFIG, "seed": 2}, {**CONFIG, "seed": 9, "model": {"width": 1}}):
        with pytest.raises(CheckpointError, match="was begun with"):
            begin(tmp_path, other, resume=True, may_grow="seed")
    assert folder.stages() == {"training": {"steps": 8}}
    begin(tmp_path, {**CONFIG, "seed": 9}, resume=True, may_grow="seed")
    assert read_json(folder.config)["seed"] == 9


def test_one_thing_of_a_run_may_be_another(tmp_path):
    folder = begin(tmp_path)
    begin(tmp_path, {**CONFIG, "seed": 2}, resume=True, may_change="seed")
    assert read_json(folder.config)["seed"] == 2


def test_results_are_forgotten_with_what_was_made_of_them(tmp_path):
    folder = begin(tmp_path)
    folder.finish_stage("training", {"steps": 8})
    folder.finish_stage("random", {"episodes": 3})
    for path in (folder.report, folder.page):
        path.write_text("{}")
    folder.forget_stages(but=("random",))
    assert folder.stages() == {"random": {"episodes": 3}}
    assert not folder.report.exists()
    assert not folder.page.exists()


def test_open_wants_a_run(tmp_path):
    with pytest.raises(CheckpointError, match="must be a run folder"):
        RunFolder.open(tmp_path)
    begin(tmp_path / "a")
    assert RunFolder.open(tmp_path / "a").path == tmp_path / "a"


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "values.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["values.json"]
    path.write_text("{")
    with pytest.raises(CheckpointError, match="missing or damaged"):
        read_json(path)

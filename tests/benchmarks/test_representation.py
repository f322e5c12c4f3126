"""The comparison of representations: its statistics, and that a killed one is gone on with."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import representation
from benchmarks.interquartile import estimate, interquartile_mean
from benchmarks.representation import RepresentationConfig, main
from benchmarks.representation_report import Result, write_report
from worldgen.errors import CheckpointError, ConfigError

pytest.importorskip("matplotlib")

TINY = RepresentationConfig(
    arms=("one-hot", "tokens", "trained-extractor", "one-hot-tokens"),
    seeds=(3,),
    max_steps=1024,
    tokenizer_steps=64,
    gradient_steps=5,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "out", tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def result(folders) -> Result:
    return main(TINY, output=folders[0], report=folders[1])


def test_every_arm_runs_and_is_censored_where_it_does_not_solve_the_task(result, folders):
    assert [run["arm"] for run in result.runs] == list(TINY.arms)
    for run in result.runs:
        assert run["solved_at"] is None
        assert run["steps"] == 1024
        assert run["curve"] == [[1024, run["curve"][0][1]]]
        assert (run["tokenizer_steps"] >= 64) == (run["arm"] != "one-hot")
    cells = 7 * 7 * (11 + 6 + 4) + 4
    assert [run["inputs"] for run in result.runs[:3]] == [cells, 240, 240]
    page = (folders[1] / "representation.md").read_text()
    assert "| one-hot | 0 of 1 | at least 1,024 (1,024 to 1,024) | unknown |" in page
    assert "| one-hot | not solved in 1,024 |" in page
    assert (folders[1] / "representation.png").read_bytes().startswith(b"\x89PNG")


def test_the_json_says_how_it_was_made(result, folders):
    values = json.loads((folders[1] / "representation.json").read_text())
    assert values["settings"]["seeds"] == [3]
    assert {"commit", "versions", "hardware", "starts"} <= set(values["record"])
    assert values["summary"]["tokens"]["solved"] == 0
    assert values["ppo"]["n_steps"] == 128


def test_a_finished_run_is_not_repeated(result, folders, monkeypatch):
    def fail(*_):
        raise AssertionError("it ran again")

    monkeypatch.setattr(representation, "_run", fail)
    assert main(TINY, output=folders[0], report=folders[1]).runs == result.runs
    (folders[0] / "finished" / "tokens-3.json").unlink()
    with pytest.raises(AssertionError, match="it ran again"):
        main(TINY, output=folders[0], report=folders[1])


def test_a_folder_of_other_settings_is_refused(result, folders):
    with pytest.raises(CheckpointError, match="was begun with max_steps = 1024"):
        main(replace(TINY, max_steps=2048), output=folders[0], report=folders[1])


def test_a_run_stops_where_it_is_solved():
    config = replace(TINY, environment="MiniGrid-Empty-5x5-v0", window=3, max_steps=50_000)
    run = representation._run(replace(config, success=0.3), "one-hot", 0)
    assert run["solved_at"] == run["steps"] < 50_000
    assert run["curve"][-1][0] == run["solved_at"]
    assert run["curve"][-1][1] >= 0.3


def test_equal_seeds_give_equal_runs(result):
    again = representation._run(TINY, "tokens", 3)
    first = result.runs[1]
    assert again["curve"] == [tuple(point) for point in first["curve"]]


def test_the_interquartile_mean_leaves_out_a_quarter_on_each_side():
    values = np.array([7.0, 1.0, 3.0, 100.0, 2.0])
    assert interquartile_mean(values) == np.mean([2, 3, 7])
    assert interquartile_mean(np.array([4.0, 8.0])) == 6
    rows = np.stack([values, 10 * values])
    np.testing.assert_array_equal(interquartile_mean(rows), [4, 40])


def test_the_estimate_holds_the_mean_and_narrows_with_more_seeds():
    generator = np.random.default_rng(0)
    few, many = generator.normal(50, 5, 5), generator.normal(50, 5, 80)
    assert estimate(few) == estimate(few)
    for group in (few, many):
        found = estimate(group)
        assert group.min() <= found.low <= found.mean <= found.high <= group.max()
    assert estimate(many).high - estimate(many).low < estimate(few).high - estimate(few).low
    assert estimate(2 * few, few).mean == pytest.approx(2)
    with pytest.raises(ConfigError, match="`groups` must be one or two arrays"):
        estimate()


def some_result(solved: dict[str, list[int | None]]) -> Result:
    runs = [
        {
            "arm": arm,
            "seed": seed,
            "solved_at": at,
            "steps": at or 900,
            "seconds": 1.0,
            "inputs": 4,
            "tokenizer_steps": 0 if arm == "one-hot" else 50,
            "tokenizer_seconds": 0.0,
            "curve": [(100, 0.0), (at or 900, 1.0 if at else 0.5)],
        }
        for arm, times in solved.items()
        for seed, at in enumerate(times)
    ]
    settings = replace(TINY, arms=tuple(solved), seeds=(0, 1)).to_dict()
    record = {
        "starts": [{"command": "made up"}],
        "commit": None,
        "versions": {},
        "hardware": {"processor": "none", "cores": 1},
    }
    return Result(settings=settings, record=record, ppo={}, runs=tuple(runs))


def test_the_table_tells_ratios_with_and_without_the_tokenizers_steps(tmp_path):
    write_report(some_result({"one-hot": [200, 200], "tokens": [250, 250]}), tmp_path)
    page = (tmp_path / "representation.md").read_text()
    assert "| tokens | 2 of 2 | 250 (250 to 250) | 1.25 (1.25 to 1.25) | 300 (" in page
    assert "| 1.50 (1.50 to 1.50) |" in page


def test_unsolved_runs_are_told(tmp_path):
    write_report(some_result({"one-hot": [200, 200], "tokens": [100, None]}), tmp_path)
    page = (tmp_path / "representation.md").read_text()
    assert "| tokens | 1 of 2 | at least 500 (100 to 900) | at least 2.50 (" in page
    assert "| tokens | 100 | not solved in 900 |" in page


def test_errors():
    with pytest.raises(ConfigError, match="`arms` must be some of one-hot"):
        RepresentationConfig(arms=("pixels",))
    with pytest.raises(ConfigError, match=r"`success` must be in \(0, 1\], got 0"):
        RepresentationConfig(success=0)
    with pytest.raises(ConfigError, match="`seeds` must name at least one seed"):
        RepresentationConfig(seeds=())

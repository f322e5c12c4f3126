from __future__ import annotations

import io
import sys

import pytest

from worldgen import progress as progress_module
from worldgen.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """Give a clock that stands still until it is moved."""
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return move


def test_lines_come_every_few_seconds_and_at_the_end(clock, capsys):
    with Progress("collect", 1000, unit="env steps") as progress:
        for _ in range(20):
            progress.update(50, mean_return=0.25)
            clock(1.0)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "collect: 250 of 1,000 env steps (25%), mean return 0.25, 12 s left"
    assert lines[-1] == "collect: 1,000 of 1,000 env steps (100%), mean return 0.25, 20 s in all"
    assert len(lines) == 5


def test_a_slow_update_still_shows_a_line_within_five_seconds(clock, capsys):
    with Progress("fit", 10, unit="gradient steps") as progress:
        for count in range(1, 6):
            clock(4.9)
            progress.update()
            assert len(capsys.readouterr().err.splitlines()) == 1, count


@pytest.mark.parametrize(
    ("done", "line"),
    [
        (225, "tokenizer: 225 of 225 gradient steps (100%), 0 s in all"),
        (0, "tokenizer: no gradient steps needed, 0 s in all"),
    ],
)
def test_work_that_ends_early_is_done(clock, capsys, done, line):
    with Progress("tokenizer", 1000, unit="gradient steps") as progress:
        progress.update(done)
        progress.finish()
    assert capsys.readouterr().err.splitlines() == [line]


def test_work_that_goes_on_has_more_to_do(clock, capsys):
    with Progress("dream", 100) as progress:
        clock(10.0)
        progress.update(100)
        progress.extend(50)
        clock(10.0)
        progress.update(25)
    first, second, _ = capsys.readouterr().err.splitlines()
    assert first == "dream: 100 of 100 env steps (100%), 0 s left"
    assert second == "dream: 125 of 150 env steps (83%), 4 s left"


def test_what_was_done_before_says_nothing_about_the_time_left(clock, capsys):
    with Progress("dynamics", 1000, unit="gradient steps", initial=900) as progress:
        clock(5.0)
        progress.update(10)
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "dynamics: 910 of 1,000 gradient steps (91%), 45 s left"


def test_a_slow_beginning_is_forgotten(clock, capsys):
    with Progress("dynamics", 1000, unit="gradient steps") as progress:
        clock(100.0)
        progress.update(1)
        for _ in range(6):
            clock(5.0)
            progress.update(5)
    assert (
        capsys.readouterr()
        .err.splitlines()[-2]
        .endswith("31 of 1,000 gradient steps (3%), 16 min 9 s left")
    )


def test_quantities_stay_until_they_change(clock, capsys):
    with Progress("fit", 4) as progress:
        progress.update(1, loss=2.0, reward_recall=0.5)
        progress.update(1, loss=1.5)
    assert "loss 1.5, reward recall 0.5" in capsys.readouterr().err


def test_a_terminal_gets_a_bar_with_quantities_and_time_left(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("dream", 200, unit="imagined env steps") as progress:
        progress.update(50, mean_return=0.5)
        progress.update(100, mean_return=0.75)
    shown = terminal.getvalue()
    last = shown.rstrip().rpartition("\r")[2]
    assert last.startswith("dream:  75%")
    assert "150/200" in last
    assert "imagined env steps/s" in last
    assert "mean return 0.75" in last
    assert shown.endswith("\n")


def test_a_bar_of_work_that_ends_early_is_full(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("tokenizer", 200) as progress:
        progress.update(50)
        progress.finish()
    last = terminal.getvalue().rstrip().rpartition("\r")[2]
    assert last.startswith("tokenizer: 100%")
    assert "50/50" in last


def test_a_bar_of_work_that_goes_on_grows(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("dream", 200) as progress:
        progress.update(200)
        progress.extend(100)
        progress.update(25)
    last = terminal.getvalue().rstrip().rpartition("\r")[2]
    assert last.startswith("dream:  75%")
    assert "225/300" in last


@pytest.mark.parametrize("stderr", [io.StringIO(), None])
def test_nothing_is_shown_where_it_is_not_wanted_or_cannot_be(monkeypatch, stderr):
    monkeypatch.setattr(sys, "stderr", stderr)
    with Progress("collect", 10, enabled=stderr is None) as progress:
        progress.update(10, mean_return=1.0)
    assert stderr is None or stderr.getvalue() == ""


def test_an_error_inside_leaves_the_last_state_and_goes_on(capsys):
    def work():
        with Progress("collect", 10) as progress:
            progress.update(3)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        work()
    assert capsys.readouterr().err.startswith("collect: 3 of 10 env steps (30%)")


def test_closing_twice_shows_one_line(capsys):
    progress = Progress("collect", 1)
    progress.close()
    progress.close()
    progress.update()
    assert len(capsys.readouterr().err.splitlines()) == 1

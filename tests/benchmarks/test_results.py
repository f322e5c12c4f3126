from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks.results import one_line_errors
from worldgen.errors import ConfigError

TALKING = """
from benchmarks.results import one_line_errors
with one_line_errors():
    print("much", flush=True)
"""


def test_what_is_wrong_is_said_in_one_line():
    with pytest.raises(SystemExit, match=r"^error: `steps` must be at least 1$"), one_line_errors():
        raise ConfigError("`steps` must be at least 1")
    with pytest.raises(ZeroDivisionError), one_line_errors():
        raise ZeroDivisionError


def test_another_pipe_that_breaks_is_an_error():
    with pytest.raises(SystemExit, match=r"^error: a worker is gone$"), one_line_errors():
        raise BrokenPipeError("a worker is gone")


def test_a_reader_who_has_seen_enough_is_no_error(repository):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", TALKING]
    try:
        done = subprocess.run(
            command, cwd=repository, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")

"""Command lines run in this process, and one finished run to look at."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import pytest
import worlds

from tests.worldgen.cli.short_runs import DREAM
from worldgen.cli import main

assert worlds  # Its import registers the ids.

EMPTY = "worlds/Empty-v0"
"""MiniGrid-Empty-5x5-v0 with short episodes."""
MODEL = [
    "--model.dynamics.transformer.width=32",
    "--model.dynamics.transformer.layers=1",
    "--model.dynamics.transformer.heads=2",
    "--model.tokenizer.hidden=32",
    "--model.tokenizer.quantizer.num-codes=64",
    "--model.training.batch-size=4",
]
LOOP = [
    "--timesteps=96",
    "--num-envs=4",
    "--dream.initial-steps=48",
    "--dream.steps-per-round=48",
    *DREAM,
]
JUDGEMENT = [
    "--judgement.episodes=3",
    "--judgement.held-out-steps=48",
    "--judgement.dreams=8",
    "--judgement.film-steps=6",
    "--judgement.round-episodes=2",
]
PPO = "--judgement.compare-ppo"


@dataclass
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def command():
    """Runs `worldgen` with arguments."""

    def run(*arguments) -> Ended:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(argument) for argument in arguments])
        return Ended(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def train(command):
    """Runs a very short `worldgen train`."""

    def run(folder: Path, *more, env=EMPTY) -> Ended:
        return command("train", env, "--run", folder, *LOOP, *MODEL, *JUDGEMENT, *more)

    return run


@pytest.fixture(scope="session")
def finished(train, tmp_path_factory) -> tuple[Path, Ended]:
    """A finished run, with PPO's figure, and what it said."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    ended = train(folder, PPO)
    assert ended.code == 0, ended.err
    return folder, ended


@pytest.fixture(scope="session")
def small_model() -> list[str]:
    """Options for a model that trains in no time."""
    return MODEL

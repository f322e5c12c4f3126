"""Runs of `worldgen train` that are short, and that are killed."""

from __future__ import annotations

DREAM = [
    "--dream.tokenizer-steps=20",
    "--dream.initial-model-steps=3",
    "--dream.model-steps-per-round=2",
    "--dream.initial-dream-steps=64",
    "--dream.dream-steps-per-round=64",
    "--dream.dream-envs=8",
    "--dream.horizon=8",
    "--dream.n-steps=8",
    "--dream.batch-size=16",
]
"""Options of a loop that is over in no time."""


class Killed(BaseException):
    """The process is killed."""


def kill_at(monkeypatch, owner, name, count, *, after=False):
    """Let the `count`-th call of a method kill the process, before or after its work."""
    original, calls = getattr(owner, name), []

    def dying(self, *arguments, **options):
        calls.append(name)
        if len(calls) == count and not after:
            raise Killed
        result = original(self, *arguments, **options)
        if len(calls) == count:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, dying)

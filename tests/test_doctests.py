"""The examples in the library's docstrings run and say what they show.

pytest's own doctest collection would import `envs/` and `agents/` under their folders' names,
as second copies; here each module is imported under its installed name.
"""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest


def test_examples(
    module_with_examples: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(module_with_examples)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(module, optionflags=options)
    assert result.attempted > 0, "its examples stand where doctest does not look"
    assert result.failed == 0

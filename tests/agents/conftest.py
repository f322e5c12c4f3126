"""Fixtures of the agents' tests."""

from __future__ import annotations

import pytest

from tests.agents.small_agents import Diary


@pytest.fixture
def diary() -> Diary:
    return Diary()

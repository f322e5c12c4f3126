"""What every test shares: one thread, fixed seeds, no window, the list of the modules."""

from __future__ import annotations

import os
import random
from pathlib import Path

# Read when pygame and matplotlib are first imported, so before anything else is.
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import numpy as np
import pytest
import torch

ROOT = Path(__file__).parent.parent
FOLDERS = {"worldgen": "worldgen", "envs": "worldgen.envs", "agents": "worldgen.agents"}
"""The library's folders and the packages that they are installed as."""

# The same examples in every run, and no time limit: a slow machine is no failure.
hypothesis.settings.register_profile(
    "worldgen", deadline=None, derandomize=True, database=None, max_examples=30
)
hypothesis.settings.load_profile("worldgen")
torch.set_num_threads(1)


def _library_modules() -> dict[str, Path]:
    modules = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = inside[:-1] if inside[-1] == "__init__" else inside
            modules[".".join((package, *parts))] = path
    return modules


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "module_with_examples" in metafunc.fixturenames:
        names = [name for name, path in _library_modules().items() if ">>> " in path.read_text()]
        metafunc.parametrize("module_with_examples", names)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Seed the global generators: SB3 and Gymnasium draw from them, the library does not."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def library_modules() -> dict[str, Path]:
    """Every module of the library, by the name under which it is imported."""
    return _library_modules()

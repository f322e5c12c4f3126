from __future__ import annotations

import subprocess
import sys

import pytest

import worldgen.data


@pytest.mark.parametrize("name", worldgen.data.__all__)
def test_every_public_name_is_there(name):
    assert getattr(worldgen.data, name) is not None
    assert name in dir(worldgen.data)


def test_another_name_is_not():
    with pytest.raises(AttributeError, match=r"'worldgen\.data' has no attribute 'Nothing'"):
        _ = worldgen.data.Nothing


def test_importing_it_loads_neither_torch_nor_gymnasium():
    program = (
        "import sys, worldgen.data;"
        "print([name for name in ('torch', 'gymnasium') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"

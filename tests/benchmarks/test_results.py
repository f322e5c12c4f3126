from __future__ import annotations

import pytest

from benchmarks.results import one_line_errors
from worldgen.errors import ConfigError


def test_what_is_wrong_is_said_in_one_line():
    with pytest.raises(SystemExit, match=r"^error: `steps` must be at least 1$"), one_line_errors():
        raise ConfigError("`steps` must be at least 1")
    with pytest.raises(ZeroDivisionError), one_line_errors():
        raise ZeroDivisionError

"""What Gymnasium's and SB3's checkers advise, and a copy of a given environment cannot choose."""

from __future__ import annotations

import pytest

OF_SPACES = [
    pytest.mark.filterwarnings("ignore:.*The minimal resolution for an image is 36x36"),
    pytest.mark.filterwarnings("ignore:.*upper and lower bounds are not in .0, 255."),
    pytest.mark.filterwarnings("ignore:.*different from the unwrapped version"),
]
OF_RENDERING = [
    pytest.mark.filterwarnings("ignore:.*Not able to test alternative render modes"),
    pytest.mark.filterwarnings("ignore:.*No render modes was declared"),
]
OF_SHAPES = [pytest.mark.filterwarnings("ignore:.*unconventional shape")]

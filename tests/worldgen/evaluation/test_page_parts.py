"""Parts of the HTML pages."""

from __future__ import annotations

import re

import pytest

from worldgen.evaluation.page_parts import _ticks, line_chart, table


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (1000, 4024), (-3.2, -3.1), (0.02, 0.047), (5, 5), (0, 0), (-1, 90)]
)
def test_ticks_are_few_round_and_hold_the_range(low, high):
    ticks = _ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))


def test_points_lie_where_the_axes_say():
    chart = line_chart("t", "x", {"a": [(0.0, 0.0), (10.0, 1.0)]}, share=True)
    (path,) = re.findall(r'<polyline points="([^"]*)"', chart)
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in path.split(" "))
    assert (x0, x1) == (46.0, 388.0)
    assert (y0, y1) == (196.0, 30.0)
    assert ">100%<" in chart


def test_levels_are_dashed_and_named():
    chart = line_chart("t", "x", {"a": [(0, 1.0), (1, 2.0)]}, levels={"random": 0.5})
    assert chart.count("stroke-dasharray") == 1
    assert ">random</text>" in chart


def test_without_points_there_is_no_chart():
    assert line_chart("t", "x", {"a": []}) == ""


def test_text_cannot_break_the_page():
    assert "<b>" not in table([["<b>"]], ["<b>"])
    assert "<b>" not in line_chart("<b>", "<b>", {"<b>": [(0, 0)]})

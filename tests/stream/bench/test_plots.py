from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from stream.bench.plots import Axis, Line, histogram_plot, line_plot, timeline_plot
from stream.bench.records import Histogram, Span
from tests.stream.bench.samples import spread


def shapes(markup: str, name: str, kind: str) -> list[ET.Element]:
    root = ET.fromstring(markup)
    return [e for e in root.iter(name) if e.get("class", "").split()[:1] == [kind]]


def percent(shape: ET.Element, name: str) -> float:
    found = shape.get(name)
    assert found is not None
    assert found.endswith("%")
    return float(found[:-1])


@pytest.mark.parametrize(("low", "high"), [(0, 9.4), (0, 0.003), (0, 123456), (5, 5), (0, 0), (-3, 8), (0, 100)])
def test_an_axis_holds_its_values_and_has_a_few_round_marks(low: float, high: float) -> None:
    axis = Axis.of(low, high)
    marks = list(axis.marks())
    assert axis.low <= low
    assert axis.high >= high
    assert 2 <= len(marks) <= 11
    assert all(-1e-9 <= axis.place(mark) <= 100 + 1e-9 for mark in marks)
    widths = {round((b - a) / (marks[1] - marks[0]), 6) for a, b in pairwise(marks)}
    assert widths == {1.0}


@pytest.mark.parametrize("high", [1, 2, 3, 7, 12])
def test_what_is_counted_has_no_halves(high: int) -> None:
    marks = list(Axis.of(0, high, whole=True).marks())
    assert marks[-1] >= high
    assert all(mark == int(mark) for mark in marks)


def test_places_go_from_nought_to_a_hundred() -> None:
    axis = Axis(10, 20)
    assert [axis.place(value) for value in (10, 15, 20)] == [0, 50, 100]


def test_a_line_goes_through_its_medians_in_order_of_place() -> None:
    line = Line("a", ((4, spread(10)), (0, spread(20)), (2, spread(5))))
    drawn = line_plot([line], below="persons", beside="fps")
    dots = shapes(drawn, "circle", "dot")
    assert [percent(dot, "cx") for dot in dots] == [0, 50, 100]
    heights = [percent(dot, "cy") for dot in dots]
    assert heights[0] < heights[2] < heights[1]
    paths = shapes(drawn, "line", "path")
    assert [(percent(p, "x1"), percent(p, "x2")) for p in paths] == [(0, 50), (50, 100)]
    assert [percent(p, "y1") for p in paths] == heights[:2]
    bars = shapes(drawn, "line", "range")
    for bar, height in zip(bars, heights, strict=True):
        assert percent(bar, "y2") < height < percent(bar, "y1")


def test_every_series_has_a_name_and_a_colour_however_many_there_are() -> None:
    drawn = line_plot([Line(f"<{n}>", ((1, spread(n + 1)),)) for n in range(9)], below="x", beside="y")
    names = [entry.itertext() for entry in shapes(drawn, "span", "entry")]
    assert ["".join(name) for name in names] == [f"<{n}>" for n in range(9)]
    assert set(re.findall(r'class="dot (c\d)"', drawn)) == {f"c{n}" for n in range(6)}


def test_bars_are_as_high_as_their_counts_and_fill_the_width() -> None:
    drawn = histogram_plot(Histogram(low=100, width=10, counts=(1, 4, 0, 2)), below="ms", marks=[("p50", 115)])
    bars = shapes(drawn, "rect", "bar")
    assert [percent(bar, "height") for bar in bars] == [25, 100, 0, 50]
    assert [percent(bar, "y") for bar in bars] == [75, 0, 100, 50]
    assert percent(bars[0], "x") < 2
    assert percent(bars[-1], "x") + percent(bars[-1], "width") == pytest.approx(99)
    (mark,) = shapes(drawn, "line", "mark")
    assert percent(mark, "x1") == percent(mark, "x2") == 37.5


def test_a_mark_beyond_the_classes_stays_in_the_plot() -> None:
    drawn = histogram_plot(Histogram(low=0, width=1, counts=(1,)), below="ms", marks=[("p99", 50)])
    (mark,) = shapes(drawn, "line", "mark")
    assert percent(mark, "x1") == 100


def test_a_timeline_has_a_row_for_each_frame() -> None:
    spans = [
        Span(stage="decode", frame=0, begin=0, end=10),
        Span(stage="encode", frame=0, begin=50, end=100),
        Span(stage="decode", frame=1, begin=10, end=10),
    ]
    drawn = timeline_plot(spans, ["decode", "encode"])
    bars = shapes(drawn, "rect", "span")
    assert [bar.get("class") for bar in bars] == ["span s-0", "span s-1", "span s-0"]
    assert [percent(bar, "x") for bar in bars] == [0, 50, 10]
    assert [percent(bar, "width") for bar in bars] == [10, 50, 0.25]
    rows = [float(bar.get("y", "")) for bar in bars]
    assert rows[0] == rows[1] < rows[2]
    assert "frame 1, encode: 50.0 ms" in drawn

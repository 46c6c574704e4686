"""Plots as inline SVG: lines with their spread, histograms, timelines. Places are shares of the plot, text is HTML.

So a plot is as wide as the page lets it be, and its text has the size of other text on any screen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from stream.bench.markup import Markup, element, join
from stream.bench.measure import nice
from stream.bench.records import Histogram, Span, Spread
from stream.bench.text import number, tick

#: Marks on an axis, about.
_MARKS: Final = 5
#: Colours that the style knows.
COLOURS: Final = 6
#: Height of a bar of the timeline, and from one frame to the next, in pixels.
_BAR, _ROW = 11, 15


@dataclass(frozen=True, slots=True)
class Line:
    """Points of one series: where, and what was measured there."""

    name: str
    points: tuple[tuple[float, Spread], ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from `low` to `high` on a side of the plot, with marks at round numbers."""

    low: float
    high: float
    whole: bool = False

    @classmethod
    def of(cls, low: float, high: float, *, whole: bool = False) -> Axis:
        """One that holds both, and ends at a mark; `whole` for what is counted, of which there is no half."""
        width = cls(low, high if high > low else low + 1, whole).step
        return cls(low, width * math.ceil(round(high / width, 6)) if high > low else low + width, whole)

    @property
    def step(self) -> float:
        """From one mark to the next."""
        return max(float(self.whole), nice((self.high - self.low) / _MARKS))

    def place(self, value: float) -> float:
        """Of a value, in per cent."""
        return 100 * (value - self.low) / (self.high - self.low)

    def marks(self) -> Iterator[float]:
        """Round numbers on it."""
        first = math.ceil(round(self.low / self.step, 6))
        for number_of_steps in range(first, math.floor(round(self.high / self.step, 6)) + 1):
            yield number_of_steps * self.step


def line_plot(lines: Sequence[Line], *, below: str, beside: str) -> Markup:
    """Lines through medians, each point with a bar from the lowest to the highest run.

    Args:
        lines: at least one point altogether.
        below: what the horizontal axis shows.
        beside: what the vertical axis shows.
    """
    points = [point for line in lines for point in line.points]
    across = Axis.of(min(0.0, *(x for x, _ in points)), max(x for x, _ in points))
    up = Axis.of(0.0, max(value.highest for _, value in points))
    drawn = [shape for index, line in enumerate(lines) for shape in _line(line, index % COLOURS, across, up)]
    key = [_key(line.name, f"c{index % COLOURS}") for index, line in enumerate(lines)]
    where = sorted({x for x, _ in points})
    ticks = where if len(where) <= 2 * _MARKS else list(across.marks())
    return _plot(drawn, across, up, ticks=ticks, below=below, beside=beside, key=key)


def _line(line: Line, colour: int, across: Axis, up: Axis) -> Iterator[Markup]:
    ordered = sorted(line.points, key=lambda point: point[0])
    places = [(across.place(x), 100 - up.place(value.median)) for x, value in ordered]
    for (x0, y0), (x1, y1) in itertools.pairwise(places):
        yield element("line", class_=f"path c{colour}", **_ends(x0, y0, x1, y1))
    for (x, y), (where, value) in zip(places, ordered, strict=True):
        yield element(
            "line",
            class_=f"range c{colour}",
            **_ends(x, 100 - up.place(value.lowest), x, 100 - up.place(value.highest)),
        )
        text = f"{line.name}, {tick(where)}: {number(value.median)} ({number(value.lowest)} to {number(value.highest)})"
        yield element("circle", element("title", text), class_=f"dot c{colour}", cx=_share(x), cy=_share(y), r="4")


def histogram_plot(found: Histogram, *, below: str, marks: Sequence[tuple[str, float]] = ()) -> Markup:
    """How many values lie in each class.

    Args:
        found: at least one class.
        below: what the horizontal axis shows.
        marks: names of values, drawn as lines.
    """
    across = Axis(found.low, found.low + found.width * len(found.counts))
    up = Axis.of(0.0, max(found.counts), whole=True)
    drawn = []
    for index, count in enumerate(found.counts):
        low = found.low + index * found.width
        text = f"{number(low)} to {number(low + found.width)}: {count}"
        x, wide, tall = across.place(low), 100 / len(found.counts), up.place(count)
        place = {"x": _share(x + wide * 0.04), "width": _share(wide * 0.92), "y": _share(100 - tall)}
        drawn.append(element("rect", element("title", text), class_="bar", height=_share(tall), **place))
    for index, (name, value) in enumerate(marks):
        x = min(max(across.place(value), 0.0), 100.0)
        title = element("title", f"{name}: {number(value)}")
        drawn.append(element("line", title, class_=f"mark m{index}", **_ends(x, 0, x, 100)))
    key = [_key(f"{name} {number(value)}", f"mark m{index}") for index, (name, value) in enumerate(marks)]
    return _plot(drawn, across, up, ticks=list(across.marks()), below=below, beside="frames", key=key)


def timeline_plot(spans: Sequence[Span], stages: Sequence[str]) -> Markup:
    """A row for each frame, with a bar for each stage.

    Args:
        spans: at least one.
        stages: in the order of the key.
    """
    across = Axis(0.0, max(span.end for span in spans) or 1.0)
    rows = 1 + max(span.frame for span in spans)
    drawn = []
    for span in spans:
        x0, x1 = across.place(span.begin), across.place(span.end)
        text = f"frame {span.frame + 1}, {span.stage}: {number(span.end - span.begin)} ms"
        drawn.append(
            element(
                "rect",
                element("title", text),
                class_=f"span s-{stages.index(span.stage)}",
                x=_share(x0),
                width=_share(max(x1 - x0, 0.25)),
                y=span.frame * _ROW + (_ROW - _BAR) / 2,
                height=_BAR,
                rx="2",
            )
        )
    key = [_key(stage, f"s-{index}") for index, stage in enumerate(stages)]
    ticks = list(across.marks())
    return _plot(drawn, across, None, ticks=ticks, below="ms", beside="frames", key=key, tall=rows * _ROW)


def _plot(
    drawn: Sequence[Markup],
    across: Axis,
    up: Axis | None,
    *,
    ticks: Sequence[float],
    below: str,
    beside: str,
    key: Sequence[Markup],
    tall: int = 230,
) -> Markup:
    levels = list(up.marks()) if up else []
    grid = [element("line", class_="grid", **_ends(0, y, 100, y)) for y in (100 - up.place(v) for v in levels if up)]
    grid += [element("line", class_="grid", **_ends(x, 0, x, 100)) for x in map(across.place, ticks)]
    labels = [element("span", tick(v), style=f"bottom:{_share(up.place(v))}") for v in levels if up]
    names = [element("span", tick(v), style=f"left:{_share(across.place(v))}") for v in ticks]
    return element(
        "div",
        element("div", *key, class_="key") if key else None,
        element("div", beside, class_="beside"),
        element(
            "div",
            element("div", *labels, class_="levels", aria_hidden="true"),
            element("svg", *grid, *drawn, class_="area", role="img", aria_label=f"{beside} by {below}"),
            class_="canvas" if up else "canvas bare",
            style=f"height:{tall}px",
        ),
        element("div", *names, class_="ticks" if up else "ticks bare", aria_hidden="true"),
        element("div", below, class_="below"),
        class_="plot",
    )


def _key(name: str, colour: str) -> Markup:
    return element("span", element("i", class_=colour), join(name), class_="entry")


def _ends(x0: float, y0: float, x1: float, y1: float) -> dict[str, str]:
    return {"x1": _share(x0), "y1": _share(y0), "x2": _share(x1), "y2": _share(y1)}


def _share(value: float) -> str:
    return f"{round(value, 3):g}%"

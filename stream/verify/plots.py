"""Plots over time as inline SVG: no script, and nothing to be fetched."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: Of the SVG's own coordinates; it is stretched to its place, lines keep their width.
_WIDTH, _HEIGHT = 1000.0, 100.0
#: So much of the height is what the largest value takes.
_FULL: Final = 0.94
#: Points from which neighbours are drawn as one, their largest.
_MOST: Final = 500

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot.

    Attributes:
        name: for the key.
        style: its class: `high`, `low` or `bad`.
        points: time in seconds, and value.
        filled: whether what is below it is filled.
        stepped: whether a value holds until the next one, as what is counted frame by frame.
    """

    name: str
    style: str
    points: Points
    filled: bool = False
    stepped: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines over the same time.

    Attributes:
        title: for people.
        lines: drawn one over the other, the first at the bottom.
        top: value at the upper edge, None for the largest.
        unit: behind values: `%` multiplies them by 100.
        bands: times from and to in which something was wrong.
        limit: a value that is drawn as a line across, None for none.
    """

    title: str
    lines: Sequence[Line]
    top: float | None = None
    unit: str = ""
    bands: Sequence[tuple[float, float]] = ()
    limit: float | None = None


def draw(plot: Plot) -> str:
    """The plot as HTML: a figure with an SVG, its scale and its key."""
    times = [time for line in plot.lines for time, _ in line.points]
    if not times:
        return ""
    scale = _Scale(min(times), max(times), _top(plot))
    parts = ['<path class="grid" d="M0,50H1000"/>']
    for start, end in plot.bands:
        x, width = scale.x(start), max(scale.x(end) - scale.x(start), 3.0)
        parts.append(f'<rect class="band" x="{x:.1f}" y="0" width="{width:.1f}" height="{_HEIGHT:.0f}"/>')
    for line in plot.lines:
        parts += _drawn(line, scale)
    if plot.limit is not None and plot.limit <= scale.top:
        parts.append(f'<path class="limit" d="M0,{scale.y(plot.limit):.1f}H1000"/>')
    svg = (
        f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" preserveAspectRatio="none" role="img" '
        f'aria-label="{html.escape(plot.title, quote=True)}">{"".join(parts)}</svg>'
    )
    keys = "".join(f'<span class="key {line.style}"><i></i>{html.escape(line.name)}</span>' for line in plot.lines)
    top = f"<small>up to {_value(scale.top, plot.unit)}</small>"
    return (
        f'<figure class="plot"><figcaption><b>{html.escape(plot.title)}</b>{top}{keys}</figcaption>'
        f'<div class="area">{svg}</div>'
        f'<div class="axis"><span>{scale.first:.2f} s</span><span>{(scale.first + scale.last) / 2:.2f} s</span>'
        f"<span>{scale.last:.2f} s</span></div></figure>"
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    """From seconds and values to the SVG's coordinates."""

    first: float
    last: float
    top: float

    def x(self, time: float) -> float:
        return min((time - self.first) / max(self.last - self.first, 1e-6), 1.0) * _WIDTH

    def y(self, value: float) -> float:
        return _HEIGHT - min(value / self.top, 1.0) * _HEIGHT * _FULL


def _top(plot: Plot) -> float:
    highest = max((value for line in plot.lines for _, value in line.points), default=0.0)
    return max(plot.top if plot.top is not None else highest, 1e-9)


def _drawn(line: Line, scale: _Scale) -> list[str]:
    points = thinned(line.points, _MOST)
    # A single frame is a line all the same, and the last one lasts to the edge.
    points = [*points, (scale.last, points[-1][1])]
    path = f"M{scale.x(points[0][0]):.1f},{scale.y(points[0][1]):.1f}"
    for time, value in points[1:]:
        x, y = scale.x(time), scale.y(value)
        path += f"H{x:.1f}V{y:.1f}" if line.stepped else f"L{x:.1f},{y:.1f}"
    drawn = [f'<path class="line {line.style}" d="{path}"/>']
    if line.filled:
        drawn.insert(0, f'<path class="fill {line.style}" d="{path}V{_HEIGHT}H{scale.x(points[0][0]):.1f}Z"/>')
    return drawn


def thinned(points: Points, most: int) -> list[tuple[float, float]]:
    """At most so many points, each the largest of its neighbours: a single raw frame stays to be seen."""
    if len(points) <= most:
        return list(points)
    size = -(-len(points) // most)
    groups = (points[start : start + size] for start in range(0, len(points), size))
    return [max(group, key=lambda point: point[1]) for group in groups]


def _value(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.{0 if value >= 0.1 else 1}f} %"
    return f"{value:g}{' ' + unit if unit else ''}"

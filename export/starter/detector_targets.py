"""What the detector should say of a picture, from what is known about every pixel of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from export.starter.detector import COARSE_STRIDE, FINE_STRIDE

Arrays = dict[str, npt.NDArray[Any]]

#: Visible pixels, and pixels of the longer side, below which it is neither right nor wrong to find somebody.
SMALLEST_AREA: Final = 30
SMALLEST_SIDE: Final = 10
#: Of a centre's bump in the heat-map: its standard deviation in sides of the box, and at least so many places.
_BUMP: Final = 0.13
_SMALLEST_BUMP: Final = 0.6
#: Where a bump is higher than this, the place should know the box.
_KNOWS_BOX: Final = 0.4
#: Edges are at least so many pixels away.
_NEAREST_EDGE: Final = 1.0
#: Pixels that are added to a person's side where a way's error is measured in sides.
_SOFT_SIDE: Final = 16.0
#: A place of 4x4 pixels shows the first of these pixels that is on a body.
_LOOKED_AT: Final = ((2, 2), (1, 1), (1, 2), (2, 1))


@dataclass(frozen=True, slots=True)
class Visible:
    """A person, or a head, as far as a picture shows it.

    Attributes:
        number: in `instances`.
        box: tight, x0, y0, x1, y1 in pixels.
        area: pixels.
    """

    number: int
    box: tuple[int, int, int, int]
    area: int

    @property
    def sides(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.box[2] - self.box[0], self.box[3] - self.box[1]

    @property
    def counts(self) -> bool:
        """Whether it is large enough to have to be found."""
        return self.area >= SMALLEST_AREA and max(self.sides) >= SMALLEST_SIDE


def visible(instances: npt.NDArray[np.uint8]) -> list[Visible]:
    """Everybody whom (H, W) shows, by number."""
    areas = np.bincount(instances.ravel())
    found = []
    for number, place in enumerate(ndimage.find_objects(instances), start=1):
        if place is not None:
            rows, columns = place
            box = int(columns.start), int(rows.start), int(columns.stop), int(rows.stop)
            found.append(Visible(number, box, int(areas[number])))
    return found


def make_targets(
    instances: npt.NDArray[np.uint8], vertices: npt.NDArray[np.int32], head: npt.NDArray[np.bool_]
) -> Arrays:
    """The targets of one picture; sides are multiples of 32.

    Args:
        instances: (H, W), 0 or 1 + person.
        vertices: (H, W), -1 on the background.
        head: (K,), whether a vertex belongs to it.

    Returns:
        At 1/8, for people and for heads: `heat` (2,h,w), 1 at centres; `heat_known` (2,h,w), 0 where nothing counts;
        `edges` (2,4,h,w) in pixels and `edges_weight` (2,h,w). At 1/4: `body` (h,w), the part of the place that is a
        body; `way` (2,h,w) to the centre in pixels and `way_weight` (h,w); `vertex` int64 (h,w), -1 where none.
    """
    people = visible(instances)
    heads = visible(np.where((vertices >= 0) & head[vertices], instances, 0))
    coarse = [_coarse(found, instances.shape) for found in (people, heads)]
    by_kind = {name: np.stack([targets[name] for targets in coarse]) for name in coarse[0]}
    return by_kind | _fine(people, instances, vertices)


def _places(side: int, stride: int) -> npt.NDArray[np.float32]:
    """The middles of places in pixels."""
    return (np.arange(side // stride, dtype=np.float32) + 0.5) * stride


def _coarse(people: list[Visible], size: tuple[int, ...]) -> Arrays:
    y, x = (_places(side, COARSE_STRIDE) for side in size)
    shape = len(y), len(x)
    heat, known = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    edges, weight = np.zeros((4, *shape), np.float32), np.zeros(shape, np.float32)
    # Small people come last, so that nobody larger hides their boxes.
    for person in sorted(people, key=lambda person: -person.sides[0] * person.sides[1]):
        x0, y0, x1, y1 = person.box
        if not person.counts:
            known[_cells(y0, y1), _cells(x0, x1)] = 0
            continue
        row, column = (int((low + high) / 2 / COARSE_STRIDE) for low, high in ((y0, y1), (x0, x1)))
        spread = [max(side / COARSE_STRIDE * _BUMP, _SMALLEST_BUMP) for side in person.sides]
        across = np.exp(-((np.arange(shape[1]) - column) ** 2) / (2 * spread[0] ** 2))
        down = np.exp(-((np.arange(shape[0]) - row) ** 2) / (2 * spread[1] ** 2))
        bump = np.asarray(down[:, None] * across, np.float32)
        heat = np.maximum(heat, bump)
        here = bump > _KNOWS_BOX
        distances = np.broadcast_arrays(x - x0, (y - y0)[:, None], x1 - x, (y1 - y)[:, None])
        edges[:, here] = np.maximum(np.stack(distances), _NEAREST_EDGE)[:, here]
        weight[here] = bump[here]
    # A centre is one even where somebody else is too small to count.
    known[heat == 1] = 1
    return {"heat": heat, "heat_known": known, "edges": edges, "edges_weight": weight}


def _cells(low: int, high: int) -> slice:
    return slice(low // COARSE_STRIDE, -(-high // COARSE_STRIDE))


def _fine(people: list[Visible], instances: npt.NDArray[np.uint8], vertices: npt.NDArray[np.int32]) -> Arrays:
    step = FINE_STRIDE
    height, width = (side // step for side in instances.shape)
    body = (instances > 0).reshape(height, step, width, step).mean(axis=(1, 3), dtype=np.float32)
    shown, vertex = np.zeros((height, width), np.uint8), np.full((height, width), -1, np.int64)
    for row, column in _LOOKED_AT:
        seen = instances[row::step, column::step]
        free = (shown == 0) & (seen > 0)
        shown[free] = seen[free]
        vertex[free] = vertices[row::step, column::step][free]
    centres = np.zeros((256, 2), np.float32)
    weights = np.zeros(256, np.float32)
    for person in people:
        if person.counts:
            x0, y0, x1, y1 = person.box
            centres[person.number] = (x0 + x1) / 2, (y0 + y1) / 2
            weights[person.number] = 1 / (max(person.sides) + _SOFT_SIDE)
    y, x = (_places(side, step) for side in instances.shape)
    way = np.stack([centres[shown, 0] - x, centres[shown, 1] - y[:, None]])
    return {"body": body, "way": way, "way_weight": weights[shown], "vertex": vertex}

"""Zones drawn by hand (`--ignore-zones`, `--only-zones`): where regions may stay raw because the user says so.

Both lean to the safe side: a region is left only if all of what would be covered lies in ignored zones, or none of it
touches a zone of `--only-zones`. Regions given by hand are covered wherever they lie.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import shapely
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from engines.errors import UsageError
from stream import geometry
from stream.manual import Place
from stream.regions import Kind, Origin, Regions

Bools = npt.NDArray[np.bool_]
Point = tuple[Place, Place]


class Zone(BaseModel):
    """One polygon.

    Attributes:
        points: corners in pixels of the upright picture, at least three; the last is joined to the first.
        kinds: the kinds of region that it is about, None for all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: Annotated[tuple[Point, ...], Field(min_length=3)]
    kinds: tuple[str, ...] | None = None

    @field_validator("points")
    @classmethod
    def _is_a_polygon(cls, points: tuple[Point, ...]) -> tuple[Point, ...]:
        polygon = shapely.Polygon(points)
        if not polygon.is_valid or not polygon.area:
            raise ValueError(f"the polygon has no inside, or crosses itself ({shapely.is_valid_reason(polygon)})")
        return points

    @field_validator("kinds")
    @classmethod
    def _are_kinds(cls, kinds: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for kind in kinds or ():
            Kind.of(kind)
        return kinds


class Zones:
    """What the zones of a run leave uncovered.

    Args:
        ignore: regions that lie wholly within these stay as they are.
        only: regions that do not touch any of these stay as they are; None: no such limit.
    """

    def __init__(self, ignore: tuple[Zone, ...] = (), only: tuple[Zone, ...] | None = None) -> None:
        ignored, limits = _by_kind(ignore), None if only is None else _by_kind(only)
        self._zones = {kind: (ignored[kind], None if limits is None else limits[kind]) for kind in Kind}

    def covered(self, regions: Regions, boxes: geometry.Floats) -> Bools:
        """Which regions are to be covered, (N,).

        Args:
            regions: of one frame.
            boxes: what would be covered of them, (N, 4) `xyxy` in pixels, margins included.
        """
        keep = np.ones(len(regions), np.bool_)
        areas = shapely.box(*boxes.astype(np.float64).T)
        for kind, (ignored, limit) in self._zones.items():
            of_kind = regions.kinds == kind
            keep[of_kind] = ~shapely.covers(ignored, areas[of_kind])
            if limit is not None:
                keep[of_kind] &= shapely.intersects(limit, areas[of_kind])
        return np.asarray(keep | (regions.origins == Origin.MANUAL))


def _by_kind(zones: tuple[Zone, ...]) -> dict[Kind, Any]:
    """The union of the zones of each kind: two that touch count as one."""
    made = {}
    for kind in Kind:
        polygons = [shapely.Polygon(z.points) for z in zones if z.kinds is None or kind in map(Kind.of, z.kinds)]
        made[kind] = shapely.union_all(polygons)
        shapely.prepare(made[kind])
    return made


_FILE = TypeAdapter(tuple[Zone, ...])


def read_zones(path: Path) -> tuple[Zone, ...]:
    """Read zones from a JSON file: a list of objects with `points` ([[x, y], ...]) and, if wanted, `kinds`.

    Raises:
        UsageError: the file cannot be read, holds no zone, or an entry is wrong; the message names file and entry.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the zones file {path}: {error}") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise UsageError(f'{path} must hold a JSON list of zones like {{"points": [[0, 0], [100, 0], [0, 100]]}}')
    try:
        return _FILE.validate_python(rows)
    except ValidationError as error:
        first = error.errors()[0]
        entry, *field = first["loc"]
        where = ".".join(str(part) for part in field) or "zone"
        place = f"entry {int(entry) + 1}" if isinstance(entry, int) else str(entry)
        raise UsageError(f"{path}, {place}: {where}: {first['msg'].removeprefix('Value error, ')}") from error

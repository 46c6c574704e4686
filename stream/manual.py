"""Regions given by hand (`--regions FILE`): always united with what was found."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engines.errors import UsageError
from stream.regions import Kind, Origin, Regions

_COLUMNS = ("start", "end", "x0", "y0", "x1", "y1", "kind")


#: Far outside of any frame, and still told apart in float32.
Place = Annotated[float, Field(ge=-1e6, le=1e6)]


class ManualRegion(BaseModel):
    """One region given by hand.

    Attributes:
        start: seconds from the beginning of the clip from which it counts, None for the beginning.
        end: seconds from the beginning of the clip up to which it counts (inclusive), None for the end.
        x0: pixels of the upright picture.
        y0: as x0.
        x1: as x0, exclusive.
        y1: as x0, exclusive.
        kind: person, face or plate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    # NaN would compare false with every time and silently switch the region off.
    start: float | None = Field(default=None, allow_inf_nan=False)
    end: float | None = Field(default=None, allow_inf_nan=False)
    x0: Place
    y0: Place
    x1: Place
    y1: Place
    kind: str = "face"

    @model_validator(mode="after")
    def _check(self) -> ManualRegion:
        if self.x1 <= self.x0 or self.y1 <= self.y0:
            raise ValueError("x1 must be greater than x0, and y1 than y0")
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ValueError("end must not be before start")
        Kind.of(self.kind)
        return self


class ManualRegions:
    """All regions given by hand for one stream."""

    def __init__(self, entries: Sequence[ManualRegion]) -> None:
        self._starts = np.array([-np.inf if e.start is None else e.start for e in entries], np.float64)
        self._ends = np.array([np.inf if e.end is None else e.end for e in entries], np.float64)
        self._regions = Regions.of([(e.x0, e.y0, e.x1, e.y1) for e in entries], Kind.FACE, origin=Origin.MANUAL)
        self._regions.kinds[:] = [Kind.of(e.kind) for e in entries]
        self._applied = np.zeros(len(entries), bool)

    def __len__(self) -> int:
        return len(self._regions)

    @property
    def kinds(self) -> set[Kind]:
        """The kinds that occur."""
        return {Kind(int(kind)) for kind in self._regions.kinds}

    def at(self, time: float) -> Regions:
        """The regions that count at this time, in seconds. Half a millisecond of slack meets written-out times."""
        now = (self._starts - 5e-4 <= time) & (time <= self._ends + 5e-4)
        self._applied |= now
        return self._regions[now]

    @property
    def never_applied(self) -> int:
        """How many regions have not counted at any time so far."""
        return int((~self._applied).sum())


def read_manual_regions(path: Path) -> ManualRegions:
    """Read regions from a CSV file (columns start,end,x0,y0,x1,y1,kind) or a JSON list of such objects.

    Raises:
        UsageError: the file cannot be read or an entry is wrong; the message names file, entry and field.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the regions file {path}: {error}") from error
    rows = _from_json(path, text) if text.lstrip().startswith(("[", "{")) else _from_csv(path, text)
    entries = []
    for place, row in rows:
        try:
            entries.append(ManualRegion.model_validate(row))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "entry"
            message = first["msg"].removeprefix("Value error, ")
            raise UsageError(f"{path}, {place}: {field}: {message}") from error
    return ManualRegions(entries)


def _from_json(path: Path, text: str) -> Iterable[tuple[str, Any]]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(rows, list):
        raise UsageError(f"{path} must hold a JSON list of regions, got one object")
    return [(f"entry {number}", row) for number, row in enumerate(rows, start=1)]


def _from_csv(path: Path, text: str) -> Iterable[tuple[str, Any]]:
    reader = csv.DictReader(line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    if reader.fieldnames is None or not set(_COLUMNS[2:6]) <= set(reader.fieldnames):
        raise UsageError(f"{path} needs a first line with the columns {','.join(_COLUMNS)}")
    # An empty cell means "not given"; a row with too many cells ends up under the key None.
    return [
        (f"row {number}", {str(key): value for key, value in row.items() if value not in ("", None)})
        for number, row in enumerate(reader, start=1)
    ]

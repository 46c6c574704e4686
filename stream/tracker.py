"""Tracker: names detections over time, and expects them where they are missed. It never drops one.

A Kalman filter of constant velocity expects each track's box in the next frame, and detections go to the tracks whose
expected boxes they overlap most, all together (A. Bewley et al., Simple Online and Realtime Tracking, 2016).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from engines.assignment import best_pairs
from stream import geometry
from stream.box_filter import BoxFilter
from stream.motion import Move, carry
from stream.outline import Outline
from stream.regions import Kind, Origin, Regions

#: A detection that overlaps a track's expected box less than this is another's.
_LEAST_IOU: Final = 0.1
#: A held region grows by this share of its size with every frame that its track is missed ...
_GROWTH_PER_MISS = 0.04
#: ... by this where the track was seen only once, so that nobody knows where it goes (a quick walk near the camera) ...
_GROWTH_WITHOUT_SPEED = 0.25
#: ... up to this.
_LARGEST_GROWTH = 0.5


@dataclass(slots=True)
class Track:
    """What is known of one track.

    Attributes:
        id: its name, counted from 0.
        kind: what it shows.
        box: (4,) of its last detection.
        score: of its last detection.
        misses: frames since that detection.
        hits: how many detections it had since it began, or came back.
        speed: (4,) by which its box moved per frame between its last two detections, 0 before the second.
        predicted: (4,) where its filter expects it now.
        outline: of its last detection, never of a region that was held; None where there was only a box.
    """

    id: int
    kind: Kind
    box: npt.NDArray[np.float32]
    score: float
    misses: int = 0
    hits: int = 1
    speed: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(4, np.float32))
    predicted: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(4, np.float32))
    outline: Outline | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """A detection that continues or begins a track.

    Attributes:
        track_id: of that track.
        kind: what it shows.
        box: (4,) detected now.
        score: of the detection.
        previous: (4,) the detection before, None for a new track, or one that had not been held any more.
        gap: frames between the two (1 if they are consecutive), 0 where there is none.
        hits: detections since it began, or came back, this one included.
        outline: of the detection, None where there is only a box.
        previous_outline: of the detection before, likewise.
    """

    track_id: int
    kind: Kind
    box: npt.NDArray[np.float32]
    score: float
    previous: npt.NDArray[np.float32] | None
    gap: int
    hits: int
    outline: Outline | None = None
    previous_outline: Outline | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What one frame gave: its regions, every detection named and every missed track held."""

    regions: Regions
    sightings: tuple[Sighting, ...]


class Tracker:
    """Tracks all kinds of one stream, each by itself.

    Args:
        hold: frames for which a track that misses detections is kept at its predicted place.
        remember: frames after these for which somebody who is detected where the track is expected gets its name back.

    Attributes:
        first_id: the id of the first track; to be set before the first step where ids follow those of another tracker.
    """

    def __init__(self, hold: int, remember: int = 0) -> None:
        self.first_id = 0
        self._hold = hold
        self._remember = remember
        self._by_kind: dict[Kind, _KindTracker] = {}
        self._count = 0

    @property
    def tracks_begun(self) -> int:
        """How many tracks there were so far."""
        return self._count

    def step(self, detections: Regions, width: int, height: int) -> Step:
        """Name the detections of the next frame and hold what is missing.

        Args:
            detections: of this frame; all come back, in order, before the held ones.
            width: of the frame, in pixels.
            height: of the frame, in pixels.
        """
        track_ids = detections.track_ids.copy()
        sightings: list[Sighting] = []
        held: list[Regions] = []
        kinds = {Kind(int(k)) for k in detections.kinds} | set(self._by_kind)
        for kind in sorted(kinds):
            tracker = self._by_kind.setdefault(kind, _KindTracker(kind, self._hold, self._remember, self._next_id))
            chosen = np.flatnonzero(detections.kinds == kind)
            seen = tracker.step(detections[chosen])
            for index, sighting in zip(chosen, seen, strict=True):
                track_ids[index] = sighting.track_id
            sightings += seen
            held.append(tracker.held(width, height))
        named = replace(detections, track_ids=track_ids)
        return Step(Regions.concatenate([named, *held]), tuple(sightings))

    def _next_id(self) -> int:
        self._count += 1
        return self.first_id + self._count - 1


class _KindTracker:
    """The tracks of one kind."""

    def __init__(self, kind: Kind, hold: int, remember: int, next_id: Callable[[], int]) -> None:
        self._kind = kind
        self._hold = hold
        self._remember = remember
        self._next_id = next_id
        self._filter = BoxFilter()
        #: In the order of the filter's rows.
        self._tracks: list[Track] = []

    def step(self, detections: Regions) -> list[Sighting]:
        boxes = detections.boxes.astype(np.float64)
        self._filter.predict()
        expected = self._filter.boxes
        rows, found = best_pairs(geometry.iou(expected, boxes), _LEAST_IOU)
        self._filter.correct(rows, boxes[found])
        known = dict(zip(found.tolist(), rows.tolist(), strict=True))
        missed = np.delete(np.arange(len(self._tracks)), rows)
        self._miss(missed.tolist(), expected.astype(np.float32))
        fresh = [index for index in range(len(boxes)) if index not in known]
        self._filter.add(boxes[fresh])
        sightings = [self._see(known.get(index), detections, index) for index in range(len(boxes))]
        kept = [track.misses <= self._hold + self._remember for track in self._tracks]
        self._filter.keep(np.array(kept, np.bool_))
        self._tracks = [track for track, stays in zip(self._tracks, kept, strict=True) if stays]
        return sightings

    def _see(self, row: int | None, detections: Regions, index: int) -> Sighting:
        """A track goes on, or one begins: that of somebody new, or of somebody who is there again, under the old name.

        Where they were meanwhile nobody knows, so that what is covered begins anew.
        """
        box, score, outline = detections.boxes[index], float(detections.scores[index]), detections.outline(index)
        track = None if row is None else self._tracks[row]
        if track is not None and track.misses <= self._hold:
            gap, hits = track.misses + 1, track.hits + 1
            sighting = Sighting(track.id, self._kind, box, score, track.box, gap, hits, outline, track.outline)
            track.speed = geometry.shift(track.box, box) / np.float32(gap)
            track.box, track.score, track.outline, track.misses, track.hits = box, score, outline, 0, hits
            return sighting
        begun = Track(self._next_id() if track is None else track.id, self._kind, box, score, outline=outline)
        if row is None:
            self._tracks.append(begun)
        else:
            self._tracks[row] = begun
        return Sighting(begun.id, self._kind, box, score, None, 0, 1, outline)

    def _miss(self, rows: list[int], expected: npt.NDArray[np.float32]) -> None:
        """Tracks without a detection, and where all are expected, (N, 4)."""
        for row in rows:
            track = self._tracks[row]
            track.misses += 1
            track.predicted = expected[row]
            if track.misses > self._hold:
                # Nothing but the name and the place is remembered.
                track.outline = None
            elif track.misses == 1 and track.outline is not None:
                track.outline = track.outline.kept()

    def held(self, width: int, height: int) -> Regions:
        """Tracks that were missed now: the places where they may be in one box, grown, and their masks likewise."""
        missed = [track for track in self._tracks if 0 < track.misses <= self._hold]
        found = [carry(track.outline, _held_move(track), width, height) for track in missed]
        regions = Regions.of(
            np.array([box for box, _ in found], np.float32).reshape(-1, 4),
            self._kind,
            scores=np.array([track.score for track in missed], np.float32),
            track_ids=np.array([track.id for track in missed], np.int64),
            origin=Origin.HELD,
            outlines=[outline for _, outline in found] if any(outline for _, outline in found) else None,
        )
        return regions[~geometry.outside(regions.boxes, width, height)]


def _held_move(track: Track) -> Move:
    """Last place, place at the last known speed and predicted place in one box, grown.

    The filter behind `predicted` needs some detections before it believes a speed, and smooths a change of it.
    """
    at_last_speed = track.box + track.speed * np.float32(track.misses)
    places = geometry.union_box(geometry.union_box(track.box, at_last_speed), track.predicted)
    growth = _GROWTH_PER_MISS if track.hits > 1 else _GROWTH_WITHOUT_SPEED
    # The share is of the region's own size: a long way must not make it grow more.
    grown = geometry.grow_like(places, track.box, min(_LARGEST_GROWTH, growth * track.misses))
    return Move(track.box, track.predicted, places[0], grown[0])

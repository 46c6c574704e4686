"""Tracker: names detections over time. It never filters them (see DESIGN, "Identity over time").

Wraps motpy (Kalman filter, constant velocity; Hungarian assignment by IoU). motpy's release on the package
index does not say which detection a track took, hides tracks after a few misses, and lets trackers share one
mutable motion model; all three are dealt with here.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from motpy import Detection as MotDetection
from motpy import ModelPreset, MultiObjectTracker
from motpy.tracker import IOUAndFeatureMatchingFunction

from stream import geometry
from stream.motion import Move, carry
from stream.outline import Outline
from stream.regions import Kind, Origin, Regions

#: motpy's noise constants are in pixels of pictures about this wide.
_MODEL_WIDTH = 1000.0
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
        hits: how many detections it had.
        speed: (4,) by which its box moved per frame between its last two detections, 0 before the second.
        predicted: (4,) where motpy expects it now, None where it cannot say.
        outline: of its last detection, never of a region that was held; None where there was only a box.
    """

    id: int
    kind: Kind
    box: npt.NDArray[np.float32]
    score: float
    misses: int = 0
    hits: int = 1
    speed: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(4, np.float32))
    predicted: npt.NDArray[np.float32] | None = None
    outline: Outline | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """A detection that continues or begins a track.

    Attributes:
        track_id: of that track.
        kind: what it shows.
        box: (4,) detected now.
        score: of the detection.
        previous: (4,) the detection before, None for a new track.
        gap: frames between the two (1 if they are consecutive), 0 for a new track.
        hits: detections so far, this one included.
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

    Attributes:
        first_id: the id of the first track; to be set before the first step where ids follow those of another tracker.
    """

    def __init__(self, hold: int) -> None:
        self.first_id = 0
        self._hold = hold
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
            tracker = self._by_kind.setdefault(kind, _KindTracker(kind, self._hold, self._next_id))
            chosen = np.flatnonzero(detections.kinds == kind)
            seen = tracker.step(detections[chosen], width, height)
            for index, sighting in zip(chosen, seen, strict=True):
                track_ids[index] = sighting.track_id
            sightings += seen
            held.append(tracker.held(width, height))
        named = replace(detections, track_ids=track_ids)
        return Step(Regions.concatenate([named, *held]), tuple(sightings))

    def _next_id(self) -> int:
        self._count += 1
        return self.first_id + self._count - 1


class _RecordingMatch(IOUAndFeatureMatchingFunction):  # type: ignore[misc]
    """motpy's own matching, keeping what it decided."""

    def __init__(self) -> None:
        super().__init__(min_iou=0.1)
        self.matched: dict[int, str] = {}

    def __call__(self, trackers: Sequence[object], detections: Sequence[MotDetection]) -> object:
        matches = super().__call__(trackers, detections)
        self.matched = {int(column): str(getattr(trackers[int(row)], "id")) for row, column in matches}  # noqa: B009
        return matches


class _KindTracker:
    """The tracks of one kind."""

    def __init__(self, kind: Kind, hold: int, next_id: Callable[[], int]) -> None:
        self._kind = kind
        self._hold = hold
        self._next_id = next_id
        self._match = _RecordingMatch()
        # Own copies: motpy writes `dt` into the preset that it is given.
        model = copy.deepcopy(ModelPreset.constant_velocity_and_static_box_size_2d.value)
        self._motpy = MultiObjectTracker(
            dt=1 / 25,
            model_spec=model,
            matching_fn=self._match,
            # How long a track lives is decided here: motpy's staleness also grows over gaps that were closed again.
            tracker_kwargs={"max_staleness": np.inf},
            active_tracks_kwargs={"max_staleness_to_positive_ratio": np.inf, "max_staleness": np.inf},
        )
        self._tracks: dict[str, Track] = {}

    def step(self, detections: Regions, width: int, height: int) -> list[Sighting]:
        scale = _MODEL_WIDTH / max(width, height)
        boxes = detections.boxes.astype(np.float64) * scale
        active = self._motpy.step([MotDetection(box=box) for box in boxes])
        places = {track.id: (np.asarray(track.box) / scale).astype(np.float32) for track in active}
        names = self._names(detections.boxes, places)
        sightings = [self._see(name, detections, index) for index, name in enumerate(names)]
        for name in list(self._tracks):
            track = self._tracks[name]
            if name not in names:
                track.misses += 1
                place = places.get(name)
                track.predicted = place if place is not None and np.isfinite(place).all() else None
                if track.misses == 1 and track.outline is not None:
                    track.outline = track.outline.kept()
            if track.misses > self._hold:
                del self._tracks[name]
        self._motpy.trackers = [track for track in self._motpy.trackers if track.id in self._tracks]
        return sightings

    def _names(self, boxes: npt.NDArray[np.float32], places: dict[str, npt.NDArray[np.float32]]) -> list[str]:
        """The id that motpy has for every detection: those it matched, and the new tracks by their place."""
        names = [self._match.matched.get(index, "") for index in range(len(boxes))]
        fresh = [name for name in places if name not in self._tracks and name not in names]
        for index, name in enumerate(names):
            if name:
                continue
            if fresh:
                # A new track stands where its detection is, so the nearest one is its own.
                distances = [float(np.abs(places[candidate] - boxes[index]).sum()) for candidate in fresh]
                names[index] = fresh.pop(int(np.argmin(distances)))
            else:
                # motpy drops tracks whose numbers have gone wrong.
                names[index] = str(uuid.uuid4())
        return names

    def _see(self, name: str, detections: Regions, index: int) -> Sighting:
        box, score, outline = detections.boxes[index], float(detections.scores[index]), detections.outline(index)
        track = self._tracks.get(name)
        if track is None:
            track = Track(self._next_id(), self._kind, box, score, outline=outline)
            self._tracks[name] = track
            return Sighting(track.id, self._kind, box, score, None, 0, 1, outline)
        gap, hits = track.misses + 1, track.hits + 1
        sighting = Sighting(track.id, self._kind, box, score, track.box, gap, hits, outline, track.outline)
        track.speed = geometry.shift(track.box, box) / np.float32(gap)
        track.box, track.score, track.outline, track.misses, track.hits = box, score, outline, 0, hits
        return sighting

    def held(self, width: int, height: int) -> Regions:
        """Tracks that were missed now: the places where they may be in one box, grown, and their masks likewise."""
        missed = [track for track in self._tracks.values() if track.misses]
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
    expected = track.box + track.speed * np.float32(track.misses)
    places = geometry.union_box(track.box, expected)
    if track.predicted is not None:
        expected = track.predicted
        places = geometry.union_box(places, expected)
    growth = _GROWTH_PER_MISS if track.hits > 1 else _GROWTH_WITHOUT_SPEED
    # The share is of the region's own size: a long way must not make it grow more.
    grown = geometry.grow_like(places, track.box, min(_LARGEST_GROWTH, growth * track.misses))
    return Move(track.box, expected, places[0], grown[0])

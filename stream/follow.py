"""Follower: from what was detected in each frame to what is covered in it.

The regions of a frame are all detections, all held and all looked-ahead regions and those given by hand. With
`lookahead`, frames wait until the detections of as many later frames are known: a track that begins is carried
back, and a track that comes back after a gap is covered on the way between its two ends.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stream import geometry
from stream.frame import Frame
from stream.manual import ManualRegions
from stream.regions import Origin, Regions
from stream.tracker import Sighting, Tracker

#: A region that is carried back grows by this share of its size with every frame ...
_GROWTH_PER_FRAME = 0.08
#: ... up to this.
_LARGEST_GROWTH = 0.6


@dataclass(frozen=True, slots=True)
class Look:
    """What a detector saw in one frame.

    Attributes:
        frame: as decoded.
        detections: its regions; empty where `failure` is set.
        failure: why the frame could not be looked at; it is then withheld.
    """

    frame: Frame
    detections: Regions
    failure: str | None = None


@dataclass(slots=True)
class Followed:
    """A frame with all its regions, ready to be covered.

    Attributes:
        frame: as decoded.
        regions: everything that has to be covered.
        failure: why the frame is withheld, None if it is not.
    """

    frame: Frame
    regions: Regions
    failure: str | None


@dataclass(slots=True)
class _Waiting:
    look: Look
    parts: list[Regions] = field(default_factory=list)

    def done(self) -> Followed:
        return Followed(self.look.frame, Regions.concatenate(self.parts), self.look.failure)


class Follower:
    """Joins the detections of one stream over time.

    Args:
        hold: frames for which a missed track is kept.
        lookahead: frames by which the output lags behind, to cover what is detected late.
        manual: regions given by hand.
    """

    def __init__(self, *, hold: int, lookahead: int, manual: ManualRegions | None = None) -> None:
        self._hold = hold
        self._lookahead = lookahead
        self._manual = manual
        self._tracker = Tracker(hold)
        self._waiting: deque[_Waiting] = deque()
        self._size: tuple[int, int] | None = None
        self._tracks_of_earlier_sizes = 0

    @property
    def tracks_begun(self) -> int:
        """How many tracks there were so far."""
        return self._tracks_of_earlier_sizes + self._tracker.tracks_begun

    def push(self, look: Look) -> list[Followed]:
        """Take the next frame; give the frames (none or one, more when the size changes) that are complete."""
        done: list[Followed] = []
        size = (look.frame.width, look.frame.height)
        if size != self._size:
            # Places in frames of another size mean nothing here.
            done = self.flush()
            self._tracks_of_earlier_sizes += self._tracker.tracks_begun
            self._tracker = Tracker(self._hold)
            self._size = size
        step = self._tracker.step(look.detections, *size)
        for sighting in step.sightings:
            self._cover_earlier(sighting)
        entry = _Waiting(look, [step.regions])
        if self._manual is not None:
            entry.parts.append(self._manual.at(look.frame.time))
        self._waiting.append(entry)
        while len(self._waiting) > self._lookahead:
            done.append(self._waiting.popleft().done())
        return done

    def flush(self) -> list[Followed]:
        """The frames that still wait: nothing comes after them."""
        done = [entry.done() for entry in self._waiting]
        self._waiting.clear()
        return done

    def _cover_earlier(self, sighting: Sighting) -> None:
        """Add a sighting's region to the waiting frames before it, as far as it was missed there."""
        waiting = len(self._waiting)
        if sighting.previous is None:
            self._carry_back(sighting, sighting.box, np.zeros(4, np.float32), newest=waiting - 1)
            return
        if sighting.hits == 2:
            # Only now its speed is known: carried back again from its first detection, with that speed.
            speed = _centre_shift(sighting.previous, sighting.box) / np.float32(sighting.gap)
            self._carry_back(sighting, sighting.previous, speed, newest=waiting - 1 - sighting.gap)
        for missed in range(1, min(sighting.gap, waiting + 1)):
            between = geometry.interpolate(sighting.box, sighting.previous, missed / sighting.gap)
            self._add(
                waiting - missed,
                sighting,
                geometry.grow(between, _growth(min(missed, sighting.gap - missed))),
            )

    def _carry_back(
        self, sighting: Sighting, box: npt.NDArray[np.float32], speed: npt.NDArray[np.float32], newest: int
    ) -> None:
        """Cover `box` in the waiting frames from index `newest` back, moved against its speed."""
        for steps, index in enumerate(range(newest, -1, -1), start=1):
            moved = geometry.union_box(box, box - speed * np.float32(steps))
            self._add(index, sighting, geometry.grow(moved, _growth(steps)))

    def _add(self, index: int, sighting: Sighting, box: npt.NDArray[np.float32]) -> None:
        frame = self._waiting[index].look.frame
        if geometry.outside(box, frame.width, frame.height)[0]:
            return
        self._waiting[index].parts.append(
            Regions.of(
                box,
                sighting.kind,
                scores=[sighting.score],
                track_ids=[sighting.track_id],
                origin=Origin.LOOKED_AHEAD,
            )
        )


def _growth(frames: int) -> float:
    return min(_LARGEST_GROWTH, _GROWTH_PER_FRAME * frames)


def _centre_shift(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How far the centre moved, as (dx, dy, dx, dy)."""
    shift = (second[:2] + second[2:] - first[:2] - first[2:]) / 2
    return np.asarray(np.concatenate([shift, shift]), np.float32)

"""Follower: from what was detected in each frame to what is covered in it.

The regions of a frame are all detections, all held and all looked-ahead regions and those given by hand. With
`lookahead`, frames wait until the detections of as many later frames are known, and of one more, since the speed of a
track is known only with its second detection: a track that begins is carried back, and a track that comes back after a
gap is covered on the way between its two ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stream import geometry
from stream.frame import Frame
from stream.manual import ManualRegions
from stream.motion import Move, carry, carry_between
from stream.outline import Outline
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


@dataclass(frozen=True, slots=True)
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
    parts: list[Regions]
    failure: str | None = None

    def done(self) -> Followed:
        return Followed(self.look.frame, Regions.concatenate(self.parts), self.failure)


class Follower:
    """Joins the detections of one stream over time.

    Args:
        hold: frames for which a missed track is kept.
        lookahead: frames before its first detection in which a track is covered; the output lags behind by one more.
        remember: frames after `hold` for which somebody who is seen again gets the track's name.
        manual: regions given by hand.
        make_tracker: gives a tracker that holds and remembers for so many frames.
    """

    def __init__(
        self,
        *,
        hold: int,
        lookahead: int,
        remember: int = 0,
        manual: ManualRegions | None = None,
        make_tracker: Callable[[int, int], Tracker] = Tracker,
    ) -> None:
        self._hold = hold
        self._remember = remember
        self._lag = lookahead + 1 if lookahead else 0
        self._manual = manual
        self._make_tracker = make_tracker
        self._tracker = make_tracker(hold, remember)
        self._waiting: deque[_Waiting] = deque()
        self._size: tuple[int, int] | None = None
        self._source: str | None = None
        self._tracks_of_earlier_ones = 0
        self._blind = 0
        self._blind_because = ""

    @property
    def tracks_begun(self) -> int:
        """How many tracks there were so far."""
        return self._tracks_of_earlier_ones + self._tracker.tracks_begun

    def push(self, look: Look) -> list[Followed]:
        """Take the next frame; give the frames (none or one, more when the size changes) that are complete.

        Where following itself fails, tracks are lost that the waiting frames and the next `hold` frames would have been
        covered by, so all these frames are withheld.
        """
        done: list[Followed] = []
        size = (look.frame.width, look.frame.height)
        if self._size is not None and (size != self._size or self._is_another(look.frame)):
            # Places in frames of another size mean nothing here.
            done = self.flush()
            self._begin_again()
        self._size, self._source = size, look.frame.source
        try:
            entry = self._join(look, *size)
        except Exception as error:  # noqa: BLE001  whatever went wrong, something may be left uncovered
            self._lose_tracks(f"tracking failed: {one_line(error)}")
            entry = _Waiting(look, [look.detections])
        if self._blind:
            self._blind -= 1
            entry.failure = entry.failure or self._blind_because
        self._waiting.append(entry)
        while len(self._waiting) > self._lag:
            done.append(self._waiting.popleft().done())
        return done

    def flush(self) -> list[Followed]:
        """The frames that still wait: nothing comes after them."""
        done = [entry.done() for entry in self._waiting]
        self._waiting.clear()
        return done

    def _join(self, look: Look, width: int, height: int) -> _Waiting:
        step = self._tracker.step(look.detections, width, height)
        for sighting in step.sightings:
            self._cover_earlier(sighting)
        entry = _Waiting(look, [step.regions], look.failure)
        if self._manual is not None:
            entry.parts.append(self._manual.at(look.frame.elapsed))
        return entry

    def _is_another(self, frame: Frame) -> bool:
        """Whether it is an image that has nothing to do with the last one: strangers must not share a stand-in."""
        return frame.source != self._source and not (self._hold or self._lag)

    def _begin_again(self) -> None:
        self._tracks_of_earlier_ones += self._tracker.tracks_begun
        self._tracker = self._make_tracker(self._hold, self._remember)
        # An id that came back would bring a lost track's stand-in back, on another person.
        self._tracker.first_id += self._tracks_of_earlier_ones

    def _lose_tracks(self, reason: str) -> None:
        self._begin_again()
        for waiting in self._waiting:
            waiting.failure = waiting.failure or reason
        # This frame and those in which the lost tracks would have been held.
        self._blind, self._blind_because = self._hold + 1, reason

    def _cover_earlier(self, sighting: Sighting) -> None:
        """Add a sighting's region to the waiting frames before it, as far as it was missed there."""
        waiting, previous = len(self._waiting), sighting.previous
        if not waiting:
            return
        if previous is None:
            self._carry_back(sighting, sighting.box, sighting.outline, np.zeros(4, np.float32), newest=waiting - 1)
            return
        if sighting.hits == 2:
            # Only now its speed is known: carried back again from its first detection, with that speed.
            speed = geometry.shift(previous, sighting.box) / np.float32(sighting.gap)
            newest = waiting - 1 - sighting.gap
            self._carry_back(sighting, previous, sighting.previous_outline, speed, newest)
        if sighting.gap > 1:
            self._close_gap(sighting, previous)

    def _close_gap(self, sighting: Sighting, previous: geometry.Floats) -> None:
        """Cover the straight way from the detection before to this one."""
        ends = (sighting.box, _kept(sighting.outline)), (previous, _kept(sighting.previous_outline))
        for missed in range(1, min(sighting.gap, len(self._waiting) + 1)):
            nearest = min(missed, sighting.gap - missed)
            between = geometry.interpolate(sighting.box, previous, missed / sighting.gap)[0]
            region = geometry.grow(between, _growth(nearest))[0]
            frame = self._waiting[-missed].look.frame
            near, far = ends if nearest == missed else ends[::-1]
            self._add(-missed, sighting, *carry_between(near, far, between, region, (frame.width, frame.height)))

    def _carry_back(
        self, sighting: Sighting, box: geometry.Floats, outline: Outline | None, speed: geometry.Floats, newest: int
    ) -> None:
        """Cover `box` in the waiting frames from index `newest` back, moved against its speed."""
        if newest < 0:
            return
        kept = _kept(outline)
        for steps, index in enumerate(range(newest, -1, -1), start=1):
            expected = box - speed * np.float32(steps)
            places = geometry.union_box(box, expected)
            region = geometry.grow_like(places, box, _growth(steps))[0]
            frame = self._waiting[index].look.frame
            carried = carry(kept, Move(box, expected, places[0], region), frame.width, frame.height)
            self._add(index, sighting, *carried)

    def _add(self, index: int, sighting: Sighting, box: geometry.Floats, outline: Outline | None) -> None:
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
                outlines=None if outline is None else [outline],
            )
        )


def _kept(outline: Outline | None) -> Outline | None:
    return None if outline is None else outline.kept()


def one_line(error: Exception) -> str:
    """What an error says, as one line that is never empty."""
    return " ".join(str(error).split()) or type(error).__name__


def _growth(frames: int) -> float:
    return min(_LARGEST_GROWTH, _GROWTH_PER_FRAME * frames)

"""Consistency: whether a track's stand-in stays the same from frame to frame.

What a stand-in looks like is told by the colours of its core: their distribution in each channel of CIE Lab, in
sixteen steps, cumulated, so that the distance between two of them is how far colours moved (the earth mover's distance)
and does not jump where a colour crosses from one step to the next. An identity switch is a jump that stays; flicker is
what moves from each frame to the next without staying. What the original does itself (a cloud, a lamp) is no fault of
the stand-in, so both are set against it. `stream.verify.perceptual` looks at more than colours, with a network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import cv2
import numpy as np

from stream.frame import Image
from stream.outline import PixelMask
from stream.regions import Kind
from stream.verify.record import FileRecord, FrameRecord, Looks, RegionRecord

_STEPS: Final = 16
#: Pixels from which colours say something.
_ENOUGH: Final = 16
#: A jump of a stand-in: from this share of a channel's range on, ...
_JUMP: Final = 0.1
#: ... so many times as far as the original moved, and as this track usually moves.
_TIMES_ORIGINAL, _TIMES_USUAL = 2.5, 4.0
#: A switch stays: so much of the jump is left between the frames before and after it ...
_STAYS: Final = 0.7
#: ... of which so many are taken on either side.
_AROUND: Final = 3


@dataclass(frozen=True, slots=True)
class Switch:
    """A stand-in that became another one.

    Attributes:
        kind: of the track.
        track: which.
        index: of the first frame with the new stand-in, in the original.
        time: of that frame, in seconds.
        jump: how far the colours moved, as a share of a channel's range.
        original: how far those of the original moved.
    """

    kind: Kind
    track: int
    index: int
    time: float
    jump: float
    original: float


@dataclass(frozen=True, slots=True)
class Flicker:
    """How much stand-ins move in colour from one compared frame to the next; all as shares of a channel's range.

    Attributes:
        pairs: how many steps of tracks were measured.
        mean: of the output.
        worst: the largest step that was no switch.
        original: mean of the original, at the same places.
    """

    pairs: int
    mean: float
    worst: float
    original: float


@dataclass(frozen=True, slots=True)
class Steadiness:
    """What colours say of one clip's stand-ins; see the functions of these names."""

    switches: tuple[Switch, ...]
    flicker: Flicker
    colour_steps: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Run:
    """Frames in which a track was left raw, and none in which it was covered between them.

    Attributes:
        kind: of the track.
        track: which.
        frames: of the run.
        first: whether the track begins with it.
        ends: whether the track is covered after it.
        most: the largest share of the region that is raw.
        known: whether the run's report has the person at the beginning.
    """

    kind: Kind
    track: int
    frames: tuple[FrameRecord, ...]
    first: bool
    ends: bool
    most: float
    known: bool


def looks(image: Image, core: PixelMask) -> Looks | None:
    """Colours of a region's core, float32 (3, 16); None where it is too small.

    Args:
        image: uint8 RGB (height, width, 3).
        core: its pixels in the image.
    """
    height, width = image.shape[:2]
    core = core.within((0, 0, width, height))
    if core.area < _ENOUGH:
        return None
    x0, y0, x1, y1 = core.box
    lab = cv2.cvtColor(np.ascontiguousarray(image[y0:y1, x0:x1]), cv2.COLOR_RGB2LAB)[core.pixels]
    counts = np.stack([np.histogram(lab[:, channel], _STEPS, (0, 256))[0] for channel in range(3)])
    return np.asarray(np.cumsum(counts, axis=1) / len(lab), np.float32)


def distance(first: Looks, second: Looks) -> float:
    """How far colours moved, as a share of a channel's range, in the channel in which they moved the furthest."""
    return float(np.abs(first - second).mean(axis=1).max())


def tracks_of(frames: Iterable[FrameRecord]) -> dict[int, list[tuple[FrameRecord, RegionRecord]]]:
    """The regions of every track, in order."""
    found: dict[int, list[tuple[FrameRecord, RegionRecord]]] = {}
    for frame in frames:
        for region in frame.regions:
            found.setdefault(region.track, []).append((frame, region))
    return found


def settle(record: FileRecord) -> None:
    """Works out what colours say, and forgets them: of an archive they would fill the memory."""
    record.steady = Steadiness(tuple(switches(record)), flicker(record), tuple(colour_steps(record)))
    for _, region in record.regions:
        region.looks_before = region.looks_after = None


def switches(record: FileRecord) -> list[Switch]:
    """Stand-ins that became others, in order of their frames."""
    if record.steady is not None:
        return list(record.steady.switches)
    found: list[Switch] = []
    for seen in tracks_of(record.frames).values():
        if seen[0][1].kind not in record.seen_through:
            found += _switches(_covered(seen), record.step)
    return sorted(found, key=lambda switch: (switch.index, switch.track))


def flicker(record: FileRecord) -> Flicker:
    """How much stand-ins move in colour, switches left out."""
    if record.steady is not None:
        return record.steady.flicker
    known = {(switch.track, switch.index) for switch in switches(record)}
    after: list[float] = []
    before: list[float] = []
    for track, seen in tracks_of(record.frames).items():
        for (one, first), (other, second) in pairwise(_covered(seen)):
            if (track, other.index) in known or not _next(one, other, record.step):
                continue
            steps = _steps(first, second)
            if steps is not None:
                after.append(steps[0])
                before.append(steps[1])
    if not after:
        return Flicker(0, 0.0, 0.0, 0.0)
    return Flicker(len(after), float(np.mean(after)), max(after), float(np.mean(before)))


def colour_steps(record: FileRecord) -> list[tuple[float, float]]:
    """The largest step of any track's stand-in at every compared frame: time in seconds, and share of the range."""
    if record.steady is not None:
        return list(record.steady.colour_steps)
    largest: dict[float, float] = {frame.time: 0.0 for frame in record.frames}
    for seen in tracks_of(record.frames).values():
        for (one, first), (other, second) in pairwise(_covered(seen)):
            steps = _steps(first, second)
            if steps is not None and _next(one, other, record.step):
                largest[other.time] = max(largest[other.time], steps[0])
    return list(largest.items())


def raw_runs(record: FileRecord) -> list[Run]:
    """Where tracks were left raw, in order of their frames."""
    found: list[Run] = []
    for track, everywhere in tracks_of(record.frames).items():
        # Where a track cannot be judged, was not seen, or is raw in part, it may be as raw as before and after.
        judged = [(frame, region) for frame, region in everywhere if region.raw.judged]
        seen = [(frame, region) for frame, region in judged if region.is_raw or not region.share]
        run: list[tuple[FrameRecord, RegionRecord]] = []
        for place, (frame, region) in enumerate(seen):
            if not region.is_raw:
                continue
            run.append((frame, region))
            if place + 1 == len(seen) or not seen[place + 1][1].is_raw:
                found.append(
                    Run(
                        region.kind,
                        track,
                        tuple(frame for frame, _ in run),
                        first=run[0][0] is seen[0][0],
                        ends=place + 1 < len(seen),
                        most=max(region.share for _, region in run),
                        known=bool(run[0][1].reported),
                    )
                )
                run = []
    return sorted(found, key=lambda item: (item.frames[0].index, item.track))


def _covered(seen: Sequence[tuple[FrameRecord, RegionRecord]]) -> list[tuple[FrameRecord, RegionRecord]]:
    """Where a stand-in is: not in flat frames, and not where the track is raw, in whole or in part."""
    return [
        (frame, region)
        for frame, region in seen
        if not frame.flat
        and not region.only_after
        and not region.share
        and region.looks_after is not None
        and region.looks_before is not None
    ]


def _steps(first: RegionRecord, second: RegionRecord) -> tuple[float, float] | None:
    if first.looks_after is None or second.looks_after is None:
        return None
    if first.looks_before is None or second.looks_before is None:
        return None
    return distance(first.looks_after, second.looks_after), distance(first.looks_before, second.looks_before)


def follows(seconds: float, step: float) -> bool:
    """Whether a frame so much later is about the next that was compared."""
    return seconds <= 3.5 * step


def _next(one: FrameRecord, other: FrameRecord, step: float) -> bool:
    return follows(other.time - one.time, step)


def _switches(seen: Sequence[tuple[FrameRecord, RegionRecord]], step: float) -> list[Switch]:
    moved = [_steps(first, second) for (_, first), (_, second) in pairwise(seen)]
    sizes = [pair[0] for pair in moved if pair is not None]
    if not sizes:
        return []
    usual = float(np.median(sizes))
    found: list[Switch] = []
    for place, pair in enumerate(moved):
        if pair is None or not _next(seen[place][0], seen[place + 1][0], step):
            continue
        jump, original = pair
        # One switch does not make its neighbours usual: with few steps, the median may hold it itself.
        ordinary = usual if len(sizes) > 2 * _AROUND else min(sizes)
        if jump < _JUMP or jump < _TIMES_ORIGINAL * original or jump < _TIMES_USUAL * ordinary:
            continue
        before = [region.looks_after for _, region in seen[max(0, place + 1 - _AROUND) : place + 1]]
        after = [region.looks_after for _, region in seen[place + 1 : place + 1 + _AROUND]]
        if distance(_mean(before), _mean(after)) >= _STAYS * jump:
            frame, region = seen[place + 1]
            found.append(Switch(region.kind, region.track, frame.index, frame.time, jump, original))
    return found


def _mean(found: Sequence[Looks | None]) -> Looks:
    return np.asarray(np.mean([entry for entry in found if entry is not None], axis=0), np.float32)

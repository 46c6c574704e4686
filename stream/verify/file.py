"""One file and its result, frame by frame: from two sources to a record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from engines.errors import SourceError, UsageError
from stream import geometry
from stream.frame import Frame, Image
from stream.outline import PixelMask
from stream.regions import Kind, Regions
from stream.sources.base import Source, StreamInfo
from stream.sources.images import ImageSource
from stream.sources.video import VideoSource
from stream.tracker import Tracker
from stream.verify.identity import Embedder, Identities
from stream.verify.pairs import FilePair, FramePairs, pair_times
from stream.verify.people import Lookout, found_again, seen_in_either
from stream.verify.perceptual import PerceptualLook, PerceptualSteps
from stream.verify.raw import Aligner, RawLook, background_of, cores
from stream.verify.record import Case, FileRecord, FrameRecord, RegionRecord
from stream.verify.run_report import ReportCheck, ReportFrame, RunReport, is_reported
from stream.verify.streams import left_in_image, left_metadata, left_streams
from stream.verify.tracks import looks, settle

#: Compared frames for which a track that was missed goes on.
_HOLD: Final = 10
#: Of a picture that is flat: spread of its levels, which an encoder may add.
_FLAT: Final = 12
#: Mean differences, in levels, of pictures 64 pixels wide: the same picture, and one that moved.
_SAME, _MOVED = 0.1, 1.0
_SMALL: Final = (64, 36)
#: Cases that are kept, and their pictures' longer side.
_CASES, _CASE_SIDE = 8, 360
#: What of a case's surroundings is shown, as a share of the region's sides.
_CONTEXT: Final = 0.6
_DECIMALS: Final = 4

#: Is told the file's name, how many frames were compared, and how many there will be.
Progress = Callable[[str, int, int], object]


@dataclass(frozen=True, slots=True)
class FileTools:
    """What looks at files.

    Attributes:
        lookout: finds faces and persons.
        embedder: tells people apart, None if that is not asked for.
        perceptual: tells how far pictures look apart, None if that is not asked for.
        every: of so many frames one is compared.
        progress: is told how far it is.
    """

    lookout: Lookout
    embedder: Embedder | None = None
    perceptual: PerceptualLook | None = None
    every: int = 1
    progress: Progress = lambda _name, _done, _all: None


def look_at(pair: FilePair, tools: FileTools, report: RunReport | None = None) -> FileRecord:
    """Compares a file with its result.

    Args:
        pair: the two.
        tools: that look.
        report: of the run that made the result, None if it is not known.

    Raises:
        SourceError: one cannot be read, or pictures differ in size.
        UsageError: no frames belong together.
    """
    original, output = _read_times(pair, before=True), _read_times(pair, before=False)
    if original.size != output.size:
        sizes = [f"{width}x{height}" for width, height in (original.size, output.size)]
        raise SourceError(f"{pair.name}: the original is {sizes[0]}, the output {sizes[1]}; sizes must agree")
    chosen, times = _in_run(original, report)
    start = report.start if report is not None else 0.0
    pairing = _moved(pair_times([time - start for time in times], output.times), chosen)
    if not pairing.pairs:
        raise UsageError(f"{pair.name}: no frame of the output has the time of one of the original; is it its result?")
    record = FileRecord(
        pair.name,
        original.size,
        (len(times), len(output.times)),
        pairing=pairing,
        unread=(*original.unread, *output.unread),
        seen_through=report.seen_through if report is not None else frozenset(),
    )
    if pair.still:
        record.streams, record.metadata = left_in_image(pair.anonymized)
    else:
        record.streams, record.metadata = left_streams(pair.anonymized), left_metadata(pair.anonymized)
    tools.lookout.reset()
    _FileLook(record, tools, report, dict(zip(times, chosen, strict=True))).run(pair)
    return record


@dataclass(frozen=True, slots=True)
class _Times:
    times: list[float]
    size: tuple[int, int]
    begin: float
    unread: tuple[str, ...]


def _open(pair: FilePair, *, before: bool) -> Source:
    path = pair.original if before else pair.anonymized
    return ImageSource(path) if pair.still else VideoSource(path)


def _time(frame: Frame, still: bool) -> float:
    return 0.0 if still else frame.time


def _read_times(pair: FilePair, *, before: bool) -> _Times:
    source = _open(pair, before=before)
    try:
        times = [_time(frame, pair.still) for frame in source]
        info: StreamInfo = source.info
        begin = 0.0 if pair.still else float(info.start_pts * info.time_base)
        return _Times(times, (info.width, info.height), begin, source.problems())
    finally:
        source.close()


def _in_run(original: _Times, report: RunReport | None) -> tuple[list[int], list[float]]:
    """Places and times of the frames that the run had: it may have been told to take a part."""
    first = original.begin + (report.start if report is not None else 0.0) - 10**-_DECIMALS
    last = np.inf if report is None or report.end is None else original.begin + report.end - 10**-_DECIMALS
    chosen = [place for place, time in enumerate(original.times) if first <= time < last]
    return chosen, [original.times[place] for place in chosen]


def _moved(pairing: FramePairs, chosen: Sequence[int]) -> FramePairs:
    """With the places that frames have in the whole original."""
    if chosen and chosen[0] == 0:
        return pairing
    pairs = tuple((chosen[i], j) for i, j in pairing.pairs)
    missing = tuple(chosen[i] for i in pairing.missing)
    return FramePairs(pairs, missing, pairing.extra, pairing.shifted, pairing.offset)


def matched(pair: FilePair, pairing: FramePairs, every: int) -> Iterator[tuple[int, Frame, Frame]]:
    """Frames that belong together, of so many one: place in the original, frame before and after.

    Args:
        pair: the two files.
        pairing: which frames belong together.
        every: of so many frames of the original one is taken.
    """
    wanted = [(i, j) for i, j in pairing.pairs if i % every == 0] or list(pairing.pairs[:1])
    before, after = _open(pair, before=True), _open(pair, before=False)
    try:
        first, second = enumerate(before), enumerate(after)
        for i, j in wanted:
            one = next((frame for place, frame in first if place == i), None)
            other = next((frame for place, frame in second if place == j), None)
            if one is None or other is None:
                return
            yield i, one, other
    finally:
        before.close()
        after.close()


@dataclass(slots=True)
class _FileLook:
    """Looks at the frames of one file."""

    record: FileRecord
    tools: FileTools
    report: RunReport | None
    places: Mapping[float, int]
    aligner: Aligner = field(default_factory=Aligner)
    #: By track, and the number of times that it was left raw.
    cases: dict[tuple[int, int], Case] = field(default_factory=dict)
    times_raw: dict[int, tuple[int, int]] = field(default_factory=dict)
    last: tuple[int, npt.NDArray[np.float32], npt.NDArray[np.float32]] | None = None

    def run(self, pair: FilePair) -> None:
        record, report = self.record, self.report
        tracker = Tracker(_HOLD)
        identities = None if self.tools.embedder is None else Identities(self.tools.embedder)
        steps = None if self.tools.perceptual is None else PerceptualSteps(self.tools.perceptual)
        check = None if report is None else ReportCheck(report, self.places)
        entries = {} if report is None else report.by_time()
        count = max(1, sum(i % self.tools.every == 0 for i, _ in record.pairing.pairs))
        for done, (index, before, after) in enumerate(matched(pair, record.pairing, self.tools.every)):
            time = _time(before, pair.still)
            entry = entries.get(round(time, _DECIMALS))
            frame, look = self._frame(index, time, before, after, tracker, entry)
            record.frames.append(frame)
            if check is not None and entry is not None and look is not None:
                check.add(index, entry, look, flat=frame.flat)
            if identities is not None and not frame.flat:
                for region in frame.regions:
                    if region.only_after:
                        continue
                    identities.add(region.track, region.kind, region.box, before.image, after.image)
            if steps is not None:
                steps.add(frame, before.image, after.image)
            self.tools.progress(record.name, done + 1, count)
        if len(record.frames) < count:
            # What changes while it is read must not end as a clean result.
            lost = f"{count - len(record.frames)} of {count} frames were there at first, and could not be read again"
            record.unread = (*record.unread, lost)
        times = [frame.time for frame in record.frames]
        record.step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        record.cases = sorted(self.cases.values(), key=lambda case: -case.badness)[:_CASES]
        record.moved = self.aligner.moved
        record.identity = None if identities is None else identities.result()
        record.perceptual = None if steps is None else steps.result(record.step)
        record.claims = [] if check is None else check.claims()
        settle(record)

    def _frame(
        self, index: int, time: float, before: Frame, after: Frame, tracker: Tracker, entry: ReportFrame | None
    ) -> tuple[FrameRecord, RawLook | None]:
        frame = FrameRecord(index, time, flat=is_flat(after.image), damaged=before.damaged, lost=after.damaged)
        if frame.damaged is not None or frame.lost is not None:
            tracker.step(Regions.empty(), before.width, before.height)
            return frame, None
        self._note_repetition(frame, before.image, after.image)
        found, again = self.tools.lookout.look(before), self.tools.lookout.look(after)
        frame.looked = found is not None and again is not None
        original, output = (Regions.empty() if seen is None else seen for seen in (found, again))
        regions = seen_in_either(original, output)
        stepped = tracker.step(regions, before.width, before.height).regions
        # The tracker gives back all detections first, in their order, with names.
        regions = stepped[: len(regions)]
        frame.found = len(output)
        covered = regions.boxes if entry is None else np.concatenate([regions.boxes, entry.regions.boxes])
        look = self.aligner.look(before.image, after.image, background_of(before.image.shape[:2], covered))
        frame.noise = look.noise
        frame.foreign = look.foreign and not frame.flat
        self._add_regions(frame, regions, output, look, before.image, after.image)
        for region in frame.regions[len(original) :]:
            region.only_after = True
        if entry is not None and not entry.withheld:
            self._check_reported(frame, regions, entry, before)
        return frame, look

    def _add_regions(
        self, frame: FrameRecord, regions: Regions, output: Regions, look: RawLook, before: Image, after: Image
    ) -> None:
        again = found_again(regions, output)
        for row, core in enumerate(cores(regions)):
            x0, y0, x1, y1 = (float(value) for value in regions.boxes[row])
            region = RegionRecord(
                kind=Kind(int(regions.kinds[row])),
                box=(x0, y0, x1, y1),
                score=float(regions.scores[row]),
                track=int(regions.track_ids[row]),
                raw=look.share(core),
                again=bool(again[row]),
                looks_before=looks(before, core),
                looks_after=looks(after, core),
            )
            frame.regions.append(region)
            if region.is_raw and not frame.flat:
                self._keep(_case(frame, region, core, look, before, after))

    def _keep(self, case: Case) -> None:
        """One case for every time that a track was left raw, the worst, and no more in all than are shown."""
        track = case.region.track
        number, last = self.times_raw.get(track, (0, -1))
        if last >= 0 and case.index - last > 2 * self.tools.every:
            number += 1
        self.times_raw[track] = number, case.index
        known = self.cases.get((track, number))
        if known is None or case.badness > known.badness:
            self.cases[track, number] = case
        if len(self.cases) > 2 * _CASES:
            self.cases = dict(sorted(self.cases.items(), key=lambda item: -item[1].badness)[:_CASES])

    def _check_reported(self, frame: FrameRecord, regions: Regions, entry: ReportFrame, before: Frame) -> None:
        for core, region in zip(cores(regions), frame.regions, strict=True):
            region.reported = is_reported(core, entry.regions, before.width, before.height)
        if any(region.reported is False for region in frame.regions):
            self.record.unreported.append(frame.index)

    def _note_repetition(self, frame: FrameRecord, before: Image, after: Image) -> None:
        """Whether the output stands still while the original goes on; seen only where no frame is left out between."""
        old, new = (
            np.asarray(cv2.resize(i, _SMALL, interpolation=cv2.INTER_AREA), np.float32) for i in (before, after)
        )
        if self.last is not None and self.last[0] == frame.index - 1 and not frame.flat:
            still = float(np.abs(new - self.last[2]).mean()) <= _SAME
            frame.repeated = still and float(np.abs(old - self.last[1]).mean()) >= _MOVED
        self.last = (frame.index, old, new)


def is_flat(image: Image) -> bool:
    """Whether a picture is of one colour, give or take what an encoder adds."""
    levels = image[::4, ::4].reshape(-1, 3)
    low, high = np.percentile(levels, (1, 99), axis=0)
    return bool((high - low).max() <= _FLAT)


def _case(
    frame: FrameRecord, region: RegionRecord, core: PixelMask, look: RawLook, before: Image, after: Image
) -> Case:
    """Cuts out a region and what is round it."""
    height, width = before.shape[:2]
    x0, y0, x1, y1 = geometry.to_pixels(geometry.grow(region.box, _CONTEXT), width, height)[0].tolist()
    inside = core.within((0, 0, width, height))
    raw = np.zeros((y1 - y0, x1 - x0), np.bool_)
    PixelMask(inside.x0, inside.y0, look.raw_pixels(inside)).paint(PixelMask(x0, y0, raw))
    scale = min(1.0, _CASE_SIDE / max(x1 - x0, y1 - y0))
    size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    small = [_shrunk(image[y0:y1, x0:x1], size) for image in (before, after)]
    bx0, by0, bx1, by1 = geometry.to_pixels(region.box, width, height)[0].tolist()
    box = tuple(round(value * scale) for value in (bx0 - x0, by0 - y0, bx1 - x0, by1 - y0))
    shown = cv2.resize(raw.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    return Case(
        frame.index, frame.time, region, small[0], small[1], np.asarray(shown), (box[0], box[1], box[2], box[3])
    )


def _shrunk(image: Image, size: tuple[int, int]) -> Image:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)

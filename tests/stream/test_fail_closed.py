"""Nothing leaves raw, whatever fails: real files in and out, flat fill, lossless, compared pixel by pixel.

Every guard has its control: the same run with the guard switched off shows raw pixels, so the comparison can see them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from engines.errors import SinkError, SourceError
from stream.anonymizer import Anonymized, Anonymizer
from stream.config import RunSettings
from stream.follow import Followed, Follower, Look
from stream.frame import WITHHELD_LEVEL, Frame, Image
from stream.generators.classical import Fill
from stream.manual import ManualRegion, ManualRegions
from stream.pipeline import Pipeline
from stream.regions import Kind, Regions
from stream.run import RunResult, run
from stream.sinks.video import VideoSink
from stream.sources.video import VideoSource
from stream.tracker import Tracker
from tests.fakes import (
    FILLS,
    Box,
    FailingTracker,
    FixedDetector,
    FunctionDetector,
    TransparentAnonymizer,
    covered_share,
    faces,
    finishes_within,
    flat_settings,
    noise,
    number,
    read_pictures,
    whole,
    write_lossless,
)

FACE: Box = (20, 10, 40, 34)
COUNT = 24
#: Frames in which things go wrong.
BAD = range(8, 13)


@pytest.fixture(scope="module")
def images() -> list[Image]:
    return noise(COUNT)


@pytest.fixture(scope="module")
def clip(images: list[Image], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_lossless(tmp_path_factory.mktemp("clip") / "in.mkv", images)
    assert all(np.array_equal(a, b) for a, b in zip(read_pictures(path), images, strict=True)), "the clip is not exact"
    return path


def go(clip: Path, output: Path, anonymizer: Anonymizer, seconds: float = 20, **settings: object) -> RunResult:
    chosen = RunSettings.model_validate({"codec": "ffv1", **settings})
    return finishes_within(seconds, lambda: run(clip, output, chosen, anonymizer=anonymizer))


def is_withheld(image: Image) -> bool:
    return bool((image == WITHHELD_LEVEL).all())


def shows_raw_face(image: Image, raw: Image) -> bool:
    return bool((whole(image, FACE) == whole(raw, FACE)).all(axis=2).any())


def check_closed(out: Sequence[Image], raw: Sequence[Image], withheld: set[int]) -> None:
    """Withheld frames are flat, in all others exactly the face is covered and the rest is untouched."""
    assert withheld == {i for i, image in enumerate(out) if is_withheld(image)}
    for index, image in enumerate(out):
        assert not shows_raw_face(image, raw[index])
        if index not in withheld:
            assert covered_share(image, FACE) == 1
            expected = raw[index].copy()
            whole(expected, FACE)[:] = 0
            assert np.array_equal(image, expected)


def raising(frame: Frame) -> Regions:
    raise RuntimeError("the network is broken")


def unchecked(boxes: object, scores: object) -> Regions:
    """Regions as a detector could build them that gets round the checks of the class."""
    regions = object.__new__(Regions)
    values = {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "scores": np.array(scores, np.float32),
        "kinds": np.full(1, Kind.FACE, np.uint8),
        "track_ids": np.full(1, -1, np.int64),
        "origins": np.zeros(1, np.uint8),
    }
    for name, value in values.items():
        object.__setattr__(regions, name, value)
    return regions


NAN, INF = float("nan"), float("inf")
WRONG_ANSWERS: dict[str, Callable[[Frame], object]] = {
    "raises": raising,
    "NaN box": lambda _: unchecked([NAN, 10, 40, 34], [0.9]),
    "NaN box through the class": lambda _: faces((NAN, 10, 40, 34)),
    "infinite box": lambda _: unchecked([20, 10, INF, 34], [0.9]),
    "inside-out box": lambda _: unchecked([40, 34, 20, 10], [0.9]),
    "box without area": lambda _: faces((20, 10, 20, 34)),
    "huge box": lambda _: faces((-1e7, -1e7, 1e7, 1e7)),
    "NaN score": lambda _: unchecked(FACE, [NAN]),
    "NaN score through the class": lambda _: faces(FACE, score=NAN),
    "score over one": lambda _: faces(FACE, score=1.5),
    "negative score": lambda _: faces(FACE, score=-0.1),
    "nothing at all": lambda _: None,
    "something else": lambda _: [FACE],
    "StopIteration": lambda _: next(iter([])),
}


@pytest.mark.parametrize("answer", WRONG_ANSWERS.values(), ids=WRONG_ANSWERS.keys())
def test_a_detector_whose_answer_cannot_be_trusted_withholds_the_frame(
    answer: Callable[[Frame], Regions], clip: Path, images: list[Image], tmp_path: Path
) -> None:
    detector = FunctionDetector(lambda frame: answer(frame) if number(frame) in BAD else faces(FACE))
    result = go(clip, tmp_path / "out.mkv", Anonymizer([detector], FILLS, flat_settings()))
    out = read_pictures(tmp_path / "out.mkv")
    assert len(out) == COUNT
    check_closed(out, images, set(BAD))
    assert result.summary.withheld == len(BAD)
    assert sum(result.summary.reasons.values()) == len(BAD)


def test_control_without_the_guard_a_failing_detector_lets_raw_frames_out(
    clip: Path, images: list[Image], tmp_path: Path
) -> None:
    detector = FunctionDetector(lambda frame: raising(frame) if number(frame) in BAD else faces(FACE))
    go(clip, tmp_path / "out.mkv", TransparentAnonymizer([detector], FILLS, flat_settings()))
    out = read_pictures(tmp_path / "out.mkv")
    assert all(np.array_equal(out[i], images[i]) for i in BAD)
    with pytest.raises(AssertionError):
        check_closed(out, images, set(BAD))


def test_a_box_that_reaches_far_outside_the_frame_covers_what_lies_inside(
    clip: Path, images: list[Image], tmp_path: Path
) -> None:
    detector = FixedDetector((-60, -40, 40, 34))
    go(clip, tmp_path / "out.mkv", Anonymizer([detector], FILLS, flat_settings()))
    out = read_pictures(tmp_path / "out.mkv")
    assert len(out) == COUNT
    for image, raw in zip(out, images, strict=True):
        assert covered_share(image, (0, 0, 40, 34)) == 1
        assert np.array_equal(image[34:], raw[34:])


def test_frames_for_which_the_detector_hangs_are_withheld(clip: Path, images: list[Image], tmp_path: Path) -> None:
    hanging = {8, 9, 15}
    detector = FunctionDetector(lambda frame: hang(frame, hanging, seconds=0.6))
    result = go(clip, tmp_path / "out.mkv", Anonymizer([detector], FILLS, flat_settings(deadline=0.15)))
    check_closed(read_pictures(tmp_path / "out.mkv"), images, hanging)
    assert result.summary.frames == COUNT
    assert result.summary.stopped is None
    assert list(result.summary.reasons) == ["detection failed: detection gave no answer within 0.15 s"]


def hang(frame: Frame, numbers: set[int], seconds: float) -> Regions:
    if number(frame) in numbers:
        time.sleep(seconds)
    return faces(FACE)


@pytest.mark.parametrize("lookahead", [0, 3])
def test_a_detector_that_hangs_for_ever_ends_the_run_with_what_was_done(
    lookahead: int, clip: Path, images: list[Image], tmp_path: Path
) -> None:
    for_ever = threading.Event()

    def answer(frame: Frame) -> Regions:
        if number(frame) >= 10:
            for_ever.wait()
        return faces(FACE)

    settings = flat_settings(deadline=0.1, lookahead=lookahead)
    result = go(clip, tmp_path / "out.mkv", Anonymizer([FunctionDetector(answer)], FILLS, settings), seconds=10)
    for_ever.set()
    out = read_pictures(tmp_path / "out.mkv")
    # Ten good ones and the misses that it took to give up, less the one that raised.
    assert len(out) == 13
    check_closed(out, images[:13], {10, 11, 12})
    assert result.summary.stopped == "detection gave no answer within 0.1 s, 4 times in a row"


def test_one_of_two_detectors_that_hangs_for_ever_ends_the_run_too(clip: Path, tmp_path: Path) -> None:
    for_ever = threading.Event()
    hanging = FunctionDetector(lambda _: faces(FACE) if for_ever.wait() else faces())
    anonymizer = Anonymizer([FixedDetector(FACE), hanging], FILLS, flat_settings(deadline=0.1))
    result = go(clip, tmp_path / "out.mkv", anonymizer, seconds=10)
    for_ever.set()
    assert result.summary.stopped is not None
    assert all(is_withheld(image) for image in read_pictures(tmp_path / "out.mkv"))


def test_an_anonymizer_that_hangs_for_ever_ends_the_run(clip: Path, images: list[Image], tmp_path: Path) -> None:
    for_ever = threading.Event()
    calls: list[int] = []

    def fill(region: Image) -> Image:
        calls.append(1)
        if len(calls) > 5:
            for_ever.wait()
        return np.zeros_like(region)

    fills: dict[Kind, Fill] = dict.fromkeys(Kind, fill)
    anonymizer = Anonymizer([FixedDetector(FACE)], fills, flat_settings(deadline=0.1))
    result = go(clip, tmp_path / "out.mkv", anonymizer, seconds=10)
    for_ever.set()
    out = read_pictures(tmp_path / "out.mkv")
    check_closed(out, images[: len(out)], {5, 6, 7})
    assert len(out) == 8
    assert result.summary.stopped == "anonymization gave no answer within 0.1 s, 4 times in a row"


class BadFill:
    """Works until its n-th call, then does something wrong for five calls."""

    def __init__(self, wrong: Callable[[Image], Image]) -> None:
        self._wrong = wrong
        self._calls = 0

    def __call__(self, region: Image) -> Image:
        self._calls += 1
        return self._wrong(region) if self._calls - 1 in BAD else np.zeros_like(region)


def broken(region: Image) -> Image:
    raise RuntimeError("the generator is broken")


WRONG_FILLS: dict[str, Callable[[Image], object]] = {
    "raises": broken,
    "raises after writing into its input": lambda region: broken(np.add(region, 1, out=region)),
    "another size": lambda region: region[:-1],
    "one pixel, which would be spread": lambda region: region[:1, :1],
    "grey": lambda region: region[:, :, 0],
    "floats": lambda region: region.astype(np.float64),
    "NaN": lambda region: np.full(region.shape, np.nan),
    "nothing": lambda region: None,
}


@pytest.mark.parametrize("wrong", WRONG_FILLS.values(), ids=WRONG_FILLS.keys())
def test_an_anonymizer_that_does_not_return_pixels_withholds_the_frame(
    wrong: Callable[[Image], Image], clip: Path, images: list[Image], tmp_path: Path
) -> None:
    fills: dict[Kind, Fill] = dict.fromkeys(Kind, BadFill(wrong))
    result = go(clip, tmp_path / "out.mkv", Anonymizer([FixedDetector(FACE)], fills, flat_settings()))
    check_closed(read_pictures(tmp_path / "out.mkv"), images, set(BAD))
    assert result.summary.withheld == len(BAD)


def test_a_region_of_a_kind_without_anonymizer_withholds_the_frame(
    clip: Path, images: list[Image], tmp_path: Path
) -> None:
    detector = FunctionDetector(lambda f: Regions.of(FACE, Kind.PLATE) if number(f) in BAD else faces(FACE))
    go(clip, tmp_path / "out.mkv", Anonymizer([detector], {Kind.FACE: FILLS[Kind.FACE]}, flat_settings()))
    check_closed(read_pictures(tmp_path / "out.mkv"), images, set(BAD))


@pytest.mark.parametrize(("hold", "lookahead"), [(0, 0), (3, 0), (3, 2)])
def test_frames_that_a_lost_track_would_have_covered_are_withheld_when_the_tracker_raises(
    hold: int, lookahead: int, clip: Path, images: list[Image], tmp_path: Path
) -> None:
    made: list[Tracker] = []

    def make_tracker(frames_to_hold: int) -> Tracker:
        # The first is replaced when the run begins; the third, after the failure, works again.
        made.append(Tracker(frames_to_hold) if len(made) != 1 else FailingTracker(frames_to_hold, at=10))
        return made[-1]

    settings = flat_settings(hold=hold, lookahead=lookahead)
    anonymizer = Anonymizer([FixedDetector(FACE)], FILLS, settings, make_tracker=make_tracker)
    result = go(clip, tmp_path / "out.mkv", anonymizer)
    assert len(made) == 3
    lag = lookahead + 1 if lookahead else 0
    check_closed(read_pictures(tmp_path / "out.mkv"), images, set(range(10 - lag, 10 + hold + 1)))
    assert set(result.summary.reasons) == {"tracking failed: the tracker diverged"}


class UnguardedFollower(Follower):
    """The guard switched off: a frame for which following fails goes on without regions."""

    def push(self, look: Look) -> list[Followed]:
        followed = super().push(look)
        return [Followed(f.frame, f.regions if f.failure is None else Regions.empty(), None) for f in followed]


class UnguardedTracking(Anonymizer):
    def _new_follower(self) -> Follower:
        return UnguardedFollower(hold=0, lookahead=0, make_tracker=partial(FailingTracker, at=10))


def test_control_without_the_guard_a_failing_tracker_lets_the_face_out(
    clip: Path, images: list[Image], tmp_path: Path
) -> None:
    go(clip, tmp_path / "out.mkv", UnguardedTracking([FixedDetector(FACE)], FILLS, flat_settings()))
    out = read_pictures(tmp_path / "out.mkv")
    assert sum(shows_raw_face(image, raw) for image, raw in zip(out, images, strict=True)) > 0


@pytest.fixture
def damaged(images: list[Image], tmp_path: Path) -> tuple[Path, int]:
    """A clip of which one packet is overwritten, and the number of that frame."""
    path = write_lossless(tmp_path / "damaged.mkv", images)
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    assert len(packets) == COUNT
    data = bytearray(path.read_bytes())
    start, size = packets[12]
    assert start is not None
    # From a little way in, so that the container's own headers stay whole.
    data[start + 40 : start + size] = bytes(255 - b for b in data[start + 40 : start + size])
    path.write_bytes(data)
    return path, 12


def test_a_damaged_picture_is_withheld_and_its_neighbours_are_not(
    damaged: tuple[Path, int], images: list[Image], tmp_path: Path
) -> None:
    path, broken_number = damaged
    result = go(path, tmp_path / "out.mkv", Anonymizer([FixedDetector(FACE)], FILLS, flat_settings()))
    out = read_pictures(tmp_path / "out.mkv")
    assert len(out) == COUNT
    check_closed(out, images, {broken_number})
    assert result.summary.withheld == 1


def test_control_without_the_guard_a_damaged_picture_is_not_withheld(damaged: tuple[Path, int], tmp_path: Path) -> None:
    path, _ = damaged
    go(path, tmp_path / "out.mkv", TransparentAnonymizer([FixedDetector(FACE)], FILLS, flat_settings()))
    assert not any(covered_share(image, FACE) == 1 for image in read_pictures(tmp_path / "out.mkv"))


@pytest.mark.parametrize("lookahead", [0, 4])
def test_on_failure_stop_keeps_a_valid_file_up_to_there(
    lookahead: int, clip: Path, images: list[Image], tmp_path: Path
) -> None:
    detector = FunctionDetector(lambda frame: raising(frame) if number(frame) == 9 else faces(FACE))
    settings = flat_settings(on_failure="stop", hold=2, lookahead=lookahead)
    result = go(clip, tmp_path / "out.mkv", Anonymizer([detector], FILLS, settings))
    out = read_pictures(tmp_path / "out.mkv")
    assert len(out) == 9
    check_closed(out, images[:9], set())
    assert result.summary.stopped == "stopped at 0.360 s: detection failed: the network is broken"


def test_on_failure_stop_at_the_first_frame_leaves_an_older_output_alone(clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mkv"
    output.write_bytes(b"older")
    settings = flat_settings(on_failure="stop")
    result = go(clip, output, Anonymizer([FunctionDetector(raising)], FILLS, settings), overwrite=True)
    assert result.summary.stopped is not None
    assert result.summary.frames == 0
    assert output.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [output]


class BrokenSource(VideoSource):
    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            if number(frame) == 9:
                raise SourceError("the cable is out")
            yield frame


class BrokenSink(VideoSink):
    def write(self, item: Anonymized) -> None:
        if number(item.frame) == 9:
            raise SinkError("the disk is full")
        super().write(item)


class BrokenLook(Anonymizer):
    def look(self, frame: Frame) -> Look:
        if number(frame) == 9:
            raise MemoryError("in detect")
        return super().look(frame)


class BrokenCover(Anonymizer):
    def cover(self, followed: Followed) -> Anonymized:
        if number(followed.frame) == 9:
            raise MemoryError("in cover")
        return super().cover(followed)


class BrokenFollow(Anonymizer):
    def follow(self, look: Look) -> list[Followed]:
        if number(look.frame) == 9:
            raise SystemExit(7)
        return super().follow(look)


@pytest.mark.parametrize(
    ("source", "anonymizer", "sink", "error"),
    [
        (BrokenSource, Anonymizer, VideoSink, SourceError),
        (VideoSource, BrokenLook, VideoSink, MemoryError),
        (VideoSource, BrokenFollow, VideoSink, SystemExit),
        (VideoSource, BrokenCover, VideoSink, MemoryError),
        (VideoSource, Anonymizer, BrokenSink, SinkError),
    ],
)
def test_an_error_in_any_stage_ends_the_run_and_leaves_no_output(
    source: type[VideoSource],
    anonymizer: type[Anonymizer],
    sink: type[VideoSink],
    error: type[BaseException],
    clip: Path,
    tmp_path: Path,
) -> None:
    reader = source(clip)
    writer = sink(tmp_path / "out.mkv", reader.info, codec="ffv1")
    threads = threading.active_count()
    pipeline = Pipeline(reader, anonymizer([FixedDetector(FACE)], FILLS, flat_settings()), writer)
    with pytest.raises(error):
        finishes_within(20, pipeline.run)
    reader.close()
    assert list(tmp_path.iterdir()) == []
    # The workers of the two deadlines stay until the anonymizer is closed.
    assert threading.active_count() <= threads + 2


def test_regions_given_by_hand_are_covered_where_the_detector_sees_nothing(
    clip: Path, images: list[Image], tmp_path: Path
) -> None:
    x0, y0, x1, y1 = FACE
    manual = ManualRegions([ManualRegion(x0=x0, y0=y0, x1=x1, y1=y1)])
    anonymizer = Anonymizer([FixedDetector()], FILLS, flat_settings(), manual=manual)
    result = go(clip, tmp_path / "out.mkv", anonymizer)
    check_closed(read_pictures(tmp_path / "out.mkv"), images, set())
    assert result.summary.manual == COUNT


def test_pixels_under_the_regions_do_not_reach_the_output(clip: Path, images: list[Image], tmp_path: Path) -> None:
    changed = [image.copy() for image in images]
    for image in changed:
        whole(image, FACE)[:] = 255 - whole(image, FACE)
    other = write_lossless(tmp_path / "other.mkv", changed)
    outputs = []
    for name, path in (("a", clip), ("b", other)):
        go(path, tmp_path / f"{name}.mkv", Anonymizer([FixedDetector(FACE)], FILLS, flat_settings()))
        outputs.append(read_pictures(tmp_path / f"{name}.mkv"))
    assert len(outputs[0]) == COUNT
    assert all(np.array_equal(a, b) for a, b in zip(*outputs, strict=True))


def test_withheld_frames_keep_their_time(clip: Path, tmp_path: Path) -> None:
    go(clip, tmp_path / "out.mkv", Anonymizer([FunctionDetector(raising)], FILLS, flat_settings()))
    times = []
    for path in (clip, tmp_path / "out.mkv"):
        with av.open(str(path)) as container:
            times.append([frame.time for frame in container.decode(video=0)])
    assert len(times[0]) == COUNT
    assert times[0] == times[1]

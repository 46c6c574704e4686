from __future__ import annotations

import pytest

from engines.errors import UsageError
from stream.regions import Kind
from stream.verify.findings import DEFAULT_LIMITS, MEASURES, find, measure, parse_limits, passed, spans
from stream.verify.numbers import shown
from stream.verify.pairs import FramePairs
from stream.verify.raw import RawShare
from stream.verify.record import Claim, FileRecord, FrameRecord, RegionRecord


def region(raw: int, track: int = 0, kind: Kind = Kind.FACE) -> RegionRecord:
    return RegionRecord(kind, (0, 0, 10, 10), 0.9, track, RawShare(100, 100, raw))


def test_limits_are_the_defaults_and_what_was_given() -> None:
    assert parse_limits([]) == DEFAULT_LIMITS
    assert parse_limits(["raw-area=0.05", "streams_left=off", "flicker=0.1"]) == {
        name: value for name, value in DEFAULT_LIMITS.items() if name != "streams_left"
    } | {"raw_area": 0.05, "flicker": 0.1}


@pytest.mark.parametrize("text", ["raw_area", "raw_area=much", "raw_area=nan", "raw_aera=1", "=1"])
def test_limits_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--fail-over"):
        parse_limits([text])


def test_an_empty_record_is_clean() -> None:
    values = measure([FileRecord("x")])
    assert passed(values, DEFAULT_LIMITS) == ()
    assert find(FileRecord("x")) == []
    assert set(values) <= set(MEASURES)


def test_the_raw_area_is_a_share_of_all_areas_and_chance_is_none() -> None:
    frames = [FrameRecord(0, 0, [region(100), region(5, 1)]), FrameRecord(1, 0.04, [region(0), region(0, 1)])]
    values = measure([FileRecord("x", frames=frames)])
    assert values["raw_area"] == pytest.approx(0.25)
    assert values["raw_frames"] == 1


def test_a_part_that_is_raw_is_named() -> None:
    frames = [FrameRecord(i, 0.04 * i, [region(15 if i in (2, 3) else 0)]) for i in range(6)]
    (finding,) = find(FileRecord("x", frames=frames))
    assert finding.measure == "raw_area"
    assert (
        finding.text == "a part of a face (track 0), 15% at most, left raw in 2 frames, frames 2 to 3 (0.08 to 0.12 s)"
    )


def test_persons_and_faces_that_are_raw_in_the_same_frames_are_named_once() -> None:
    frames = []
    for index in range(6):
        raw = 100 if index in (2, 3) else 0
        frames.append(FrameRecord(index, 0.04 * index, [region(raw), region(raw, 1, Kind.PERSON)]))
    assert [finding.text for finding in find(FileRecord("x", frames=frames))] == [
        "2 frames left raw: nobody in frames 2 to 3 (0.08 to 0.12 s) is covered"
    ]


@pytest.mark.parametrize("known", [False, True])
def test_whom_the_report_has_at_once_was_found_at_once(known: bool) -> None:
    shares = [30, 30, 0, 0, 0]
    frames = [FrameRecord(i, 0.04 * i, [region(share), region(0, track=1)]) for i, share in enumerate(shares)]
    for frame in frames:
        frame.regions[0].reported = known
    (text,) = [finding.text for finding in find(FileRecord("x", frames=frames)) if finding.measure == "raw_frames"]
    if known:
        assert text == "a face (track 0), 30% at most, left raw in 2 frames, frames 0 to 1 (0.00 to 0.04 s)"
    else:
        assert text.startswith("late first detection")


def test_a_picture_that_could_not_be_decoded_must_be_flat() -> None:
    open_one = FrameRecord(3, 0.12, damaged="decoding failed")
    assert [finding.measure for finding in find(FileRecord("x", frames=[open_one]))] == ["raw_frames"]
    assert measure([FileRecord("x", frames=[open_one])])["raw_frames"] == 1
    flat = FrameRecord(3, 0.12, damaged="decoding failed", flat=True)
    assert find(FileRecord("x", frames=[flat])) == []


def test_what_could_not_be_seen_is_no_clean_frame() -> None:
    frames = [FrameRecord(0, 0.0, lost="decoding failed", flat=True), FrameRecord(1, 0.04, looked=False)]
    record = FileRecord("x", frames=frames, unread=("x ends in the middle of a picture",))
    assert [finding.text for finding in find(record)] == [
        "x ends in the middle of a picture",
        "frames 0 to 1 could not be decoded in the output, or not be looked at",
    ]
    assert passed(measure([record]), DEFAULT_LIMITS) == ("unseen_frames",)


def test_timing_streams_words_and_claims_are_named_and_counted() -> None:
    record = FileRecord(
        "x",
        pairing=FramePairs(((0, 0), (1, 1)), missing=(2, 3), extra=(2,), shifted=((1, 0.011),)),
        streams=("audio (stream 1, aac)",),
        metadata=("place: location (container)",),
        claims=[Claim("boxes that the report calls covered show the original", (1, 2, 5))],
        unreported=[4],
    )
    assert [finding.text for finding in find(record)] == [
        "2 frames missing in the output: frames 2 to 3",
        "one frame too many in the output: there, frame 2",
        "frame 1 is +0.0110 s off its time",
        "left in the output: audio (stream 1, aac)",
        "left in the output: place: location (container)",
        "the run's report: boxes that the report calls covered show the original: frames 1 to 2, frame 5",
        "a face or person in frame 4 is not in the run's report",
    ]
    values = measure([record])
    assert values["missing_frames"] == 2
    assert values["report_faults"] == 3
    assert set(passed(values, DEFAULT_LIMITS)) == {
        "missing_frames", "extra_frames", "shifted_frames", "streams_left", "metadata_left", "report_faults",
    }  # fmt: skip


def test_a_common_offset_counts_for_all_frames() -> None:
    record = FileRecord("x", pairing=FramePairs(((0, 0), (1, 1)), offset=1.4))
    assert measure([record])["shifted_frames"] == 2
    assert find(record)[0].text == "all frames are +1.400 s off their times"


def test_a_file_that_could_not_be_compared_is_missing() -> None:
    record = FileRecord("x", error="x cannot be read")
    assert [finding.text for finding in find(record)] == ["x cannot be read"]
    assert measure([record], missing=2)["missing_files"] == 3


def test_spans() -> None:
    assert spans([]) == []
    assert spans([1, 2, 3, 7, 9, 10]) == [(1, 3), (7, 7), (9, 10)]


def test_numbers_are_written_for_people() -> None:
    assert shown("raw_area", 0.001) == "0.10 %"
    assert shown("raw_area", 0.284) == "28.4 %"
    assert shown("raw_frames", 1200) == "1,200"
    assert shown("similarity", 0.123) == "0.12"

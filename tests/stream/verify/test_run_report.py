from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import UsageError
from stream.regions import Kind, Regions
from stream.verify.raw import Aligner, background_of, cores
from stream.verify.run_report import (
    ReportCheck,
    ReportFrame,
    RunReport,
    all_bundles,
    find_run_report,
    is_reported,
    read_run_report,
)
from tests.stream.verify.clips import FIRST, SECOND, face_regions, scene


def content(**changes: Any) -> dict[str, Any]:
    region = {"kind": "face", "origin": "detected", "score": 0.9, "box": [1, 2, 30, 40]}
    frame = {"time": 0.04, "withheld": None, "ignored": 1, "regions": [region]}
    return {
        "schema_version": 1,
        "settings": {"face": "realistic", "person": None, "plate": "keep", "fallback": "mask", "start": None, "end": 3},
        "bundles": [{"name": "centerface"}],
        "frames": [frame, frame | {"time": 0.08, "withheld": "it failed", "regions": []}],
    } | changes


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_a_report_is_read(tmp_path: Path) -> None:
    report = read_run_report(write(tmp_path / "r.json", content()))
    assert report.bundles == ("centerface",)
    assert report.realistic == {Kind.FACE}
    assert report.kept == {Kind.PLATE}
    assert (report.start, report.end) == (0.0, 3.0)
    assert [frame.withheld for frame in report.frames] == [False, True]
    assert report.frames[0].regions.boxes.tolist() == [[1, 2, 30, 40]]
    assert len(report.frames[1].regions) == 0
    assert all_bundles([report, report]) == {"centerface"}


@pytest.mark.parametrize(
    "value",
    [
        "text",
        [],
        {},
        content(schema_version=9),
        content(frames=[{"time": 1}]),
        content(bundles=[3]),
        content(settings={}),
    ],
)
def test_what_is_no_report_is_refused_in_one_line(tmp_path: Path, value: object) -> None:
    with pytest.raises(UsageError, match="is not the report of a run") as raised:
        read_run_report(write(tmp_path / "r.json", value))
    assert "\n" not in str(raised.value)


def test_a_report_that_is_not_there_or_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the run's report"):
        read_run_report(tmp_path / "nothing.json")
    (tmp_path / "text.json").write_text("no report")
    with pytest.raises(UsageError, match="it is not JSON"):
        read_run_report(tmp_path / "text.json")


def test_reports_of_a_folder_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    one, other = write(tmp_path / "deep" / "a.mp4.report.json", {}), write(tmp_path / "b.json", {})
    assert find_run_report(tmp_path, "deep/a.mp4") == one
    assert find_run_report(tmp_path, "b.mp4") == other
    assert find_run_report(tmp_path, "c.mp4") is None
    assert find_run_report(one, "whatever.mp4") == one


def test_of_a_folder_of_images_each_has_its_own_part() -> None:
    frames = tuple(ReportFrame(float(i), name, False, 0, Regions.empty()) for i, name in enumerate(("a.jpg", "b.jpg")))
    report = RunReport((), frozenset(), frozenset(), 0.0, None, frames)
    assert report.of("b.jpg").frames == frames[1:]
    assert report.of("b.jpg").by_time() == {0.0: frames[1]}


def test_a_region_is_reported_if_most_of_it_was_covered() -> None:
    first, second = cores(face_regions(FIRST, SECOND))
    x0, y0, x1, y1 = FIRST
    assert is_reported(first, face_regions((x0 - 9, y0 - 9, x1 + 9, y1 + 9)), 224, 160)
    assert not is_reported(second, face_regions((x0 - 9, y0 - 9, x1 + 9, y1 + 9)), 224, 160)
    assert not is_reported(first, face_regions((x0, y0, x1, y0 + 15)), 224, 160)
    assert not is_reported(first, face_regions(), 224, 160)
    # Two boxes that cover it together do as well.
    assert is_reported(first, face_regions((x0, y0, 44, y1), (44, y0, x1, y1)), 224, 160)


def test_what_the_report_says_is_compared_with_what_is_seen() -> None:
    image = scene(0)
    covered = image.copy()
    covered[10:90, 10:80] = 0
    free = background_of((image.shape[0], image.shape[1]), face_regions(FIRST, SECOND).boxes)
    look = Aligner().look(image, covered, free)
    both = ReportFrame(0.0, None, False, 0, face_regions(FIRST, SECOND))
    one = ReportFrame(0.04, None, False, 0, face_regions(FIRST))
    gone = ReportFrame(0.08, None, True, 0, Regions.empty())
    strange = ReportFrame(0.5, None, False, 0, Regions.empty())
    report = RunReport((), frozenset(), frozenset(), 0.0, None, (both, one, gone, strange))
    check = ReportCheck(report, {0.0: 0, 0.04: 1, 0.08: 2, 0.12: 3})
    check.add(0, both, look, flat=False)
    check.add(1, one, look, flat=False)
    check.add(2, gone, look, flat=False)
    assert [(claim.what, claim.frames) for claim in check.claims()] == [
        ("frames that the report calls withheld still show something", (2,)),
        ("boxes that the report calls covered show the original", (0,)),
        ("frames of the original are not in the report", (3,)),
        ("1 frames of the report have times that the original does not have", ()),
    ]


def test_a_box_round_a_stand_in_may_show_background() -> None:
    image = scene(0)
    half = image.copy()
    half[10:50, 10:80] = np.uint8(99)
    free = background_of((image.shape[0], image.shape[1]), face_regions(FIRST, SECOND).boxes)
    look = Aligner().look(image, half, free)
    entry = ReportFrame(0.0, None, False, 0, face_regions(FIRST))
    for realistic, count in ((frozenset({Kind.FACE}), 0), (frozenset[Kind](), 1)):
        check = ReportCheck(RunReport((), realistic, frozenset(), 0.0, None, (entry,)), {0.0: 0})
        check.add(0, entry, look, flat=False)
        assert len(check.claims()) == count

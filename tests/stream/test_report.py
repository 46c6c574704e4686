from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.bundle import write_bundle
from engines.errors import SinkError
from stream.anonymizer import Anonymizer
from stream.config import RunSettings
from stream.frame import Frame
from stream.metrics import Latencies, SinkState, Snapshot
from stream.pipeline import Pipeline, Summary
from stream.regions import Regions
from stream.report import ReportWriter, report_tail, summary_line, versions
from tests.engines.helpers import doubler, tiny_draft
from tests.fakes import (
    FILLS,
    Box,
    FixedDetector,
    FunctionDetector,
    MemorySink,
    MemorySource,
    faces,
    finishes_within,
    flat_settings,
    frames,
    noise,
    number,
)

FACE: Box = (20, 10, 40, 34)


def write(tmp_path: Path, count: int, anonymizer: Anonymizer, **settings: object) -> tuple[dict[str, Any], MemorySink]:
    """A run with a report, read back."""
    path = tmp_path / "report.json"
    source = MemorySource(frames(noise(max(count, 1))))
    report = ReportWriter(path, RunSettings.model_validate(settings), source.info, anonymizer)
    assert not path.exists()
    sink = MemorySink()
    summary = Summary()
    if count:
        summary = finishes_within(20, Pipeline(source, anonymizer, sink, observers=[report.add]).run)
    report.close(summary, ("a problem",), ("audio stream 1 (aac)",))
    report.abort()
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert list(tmp_path.glob(".*")) == []
    return loaded, sink


LIVE = Snapshot(
    frames={"anonymized": 20, "withheld": 1, "dropped": 9},
    latency=Latencies(recent=(0.11, 0.1824, 0.3)),
    sinks=(SinkState(name="a", dropped=4), SinkState(name="b"), SinkState(name="c", dropped=3)),
)


def test_of_a_live_run_it_says_how_late_and_how_many_were_lost() -> None:
    summary = Summary(frames=21, withheld=1, superseded=2)
    tail = report_tail(summary, (), (), LIVE)
    assert tail["late"] == 7
    assert tail["not_sent"] == [4, None, 3]
    assert tail["latency"] == {"median": 0.11, "p95": 0.1824, "p99": 0.3}
    assert summary_line(summary, LIVE) == (
        "21 frames, 1 of them withheld; 7 pictures came too late to be looked at; 7 did not reach an output; "
        "latency 110 ms at the median, 182 ms at 95 %, 300 ms at 99 % of the last frames"
    )
    for measured in (None, Snapshot()):
        tail = report_tail(summary, (), (), measured)
        assert (tail["late"], tail["not_sent"], tail["latency"]) == (0, [], None)
        assert summary_line(summary, measured) == "21 frames, 1 of them withheld"


@pytest.mark.parametrize("count", [0, 1, 30])
def test_a_report_of_any_length_is_valid(tmp_path: Path, count: int) -> None:
    report, _ = write(tmp_path, count, Anonymizer([FixedDetector(FACE)], FILLS, flat_settings()), crf=20, hold=0)
    assert list(report) == ["schema_version", "input", "settings", "versions", "bundles", "frames", "summary"]
    assert len(report["frames"]) == count
    assert report["summary"]["frames"] == count
    assert report["summary"]["problems"] == ["a problem"]
    assert report["summary"]["dropped"] == ["audio stream 1 (aac)"]
    assert report["settings"]["crf"] == 20
    assert report["input"] == {
        "name": "memory", "width": 64, "height": 48, "time_base": "1/25", "frame_rate": "25", "pixel_format": "rgb24",
    }  # fmt: skip
    assert {"python", "numpy", "av"} <= set(report["versions"])


def test_it_does_not_say_where_files_are(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.json" for name in ("contact_sheet", "detections", "regions")}
    given = {"detector": ["faces", str(tmp_path / "mine")], "engine": {"person-cse": tmp_path / "cse"}, **paths}
    report, _ = write(tmp_path, 1, Anonymizer([FixedDetector(FACE)], FILLS, flat_settings()), **given)
    settings = report["settings"]
    assert "report" not in settings
    assert settings["detections"] == "detections.json"
    assert (settings["detector"], settings["engine"]) == (["faces", "mine"], {"person-cse": "cse"})
    assert str(tmp_path) not in json.dumps(report)


def test_it_names_the_bundles_with_their_hashes(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny", tiny_draft(), {"detector.onnx": doubler()})
    anonymizer = Anonymizer([FixedDetector(FACE)], FILLS, flat_settings(), bundles=[bundle])
    report, _ = write(tmp_path, 1, anonymizer)
    assert report["bundles"] == [{"name": "tiny", "sha256": bundle.digest, "licence": "MIT"}]


def test_it_says_for_every_frame_what_was_detected_held_and_looked_ahead(tmp_path: Path) -> None:
    seen = {2, 3, 4, 7}
    detector = FunctionDetector(lambda frame: faces(FACE) if number(frame) in seen else faces())
    report, _ = write(tmp_path, 10, Anonymizer([detector], FILLS, flat_settings(hold=2, lookahead=2)))
    entries = report["frames"]
    assert [entry["detected"] for entry in entries] == [0, 0, 1, 1, 1, 0, 0, 1, 0, 0]
    assert [entry["held"] for entry in entries] == [0, 0, 0, 0, 0, 1, 1, 0, 1, 1]
    assert all(entry["looked_ahead"] for entry in entries[:2])
    for entry in entries:
        counted = entry["detected"] + entry["held"] + entry["looked_ahead"] + entry["manual"]
        assert counted == len(entry["regions"])
    assert report["summary"]["detected"] == {"face": 4}
    assert report["summary"]["held"] == sum(entry["held"] for entry in entries)


def test_it_agrees_with_the_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    corners = [rng.uniform(-5, 45, (rng.integers(0, 4), 2)) for _ in range(20)]
    sides = [rng.uniform(6, 50, corner.shape) for corner in corners]
    boxes = [np.concatenate([corner, corner + side], axis=1) for corner, side in zip(corners, sides, strict=True)]
    detector = FunctionDetector(lambda frame: faces(*boxes[number(frame)]))
    settings = flat_settings(margin=0.15, hold=3, lookahead=2)
    report, sink = write(tmp_path, 20, Anonymizer([detector], FILLS, settings))
    reported = 0
    for entry, item in zip(report["frames"], sink.items, strict=True):
        covered = np.zeros(item.image.shape[:2], bool)
        for region in entry["regions"]:
            x0, y0, x1, y1 = region["box"]
            covered[y0:y1, x0:x1] = True
            reported += 1
        assert np.array_equal((item.image == 0).all(axis=2), covered)
    assert reported > 40


def test_withheld_frames_say_why(tmp_path: Path) -> None:
    def answer(frame: Frame) -> Regions:
        if number(frame) == 1:
            raise RuntimeError("broken")
        return faces(FACE)

    report, _ = write(tmp_path, 3, Anonymizer([FunctionDetector(answer)], FILLS, flat_settings()))
    reasons = [entry["withheld"] for entry in report["frames"]]
    assert reasons == [None, "detection failed: broken", None]
    assert report["summary"]["withheld"] == 1
    assert report["summary"]["withheld_reasons"] == {"detection failed: broken": 1}


def test_no_identity_is_in_it(tmp_path: Path) -> None:
    anonymizer = Anonymizer([FixedDetector(FACE)], FILLS, flat_settings(hold=3, lookahead=2))
    report, _ = write(tmp_path, 8, anonymizer)
    keys = {key for entry in report["frames"] for region in entry["regions"] for key in region}
    assert keys == {"kind", "origin", "score", "box"}
    entry_keys = {key for entry in report["frames"] for key in entry}
    assert entry_keys == {
        "pts", "time", "size", "detected", "held", "looked_ahead", "manual", "ignored", "generated", "withheld",
        "regions", "source",
    }  # fmt: skip


def test_an_aborted_report_leaves_nothing(tmp_path: Path) -> None:
    anonymizer = Anonymizer([FixedDetector(FACE)], FILLS, flat_settings())
    report = ReportWriter(tmp_path / "r.json", RunSettings(), MemorySource(frames(noise(1))).info, anonymizer)
    report.abort()
    report.abort()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_of_the_sink(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    anonymizer = Anonymizer([FixedDetector(FACE)], FILLS, flat_settings())
    report = ReportWriter(tmp_path / "r.json", RunSettings(), MemorySource(frames(noise(1))).info, anonymizer)
    report._file.close()
    report._file = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115  the report closes it
    with pytest.raises(SinkError, match=r"cannot write the report .*No space left"):
        report.close(Summary(), (), ())
    report.abort()
    assert list(tmp_path.iterdir()) == []


def test_versions_name_this_package() -> None:
    assert versions()["standin"]

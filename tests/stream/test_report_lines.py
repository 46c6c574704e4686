"""The report of an endless run: every frame is a line somewhere, and each file can be read by itself."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.errors import SinkError, UsageError
from stream.anonymizer import Anonymizer
from stream.config import RunSettings
from stream.metrics import Latencies, Snapshot
from stream.pipeline import Pipeline, Summary
from stream.report import ReportWriter
from stream.report_lines import ReportLines
from tests.fakes import (
    FILLS,
    Box,
    FixedDetector,
    MemorySink,
    MemorySource,
    finishes_within,
    flat_settings,
    frames,
    noise,
)

FACE: Box = (20, 10, 40, 34)
SETTINGS = RunSettings(crf=20)


@pytest.fixture
def anonymizer() -> Anonymizer:
    return Anonymizer([FixedDetector(FACE)], FILLS, flat_settings(hold=2, lookahead=1))


@pytest.fixture
def source() -> MemorySource:
    return MemorySource(frames(noise(60)))


def lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def places(read: list[dict[str, Any]]) -> list[int]:
    """`pts` of the frames."""
    return [line["pts"] for line in read if line["type"] == "frame"]


def test_it_says_what_the_report_says(tmp_path: Path, anonymizer: Anonymizer, source: MemorySource) -> None:
    whole = ReportWriter(tmp_path / "report.json", SETTINGS, source.info, anonymizer)
    report = ReportLines(tmp_path / "report.jsonl", SETTINGS, source.info, anonymizer)
    pipeline = Pipeline(source, anonymizer, MemorySink(), observers=[whole.add, report.add])
    summary = finishes_within(20, pipeline.run)
    last = Snapshot(frames={"dropped": 3}, latency=Latencies(recent=(0.1, 0.2, 0.3)))
    whole.close(summary, ("a problem",), ("audio",), last)
    report.close(summary, ("a problem",), ("audio",), last)
    report.abort()
    expected = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    head, *entries, tail = lines(tmp_path / "report.jsonl")
    assert (head.pop("type"), tail.pop("type")) == ("head", "summary")
    assert head.pop("utc").endswith("+00:00")
    assert {entry.pop("type") for entry in entries} == {"frame"}
    assert (entries, tail) == (expected.pop("frames"), expected.pop("summary"))
    assert head == expected
    assert len(entries) == 60
    assert (tail["late"], tail["latency"]["p95"]) == (3, 0.2)


def test_every_line_is_there_at_once(tmp_path: Path, anonymizer: Anonymizer, source: MemorySource) -> None:
    path = tmp_path / "report.jsonl"
    report = ReportLines(path, SETTINGS, source.info, anonymizer)
    counts = []

    def add(item: Any) -> None:
        report.add(item)
        counts.append(len(places(lines(path))))

    finishes_within(20, Pipeline(source, anonymizer, MemorySink(), observers=[add]).run)
    report.abort()
    assert counts == list(range(1, 61))


def test_rotation_loses_no_line(tmp_path: Path, anonymizer: Anonymizer, source: MemorySource) -> None:
    path = tmp_path / "report.jsonl"
    report = ReportLines(path, SETTINGS, source.info, anonymizer, rotate=6000, keep=100)
    summary = finishes_within(20, Pipeline(source, anonymizer, MemorySink(), observers=[report.add]).run)
    report.close(summary, (), ())
    files = [path, *sorted(tmp_path.glob("report.jsonl.*"), key=lambda file: int(file.suffix[1:]))][::-1]
    assert len(files) >= 4
    assert all(file.stat().st_size <= 6000 for file in files[:-1])
    read = [lines(file) for file in files]
    assert all(one[0]["type"] == "head" for one in read)
    assert all(one[0]["settings"] == read[0][0]["settings"] for one in read)
    assert [place for one in read for place in places(one)] == list(range(60))
    assert [line["type"] for one in read for line in one].count("summary") == 1
    assert read[-1][-1]["type"] == "summary"


def test_a_file_holds_a_frame_at_least(tmp_path: Path, anonymizer: Anonymizer, source: MemorySource) -> None:
    report = ReportLines(tmp_path / "report.jsonl", SETTINGS, source.info, anonymizer, rotate=10, keep=100)
    finishes_within(20, Pipeline(source, anonymizer, MemorySink(), observers=[report.add]).run)
    report.abort()
    assert sorted(place for file in tmp_path.iterdir() for place in places(lines(file))) == list(range(60))
    assert all(len(places(lines(file))) == 1 for file in tmp_path.iterdir())


def test_only_so_many_files_are_kept(tmp_path: Path, anonymizer: Anonymizer, source: MemorySource) -> None:
    path = tmp_path / "report.jsonl"
    report = ReportLines(path, SETTINGS, source.info, anonymizer, rotate=6000, keep=2)
    summary = finishes_within(20, Pipeline(source, anonymizer, MemorySink(), observers=[report.add]).run)
    report.close(summary, (), ())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.jsonl", "report.jsonl.1", "report.jsonl.2"]
    kept = [place for number in (".2", ".1", "") for place in places(lines(tmp_path / f"report.jsonl{number}"))]
    assert kept == list(range(kept[0], 60))


def test_the_next_run_goes_on_in_the_same_file(tmp_path: Path, anonymizer: Anonymizer, source: MemorySource) -> None:
    path = tmp_path / "report.jsonl"
    for _ in range(2):
        report = ReportLines(path, SETTINGS, source.info, anonymizer)
        report.abort()
    with path.open("ab") as file:
        # Torn, as by a power loss.
        file.write(b'{"type": "fra')
    ReportLines(path, SETTINGS, source.info, anonymizer).close(Summary(), (), ())
    kinds = [line.split(b",")[0] for line in path.read_bytes().splitlines()]
    head = b'{"type": "head"'
    assert kinds == [head, head, b'{"type": "fra', head, b'{"type": "summary"']


@pytest.mark.parametrize("content", [b"{}\n", b"my diary", b"\n"])
def test_a_file_that_is_no_report_is_left_alone(
    tmp_path: Path, anonymizer: Anonymizer, source: MemorySource, content: bytes
) -> None:
    path = tmp_path / "report.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is no report in JSON lines"):
        ReportLines(path, SETTINGS, source.info, anonymizer)
    assert path.read_bytes() == content


def test_two_runs_do_not_write_one_file(tmp_path: Path, anonymizer: Anonymizer, source: MemorySource) -> None:
    first = ReportLines(tmp_path / "report.jsonl", SETTINGS, source.info, anonymizer)
    with pytest.raises(SinkError, match="another run writes the report"):
        ReportLines(tmp_path / "report.jsonl", SETTINGS, source.info, anonymizer)
    first.abort()
    ReportLines(tmp_path / "report.jsonl", SETTINGS, source.info, anonymizer).abort()


def test_what_cannot_be_created_is_an_error(tmp_path: Path, anonymizer: Anonymizer, source: MemorySource) -> None:
    with pytest.raises(SinkError, match=r"cannot write the report .*No such file"):
        ReportLines(tmp_path / "none" / "report.jsonl", SETTINGS, source.info, anonymizer)
    with pytest.raises(ValueError, match="at least one file"):
        ReportLines(tmp_path / "report.jsonl", SETTINGS, source.info, anonymizer, keep=0)


@pytest.fixture
def small_files() -> Iterator[int]:
    """No file of this process can grow beyond so many bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, before[1]))
    yield 8000
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_an_error_and_tears_no_line(
    tmp_path: Path, anonymizer: Anonymizer, source: MemorySource, small_files: int
) -> None:
    path = tmp_path / "report.jsonl"
    report = ReportLines(path, SETTINGS, source.info, anonymizer)
    pipeline = Pipeline(source, anonymizer, MemorySink(), observers=[report.add])
    with pytest.raises(SinkError, match=r"cannot write the report .*File too large"):
        finishes_within(20, pipeline.run)
    report.abort()
    assert os.stat(path).st_size <= small_files
    read = places(lines(path))
    assert read == list(range(len(read)))
    assert len(read) > 10

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engines.errors import SinkError, UsageError
from stream.bench.records import Record, Result, Spread, read_record, write_text
from tests.stream.bench.samples import case, figures, record


def written(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def plain() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record().model_dump_json())
    return found


def test_a_spread_holds_the_median_and_the_extremes() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(median=2.5, lowest=1, highest=10, runs=4)


def test_what_was_written_is_read_back_unchanged(tmp_path: Path) -> None:
    made = record(Result(case=case(4), figures=figures()), Result(case=case(device="cuda"), reason="no driver"))
    path = tmp_path / "a.json"
    write_text(path, made.model_dump_json(), overwrite=False)
    assert read_record(path) == made
    assert [c.persons for c, _ in made.measured] == [4]


@pytest.mark.parametrize("version", [0, 2, "1", None, [1]])
def test_another_schema_version_is_refused(tmp_path: Path, version: object) -> None:
    with pytest.raises(UsageError, match=r"schema version|no record"):
        read_record(written(tmp_path / "a.json", plain() | {"schema_version": version}))


@pytest.mark.parametrize(
    "change",
    [{"made": 3}, {"results": [{"case": {}}]}, {"extra": 1}, {"machine": None}, {"versions": {"a": float("nan")}}],
)
def test_a_record_that_was_changed_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no record of this release"):
        read_record(written(tmp_path / "a.json", plain() | change))


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    values = plain()
    values["results"][0]["figures"]["flat_out"]["rate"]["median"] = float("inf")
    with pytest.raises(UsageError, match="no record of this release"):
        read_record(written(tmp_path / "a.json", values))


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", "{", "[" * 100_000])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"a\.json"):
        read_record(path)


def test_a_record_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_record(tmp_path / "a.json")


def test_a_file_is_not_replaced_unasked_and_nothing_half_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_text("old")
    with pytest.raises(SinkError):
        write_text(path, "new", overwrite=False)
    assert path.read_text() == "old"
    write_text(path, "new", overwrite=True)
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]


def test_no_machine_path_and_no_name_of_a_video_are_kept() -> None:
    assert set(type(record().clip).model_fields) == {"about", "width", "height", "rate", "frames"}
    assert not any("path" in name for name in Record.model_fields)

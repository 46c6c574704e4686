from __future__ import annotations

import json
from pathlib import Path

import pytest

from engines.errors import UsageError
from stream.manual import ManualRegions, read_manual_regions
from stream.regions import Kind, Origin


def read(tmp_path: Path, text: str) -> ManualRegions:
    path = tmp_path / "regions.txt"
    path.write_text(text)
    return read_manual_regions(path)


def test_no_regions_are_no_regions() -> None:
    empty = ManualRegions([])
    assert len(empty) == 0
    assert len(empty.at(0)) == 0
    assert empty.kinds == set()


def test_csv_and_json_mean_the_same(tmp_path: Path) -> None:
    csv = read(tmp_path, "# by hand\nstart,end,x0,y0,x1,y1,kind\n1,2,10,20,30,40,plate\n\n,,0,0,5,5,\n")
    rows = [
        {"start": 1, "end": 2, "x0": 10, "y0": 20, "x1": 30, "y1": 40, "kind": "plate"},
        {"x0": 0, "y0": 0, "x1": 5, "y1": 5},
    ]
    from_json = read(tmp_path, json.dumps(rows))
    for regions in (csv, from_json):
        assert regions.kinds == {Kind.PLATE, Kind.FACE}
        assert regions.at(1.5).boxes.tolist() == [[10, 20, 30, 40], [0, 0, 5, 5]]
        assert regions.at(0.5).boxes.tolist() == [[0, 0, 5, 5]]
        assert regions.at(1.5).origins.tolist() == [Origin.MANUAL] * 2


@pytest.mark.parametrize(
    ("time", "count"), [(0.9, 0), (0.9996, 1), (1.0, 1), (1.5, 1), (2.0, 1), (2.0004, 1), (2.1, 0)]
)
def test_a_region_counts_from_its_start_to_its_end_inclusive(tmp_path: Path, time: float, count: int) -> None:
    assert len(read(tmp_path, "start,end,x0,y0,x1,y1\n1,2,0,0,9,9\n").at(time)) == count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs a first line with the columns"),
        ("a,b\n1,2\n", "needs a first line with the columns"),
        ("x0,y0,x1,y1\n5,0,1,9\n", "row 1: entry: x1 must be greater than x0"),
        ("x0,y0,x1,y1\n0,0,9,9\n0,0,nine,9\n", "row 2: x1: "),
        ("x0,y0,x1,y1\n0,0,9\n", "row 1: y1: Field required"),
        ("x0,y0,x1,y1\n0,0,9,9,9\n", "row 1: None: Extra inputs"),
        ("x0,y0,x1,y1,kind\n0,0,9,9,cat\n", "row 1: entry: unknown kind 'cat': choose from"),
        ("x0,y0,x1,y1,colour\n0,0,9,9,red\n", "row 1: colour: Extra inputs"),
        ("start,end,x0,y0,x1,y1\n2,1,0,0,9,9\n", "row 1: entry: end must not be before start"),
        # A time that compares with nothing would switch the region off without a word.
        ("start,end,x0,y0,x1,y1\nnan,,0,0,9,9\n", "row 1: start: Input should be a finite number"),
        ("x0,y0,x1,y1\n0,0,inf,9\n", "row 1: x1: "),
        ("x0,y0,x1,y1\n0,0,1e39,9\n", "row 1: x1: "),
        ("x0,y0,x1,y1\n0,0,nan,9\n", "row 1: x1: "),
        ("[{", "is not valid JSON"),
        ("[1]", "entry 1: entry: "),
        ('{"x0": 1}', "must hold a JSON list"),
        ('[{"x0": 0, "y0": 0, "x1": NaN, "y1": 9}]', "entry 1: x1: "),
    ],
)
def test_a_file_that_is_wrong_is_an_error_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
    assert "regions.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the regions file"):
        read_manual_regions(tmp_path / "none.csv")


def test_a_binary_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UsageError, match="cannot read the regions file"):
        read_manual_regions(tmp_path / "r")

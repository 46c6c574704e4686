from __future__ import annotations

import json

from stream.evaluate.compare import Row
from stream.evaluate.figures import Figure
from stream.evaluate.table import cells, columns, details, markdown, to_json

ROWS = [
    Row("original", {"ap": Figure(0.5, 3, "pictures", "judge (sha256 0)", "none", ("a note",))}),
    Row(
        "blur",
        {
            "ap50": Figure(0.75, 3, "pictures", "judge (sha256 0)", "none", ("a note",)),
            "ap": Figure(0.25, 3, "pictures", "judge (sha256 0)", "none", ("a note",)),
            "fid": Figure(1234.5, 9, "crops", "net.onnx (sha256 1)", "to 4x4", ("few",)),
        },
        regions=7,
        generated=0,
    ),
    Row("starter", {"fid": Figure(1, 9, "crops", "net.onnx (sha256 1)", "to 4x4", ("few", "truncation 1"))}),
]


def test_columns_are_the_measures_that_any_row_has_in_order() -> None:
    assert columns(ROWS) == ["fid", "ap", "ap50"]
    assert cells(ROWS) == [
        ["method", "FID ↓", "AP ↑", "AP50 ↑"],
        ["original", "-", "0.500", "-"],
        ["blur", "1,234.50", "0.250", "0.750"],
        ["starter", "1.00", "-", "-"],
    ]


def test_every_figure_says_how_many_which_network_and_which_resize() -> None:
    assert details(ROWS) == [
        "FID: 9 crops; network net.onnx (sha256 1); resize: to 4x4; few; starter: truncation 1",
        "AP, AP50: 3 pictures; network judge (sha256 0); resize: none; a note",
    ]


def test_markdown_holds_the_table_and_what_must_be_known() -> None:
    lines = markdown(ROWS).splitlines()
    assert lines[0] == "| method | FID ↓ | AP ↑ | AP50 ↑ |"
    assert lines[1] == "| --- | ---: | ---: | ---: |"
    assert lines[3] == "| blur | 1,234.50 | 0.250 | 0.750 |"
    assert "- FID: Fréchet distance of features of anonymized and original crops" in lines
    assert lines[-1].startswith("- AP, AP50: 3 pictures")


def test_json_has_all_of_it() -> None:
    content = json.loads(to_json(ROWS, {"command": "table"}))
    assert content["settings"] == {"command": "table"}
    assert content["machine"]
    assert content["rows"][1]["regions"] == 7
    assert content["rows"][1]["figures"]["fid"] == {
        "value": 1234.5, "count": 9, "of": "crops", "network": "net.onnx (sha256 1)", "resize": "to 4x4",
        "notes": ["few"],
    }  # fmt: skip

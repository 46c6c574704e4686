"""The part of YAML that detectron2's configs are written in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines.errors import UsageError
from export.config_files import parse, read_config_file

BLOCKS = """
# as trained
_BASE_: "../Base-RCNN-FPN.yaml"
MODEL:
  WEIGHTS: "detectron2://ImageNetPretrained/MSRA/R-50.pkl"  # where it began
  MASK_ON: True
  LOAD_PROPOSALS: false
  PIXEL_STD: [57.375, 57.120, 58.395]
  ANCHOR_GENERATOR:
    SIZES: [[32], [64],
            [128]]
  EMPTY:
  NONE: null
  TILDE: ~
  "quoted key": 'it''s'
INPUT:
  MIN_SIZE_TRAIN: (640, 672, 704)
  CROP: {ENABLED: False, SIZE: [0.9, 0.9]}
TEST:
  RATE: 1e-4
  PLAIN: some words here
"""

DUMPED = """MODEL:
  ANCHOR_GENERATOR:
    SIZES:
    - - 32
      - 64
    - - 128
  NAMES:
  - a
  - b: 1
    c: 2
VERSION: 2
"""


def test_values_nest_by_indentation() -> None:
    assert parse(BLOCKS.replace("'it''s'", "'its'")) == {
        "_BASE_": "../Base-RCNN-FPN.yaml",
        "MODEL": {
            "WEIGHTS": "detectron2://ImageNetPretrained/MSRA/R-50.pkl",
            "MASK_ON": True,
            "LOAD_PROPOSALS": False,
            "PIXEL_STD": [57.375, 57.12, 58.395],
            "ANCHOR_GENERATOR": {"SIZES": [[32], [64], [128]]},
            "EMPTY": None,
            "NONE": None,
            "TILDE": None,
            "quoted key": "its",
        },
        "INPUT": {"MIN_SIZE_TRAIN": [640, 672, 704], "CROP": {"ENABLED": False, "SIZE": [0.9, 0.9]}},
        "TEST": {"RATE": 1e-4, "PLAIN": "some words here"},
    }


def test_lists_as_a_trainer_writes_them() -> None:
    assert parse(DUMPED) == {
        "MODEL": {"ANCHOR_GENERATOR": {"SIZES": [[32, 64], [128]]}, "NAMES": ["a", {"b": 1, "c": 2}]},
        "VERSION": 2,
    }


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "---\n"])
def test_a_file_without_values_is_empty(text: str) -> None:
    assert parse(text) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "begins a list"),
        ("A: 1\n  B: 2\n", "line 2 is indented"),
        ("A: !!python/object/apply:os.system ['true']\n", "!!python"),
        ("A: &anchor 1\n", "&anchor"),
        ("A: |\n  text\n", "line 1"),
        ("A: [1, 2\n", "not closed"),
        ("A: [1] 2\n", "after its value"),
        ("A: 1\nA: 2\n", "a second time"),
        ("just words\n", "not KEY: value"),
        ("A:\n\tB: 1\n", "tab"),
        ("A: {1, 2}\n", "mapping"),
    ],
)
def test_what_is_not_known_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"line|bracket") as caught:
        parse(text)
    assert message in str(caught.value)


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / "own.yaml"


def test_a_file_goes_before_what_it_is_based_on(tmp_path: Path) -> None:
    own = written(
        tmp_path,
        own='_BASE_: "middle.yaml"\nMODEL:\n  DEPTH: 101\n  LIST: [1]\n',
        middle="_BASE_: base.yaml\nMODEL:\n  DEPTH: 50\n  MASK_ON: True\n",
        base="MODEL:\n  NAME: x\n  LIST: [1, 2]\nTEST: 3\n",
    )
    expected: dict[str, Any] = {"MODEL": {"NAME": "x", "LIST": [1], "DEPTH": 101, "MASK_ON": True}, "TEST": 3}
    assert read_config_file(own) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_BASE_: own.yaml\n", "based on itself"),
        ("_BASE_: missing.yaml\n", "missing.yaml cannot be read"),
        ("_BASE_: https://example.org/base.yaml\n", "expected a file beside it"),
        ("A: [\n", "not understood"),
    ],
)
def test_a_base_that_cannot_be_had_is_an_error_of_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_config_file(written(tmp_path, own=text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)

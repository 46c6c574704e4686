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
    assert parse(BLOCKS) == {
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
            "quoted key": "it's",
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
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.5E+2", 150.0),
        ("-1", -1),
        ("(1, 2)", [1, 2]),
        ('"(1, 2)"', [1, 2]),
        ("((32,), (64,))", [[32], [64]]),
        ("[1e-3, 2.5]", [1e-3, 2.5]),
        ("'640'", 640),
        ("None", None),
        ("[res2, res3]", ["res2", "res3"]),
        ("1x", "1x"),
        ("a_b(", "a_b("),
        ("'{1}'", "{1}"),
        (r"'\d'", r"\d"),
        (r"""'"\d"'""", r"\d"),
        ("0x1for x in y", "0x1for x in y"),
        ("|\n  some\n  words", "some\nwords\n"),
    ],
)
def test_texts_are_evaluated_as_yacs_does(text: str, value: Any) -> None:
    found = parse(f"A: {text}\n")["A"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "line 1 begins with list"),
        ("just words\n", "line 1 begins with str"),
        ("A: 1\n  B: 2\n", "line 2"),
        ("A: !!python/object/apply:os.system ['true']\n", "line 1: .*python/object/apply:os.system"),
        ("A: !own 1\n", "line 1: .*!own"),
        ("A: &anchor 1\n", "line 1: &anchor"),
        ("A: 1\nB: *anchor\n", r"line 2: \*anchor"),
        ("A: [1, 2\n", r"line 2: .*expected ',' or '\]'"),
        ("A: [1] 2\n", "line 1"),
        ("A: 1\nA: 2\n", "line 2: A is given a second time"),
        ("A:\n  B: 1\n  'B': 2\n", "line 3: B is given a second time"),
        ("A:\n\tB: 1\n", r"line 2: .*\\t"),
        ("A: {1, 2}\n", "line 1: a mapping has a key that is no text"),
        ("A: {[1]: 2}\n", "line 1: a mapping has a key that is no text"),
        ("A: 1\n---\nB: 1\n", "line 2"),
        ("A: \x00\n", "special characters"),
        ("A: 2020-99-99\n", "month"),
        (f"A: {'9' * 5000}\n", "digits"),
        ("A: " + "[" * 5000, "nested too deeply"),
    ],
)
def test_what_is_not_known_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_few_lines_cannot_stand_for_many_values() -> None:
    bomb = "A0: &a0 [x, x]\n" + "".join(f"A{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 64))
    with pytest.raises(ValueError, match="line 1: &a0 is not needed"):
        parse(bomb)


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
        ("_BASE_: detectron2://base.yaml\n", "expected a file beside it"),
        ("_BASE_: [a.yaml, b.yaml]\n", "expected a file beside it"),
        ("_BASE_: .\n", "cannot be read"),
        ("# " + "x" * 2**18, "larger than 262144 bytes"),
        ("A: [\n", "not understood"),
    ],
)
def test_a_base_that_cannot_be_had_is_an_error_of_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_config_file(written(tmp_path, own=text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_files_that_are_based_on_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="based on itself"):
        read_config_file(written(tmp_path, own="_BASE_: other.yaml\n", other="_BASE_: own.yaml\n"))


def test_a_long_chain_of_bases_is_refused(tmp_path: Path) -> None:
    chain = {f"base{i}": f"_BASE_: base{i + 1}.yaml\n" for i in range(20)}
    with pytest.raises(UsageError, match="based on itself"):
        read_config_file(written(tmp_path, own="_BASE_: base0.yaml\n", base20="A: 1\n", **chain))


def test_a_base_is_looked_for_beside_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "base.yaml").write_text("A: 1\n")
    own = written(tmp_path / "inner", own="_BASE_: ../base.yaml\nB: 2\n")
    assert read_config_file(own) == {"A": 1, "B": 2}

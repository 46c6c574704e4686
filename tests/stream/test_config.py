from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from engines.errors import UsageError
from stream.cli_run import run_command
from stream.config import AnonymizerSettings, RunSettings, make_settings, read_config
from stream.presets import DEFAULT_PRESET, PRESETS
from stream.regions import Kind


def test_defaults_are_valid() -> None:
    # What a field is by itself is what a preset that settles nothing has.
    for kind in (RunSettings, AnonymizerSettings):
        assert make_settings(kind, {"preset": "faces"}) == kind(preset="faces")
        assert make_settings(kind, {}).preset == kind().preset == DEFAULT_PRESET


def test_a_preset_that_is_not_named_settles_what_is_not_given_as_well() -> None:
    assert make_settings(RunSettings, {}) == make_settings(RunSettings, {"preset": DEFAULT_PRESET})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "face"}, "unknown preset 'face': did you mean 'faces'?"),
        ({"preset": "zzz"}, "unknown preset 'zzz': choose from deepprivacy2, "),
        ({"look_ahead": 3}, "settings: unknown setting 'look_ahead': did you mean 'lookahead'?"),
        ({"xyzzy": 3}, "settings: unknown setting 'xyzzy': choose from audio, "),
        ({"cells": 9}, "settings: cells: "),
        ({"face": "blurr"}, "got 'blurr'"),
        ({"margin": float("nan")}, "settings: margin: "),
        ({"threshold": 0.0}, "settings: threshold: "),
        ({"deadline": 0}, "settings: deadline: "),
        ({"deadline": float("inf")}, "settings: deadline: "),
        ({"start": float("inf")}, "settings: start: "),
        ({"end": 1e300}, "settings: end: "),
        ({"hold": -1}, "settings: hold: "),
        ({"hold": 2.5}, "settings: hold: "),
        ({"lookahead": "many"}, "settings: lookahead: "),
        ({"mask_colour": "black"}, "settings: mask_colour: 'black' is not a colour like #000000, got 'black'"),
        ({"mask_colour": [1, 2]}, "settings: mask_colour: "),
        ({"mask_colour": [1, 2, 256]}, "settings: mask_colour: "),
        ({"engine": ["person-cse"]}, "settings: engine: 'person-cse' is not NAME=FOLDER"),
        ({"engine": ["=folder"]}, "settings: engine: '' is not NAME=FOLDER"),
        ({"engine": ["face=a", "face=b"]}, "settings: engine: 'face' is given twice"),
        ({"truncation": 1.5}, "settings: truncation: "),
        ({"context": "public"}, "settings: context: "),
        ({"start": 5, "end": 5}, "settings: end must be after start"),
    ],
)
def test_what_cannot_be_meant_is_one_line_that_says_what_to_do(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_settings(RunSettings, values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["#ff8000", "ff8000", "FF8000"])
def test_colours_are_written_as_on_the_web(text: str) -> None:
    assert make_settings(RunSettings, {"mask_colour": text}).mask_colour == (255, 128, 0)


def test_dashes_count_as_underscores() -> None:
    assert make_settings(RunSettings, {"detect-size": 640}).detect_size == 640


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "standin.toml"
    path.write_text(text)
    return path


def test_a_config_file_holds_any_setting(tmp_path: Path) -> None:
    path = write(tmp_path, 'detect-size = 640\nhold = 3\nmask_colour = "#010203"\noverwrite = true\n')
    settings = make_settings(RunSettings, read_config(path))
    assert (settings.detect_size, settings.hold, settings.mask_colour) == (640, 3, (1, 2, 3))
    assert settings.overwrite


def test_an_empty_config_file_changes_nothing(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, "")) == {}


def test_relative_paths_in_a_config_file_are_relative_to_it(tmp_path: Path) -> None:
    text = 'report = "r.json"\ncontact-sheet = "../sheet.png"\nregions = "/abs/regions.csv"\n'
    values = read_config(write(tmp_path, text))
    assert values["report"] == tmp_path / "r.json"
    assert values["contact_sheet"] == tmp_path / "../sheet.png"
    assert values["regions"] == Path("/abs/regions.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("threshhold = 0.5", "unknown setting 'threshhold': did you mean 'threshold'?"),
        ("threshold = 5", "threshold: "),
        ("threshold = ", "is not valid TOML"),
        ("[run]\nhold = 3", "unknown setting 'run'"),
    ],
)
def test_a_config_file_that_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        read_config(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_config_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UsageError, match="cannot read the config file"):
            read_config(path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot read the config file"):
        read_config(binary)


def test_a_preset_settles_what_is_not_given() -> None:
    for name in PRESETS:
        assert make_settings(RunSettings, {"preset": name}).preset == name
    settings = make_settings(RunSettings, {"preset": "deepprivacy2", "threshold": 0.6})
    assert (settings.person, settings.face, settings.threshold) == ("realistic", "realistic", 0.6)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"preset": "faces"}, ["blur", "blur", "blur"]),
        ({"preset": "faces", "face": "mask"}, ["mask", "mask", "mask"]),
        ({"preset": "faces", "face": "mask", "plate": "blur"}, ["mask", "mask", "blur"]),
        # Who keeps faces has not said so of persons.
        ({"preset": "faces", "face": "keep"}, ["blur", "keep", "blur"]),
        ({"preset": "faces", "face": "keep", "fallback": "mask"}, ["mask", "keep", "mask"]),
        ({"preset": "starter"}, ["realistic", "mask", "mask"]),
        ({"preset": "deepprivacy2"}, ["realistic", "realistic", "blur"]),
        ({"preset": "deepprivacy2", "face": "pixelate"}, ["realistic", "pixelate", "pixelate"]),
        ({"preset": "deepprivacy2-face"}, ["blur", "realistic", "blur"]),
        ({"preset": "sg-gan"}, ["realistic", "blur", "blur"]),
    ],
)
def test_every_kind_is_treated_as_asked_for_or_as_faces_are(values: dict[str, Any], expected: list[str]) -> None:
    settings = make_settings(AnonymizerSettings, values)
    assert [settings.treatment(kind) for kind in (Kind.PERSON, Kind.FACE, Kind.PLATE)] == expected


def test_engines_are_given_by_name_in_lists_and_in_tables(tmp_path: Path) -> None:
    assert make_settings(RunSettings, {"engine": ["face=a/b", "cse=c=d"]}).engine == {
        "face": Path("a/b"),
        "cse": Path("c=d"),
    }
    for text in ('engine = ["face=bundles/mine"]\n', '[engine]\nface = "bundles/mine"\n'):
        assert read_config(write(tmp_path, text))["engine"] == {"face": tmp_path / "bundles/mine"}


def test_folders_of_detectors_in_a_config_file_are_relative_to_it_and_names_are_names(tmp_path: Path) -> None:
    values = read_config(write(tmp_path, 'detector = ["mine/best", "centerface", "/abs/other"]\n'))
    assert values["detector"] == [str(tmp_path / "mine/best"), "centerface", "/abs/other"]


def test_every_setting_is_an_option_and_is_described() -> None:
    parameters = inspect.signature(run_command).parameters
    described = (AnonymizerSettings.__doc__ or "") + (RunSettings.__doc__ or "")
    assert len(RunSettings.model_fields) >= 25
    for name in RunSettings.model_fields:
        # Not given must be told apart from given as the default, or a config file could never win over nothing.
        assert parameters[name].default is None
        assert f"        {name}: " in described


@pytest.mark.parametrize("kind", [AnonymizerSettings, RunSettings])
def test_settings_cannot_be_changed_afterwards(kind: type[BaseModel]) -> None:
    with pytest.raises(ValueError, match="frozen"):
        kind().hold = 3  # type: ignore[attr-defined]

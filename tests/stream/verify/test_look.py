from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from engines.errors import SourceError, UsageError
from engines.store import Store
from stream.config import RunSettings, make_settings
from stream.frame import Image
from stream.networks import NetworkSettings
from stream.regions import Kind
from stream.run import run
from stream.verify import file
from stream.verify.look import Verification, VerifySettings, json_text, to_json, verify, write_text
from stream.verify.people import LookSettings
from tests.media import mean_error, pictures, read_clip, write_clip
from tests.stream.evaluate.made import map_network
from tests.stream.verify.clips import (
    COUNT,
    FIRST,
    HEIGHT,
    SECOND,
    WIDTH,
    Box,
    add_sound,
    again,
    following,
    moved,
    planted,
    raw_box,
    scene,
    scenes,
    tag,
    write_scenes,
)

pytest.importorskip("onnxruntime", reason="detectors run in ONNX Runtime")


@dataclass
class Place:
    """An original, a clean result with the run's report, and a store with two detectors."""

    folder: Path
    store: Store
    original: Path
    clean: Path
    report: Path

    def look(self, result: Path, **settings: Any) -> Verification:
        settings.setdefault("run_report", self.report)
        settings.setdefault("look", LookSettings(kinds=(Kind.FACE,)))
        return verify(self.original, result, VerifySettings(**settings), self.store)

    def plant(self, name: str, what: Callable[[int, Image, Image], Image | None], **options: Any) -> Path:
        return planted(self.clean, self.original, self.folder / name, what, **options)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("verify")
    store = Store(folder / "home", known={}, built_in=folder / "none")
    for name in ("of-the-run", "other"):
        following(store.path(name), name, (FIRST, SECOND))
    original, clean, report = folder / "in.mp4", folder / "clean.mp4", folder / "report.json"
    write_scenes(original)
    anonymize(folder, original, clean, report=report)
    return Place(folder, store, original, clean, report)


def anonymize(folder: Path, original: Path, target: Path, **settings: Any) -> Path:
    """What a run makes of it, with our own anonymizer and sink."""
    bundle = folder / "home" / "bundles" / "of-the-run"
    chosen = {"preset": "faces", "detector": [str(bundle)], "face": "mask", **settings}
    run(original, target, make_settings(RunSettings, chosen))
    return target


def texts(result: Verification, measure: str) -> list[str]:
    return [finding.text for finding in result.findings if finding.measure == measure]


def shows(result: Path, original: Path, box: Box) -> set[int]:
    """Frames in which a face of the result is nearly what it is in the original, without any of our own code."""
    pairs = zip(read_clip(result).images, read_clip(original).images, strict=True)
    found = set()
    for index, (new, old) in enumerate(pairs):
        x0, y0, x1, y1 = (int(value) for value in moved(box, index))
        if mean_error(new[y0:y1, x0:x1], old[y0:y1, x0:x1]) < 25:
            found.add(index)
    return found


def test_a_clean_result_has_no_finding(place: Place) -> None:
    assert not shows(place.clean, place.original, FIRST)
    result = place.look(place.clean)
    assert result.clean
    assert result.findings == ()
    assert result.detectors == ("other",)
    assert result.of_the_run == ("of-the-run",)
    assert result.measures["raw_area"] == 0
    assert sum(len(frame.regions) for frame in result.files[0].frames) == 2 * COUNT


@pytest.mark.parametrize("method", ["blur", "pixelate"])
def test_a_clean_result_of_another_anonymizer_has_no_finding(place: Place, method: str, tmp_path: Path) -> None:
    clean = anonymize(place.folder, place.original, tmp_path / "out.mp4", face=method)
    result = place.look(clean, run_report=None, look=LookSettings(("other",)))
    assert result.clean
    assert result.findings == ()


@pytest.mark.parametrize(("name", "options"), [("x.mp4", {"crf": 33}), ("x.mkv", {"codec": "ffv1"})])
def test_a_clean_result_that_is_encoded_again_has_no_finding(
    place: Place, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    result = place.look(again(place.clean, tmp_path / name, **options))
    assert result.clean
    assert result.findings == ()


@pytest.mark.parametrize("crf", [16, 32])
def test_ten_frames_that_are_left_raw_are_found_and_named(place: Place, crf: int) -> None:
    bad = set(range(12, 22))
    options = {"preset": "veryfast", "crf": str(crf)}
    result_at = place.plant("ten.mp4", lambda i, good, raw: raw if i in bad else good, options=options)
    # The control: they are there, and nowhere else.
    assert shows(result_at, place.original, FIRST) == shows(result_at, place.original, SECOND) == bad
    result = place.look(result_at)
    assert texts(result, "raw_frames") == ["10 frames left raw: nobody in frames 12 to 21 (0.48 to 0.84 s) is covered"]
    assert {"raw_area", "raw_frames", "report_faults"} == set(result.faults)
    assert result.measures["raw_frames"] == 10
    assert result.measures["raw_area"] == pytest.approx(0.25, abs=0.03)


def test_one_face_that_is_left_raw_for_three_frames_is_found_and_named(place: Place) -> None:
    bad = {25, 26, 27}
    result_at = place.plant(
        "three.mp4", lambda i, good, raw: raw_box(good, raw, moved(SECOND, i)) if i in bad else good
    )
    assert shows(result_at, place.original, SECOND) == bad
    assert not shows(result_at, place.original, FIRST)
    result = place.look(result_at)
    (text,) = texts(result, "raw_frames")
    assert text.startswith("a face (track 1) left raw in 3 frames, frames 25 to 27 (1.00 to 1.08 s)")
    assert "raw_frames" in result.faults
    assert {case.index for case in result.files[0].cases} <= bad


def test_a_late_first_detection_is_found_and_named(place: Place) -> None:
    result_at = place.plant("late.mp4", lambda i, good, raw: raw_box(good, raw, moved(FIRST, i)) if i < 5 else good)
    assert shows(result_at, place.original, FIRST) == set(range(5))
    (text,) = texts(place.look(result_at), "raw_frames")
    assert text == (
        "late first detection: a face (track 0) is raw in its first 5 frames, frames 0 to 4 (0.00 to 0.16 s), "
        "and covered after"
    )


def test_a_shifted_time_stamp_is_found_and_named(place: Place) -> None:
    times = [40 * index + (11 if index == 17 else 0) for index in range(COUNT)]
    result_at = place.plant("shift.mp4", lambda i, good, raw: good, times=times)
    assert read_clip(result_at).times[17] - read_clip(place.original).times[17] == Fraction(11, 1000)
    result = place.look(result_at)
    assert texts(result, "shifted_frames") == ["frame 17 is +0.0110 s off its time"]
    assert result.faults == ("shifted_frames",)


def test_a_missing_frame_is_found_and_named(place: Place) -> None:
    result_at = place.plant("missing.mp4", lambda i, good, raw: None if i in (8, 9) else good)
    assert len(read_clip(result_at).images) == COUNT - 2
    result = place.look(result_at)
    assert texts(result, "missing_frames") == ["2 frames missing in the output: frames 8 to 9"]
    assert result.faults == ("missing_frames",)


def test_a_picture_that_is_shown_twice_is_named(place: Place) -> None:
    good = read_clip(place.clean).images
    result_at = place.plant("twice.mkv", lambda i, image, raw: good[i - 1] if i == 20 else image, codec="ffv1")
    result = place.look(result_at)
    assert texts(result, "repeated_frames") == ["the picture before is shown once more in frame 20"]


def test_sound_that_is_kept_is_found_and_named(place: Place, tmp_path: Path) -> None:
    result_at = add_sound(place.clean, tmp_path / "loud.mp4")
    assert read_clip(result_at).types == ["video", "audio"]
    result = place.look(result_at)
    assert texts(result, "streams_left") == ["left in the output: audio (stream 1, aac)"]
    assert result.faults == ("streams_left",)


def test_a_place_that_is_kept_is_found_named_and_not_told(place: Place, tmp_path: Path) -> None:
    result_at = tag(place.clean, tmp_path / "gps.mp4", {"location": "+59.9127+010.7461/"})
    assert "location" in read_clip(result_at).metadata
    result = place.look(result_at)
    assert texts(result, "metadata_left") == ["left in the output: place: location (container)"]
    assert result.faults == ("metadata_left",)
    assert "59.9" not in json_text(result)


def stand_in(image: Image, index: int, colour: tuple[int, int, int]) -> Image:
    """The first face as a head of that colour, with a shade that moves."""
    x0, y0, x1, y1 = (int(value) for value in moved(FIRST, index))
    out = image.copy()
    shade = np.linspace(0.8, 1.1, y1 - y0 + 12)[:, None, None] + 0.02 * np.sin(index)
    out[y0 - 6 : y1 + 6, x0 - 6 : x1 + 6] = (np.array(colour) * shade).clip(0, 255).astype(np.uint8)
    return out


def test_an_identity_switch_is_found_and_named(place: Place) -> None:
    def painted(colours: Sequence[tuple[int, int, int]]) -> Path:
        return place.plant(f"{len(set(colours))}.mp4", lambda i, good, raw: stand_in(good, i, colours[i]))

    steady = place.look(painted([(200, 150, 120)] * COUNT))
    assert not texts(steady, "identity_switches")
    switched = place.look(painted([(200, 150, 120)] * 23 + [(110, 80, 60)] * (COUNT - 23)))
    (text,) = texts(switched, "identity_switches")
    assert text.startswith("identity switch: a face (track 0) has another stand-in from frame 23 on (0.92 s)")
    assert switched.clean, "without a limit it is a finding, and no fault"
    assert not place.look(
        painted([(200, 150, 120)] * 23 + [(110, 80, 60)] * (COUNT - 23)), limits={"raw_area": 0}
    ).faults
    limited = place.look(place.folder / "2.mp4", limits={"identity_switches": 0})
    assert limited.faults == ("identity_switches",)


def test_a_stand_in_that_flickers_moves_more_than_its_original(place: Place, tmp_path: Path) -> None:
    perceptual = NetworkSettings(map_network(tmp_path / "maps.onnx"))

    def tlp(name: str, colours: Sequence[tuple[int, int, int]]) -> float:
        path = place.plant(name, lambda i, good, raw: stand_in(good, i, colours[i]))
        return place.look(path, perceptual=perceptual).measures["tlp"]

    dark, light = (110, 80, 60), (200, 150, 120)
    steady = tlp("steady.mp4", [light] * COUNT)
    flickering = tlp("flickering.mp4", [light if index % 2 else dark for index in range(COUNT)])
    assert flickering > 5 * steady > 0
    limited = place.look(place.folder / "flickering.mp4", perceptual=perceptual, limits={"tlp": 2 * steady})
    assert limited.faults == ("tlp",)
    assert limited.files[0].perceptual is not None
    assert limited.files[0].perceptual.steps == 2 * (COUNT - 1)


def test_the_starter_detector_finds_a_raw_face_and_none_in_a_clean_result(tmp_path: Path) -> None:
    store = Store(tmp_path / "home", known={})
    if "starter-detector" not in store.available():
        pytest.skip("this installation has no starter detector")
    place: Box = (70, 20, 154, 125)
    original = write_scenes(tmp_path / "in.mp4", 8, [place])
    following(tmp_path / "home" / "bundles" / "of-the-run", "of-the-run", [(50, 0, 174, 150)])
    clean = anonymize(tmp_path, original, tmp_path / "clean.mp4")
    settings = VerifySettings(look=LookSettings(("starter-detector",), (Kind.FACE,), threshold=0.3))
    good = verify(original, clean, settings, store)
    assert sum(len(frame.regions) for frame in good.files[0].frames) >= 6, "it finds the face at all"
    assert good.clean
    bad = planted(clean, original, tmp_path / "bad.mp4", lambda i, image, raw: raw if i in (3, 4) else image)
    found = verify(original, bad, settings, store)
    assert found.measures["raw_frames"] == 2
    assert "raw_frames" in found.faults


def test_a_report_that_calls_a_frame_withheld_is_checked(place: Place, tmp_path: Path) -> None:
    content = json.loads(place.report.read_text())
    content["frames"][6]["withheld"] = "the detector failed"
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(content))
    result = place.look(place.clean, run_report=wrong)
    assert texts(result, "report_faults") == [
        "the run's report: frames that the report calls withheld still show something: frame 6"
    ]
    flat = place.plant("flat.mp4", lambda i, good, raw: np.full_like(good, 128) if i == 6 else good)
    assert place.look(flat, run_report=wrong).clean


def test_a_report_without_a_region_and_a_frame_is_noticed(place: Place, tmp_path: Path) -> None:
    content = json.loads(place.report.read_text())
    del content["frames"][9]
    content["frames"][3]["regions"] = content["frames"][3]["regions"][:1]
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(content))
    result = place.look(place.clean, run_report=wrong)
    assert texts(result, "report_faults") == ["the run's report: frames of the original are not in the report: frame 9"]
    assert texts(result, "unreported") == ["a face or person in frame 3 is not in the run's report"]


def test_an_output_that_ends_in_the_middle_is_no_clean_one(place: Place, tmp_path: Path) -> None:
    whole = again(place.clean, tmp_path / "whole.mkv")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    result = place.look(cut)
    assert {"missing_frames", "unseen_frames"} <= set(result.faults)


def test_a_part_of_a_clip_is_compared_with_the_part_that_the_run_had(place: Place, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    part = anonymize(place.folder, place.original, tmp_path / "part.mp4", start=0.4, end=1.2, report=report)
    result = place.look(part, run_report=report)
    assert result.clean
    assert [frame.index for frame in result.files[0].frames] == list(range(10, 30))
    assert not place.look(part, run_report=None, look=LookSettings(("other",))).clean


def test_nobody_at_all_is_said(place: Place, tmp_path: Path) -> None:
    following(tmp_path / "blind", "blind", [])
    result = place.look(place.original.parent / "clean.mp4", look=LookSettings((str(tmp_path / "blind"),)))
    assert result.clean
    assert texts(result, "empty_files") == ["detectors found nobody in the original"]
    limited = place.look(place.clean, look=LookSettings((str(tmp_path / "blind"),)), limits={"empty_files": 0})
    assert limited.faults == ("empty_files",)


@pytest.mark.parametrize("change", ["brighter", "gamma", "moved"])
def test_raw_people_are_found_whatever_was_done_to_the_whole_picture(place: Place, change: str, tmp_path: Path) -> None:
    def changed(image: Image) -> Image:
        if change == "brighter":
            return np.clip(image.astype(np.int16) + 20, 0, 255).astype(np.uint8)
        if change == "gamma":
            return (255 * (image / 255) ** 0.7).astype(np.uint8)
        return np.asarray(np.roll(image, 4, axis=1), np.uint8)

    path = planted(place.clean, place.original, tmp_path / "x.mp4", lambda i, good, raw: changed(raw))
    result = place.look(path, run_report=None, look=LookSettings(("other",)))
    assert result.measures["raw_frames"] == COUNT


def test_a_result_of_another_recording_is_no_clean_one(place: Place, tmp_path: Path) -> None:
    other = [np.asarray(np.rot90(image, 2), np.uint8) for image in scenes()]
    write_clip(tmp_path / "other.mp4", other)
    result = place.look(tmp_path / "other.mp4", run_report=None, look=LookSettings(("other",)))
    assert result.measures["unmatched_frames"] == COUNT
    assert "unmatched_frames" in result.faults
    (text,) = texts(result, "unmatched_frames")
    assert "do not show the original's place" in text


def test_a_limit_on_what_is_not_measured_is_refused_or_said(place: Place, tmp_path: Path) -> None:
    for measure, option in (("tlp", "--perceptual"), ("rank1", "--embedding")):
        with pytest.raises(UsageError, match=f"--fail-over {measure} needs a network: {option} FILE"):
            place.look(place.clean, limits={measure: 0.1})
    following(tmp_path / "blind", "blind", [])
    perceptual = NetworkSettings(map_network(tmp_path / "maps.onnx"))
    look = LookSettings((str(tmp_path / "blind"),))
    result = place.look(place.clean, look=look, perceptual=perceptual, limits={"tlp": 0.1})
    assert texts(result, "tlp") == ["tlp could not be taken, so its limit was not looked at"]


def test_a_file_without_its_report_is_no_clean_one(place: Place, tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    lacking = place.look(place.clean, run_report=tmp_path / "reports", look=LookSettings(("other",)))
    assert lacking.faults == ("report_faults",)
    assert texts(lacking, "report_faults") == ["the run's report: there is none of this file"]


def test_frames_that_cannot_be_read_again_are_no_clean_result(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = file.matched
    monkeypatch.setattr(file, "matched", lambda *given: islice(whole(*given), 7))
    result = place.look(place.clean)
    assert "unseen_frames" in result.faults
    (text,) = texts(result, "unseen_frames")
    assert text == f"{COUNT - 7} of {COUNT} frames were there at first, and could not be read again"


def test_only_some_frames_are_compared_if_asked(place: Place) -> None:
    result = place.look(place.clean, every=8)
    assert [frame.index for frame in result.files[0].frames] == [0, 8, 16, 24, 32]
    assert result.clean


def test_folders_are_compared_by_path_and_what_is_missing_is_said(place: Place, tmp_path: Path) -> None:
    before, after = tmp_path / "a", tmp_path / "b"
    for folder in (before / "deep", after / "deep"):
        folder.mkdir(parents=True)
    (before / "deep" / "one.mp4").write_bytes(place.original.read_bytes())
    (after / "deep" / "one.mp4").write_bytes(place.clean.read_bytes())
    (before / "lost.mp4").write_bytes(place.original.read_bytes())
    (after / "new.mp4").write_bytes(place.clean.read_bytes())
    (before / "broken.mp4").write_text("no video")
    (after / "broken.mp4").write_text("no video")
    (before / "notes.txt").write_text("not looked at")
    settings = VerifySettings(look=LookSettings(("other", "of-the-run")), every=10)
    result = verify(before, after, settings, place.store)
    assert [file.name for file in result.files] == ["broken.mp4", "deep/one.mp4"]
    assert result.missing == ("lost.mp4",)
    assert result.extra == ("new.mp4",)
    assert result.faults == ("missing_files", "extra_files")
    assert texts(result, "extra_files") == ["there is no original of this result"]
    assert result.measures["missing_files"] == 2
    assert len(texts(result, "missing_files")) == 2
    assert str(tmp_path) not in json_text(result)


def test_images_are_compared_with_what_they_carry(place: Place, tmp_path: Path) -> None:
    before, after = tmp_path / "a.png", tmp_path / "b.jpg"
    Pillow.fromarray(scene(0)).save(before)
    covered = scene(0)
    for x0, y0, x1, y1 in ((12, 10, 76, 90), (82, 74, 138, 142)):
        covered[y0:y1, x0:x1] = 0
    Pillow.fromarray(covered).save(after, quality=90)
    settings = VerifySettings(look=LookSettings(("other",)))
    assert verify(before, after, settings, place.store).clean
    exif = Pillow.Exif()
    exif[0x0110] = "Camera 3000"
    Pillow.fromarray(scene(0)).save(after, quality=90, exif=exif)
    result = verify(before, after, settings, place.store)
    assert result.measures["raw_frames"] == 1
    assert texts(result, "metadata_left") == ["left in the output: device: Model (EXIF)"]
    assert "Camera 3000" not in json_text(result)


def test_a_folder_of_images_is_compared_with_the_report_of_its_run(place: Place, tmp_path: Path) -> None:
    before, after, report = tmp_path / "a", tmp_path / "b", tmp_path / "report.json"
    (before / "deep").mkdir(parents=True)
    for index, name in enumerate(("one.png", "deep/two.png")):
        Pillow.fromarray(scene(index)).save(before / name)
    anonymize(place.folder, before, after, report=report)
    settings = VerifySettings(look=LookSettings(kinds=(Kind.FACE,)), run_report=report)
    clean = verify(before, after, settings, place.store)
    assert clean.findings == ()
    assert clean.of_the_run == ("of-the-run",)
    Pillow.fromarray(scene(1)).save(after / "deep" / "two.png")
    raw = verify(before, after, settings, place.store)
    assert {"raw_area", "raw_frames", "report_faults"} == set(raw.faults)
    assert {finding.file for finding in raw.findings} == {"deep/two.png"}


def test_the_json_has_every_number_and_no_picture(place: Place, tmp_path: Path) -> None:
    result = place.look(place.clean)
    content = json.loads(json_text(result))
    assert content["schema_version"] == 1
    assert content["measures"]["raw_area"] == {
        "value": 0.0,
        "limit": 0.001,
        "meaning": "share of the area of faces and persons that is as in the original",
    }
    assert len(content["files"][0]["frames"]) == COUNT
    assert content["files"][0]["perceptual"] is None
    assert "tlp" not in content["measures"]
    assert str(tmp_path.parent) not in json_text(result)
    assert {name: content[name] for name in ("detectors", "threshold", "detect_size", "tiles", "every", "kinds")} == {
        "detectors": ["other"],
        "threshold": 0.5,
        "detect_size": 1280,
        "tiles": 1,
        "every": 1,
        "kinds": ["face"],
    }
    write_text(tmp_path / "out.json", json_text(result), overwrite=False)
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads(json.dumps(to_json(result)))


def test_what_cannot_be_meant_is_one_clear_line(place: Place, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("this is no video")
    other_size = write_clip(tmp_path / "size.mp4", pictures(3))
    cases: list[tuple[type[Exception], Path, str]] = [
        (UsageError, tmp_path / "nothing.mp4", "no such file or folder"),
        (SourceError, text, "cannot be opened as video"),
        (SourceError, other_size, f"the original is {WIDTH}x{HEIGHT}, the output 64x48; sizes must agree"),
        (UsageError, place.folder, "is a folder and"),
        (UsageError, place.original, "are the same"),
    ]
    for kind, path, message in cases:
        with pytest.raises(kind, match=re.escape(message)) as raised:
            place.look(path)
        assert "\n" not in str(raised.value)
    with pytest.raises(UsageError, match="there is no detector for faces and persons here beside those of the run"):
        verify(
            place.original,
            place.clean,
            VerifySettings(run_report=place.report),
            Store(tmp_path / "empty", known={}, built_in=tmp_path / "none"),
        )


def test_clips_without_a_common_frame_are_refused(place: Place, tmp_path: Path) -> None:
    first = write_scenes(tmp_path / "a.mp4", 4, time_base=Fraction(1, 1000), times=[0, 40, 80, 120])
    second = write_scenes(tmp_path / "b.mkv", 2, time_base=Fraction(1, 1000), times=[5000, 9000])
    with pytest.raises(UsageError, match="no frame of the output has the time of one of the original"):
        verify(first, second, VerifySettings(look=LookSettings(("other",))), place.store)

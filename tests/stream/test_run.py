"""A whole run from file to file, without the terminal."""

from __future__ import annotations

import json
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from engines.errors import SinkError, SourceError, UsageError
from stream.anonymizer import Anonymized, Anonymizer
from stream.config import RunSettings
from stream.frame import Frame
from stream.manual import ManualRegion, ManualRegions
from stream.pipeline import Pipeline
from stream.regions import Regions
from stream.run import RunResult, run
from stream.run_checks import check_lookahead
from stream.sources.base import StreamInfo
from tests.fakes import (
    FILLS,
    Box,
    FixedDetector,
    FunctionDetector,
    covered_share,
    faces,
    finishes_within,
    flat_settings,
    noise,
    read_pictures,
    write_lossless,
)
from tests.media import write_clip

FACE: Box = (20, 10, 40, 34)
COUNT = 10


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return write_lossless(tmp_path / "in" / "clip.mkv", noise(COUNT))


def covering(**settings: object) -> Anonymizer:
    return Anonymizer([FixedDetector(FACE)], FILLS, flat_settings(**settings))


def go(source: Path, output: Path, anonymizer: Anonymizer, **settings: object) -> RunResult:
    defaults: dict[str, object] = {} if source.is_dir() or source.suffix == ".png" else {"codec": "ffv1"}
    chosen = RunSettings.model_validate(defaults | settings)
    return finishes_within(30, lambda: run(source, output, chosen, anonymizer=anonymizer))


def test_a_run_writes_output_report_and_contact_sheet_that_agree(clip: Path, tmp_path: Path) -> None:
    output, report, sheet = (tmp_path / name for name in ("out.mkv", "report.json", "sheet.png"))
    result = go(clip, output, covering(), report=report, contact_sheet=sheet)
    pictures = read_pictures(output)
    entries = json.loads(report.read_text())["frames"]
    assert len(pictures) == len(entries) == result.summary.frames == COUNT
    for picture, entry in zip(pictures, entries, strict=True):
        covered = np.zeros(picture.shape[:2], bool)
        for region in entry["regions"]:
            x0, y0, x1, y1 = region["box"]
            covered[y0:y1, x0:x1] = True
        assert np.array_equal((picture == 0).all(axis=2), covered)
    with Pillow.open(sheet) as picture_of_all:
        assert picture_of_all.size[0] > 320
    assert result.problems == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.mkv", "report.json", "sheet.png"]


def test_the_report_says_what_the_anonymizer_covered_not_what_the_settings_would_have(
    clip: Path, tmp_path: Path
) -> None:
    go(clip, tmp_path / "out.mkv", covering(margin=0.0), report=tmp_path / "r.json", margin=0.5)
    entries = json.loads((tmp_path / "r.json").read_text())["frames"]
    assert entries[0]["regions"][0]["box"] == list(FACE)


def test_the_caller_is_told_of_the_start_and_of_every_frame(clip: Path, tmp_path: Path) -> None:
    started: list[StreamInfo] = []
    seen: list[Anonymized] = []
    settings = RunSettings(codec="ffv1")

    def begin(info: StreamInfo, pipeline: Pipeline) -> None:
        assert isinstance(pipeline, Pipeline)
        started.append(info)

    run(clip, tmp_path / "o.mkv", settings, on_start=begin, on_frame=seen.append, anonymizer=covering())
    assert [(info.width, info.height) for info in started] == [(64, 48)]
    assert len(seen) == COUNT


def test_a_run_may_be_stopped_by_its_caller(clip: Path, tmp_path: Path) -> None:
    pipelines: list[Pipeline] = []

    def begin(info: StreamInfo, pipeline: Pipeline) -> None:
        pipelines.append(pipeline)

    def slow(frame: Frame) -> Regions:
        threading.Event().wait(0.05)
        return faces(FACE)

    anonymizer = Anonymizer([FunctionDetector(slow)], FILLS, flat_settings())
    result = run(
        clip,
        tmp_path / "out.mkv",
        RunSettings(codec="ffv1"),
        on_start=begin,
        on_frame=lambda _: pipelines[0].stop(),
        anonymizer=anonymizer,
    )
    assert 1 <= result.summary.frames == len(read_pictures(tmp_path / "out.mkv")) <= COUNT


def test_regions_are_drawn_on_the_anonymized_picture_only(clip: Path, tmp_path: Path) -> None:
    go(clip, tmp_path / "out.mkv", covering(), show_regions=True)
    for picture, raw in zip(read_pictures(tmp_path / "out.mkv"), noise(COUNT), strict=True):
        inside = picture[11:33, 21:39]
        assert not (inside == raw[11:33, 21:39]).all(axis=2).any()
        assert (picture[10, 20:40] == (0, 220, 0)).all()


@pytest.mark.parametrize("what", ["report", "contact_sheet"])
def test_a_run_that_fails_leaves_neither_output_nor_extras(clip: Path, tmp_path: Path, what: str) -> None:
    def fail(_: Anonymized) -> None:
        raise SinkError("nobody listens")

    extra = tmp_path / ("r.json" if what == "report" else "s.png")
    settings = RunSettings.model_validate({"codec": "ffv1", what: extra})
    with pytest.raises(SinkError, match="nobody listens"):
        run(clip, tmp_path / "out.mkv", settings, on_frame=fail, anonymizer=covering())
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_sink_that_cannot_be_opened_leaves_no_report(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        go(clip, tmp_path / "out.mkv", covering(), codec="nonsense", report=tmp_path / "r.json")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    for index in range(count):
        # Pictures of different sizes, as folders have them.
        Pillow.fromarray(noise(1, 64 + 8 * index, 48)[0]).save(folder / f"{index}.png")
    return folder


def test_images_of_a_folder_have_nothing_to_do_with_each_other(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 4)
    detector = FunctionDetector(lambda f: faces(FACE) if f.source == "1.png" else faces())
    settings = RunSettings()
    anonymizer = Anonymizer([detector], FILLS, flat_settings())
    result = run(folder, tmp_path / "out", settings, anonymizer=anonymizer)
    assert result.summary.frames == 4
    shares = [covered_share(np.asarray(Pillow.open(tmp_path / "out" / f"{i}.png")), FACE) for i in range(4)]
    assert shares == [0, 1, 0, 0]


@pytest.mark.parametrize(("given", "used"), [({}, [0, 0]), ({"hold": 3}, [3, 0]), ({"lookahead": 2}, [0, 2])])
def test_hold_and_lookahead_are_off_for_stills_unless_given(
    given: dict[str, int], used: list[int], tmp_path: Path
) -> None:
    folder = photos(tmp_path / "photos", 1)
    settings = RunSettings.model_validate({"report": tmp_path / "r.json", **given})
    run(folder, tmp_path / "out", settings, anonymizer=covering())
    written = json.loads((tmp_path / "r.json").read_text())["settings"]
    assert [written["hold"], written["lookahead"]] == used


def test_an_image_that_cannot_be_read_is_a_problem_of_the_run(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 2)
    (folder / "broken.png").write_bytes(b"no picture")
    result = go(folder, tmp_path / "out", covering())
    assert result.summary.frames == 2
    assert len(result.problems) == 1
    assert "broken.png" in result.problems[0]


def test_an_image_gives_an_image(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 1)
    go(folder / "0.png", tmp_path / "out.png", covering())
    picture = np.asarray(Pillow.open(tmp_path / "out.png"))
    assert covered_share(picture, FACE) == 1
    assert [path.name for path in (tmp_path).iterdir() if path.name.startswith(".")] == []


def test_a_name_that_is_too_long_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot read"):
        run(tmp_path / ("x" * 300), tmp_path / "out.mkv", RunSettings(), anonymizer=covering())


def test_times_of_regions_by_hand_count_from_the_beginning_of_the_clip(tmp_path: Path) -> None:
    late = write_clip(
        tmp_path / "late.mkv",
        noise(COUNT),
        time_base=Fraction(1, 1000),
        times=[5000 + 100 * index for index in range(COUNT)],
    )
    by_hand = ManualRegions([ManualRegion(start=0.2, end=0.4, x0=20, y0=10, x1=40, y1=34)])
    for start, counts in ((None, [0, 0, 1, 1, 1, 0, 0, 0, 0, 0]), (0.3, [1, 1, 0, 0, 0, 0, 0])):
        found: list[int] = []
        settings = RunSettings.model_validate({"start": start, "overwrite": True})
        result = run(
            late,
            tmp_path / "out.mkv",
            settings,
            anonymizer=Anonymizer([], FILLS, flat_settings(), manual=by_hand),
            on_frame=lambda item, found=found: found.append(len(item.regions)),  # type: ignore[misc]
        )
        assert found == counts
        assert result.notes == ()


def test_regions_by_hand_that_never_apply_are_pointed_out(clip: Path, tmp_path: Path) -> None:
    entries = [ManualRegion(start=at, x0=20, y0=10, x1=40, y1=34) for at in (0, 90_000)]
    anonymizer = Anonymizer([], FILLS, flat_settings(), manual=ManualRegions(entries))
    assert go(clip, tmp_path / "out.mkv", anonymizer).notes == (
        "1 of 2 regions given by hand lie outside the clip's time",
    )


def test_a_lookahead_that_does_not_fit_into_memory_is_refused_with_what_would(clip: Path, tmp_path: Path) -> None:
    info = StreamInfo(name="big", width=7680, height=4320)
    with pytest.raises(UsageError, match=r"use at most 21$"):
        check_lookahead(info, 1000)
    check_lookahead(info, 21)
    assert go(clip, tmp_path / "out.mkv", covering(lookahead=1000)).summary.frames == COUNT

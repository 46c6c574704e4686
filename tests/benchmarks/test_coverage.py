"""The coverage benchmark: what is covered counts as nothing, what is not is noticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import common, coverage
from benchmarks.coverage import (
    COLOUR,
    CONTROL,
    FLAT,
    METHODS,
    Tally,
    measure,
    measure_file,
    problems,
    settings_for,
    tally,
)
from stream.anonymizer import Anonymized, Anonymizer
from stream.assemble import make_fills
from stream.frame import Frame, Image
from stream.generators.classical import Fill, mask_out
from stream.regions import Kind, Regions
from tests.closed import raising
from tests.fakes import FixedDetector, FunctionDetector, faces, frames, install_bundle, noise, write_lossless

BOX = (20.0, 10.0, 40.0, 34.0)
PIXELS = 20 * 24
COUNT = 8


def anonymizer(method: str, *, fill: Fill | None = None, box: tuple[float, float, float, float] = BOX) -> Anonymizer:
    settings = settings_for(method, ()).model_copy(update={"margin": 0.0, "hold": 0, "lookahead": 2})
    fills = make_fills(settings) if fill is None else dict.fromkeys(Kind, fill)
    return Anonymizer([FixedDetector(box)], fills, settings)


def made_clip(*images: Image) -> Callable[[], list[Frame]]:
    return lambda: frames(images or noise(COUNT))


def measured(anonymizer_for: Callable[[str], Anonymizer], look: Callable[[Frame], Regions]) -> dict[str, Any]:
    return {"clip": "made", **measure(made_clip(), look, anonymizer_for)}


def test_a_covered_clip_has_nothing_raw_and_its_control_all() -> None:
    row = measured(anonymizer, lambda _: faces(BOX))
    assert row["raw"] == {
        "mask": {"pixels": 0},
        "realistic": {"pixels": 0},
        "blur": {"regions": 0},
        "pixelate": {"regions": 0},
    }
    assert row["control"] == {"pixels": COUNT * PIXELS, "regions": COUNT}
    assert (row["frames"], row["withheld"], row["regions"], row["pixels"]) == (COUNT, 0, COUNT, COUNT * PIXELS)
    assert row["by_kind"] == {"face": COUNT}
    assert problems([row]) == []


def test_each_pixel_that_the_anonymizer_leaves_out_is_counted() -> None:
    def look(_: Frame) -> Regions:
        return faces((20, 10, 41, 34))

    row = measured(anonymizer, look)
    assert row["raw"]["mask"] == {"pixels": COUNT * 24}
    assert problems([row]) == [f"made: {COUNT * 24} raw pixels with {method}" for method in FLAT]


def test_a_region_that_no_method_covers_is_counted_with_all() -> None:
    row = measured(anonymizer, lambda _: faces(BOX, (50, 2, 60, 12)))
    assert row["raw"] == {
        "mask": {"pixels": COUNT * 100},
        "realistic": {"pixels": COUNT * 100},
        "blur": {"regions": COUNT},
        "pixelate": {"regions": COUNT},
    }
    assert len(problems([row])) == 4


@pytest.mark.parametrize("method", METHODS)
def test_an_anonymizer_that_changes_nothing_is_noticed(method: str) -> None:
    made = tally(made_clip(), [faces(BOX)] * COUNT, anonymizer(method, fill=np.copy))
    assert (made.not_flat, made.unchanged) == (COUNT * PIXELS, COUNT)


def test_what_leaves_is_compared_with_what_was_decoded_even_if_that_was_written_over() -> None:
    class Writes(Anonymizer):
        def iterate(self, frames: Any) -> Any:
            for frame in frames:
                frame.image[:] = COLOUR
                yield Anonymized(frame, Regions.empty())

    settings = settings_for("mask", ())
    made = tally(made_clip(), [faces(BOX)] * COUNT, Writes([FixedDetector(BOX)], make_fills(settings), settings))
    assert (made.pixels, made.not_flat, made.unchanged) == (COUNT * PIXELS, 0, 0)


def test_a_control_that_looks_covered_is_a_problem() -> None:
    row = measured(lambda method: anonymizer("mask", fill=mask_out(COLOUR)), lambda _: faces(BOX))
    assert problems([row]) == ["made: the control, which keeps everything, looks covered"]


def test_no_region_at_all_is_a_problem() -> None:
    row = measured(anonymizer, lambda _: Regions.empty())
    assert problems([row]) == ["no region was found in any clip, so nothing was tested"]


def test_a_region_of_one_colour_can_not_be_seen_to_change() -> None:
    flat = np.full((48, 64, 3), 77, np.uint8)
    made = tally(made_clip(flat), [faces(BOX)], anonymizer("blur"))
    assert (made.regions, made.unchanged) == (1, 0)


def test_a_region_outside_the_frame_has_nothing_to_cover() -> None:
    made = tally(made_clip(), [faces((100, 100, 120, 120))] * COUNT, anonymizer("mask"))
    assert (made.regions, made.pixels, made.not_flat) == (0, 0, 0)


def test_withheld_frames_are_counted_apart_and_are_a_problem() -> None:
    def for_method(method: str) -> Anonymizer:
        settings = settings_for(method, ())
        return Anonymizer([FunctionDetector(raising)], make_fills(settings), settings)

    row = measured(for_method, lambda _: faces(BOX))
    assert (row["withheld"], row["regions"]) == (COUNT, 0)
    assert f"made: {COUNT} frames were withheld, so nothing is known of them" in problems([row])


def test_a_withheld_frame_that_shows_something_is_an_error() -> None:
    image = noise(1)[0]
    with pytest.raises(RuntimeError, match="still shows something"):
        Tally().add(image, Anonymized(Frame(image), Regions.empty(), withheld="broken"), faces(BOX))


def test_lost_frames_are_an_error() -> None:
    class Loses(Anonymizer):
        def iterate(self, frames: Any) -> Any:
            return (frame for index, frame in enumerate(super().iterate(frames)) if index < COUNT - 1)

    settings = settings_for("mask", ())
    with pytest.raises(RuntimeError, match="8 frames went in, 7 came out"):
        tally(made_clip(), [faces(BOX)] * COUNT, Loses([FixedDetector(BOX)], make_fills(settings), settings))


def test_a_file_is_measured_with_bundles_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    monkeypatch.setenv("COLUMNS", "200")
    bundle = install_bundle(tmp_path / "home", BOX)
    clip = write_lossless(tmp_path / "clip.mkv", noise(COUNT))
    row = measure_file(clip, [str(bundle.path)], 5)
    assert (row["clip"], row["frames"], row["control"]) == ("clip.mkv", 5, {"pixels": 5 * PIXELS, "regions": 5})
    assert problems([row]) == []
    call = ["coverage.py", str(clip), "--detector", "centerface", "--frames", "3"]
    monkeypatch.setattr("sys.argv", call)
    assert coverage.main() == 0
    saved = json.loads((tmp_path / "results" / "coverage.json").read_text())
    assert saved["detectors"] == ["centerface"]
    assert saved["problems"] == []
    assert [row["frames"] for row in saved["clips"]] == [3]
    assert "clip.mkv" in capsys.readouterr().out


def test_the_control_is_the_only_one_that_keeps() -> None:
    for method in (*METHODS, CONTROL):
        settings = settings_for(method, ("a", "b"))
        # A stand-in has a generator of its own; what it cannot replace is masked.
        assert {settings.treatment(kind) for kind in Kind} == {"mask" if method == "realistic" else method}
        assert settings.shape == "box"
        assert settings.detector == ("a", "b")

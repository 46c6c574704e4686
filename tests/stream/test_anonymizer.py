"""The anonymizer in somebody else's loop."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stream
from engines.bundle import Bundle, write_bundle
from engines.errors import BundleError, BundleMissingError, StreamStoppedError, UsageError
from engines.store import Store
from stream.anonymizer import Anonymized, Anonymizer
from stream.assemble import make_fills
from stream.compose.parts import Painters
from stream.config import AnonymizerSettings
from stream.deadline import HungError
from stream.frame import WITHHELD_LEVEL, Frame, Image
from stream.manual import ManualRegion, ManualRegions
from stream.outline import Outline, PixelMask
from stream.regions import Kind, Regions
from stream.stand_ins import StandIns
from stream.surface import Surface
from tests.compose import Flat, posed
from tests.engines.helpers import doubler, tiny_draft
from tests.fakes import (
    FILLS,
    Box,
    FixedDetector,
    FunctionDetector,
    covered_share,
    faces,
    flat_settings,
    frames,
    noise,
    number,
    whole,
)
from tests.generator_bundles import vertex_embeddings, write_unet
from tests.stream.outlines import pixels_of

FACE: Box = (20, 10, 40, 34)


def test_a_frame_goes_in_and_comes_out_covered() -> None:
    detector = FixedDetector(FACE)
    with Anonymizer([detector], FILLS, flat_settings()) as anonymizer:
        for frame in frames(noise(5)):
            result = anonymizer.anonymize(frame)
            expected = frame.image.copy()
            expected[10:34, 20:40] = 0
            assert np.array_equal(result.image, expected)
            assert result.frame.pts == frame.pts
            assert len(result.regions) == 1
            assert result.withheld is None
    assert detector.closed


def test_the_input_picture_is_not_written() -> None:
    frame = frames(noise(1))[0]
    before = frame.image.copy()
    with Anonymizer([FixedDetector(FACE)], FILLS, flat_settings()) as anonymizer:
        anonymizer.anonymize(frame)
    assert np.array_equal(frame.image, before)


def test_frames_cannot_be_given_out_at_once_while_looking_ahead() -> None:
    with (
        Anonymizer([FixedDetector(FACE)], FILLS, flat_settings(lookahead=3)) as anonymizer,
        pytest.raises(UsageError, match=r"needs lookahead=0; use iterate\(\)"),
    ):
        anonymizer.anonymize(frames(noise(1))[0])


@pytest.mark.parametrize("lookahead", [0, 3])
def test_a_whole_stream_may_be_iterated_and_another_one_after_it(lookahead: int) -> None:
    detector = FixedDetector(FACE)
    with Anonymizer([detector], FILLS, flat_settings(lookahead=lookahead, hold=5)) as anonymizer:
        for _ in range(2):
            assert [item.frame.pts for item in anonymizer.iterate(frames(noise(7)))] == list(range(7))
        assert list(anonymizer.iterate([])) == []
        assert anonymizer.tracks_begun == 2
    assert detector.resets == 3


def test_nothing_of_one_stream_is_held_in_the_next() -> None:
    answers = iter([faces(FACE), faces()])
    with Anonymizer([FunctionDetector(lambda _: next(answers))], FILLS, flat_settings(hold=9)) as anonymizer:
        list(anonymizer.iterate(frames(noise(1))))
        (second,) = anonymizer.iterate(frames(noise(1)))
    assert len(second.regions) == 0


def test_all_detectors_look_and_their_regions_are_united() -> None:
    both = [FixedDetector(FACE), FixedDetector((0, 0, 5, 5), (50, 40, 60, 48))]
    with Anonymizer(both, FILLS, flat_settings()) as anonymizer:
        assert len(anonymizer.anonymize(frames(noise(1))[0]).regions) == 3


def test_one_detector_that_fails_is_enough_to_withhold() -> None:
    def broken(frame: Frame) -> Regions:
        raise RuntimeError("two\nlines")

    with Anonymizer([FixedDetector(FACE), FunctionDetector(broken)], FILLS, flat_settings()) as anonymizer:
        result = anonymizer.anonymize(frames(noise(1))[0])
    assert result.withheld == "detection failed: two lines"
    assert (result.image == WITHHELD_LEVEL).all()


def test_a_damaged_frame_is_withheld_and_nobody_looks_at_it() -> None:
    detector = FixedDetector(FACE)
    with Anonymizer([detector], FILLS, flat_settings()) as anonymizer:
        result = anonymizer.anonymize(Frame(noise(1)[0], damaged="half of it is missing"))
    assert result.withheld == "half of it is missing"
    assert detector.looked == 0


def test_stopping_at_a_failure_says_where_and_why() -> None:
    frame = Frame(noise(1)[0], pts=1500, damaged="broken")
    with (
        Anonymizer([FixedDetector(FACE)], FILLS, flat_settings(on_failure="stop")) as anonymizer,
        pytest.raises(StreamStoppedError, match=r"stopped at 1.500 s: broken"),
    ):
        anonymizer.anonymize(frame)


def test_a_detector_that_hangs_for_good_is_an_error_in_a_loop_too() -> None:
    for_ever = threading.Event()

    def hang(frame: Frame) -> Regions:
        for_ever.wait()
        return faces()

    first, *more = frames(noise(4))
    with Anonymizer([FunctionDetector(hang)], FILLS, flat_settings(deadline=0.03)) as anonymizer:
        assert [anonymizer.anonymize(frame).withheld is not None for frame in more] == [True] * 3
        with pytest.raises(HungError):
            anonymizer.anonymize(first)
    for_ever.set()


def test_withheld_frames_are_logged_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.WARNING, logger="stream.anonymizer"),
        Anonymizer([FixedDetector(FACE)], FILLS, flat_settings()) as anonymizer,
    ):
        for image in noise(50):
            anonymizer.anonymize(Frame(image, damaged="broken"))
    assert 1 <= len(caplog.records) <= 3
    assert caplog.records[0].getMessage() == "frame withheld: broken"


def test_without_any_detector_every_frame_would_pass_raw_so_that_is_an_error() -> None:
    with pytest.raises(UsageError, match="needs a detector"):
        Anonymizer([], FILLS)
    manual = ManualRegions([ManualRegion(x0=0, y0=0, x1=5, y1=5)])
    with Anonymizer([], FILLS, flat_settings(), manual=manual) as anonymizer:
        assert (anonymizer.anonymize(frames(noise(1))[0]).image[:5, :5] == 0).all()


def test_a_kind_given_by_hand_without_anonymizer_is_an_error_at_the_start() -> None:
    manual = ManualRegions([ManualRegion(x0=0, y0=0, x1=5, y1=5, kind="plate")])
    with pytest.raises(UsageError, match="no anonymizer is set for regions of these kinds: plate"):
        Anonymizer([FixedDetector(FACE)], {Kind.FACE: FILLS[Kind.FACE]}, manual=manual)


def test_a_kind_that_a_bundle_finds_without_anonymizer_is_an_error_at_the_start(tmp_path: Path) -> None:
    bundle: Bundle = write_bundle(tmp_path / "tiny", tiny_draft(), {"detector.onnx": doubler()})
    with pytest.raises(UsageError, match="no anonymizer is set for regions of these kinds: face"):
        Anonymizer([FixedDetector(FACE)], {Kind.PERSON: FILLS[Kind.PERSON]}, bundles=[bundle])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "facez"}, "did you mean 'faces'"),
        ({"preset": "faces", "lookahed": 3}, "did you mean 'lookahead'"),
        ({"margin": -1}, "margin: "),
    ],
)
def test_open_refuses_what_cannot_be_meant(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        Anonymizer.open(store=Store(tmp_path), **settings)


def test_open_names_the_command_where_the_bundle_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BundleMissingError, match="standin engines pull centerface"):
        Anonymizer.open("faces", store=Store(tmp_path))


@pytest.mark.parametrize("method", ["blur", "pixelate", "mask"])
def test_every_kind_is_covered_by_the_method_for_faces(method: str) -> None:
    fills = make_fills(AnonymizerSettings.model_validate({"face": method}))
    assert set(fills) == set(Kind)


def test_each_kind_may_be_covered_in_its_own_way() -> None:
    fills = make_fills(AnonymizerSettings(face="mask", person="pixelate", mask_colour=(1, 2, 3)))
    (picture,) = noise(1)
    assert (fills[Kind.FACE](picture) == (1, 2, 3)).all()
    assert (fills[Kind.PLATE](picture) == (1, 2, 3)).all()
    assert not (fills[Kind.PERSON](picture) == (1, 2, 3)).all()


def test_a_kind_that_is_kept_stays_raw_and_is_counted_unless_given_by_hand() -> None:
    person, face = (4, 4, 12, 12), (30, 20, 40, 30)
    by_hand = ManualRegions([ManualRegion(x0=50, y0=4, x1=60, y1=12, kind="person")])
    (picture,) = noise(1)
    detectors = [
        FixedDetector(face),
        FunctionDetector(lambda _: Regions.of([person], Kind.PERSON)),
    ]
    settings = flat_settings(lookahead=0, person="keep")
    with Anonymizer(detectors, FILLS, settings, manual=by_hand) as anonymizer:
        made = anonymizer.anonymize(frames([picture])[0])
    assert made.ignored == 1
    assert np.array_equal(whole(made.image, person), whole(picture, person))
    assert covered_share(made.image, face) == covered_share(made.image, (50, 4, 60, 12)) == 1


def test_caution_counts_frames_that_are_withheld_and_ends_with_the_stream() -> None:
    box, trunk, arm = (10, 8, 44, 40), PixelMask.filled((24, 8, 44, 40)), PixelMask.filled((10, 20, 24, 26))

    def detect(frame: Frame) -> Regions:
        mask = trunk if number(frame) else trunk.union(arm)
        return Regions.of([box], Kind.PERSON, outlines=[Outline(mask)])

    def fill(region: Image) -> Image:
        if next(calls) == 0:
            raise RuntimeError("not yet")
        return np.zeros_like(region)

    def covers_the_arm(made: Anonymized) -> bool:
        return bool(pixels_of(made.regions.outline(0), 64, 48)[20:26, 10:24].all())

    calls = iter(range(100))
    with Anonymizer([FunctionDetector(detect)], dict.fromkeys(Kind, fill), flat_settings(mask_frames=1)) as anonymizer:
        first, second, third = (anonymizer.anonymize(frame) for frame in frames(noise(3)))
        assert first.withheld is not None
        assert covers_the_arm(second)
        assert not covers_the_arm(third)
        anonymizer.anonymize(frames(noise(1))[0])
        anonymizer.reset()
        assert not covers_the_arm(anonymizer.anonymize(frames(noise(2))[1]))


def test_a_face_that_joins_its_person_is_replaced_and_not_ignored() -> None:
    person = Regions.of(
        [(8, 4, 40, 46)], Kind.PERSON, outlines=[Outline(surface=posed((8, 4, 40, 46), vertex_embeddings()))]
    )
    both = Regions.concatenate([person, faces((18, 2, 30, 14))])
    generator = Flat(Kind.PERSON, surface=True)
    painters = Painters({"person-cse": generator}, FILLS, Surface(vertex_embeddings()), style="sg-gan", margin=0.2)
    for joins, kinds in ((True, [Kind.PERSON]), (False, [Kind.PERSON, Kind.FACE])):
        settings = flat_settings(person="realistic", join_faces=joins, margin=0.2)
        with Anonymizer(
            [FunctionDetector(lambda _: both)], FILLS, settings, stand_ins=StandIns(painters)
        ) as anonymizer:
            (picture,) = noise(1)
            made = anonymizer.anonymize(frames([picture])[0])
        assert sorted(made.regions.kinds.tolist()) == kinds
        assert (made.ignored, made.generated) == (0, 1)
        # Flat where the face was where it did not join; changed in any case.
        assert (whole(made.image, (18, 2, 30, 14)) != whole(picture, (18, 2, 30, 14))).any(axis=2).all()
        assert (covered_share(made.image, (18, 2, 30, 8)) > 0) != joins


@pytest.mark.parametrize(("remember", "name"), [(3, 0), (2, 1)])
def test_who_is_seen_again_in_time_has_the_same_name(remember: int, name: int) -> None:
    seen = iter([faces((10, 10, 30, 30)), *[faces()] * 3, faces((10, 10, 30, 30))])
    settings = flat_settings(hold=0, remember=remember, lookahead=0)
    with Anonymizer([FunctionDetector(lambda _: next(seen))], FILLS, settings) as anonymizer:
        made = [anonymizer.anonymize(frame) for frame in frames(noise(5))]
    assert [item.regions.track_ids.tolist() for item in made] == [[0], [], [], [], [name]]


def test_finds_of_two_detectors_that_are_the_same_become_one_region() -> None:
    detectors = [FixedDetector((10, 10, 30, 30)), FixedDetector((12, 10, 32, 30), (40, 4, 50, 14))]
    with Anonymizer(detectors, FILLS, flat_settings(lookahead=0)) as anonymizer:
        made = anonymizer.anonymize(frames(noise(1))[0])
    assert sorted(made.regions.boxes.tolist()) == [[10, 10, 32, 30], [40, 4, 50, 14]]


def test_detectors_may_be_named_in_the_place_of_the_presets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_bundle(tmp_path / "own", tiny_draft(), {"detector.onnx": doubler()})
    with pytest.raises(BundleError, match="takes no image"):
        Anonymizer.open("faces", store=Store(tmp_path / "store"), detector=[str(tmp_path / "own")])
    write_unet(tmp_path / "unet")
    with pytest.raises(UsageError, match="tiny-unet finds nothing"):
        Anonymizer.open("faces", store=Store(tmp_path / "store"), detector=[str(tmp_path / "unet")])


def test_the_package_offers_what_its_description_shows() -> None:
    assert {"Anonymizer", "Frame"} <= set(stream.__all__)
    assert all(hasattr(stream, name) for name in stream.__all__)

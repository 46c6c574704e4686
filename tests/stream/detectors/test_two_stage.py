"""Detectors in two graphs: boxes, and what heads say about those that count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engines.bundle import Bundle
from engines.errors import BundleError, DetectionError
from engines.manifest import SecondLook
from engines.runtime import Runtime, open_runtime
from stream.detectors.two_stage import TwoStageDetector
from stream.frame import Frame
from stream.regions import Kind
from tests.detector_bundles import PERSONS, Place, ellipse, embedding_map, write_one_stage, write_two_stage
from tests.generator_bundles import Elsewhere, There, Watched

FRAME = Frame(np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8))


class Desk:
    """Opens a bundle with runtimes that keep what they are fed."""

    def __init__(self, bundle: Bundle, **options: Any) -> None:
        self.bundle = bundle
        self.detector, self.heads = Watched(bundle, "detector"), Watched(bundle, "heads")
        self.look = TwoStageDetector(bundle, self.detector, self.heads, **({"threshold": 0.2} | options))


@pytest.fixture
def open_desk(tmp_path: Path) -> Callable[..., Desk]:
    def made(
        architecture: str = "mask-rcnn", places: tuple[Place, ...] = PERSONS, threshold: float = 0.2, **changes: Any
    ) -> Desk:
        return Desk(write_two_stage(tmp_path / "bundle", architecture, places, **changes), threshold=threshold)

    return made


def test_nobody_is_nothing_and_the_heads_stay_idle(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(places=())
    assert len(desk.look.detect(FRAME)) == 0
    assert desk.heads.runs == 0


def test_the_picture_is_resized_by_its_shorter_side_and_padded_with_zero_after_normalising(
    open_desk: Callable[..., Desk],
) -> None:
    desk = open_desk()
    desk.look.detect(FRAME)
    image = desk.detector.fed[0]["image"]
    assert desk.detector.fed[0]["image_size"].tolist() == [[64, 96]]
    assert image.shape == (1, 3, 64, 96)
    desk.look.detect(Frame(FRAME.image[:, :100]))
    assert desk.detector.fed[1]["image_size"].tolist() == [[64, 64]]
    # 200 x 60: the longer side would get more than 128.
    desk.look.detect(Frame(np.full((60, 200, 3), 130, np.uint8)))
    image = desk.detector.fed[2]["image"]
    assert desk.detector.fed[2]["image_size"].tolist() == [[38, 128]]
    assert image.shape == (1, 3, 64, 128)
    assert not image[:, :, 38:].any()
    assert image[0, :, 0, 0].tolist() == pytest.approx([10 / 60, 20 / 50, 30 / 55])


def test_inputs_are_what_the_graph_gets(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk()
    inputs = desk.look.inputs(FRAME)
    assert desk.detector.runs == 0
    desk.look.detect(FRAME)
    assert inputs.keys() == desk.detector.fed[0].keys()
    for name, array in inputs.items():
        np.testing.assert_array_equal(array, desk.detector.fed[0][name])


def test_a_picture_is_resized_with_an_antialiased_filter_to_whole_levels(open_desk: Callable[..., Desk]) -> None:
    big = Frame(np.random.default_rng(1).integers(0, 256, (640, 640, 3), np.uint8))
    desk = open_desk()
    desk.look.detect(big)
    levels = desk.detector.fed[0]["image"][0].transpose(1, 2, 0) * (60, 50, 55) + (120, 110, 100)
    assert np.abs(levels - np.rint(levels)).max() < 1e-3
    # Noise evens out where every pixel counts, and does not where pixels are skipped.
    assert levels.std() < 0.3 * big.image.std()
    assert cv2.resize(big.image, (64, 64)).std() > 0.4 * big.image.std()


def test_pictures_that_a_graph_takes_in_one_size_only_fit_into_it(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(size=(64, 64))
    regions = desk.look.detect(FRAME)
    assert desk.detector.fed[0]["image"].shape == (1, 3, 64, 64)
    assert desk.detector.fed[0]["image_size"].tolist() == [[43, 64]]
    assert np.allclose(regions.boxes[0], np.array(PERSONS[0]) * (150, 100, 150, 100), atol=1e-3)


def test_anamorphic_frames_are_seen_in_square_pixels(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk()
    regions = desk.look.detect(Frame(FRAME.image, pixel_aspect=Fraction(1, 2)))
    # Stored 150 x 100, shown 150 x 200.
    assert desk.detector.fed[0]["image_size"].tolist() == [[85, 64]]
    assert np.allclose(regions.boxes[0], np.array(PERSONS[0]) * (150, 100, 150, 100), atol=1e-3)


def test_a_limit_on_the_longer_side_makes_the_picture_smaller(tmp_path: Path) -> None:
    desk = Desk(write_two_stage(tmp_path / "bundle", "mask-rcnn", PERSONS), longest=48)
    desk.look.detect(FRAME)
    assert desk.detector.fed[0]["image_size"].tolist() == [[32, 48]]


def test_persons_come_with_masks_in_the_pixels_of_the_frame(open_desk: Callable[..., Desk]) -> None:
    regions = open_desk().look.detect(FRAME)
    assert regions.kinds.tolist() == [Kind.PERSON] * 2
    outline = regions.outline(0)
    assert outline is not None
    assert outline.surface is None
    assert outline.mask is not None
    x0, y0, x1, y1 = (round(v) for v in np.array(PERSONS[0]) * (150, 100, 150, 100))
    canvas = np.zeros((100, 150), np.bool_)
    mask = outline.mask.within((0, 0, 150, 100))
    canvas[mask.box[1] : mask.box[3], mask.box[0] : mask.box[2]] = mask.pixels
    expected = cv2.resize(ellipse(28).astype(np.float32), (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR) >= 0.5
    inside = canvas[y0:y1, x0:x1]
    # OpenCV repeats the mask's edge where ours ends in 0.
    assert (inside != expected).mean() < 0.02
    canvas[y0:y1, x0:x1] = False
    assert not canvas.any()


def test_dense_poses_come_with_segmentation_and_embedding_on_whole_pixels(open_desk: Callable[..., Desk]) -> None:
    regions = open_desk("cse").look.detect(FRAME)
    outline = regions.outline(1)
    assert outline is not None
    assert outline.mask is None
    assert outline.surface is not None
    assert outline.surface.box == (90, 20, 135, 95)
    assert np.array_equal(outline.surface.segmentation, ellipse(112))
    assert np.array_equal(outline.surface.embedding, embedding_map())


def test_a_mask_without_a_pixel_leaves_the_box(open_desk: Callable[..., Desk]) -> None:
    regions = open_desk(empty_masks=True).look.detect(FRAME)
    assert len(regions) == 2
    assert regions.outline(0) is None


def test_a_pose_on_nobody_stays_a_person(open_desk: Callable[..., Desk]) -> None:
    regions = open_desk("cse", empty_masks=True).look.detect(FRAME)
    assert len(regions) == 2
    outline = regions.outline(0)
    assert outline is not None
    assert outline.surface is not None
    assert not outline.surface.segmentation.any()


def test_heads_look_at_what_counts_only(open_desk: Callable[..., Desk]) -> None:
    places = (*PERSONS, (0.4, 0.4, 0.5, 0.5))
    desk = open_desk(
        places=places, scores=(0.9, 0.5, 0.4), classes=(0, 1, 0), kinds=("person", "plate"), threshold=0.45
    )
    regions = desk.look.detect(FRAME)
    assert regions.kinds.tolist() == [Kind.PERSON, Kind.PLATE]
    # A plate is covered as a box.
    assert [regions.outline(i) is not None for i in range(2)] == [True, False]
    assert len(desk.heads.fed[0]["boxes"]) == 1
    assert desk.heads.fed[0]["index"].tolist() == [0]
    assert desk.heads.fed[0]["classes"].tolist() == [0]


def test_features_stay_where_the_graphs_run(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk()
    bundle = desk.bundle
    detector, heads = Elsewhere(bundle, "detector"), Elsewhere(bundle, "heads")
    look = TwoStageDetector(bundle, detector, heads, threshold=0.2)
    look.prepare(150, 100, 1)
    wanted, found = desk.look.detect(FRAME), look.detect(FRAME)
    assert np.array_equal(found.boxes, wanted.boxes)
    assert len(found) > 0
    # Those that the detector kept; boxes come from the host.
    for feeds in heads.fed:
        there = {name for name, array in feeds.items() if isinstance(array, There)}
        assert there == set(feeds) - {"boxes", "index", "classes"}


def test_the_graphs_own_threshold_is_the_least(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(scores=(0.9, 0.03), threshold=0.02)
    assert desk.look.detect(FRAME).scores.tolist() == pytest.approx([0.9])


def test_boxes_reach_to_the_frames_edge_and_not_further(open_desk: Callable[..., Desk]) -> None:
    regions = open_desk(places=((-0.2, -0.1, 0.5, 1.2),)).look.detect(FRAME)
    assert regions.boxes.tolist() == [[0, 0, 75, 100]]


def test_what_clipping_leaves_without_area_is_dropped_as_published(open_desk: Callable[..., Desk]) -> None:
    assert len(open_desk(places=((1.0, 0.2, 1.3, 0.5),)).look.detect(FRAME)) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"floor": 0.3}, "found more than the 4 boxes that it gives"),
        ({"floor": np.nan}, "found more than the 4 boxes that it gives"),
        ({"scores": (0.9, np.nan)}, "not finite"),
        ({"scores": (0.9, 1.5)}, "outside 0 to 1"),
        ({"places": ((0.1, 0.1, np.nan, 0.5),)}, "not finite"),
        ({"classes": (0, 1)}, "a class that its manifest does not name"),
        ({"broken_heads": True}, "not finite for a box"),
    ],
)
def test_what_no_working_network_says_is_an_error(
    open_desk: Callable[..., Desk], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DetectionError, match=message):
        open_desk(**changes).look.detect(FRAME)


def test_boxes_left_out_below_the_threshold_do_not_matter(open_desk: Callable[..., Desk]) -> None:
    assert len(open_desk(floor=0.1).look.detect(FRAME)) == 2


def test_many_persons_are_looked_at_a_few_at_a_time(
    open_desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.detectors.two_stage._MOST_BOXES", 2)
    places = tuple((0.1 * i, 0.1, 0.1 * i + 0.1, 0.9) for i in range(4))
    desk = open_desk(places=places)
    regions = desk.look.detect(FRAME)
    assert desk.heads.runs == 2
    assert all(regions.outline(i) is not None for i in range(4))


def test_preparing_runs_both_graphs_though_a_flat_frame_shows_nobody(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(places=())
    desk.look.prepare(150, 100, parallel=2)
    assert (desk.detector.runs, desk.heads.runs) == (2, 2)


class BySize(Runtime):
    """A detector that says one thing of pictures of full size, and another of smaller ones."""

    def __init__(self, large: Bundle, small: Bundle, width: int) -> None:
        super().__init__(large.graph("detector"), "cpu")
        self._large, self._small = Watched(large, "detector"), Watched(small, "detector")
        self._width = width

    @property
    def provider(self) -> str:
        return self._large.provider

    def _run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        runtime = self._large if feeds["image_size"][0, 1] == self._width else self._small
        return dict(runtime.run(feeds))

    def close(self) -> None:
        self._large.close()
        self._small.close()


@pytest.fixture
def open_by_size(tmp_path: Path) -> Callable[..., TwoStageDetector]:
    """A detector that finds some places at first, and others at its second look, of `FRAME` at 96 x 64 and 48 x 32."""

    def made(first: tuple[Place, ...], second: tuple[Place, ...], **changes: Any) -> TwoStageDetector:
        again = SecondLook(from_size=50, scale=0.5)
        large = write_two_stage(tmp_path / "large", "cse", first, second_look=again)
        small = write_two_stage(tmp_path / "small", "cse", second, **changes)
        return TwoStageDetector(large, BySize(large, small, 96), Watched(large, "heads"), threshold=0.2)

    return made


NEAR, FAR = (0.1, 0.1, 0.4, 0.9), (0.6, 0.4, 0.7, 0.7)


@pytest.mark.parametrize("architecture", ["mask-rcnn", "cse"])
def test_what_is_near_is_looked_at_again_at_a_smaller_size(open_desk: Callable[..., Desk], architecture: str) -> None:
    desk = open_desk(architecture, (NEAR, FAR), second_look=SecondLook(from_size=50, scale=0.5))
    regions = desk.look.detect(FRAME)
    assert [feeds["image_size"].tolist() for feeds in desk.detector.fed] == [[[64, 96]], [[32, 48]]]
    # Both looks found both: the near one is one region, and the far one is the first look's.
    np.testing.assert_allclose(regions.boxes, np.array([NEAR, FAR]) * (150, 100, 150, 100), atol=1e-3)


def test_nothing_near_costs_no_second_look(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(places=(FAR,), second_look=SecondLook(from_size=50, scale=0.5))
    assert len(desk.look.detect(FRAME)) == 1
    assert desk.detector.runs == 1


def test_pictures_of_one_size_are_looked_at_once(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(places=(NEAR,), second_look=SecondLook(from_size=50, scale=0.5), size=(64, 96))
    assert len(desk.look.detect(FRAME)) == 1
    desk.look.prepare(150, 100, parallel=1)
    assert desk.detector.runs == 2


def test_both_looks_at_a_near_person_count(open_by_size: Callable[..., TwoStageDetector]) -> None:
    top, whole = (0.1, 0.05, 0.4, 0.86), (0.1, 0.1, 0.4, 0.99)
    regions = open_by_size((top,), (whole,)).detect(FRAME)
    np.testing.assert_allclose(regions.boxes[0], np.array([0.1, 0.05, 0.4, 0.99]) * (150, 100, 150, 100), atol=1e-3)
    outline = regions.outline(0)
    assert outline is not None and outline.mask is not None and outline.surface is not None  # noqa: PT018
    # The surface is that of the look which saw the person whole.
    assert outline.surface.box[1:4:2] == (10, 99)
    assert outline.mask.box[1] < 10


def test_somebody_of_whom_the_first_look_found_a_part_is_one_person(
    open_by_size: Callable[..., TwoStageDetector],
) -> None:
    # Less than half in common, by boxes and by masks; the part is shorter than what counts as near.
    part, whole = (0.15, 0.1, 0.4, 0.65), (0.1, 0.15, 0.45, 0.99)
    regions = open_by_size((part, FAR), (whole,)).detect(FRAME)
    united = np.array([0.1, 0.1, 0.45, 0.99])
    np.testing.assert_allclose(regions.boxes, np.array([united, FAR]) * (150, 100, 150, 100), atol=1e-3)
    outline = regions.outline(0)
    assert outline is not None
    assert outline.surface is not None
    assert outline.surface.box[1:4:2] == (15, 99)


def test_a_child_before_somebody_who_is_near_stays_somebody(open_by_size: Callable[..., TwoStageDetector]) -> None:
    child = (0.2, 0.5, 0.32, 0.8)
    regions = open_by_size((NEAR, child), (NEAR,)).detect(FRAME)
    np.testing.assert_allclose(regions.boxes, np.array([NEAR, child]) * (150, 100, 150, 100), atol=1e-3)


@pytest.mark.parametrize(("place", "looks"), [(NEAR, 2), (FAR, 1)])
def test_what_is_too_unlikely_to_count_is_worth_a_second_look(
    open_desk: Callable[..., Desk], place: Place, looks: int
) -> None:
    desk = open_desk(places=(place,), second_look=SecondLook(from_size=50, scale=0.5), threshold=0.95)
    assert len(desk.look.detect(FRAME)) == 0
    assert desk.detector.runs == looks


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"floor": 0.3}, "more than the 4 boxes"), ({"scores": (float("nan"),)}, "not finite|finite")],
)
def test_a_second_look_that_cannot_be_trusted_fails_the_frame(
    open_by_size: Callable[..., TwoStageDetector], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DetectionError, match=message):
        open_by_size((NEAR,), (NEAR,), **changes).detect(FRAME)


def test_a_second_look_adds_whom_it_alone_finds_if_they_are_near(
    open_by_size: Callable[..., TwoStageDetector],
) -> None:
    other = (0.6, 0.1, 0.95, 0.95)
    regions = open_by_size((NEAR,), (other, FAR)).detect(FRAME)
    expected = np.array([other, NEAR]) * (150, 100, 150, 100)
    np.testing.assert_allclose(regions.boxes, expected, atol=1e-3)


def test_preparing_makes_the_second_look_too(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(places=(), second_look=SecondLook(from_size=50, scale=0.5))
    desk.look.prepare(150, 100, parallel=1)
    assert [feeds["image_size"].tolist() for feeds in desk.detector.fed] == [[[64, 96]], [[32, 48]]]
    assert desk.heads.runs == 2


def test_closing_closes_both_runtimes(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk()
    desk.look.close()
    assert desk.detector.closed
    assert desk.heads.closed


def test_a_bundle_without_heads_is_refused(tmp_path: Path) -> None:
    bundle = write_one_stage(tmp_path / "bundle", ())
    runtime = open_runtime(bundle, "detector")
    with pytest.raises(BundleError, match="no detector in two stages"):
        TwoStageDetector(bundle, runtime, runtime, threshold=0.2)


def test_graphs_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    bundle = write_two_stage(tmp_path / "bundle", "mask-rcnn", ())
    other = write_one_stage(tmp_path / "other", ())
    with pytest.raises(BundleError, match=r"heads of tiny take image, image_size, which its detector does not give"):
        TwoStageDetector(bundle, open_runtime(other, "detector"), open_runtime(other, "detector"), threshold=0.2)

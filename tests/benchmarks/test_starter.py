"""The starter set's benchmark: figures say what happened, and what did not happen is noticed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import common, starter, starter_clips, starter_generator
from benchmarks.starter_clips import Coverage, proxy, reference_boxes
from benchmarks.starter_detector import Claim, Comparison, Findings, Somebody, held_out, open_lowest
from engines.bundle import Bundle
from export.starter.body import Body, save_body
from export.starter.crops import CropSet
from export.starter.detector_targets import visible
from export.starter.samples import Scene
from stream.anonymizer import Anonymizer
from stream.assemble import make_fills
from stream.config import AnonymizerSettings
from stream.frame import Frame
from stream.generators.classical import mask_out
from stream.outline import BodySurface, Outline
from stream.presets import PRESETS, Preset
from stream.regions import Kind, Regions
from stream.surface import Surface
from tests import generator_bundles
from tests.detector_bundles import PERSONS, write_two_stage
from tests.export.starter import made_people
from tests.export.starter.bodies import tiny_body
from tests.export.starter.drawing import skip_without_drawing
from tests.export.starter.tiny_people import COLUMNS, ROWS, make_scene, template
from tests.fakes import BLACK, FunctionDetector, flat_settings, frames, noise, write_lossless

SCENES = [
    ("street", make_scene([(4, 2, 24, 63), (40, 10, 60, 50), (70, 30, 82, 48)], 0)),
    ("room", make_scene([(10, 4, 30, 60)], 1)),
]
EMBEDDINGS = np.random.default_rng(0).standard_normal((ROWS * COLUMNS, 16)).astype(np.float32)
EMBEDDINGS /= np.linalg.norm(EMBEDDINGS, axis=1, keepdims=True)


def truth(scene: Scene, *, up: int = 0, score: float = 0.9) -> Regions:
    """Everybody and every head, with outlines that are right to the pixel; places so many vertices too high."""
    head = (scene.vertices >= 0) & template().head[scene.vertices]
    people = visible(scene.instances)
    outlines = []
    for person in people:
        x0, y0, x1, y1 = person.box
        own = scene.instances[y0:y1, x0:x1] == person.number
        vertices = (scene.vertices[y0:y1, x0:x1] + up) % len(EMBEDDINGS)
        embedding = np.ascontiguousarray(3 * EMBEDDINGS[vertices].transpose(2, 0, 1))
        outlines.append(Outline(surface=BodySurface(person.box, own, embedding)))
    persons = Regions.of(
        [person.box for person in people], Kind.PERSON, scores=[score] * len(people), outlines=outlines
    )
    heads = visible(np.where(head, scene.instances, np.uint8(0)))
    faces = Regions.of([one.box for one in heads], Kind.FACE, scores=[score] * len(heads))
    return Regions.concatenate([persons, faces])


def found(*regions: Regions, scenes: list[tuple[str, Scene]] | None = None) -> Findings:
    """What is said of scenes, compared with what is there."""
    comparison = Comparison(template(), Surface(EMBEDDINGS), np.arange(len(EMBEDDINGS)))
    for (view, scene), said in zip(scenes or SCENES, regions, strict=True):
        comparison.add(scene, view, said)
    return comparison.findings


def test_the_truth_has_no_faults() -> None:
    whole = found(*(truth(scene) for _, scene in SCENES))
    people, heads = whole.of(Kind.PERSON), whole.of(Kind.FACE)
    figures = people.summary(0.5)
    assert (figures["people"], figures["recall"], figures["precision"], figures["mask_iou"]) == (4, 1, 1, 1)
    assert (figures["surface_median_cm"], figures["surface_within_10_cm"]) == (0, 1)
    assert [(row["from_px"], row["people"], row["recall"]) for row in people.by_height(0.5)] == [
        (0, 1, 1),
        (24, 2, 1),
        (60, 1, 1),
    ]
    assert heads.summary(0.5)["people"] > 0
    assert (heads.summary(0.5)["recall"], heads.summary(0.5)["precision"]) == (1, 1)
    assert heads.summary(0.5)["mask_iou"] is None
    assert whole.of(Kind.PERSON, "room").summary(0.5)["people"] == 1
    assert people.best_threshold() == pytest.approx(0.9)


def test_who_is_missed_and_who_is_not_there_is_counted() -> None:
    nobody = found(Regions.empty(), Regions.empty()).of(Kind.PERSON)
    assert nobody.summary(0.5)["recall"] == 0
    assert (nobody.summary(0.5)["precision"], nobody.best_threshold()) == (None, None)
    beside = Regions.of([(60, 2, 90, 20)], Kind.PERSON, scores=[0.95])
    wrong = found(truth(SCENES[0][1]), Regions.concatenate([truth(SCENES[1][1]), beside])).of(Kind.PERSON)
    assert wrong.precision(0.5) == 0.8
    twice = found(truth(SCENES[0][1]), Regions.concatenate([truth(SCENES[1][1]), truth(SCENES[1][1], score=0.7)]))
    assert twice.of(Kind.PERSON).precision(0.5) == 0.8
    assert twice.of(Kind.PERSON).precision(0.8) == 1


def test_errors_are_given_for_persons_alike_and_for_pixels_alike() -> None:
    small, large = (
        Somebody(Kind.PERSON, "room", 80, 0.9, 1.0, np.full(10, error, np.float32), pixels)
        for error, pixels in ((2, 30), (30, 4000))
    )
    figures = Findings([small, large], []).summary(0.5)
    assert (figures["surface_median_cm"], figures["surface_median_cm_by_pixel"]) == (16, 30)
    assert Findings([small], []).summary(0.5)["surface_median_cm_by_pixel"] == 2
    assert Findings([], []).summary(0.5)["surface_median_cm_by_pixel"] is None


def test_places_and_masks_that_are_off_are_measured() -> None:
    scene = SCENES[1]
    higher = found(truth(scene[1], up=COLUMNS), scenes=[scene]).of(Kind.PERSON).summary(0.5)
    assert higher["surface_median_cm"] == pytest.approx(20, abs=0.1)
    assert higher["surface_median_cm_by_pixel"] == pytest.approx(20, abs=0.1)
    assert higher["surface_within_10_cm"] == 0
    half = truth(scene[1])
    assert half.outlines is not None
    posed = half.outlines[0].surface
    upper = posed.segmentation & (np.arange(len(posed.segmentation)) < len(posed.segmentation) / 2)[:, None]
    half.outlines[0] = Outline(surface=BodySurface(posed.box, upper, posed.embedding))
    assert found(half, scenes=[scene]).of(Kind.PERSON).summary(0.5)["mask_iou"] == pytest.approx(0.5, abs=0.03)


def test_who_is_too_small_is_neither_missed_nor_wrong() -> None:
    scene = ("room", make_scene([(10, 10, 15, 16)], 0))
    for said in (Regions.empty(), truth(scene[1])):
        whole = found(said, scenes=[scene]).of(Kind.PERSON)
        assert (whole.there, whole.claims) == ([], [])


def test_the_best_threshold_is_the_lowest_that_is_precise_enough() -> None:
    claims = [(0.9, True), (0.8, True), (0.7, False), (0.6, True), (0.5, True), (0.4, False), (0.3, False)]
    made = Findings(claims=[Claim(Kind.PERSON, "room", 50, score, right) for score, right in claims])
    assert made.best_threshold(0.8) == 0.5
    assert made.best_threshold(0.9) == 0.8
    assert math.isnan(Findings().precision(0.5))


def test_scenes_of_every_view_are_drawn(tmp_path: Path) -> None:
    skip_without_drawing()
    save_body(tmp_path / "body.npz", tiny_body())
    views = [view for view, scene in held_out(tmp_path / "body.npz", 10, seed=5, size=(48, 32)) if scene.image.any()]
    assert {view: views.count(view) for view in views} == {
        "webcam": 1,
        "room": 3,
        "street": 2,
        "overhead": 3,
        "top": 1,
    }


def test_the_detector_is_asked_for_all_that_its_bundle_gives(tmp_path: Path) -> None:
    bundle = write_two_stage(tmp_path / "tiny", "cse", PERSONS, scores=[0.9, 0.06])
    detector = open_lowest(bundle, AnonymizerSettings(threshold=0.5))
    assert detector.detect(Frame(noise(1)[0])).scores.tolist() == pytest.approx([0.9, 0.06])
    detector.close()


# Clips.

BOX = (10.0, 4.0, 40.0, 74.0)


def covered(*levels: float, boxes: tuple[tuple[float, ...], ...] = (BOX,)) -> Coverage:
    """A clip in each of whose frames so much of each person's rows is changed; a negative level has no reference."""
    made = Coverage()
    before = np.full((80, 60, 3), 90, np.uint8)
    for level in levels:
        after = before.copy()
        after[: round(80 * max(0.0, level))] = 0
        made.add(before, after, np.array(boxes if level >= 0 else (), np.float32).reshape(-1, 4))
    return made


def test_frames_count_whose_people_are_changed() -> None:
    figures = covered(1, 0.3, 1, 0).summary()
    assert (figures["frames"], figures["frames_covered"], figures["people_raw"]) == (4, 0.5, 2)
    assert figures["longest_raw"] == 1
    assert covered(1, 1).summary()["frames_covered"] == 1
    assert covered(-1).summary()["frames_covered"] is None


@pytest.mark.parametrize(
    ("levels", "longest"),
    [
        ((0, 0, 0, 1), 3),
        ((0, 1, 0, 1, 0), 1),
        # The reference does not see the person, who may well be raw all the time.
        ((0, -1, -1, 0), 4),
        ((0, *[-1] * 6, 0), 1),
        ((1, 1), 0),
    ],
)
def test_the_longest_time_that_somebody_is_raw(levels: tuple[float, ...], longest: int) -> None:
    assert covered(*levels).longest_raw == longest


def test_two_people_are_not_one() -> None:
    made, before = Coverage(), np.full((80, 200, 3), 90, np.uint8)
    for column in (10.0, 110.0, 10.0):
        made.add(before, before.copy(), np.array([(column, 4, column + 30, 74)], np.float32))
    # The second one is another; the first is seen again two frames later.
    assert (made.people, made.raw, made.longest_raw) == (3, 3, 3)


def test_the_proxy_is_the_middle_of_the_box() -> None:
    shown = proxy(np.array(BOX, np.float32), (80, 60))
    rows, columns = np.nonzero(shown)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (11, 67, 16, 34)
    assert shown.sum() == pytest.approx(math.pi * 9 * 28, rel=0.02)


def test_the_reference_is_who_is_surely_there_and_tall() -> None:
    def answer(_: Frame) -> Regions:
        people = Regions.of([BOX, (0, 0, 20, 30), (-5, 0, 20, 75), BOX], Kind.PERSON, scores=[0.9, 0.9, 0.7, 0.4])
        return Regions.concatenate([people, Regions.of([BOX], Kind.FACE)])

    (boxes,) = reference_boxes(FunctionDetector(answer), frames(noise(1, 60, 80)))
    assert boxes.tolist() == [list(BOX), [0, 0, 20, 75]]


def people(*_: object) -> Regions:
    return Regions.of([BOX], Kind.PERSON, scores=[0.9])


def anonymizer(treatment: str) -> Anonymizer:
    settings = flat_settings(person=treatment)
    fills = make_fills(settings) if treatment == "keep" else dict.fromkeys(Kind, mask_out(BLACK))
    return Anonymizer([FunctionDetector(people)], fills, settings)


def test_a_clip_is_covered_and_its_control_is_not(tmp_path: Path) -> None:
    clip = write_lossless(tmp_path / "clip.mkv", noise(4, 60, 80))
    row = starter_clips.measure_file(clip, FunctionDetector(people), anonymizer("mask"))
    assert (row["frames"], row["frames_covered"], row["pixels_changed"], row["people_raw"]) == (4, 1, 1, 0)
    control = starter_clips.measure_file(clip, FunctionDetector(people), anonymizer("keep"), frames=3)
    assert (control["frames"], control["frames_covered"], control["longest_raw"]) == (3, 0, 3)
    empty = starter_clips.measure_file(clip, None, anonymizer("mask"))
    assert (empty["false_alarms"], empty["frames_covered"]) == (1, None)
    assert starter_clips.measure_file(clip, None, anonymizer("keep"))["false_alarms"] == 0


# The generator.


def given_crops(folder: Path) -> CropSet:
    """Crops of people on the surface of the tiny generators."""
    crops = made_people.crops(folder, 8, size=(generator_bundles.HEIGHT, generator_bundles.WIDTH))
    labels = np.where(crops.labels >= 0, crops.labels % generator_bundles.VERTICES, crops.labels)
    return CropSet(crops.images, labels.astype(np.int16), crops.looks)


@pytest.fixture
def tiny_generator(tmp_path: Path) -> Bundle:
    return generator_bundles.write_surface(tmp_path / "generator")


def test_the_generator_is_measured(tiny_generator: Bundle, tmp_path: Path) -> None:
    crops = given_crops(tmp_path / "crops")
    head = np.arange(generator_bundles.VERTICES) < 2
    canonical = np.random.default_rng(0).standard_normal((generator_bundles.VERTICES, 3)).astype(np.float32)
    figures = starter_generator.measure(tiny_generator, crops, head, canonical, threads=(1,))
    assert figures["crops"] == len(crops)
    assert 0 < figures["l1_levels"] < 255
    assert figures["features"] > figures["features_floor"] >= 0
    looks = figures["looks"]
    assert looks["looks"] == starter_generator.LOOKS
    assert 2 <= looks["poses"] <= starter_generator.POSES
    assert looks["between"] > 0
    (timed,) = figures["latency"]
    assert timed["frame_ms"] >= timed["frame_best_ms"] > 0


def test_what_is_generated_is_told_by_z_and_leaves_known_pixels(tiny_generator: Bundle, tmp_path: Path) -> None:
    batch = starter_generator.batch_of(given_crops(tmp_path / "crops"), [0, 0, 0], generator_bundles.Z)
    z = np.random.default_rng(0).standard_normal((3, generator_bundles.Z)).astype(np.float32)
    z[1] = z[0]
    made = starter_generator.generate(tiny_generator, batch, z, truncation=1.0)
    np.testing.assert_array_equal(made[0], made[1])
    assert (made[0] != made[2]).any()
    known = batch.mask[0, 0].numpy() > 0
    np.testing.assert_array_equal(made[0][known], starter_generator.pixels(batch.image.numpy())[0][known])
    true = starter_generator.pixels(batch.image.numpy())
    assert starter_generator.reconstruction(true, batch)["l1_levels"] == 0
    assert starter_generator.reconstruction(true // 2, batch)["l1_levels"] > 10


def test_looks_that_stay_are_told_from_looks_that_change() -> None:
    draw = np.random.default_rng(0)
    where = np.ones((8, 8), np.bool_)

    def look(colour: int, wander: int) -> list[Any]:
        levels = [np.clip(colour + draw.integers(-wander, wander + 1), 0, 255) for _ in range(4)]
        return [starter_generator.colours(np.full((8, 8, 3), level, np.uint8), where) for level in levels]

    stays = starter_generator.compare_looks([look(colour, 2) for colour in (30, 100, 160, 220)])
    assert (stays["within"], stays["between"], stays["ratio"]) == (0, 1, 0)
    changes = starter_generator.compare_looks([look(colour, 200) for colour in (30, 100, 160, 220)])
    assert changes["ratio"] > 0.4


def test_the_distance_of_features_grows_with_the_difference() -> None:
    draw = np.random.default_rng(0)
    first = draw.standard_normal((300, 5))
    assert starter_generator.frechet(first, first) == pytest.approx(0, abs=1e-4)
    # Of two normal distributions that differ in one mean alone, the square of that difference.
    assert starter_generator.frechet(first, first + np.array([2, 0, 0, 0, 0])) == pytest.approx(4, abs=1e-4)
    assert starter_generator.frechet(first, 3 * first) > 10


def test_features_see_colours_and_edges() -> None:
    where = np.ones((12, 12), np.bool_)
    flat = np.full((12, 12, 3), 40, np.uint8)
    stripes = flat.copy()
    stripes[:, ::4] = 200
    one, other, same = (starter_generator.features(image, where) for image in (flat, stripes, flat))
    np.testing.assert_array_equal(one, same)
    assert one[24:].sum() == 0
    assert other[24:].sum() > 0.5
    assert abs(one[:24] - other[:24]).sum() > 1


# The command.


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where results are written; with a store of its own, and the preset of tiny bundles."""
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    preset = Preset(
        detectors=("tiny",),
        generators={"person-cse": "tiny-surface"},
        settings={"person": "realistic", "lookahead": 0},
        about="a test",
    )
    monkeypatch.setitem(PRESETS, "tiny", preset)
    return tmp_path / "results" / "starter.json"


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["starter.py", "--preset", "tiny", "--workers", "1", *map(str, words)])
    return starter.main()


def test_clips_are_measured_with_and_without_a_generator(
    saved: Path,
    tiny_generator: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    detector = write_two_stage(tmp_path / "detector", "cse", PERSONS, name="tiny")
    reference = write_two_stage(tmp_path / "reference", "mask-rcnn", PERSONS, name="reference")
    clip = write_lossless(tmp_path / "clip.mkv", noise(3, 160, 128))
    words = ["--detector", detector.path, "--clips", clip, "--empty", clip, "--reference", reference.path]
    words += ["--body", tmp_path / "none.npz"]

    assert call(monkeypatch, *words, "--generator", tiny_generator.path) == 0
    result = json.loads(saved.read_text())
    assert [row["empty"] for row in result["clips"]] == [False, True]
    assert result["clips"][0]["frames_covered"] == 1
    assert result["clips"][1]["false_alarms"] == 1
    assert set(result["bundles"]) == {"tiny", "tiny-surface"}
    assert "nothing is measured on synthetic people" in capsys.readouterr().out

    assert call(monkeypatch, *words) == 0
    assert json.loads(saved.read_text())["clips"][0]["frames_covered"] == 1
    assert "there is no generator: its part is left out" in capsys.readouterr().out


def test_scenes_are_drawn_and_looked_at(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without_drawing()
    # The tiny detector's surface is of ten vertices, which this body has, too, among others.
    monkeypatch.setattr(starter, "_body", lambda *_: given)
    given: Body = tiny_body()
    save_body(tmp_path / "body.npz", given)
    detector = write_two_stage(tmp_path / "detector", "cse", PERSONS, name="tiny", kinds=("person", "face"))
    words = ["--detector", detector.path, "--body", tmp_path / "body.npz", "--scenes", 5, "--size", "96x64"]
    assert call(monkeypatch, *words) == 0
    result = json.loads(saved.read_text())
    assert result["detector"]["scenes"] == 6
    person = result["detector"]["person"]["preset"]
    assert person["boxes"] >= 6
    assert person["people"] == sum(row["people"] for row in person["by_view"])
    assert "generator" not in result


def test_nothing_to_measure_is_said(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--body", tmp_path / "none.npz") == 2
    assert "nothing could be measured" in capsys.readouterr().out
    assert not saved.exists()


def test_a_reference_that_is_missing_is_said_before_anything_is_measured(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = write_two_stage(tmp_path / "detector", "cse", PERSONS, name="tiny")
    monkeypatch.setattr(starter, "_detector", lambda *_: pytest.fail("it was measured"))
    words = ["--detector", detector.path, "--clips", tmp_path / "clip.mkv", "--body", tmp_path / "none.npz"]
    assert call(monkeypatch, *words) == 1
    assert "fastestdet" in capsys.readouterr().out
    assert not saved.exists()


def test_another_body_is_refused(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_body(tmp_path / "body.npz", tiny_body())
    detector = write_two_stage(tmp_path / "detector", "cse", PERSONS, name="tiny")
    assert call(monkeypatch, "--detector", detector.path, "--body", tmp_path / "body.npz") == 2
    assert "is not the body that tiny was trained with" in " ".join(capsys.readouterr().out.split())

"""From settings to bundles, detectors and generators."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.bundle import Bundle
from engines.errors import BundleError, BundleMissingError, RuntimeFailedError, UsageError
from engines.runtime import Device, Runtime, open_runtime
from engines.small_graphs import SmallGraph
from engines.store import Store
from stream import assemble
from stream.anonymizer import Anonymizer
from stream.assemble import (
    Bundles,
    detectors_of,
    find_bundles,
    make_caution,
    make_fills,
    open_detector,
    open_stand_ins,
)
from stream.compose import resampler
from stream.config import AnonymizerSettings, make_settings
from stream.detectors import pictures
from stream.detectors.cached import CachedDetector
from stream.detectors.tiled import TiledDetector
from stream.frame import Frame
from stream.outline import Outline
from stream.regions import Kind, Regions
from tests.compose import posed
from tests.detector_bundles import (
    FACES,
    install_presets,
    with_integers,
    write_one_stage,
    write_starter,
    write_two_stage,
)
from tests.engines.helpers import open_on_cpu
from tests.generator_bundles import some, vertex_embeddings, write_surface, write_unet


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    home = tmp_path_factory.mktemp("home")
    install_presets(home)
    write_one_stage(home / "bundles" / "fastestdet", (), name="fastestdet", kind="person")
    return Store(home)


def chosen(**values: Any) -> AnonymizerSettings:
    return make_settings(AnonymizerSettings, values)


def roles(bundles: Bundles) -> dict[str, str]:
    return {role: bundle.path.name for role, bundle in bundles.generators.items()}


@pytest.mark.parametrize(
    ("values", "detectors", "generators"),
    [
        ({"preset": "faces"}, ["centerface"], {}),
        ({"preset": "people"}, ["fastestdet", "centerface"], {}),
        (
            {"preset": "deepprivacy2"},
            ["maskrcnn", "cse", "dsfd"],
            {"person": "dp2-person", "person-cse": "dp2-person-cse", "face": "dp2-face"},
        ),
        ({"preset": "deepprivacy2-face"}, ["dsfd"], {"face": "dp2-face"}),
        ({"preset": "sg-gan"}, ["maskrcnn", "cse", "centerface"], {"person-cse": "sg-gan"}),
        # A kind that is covered classically needs no generator.
        ({"preset": "deepprivacy2", "person": "blur"}, ["maskrcnn", "cse", "dsfd"], {"face": "dp2-face"}),
        # Realistic works with any detectors; without dense poses one generator is enough.
        ({"preset": "people", "person": "realistic"}, ["fastestdet", "centerface"], {"person": "dp2-person"}),
        ({"preset": "faces", "face": "realistic"}, ["centerface"], {"face": "dp2-face"}),
        (
            {"preset": "faces", "person": "realistic", "detector": ("cse",)},
            ["cse"],
            {"person": "dp2-person", "person-cse": "dp2-person-cse"},
        ),
    ],
)
def test_settings_name_bundles(
    values: dict[str, Any], detectors: list[str], generators: dict[str, str], store: Store
) -> None:
    bundles = find_bundles(chosen(**values), store)
    assert [bundle.manifest.name for bundle in bundles.detectors] == detectors
    assert roles(bundles) == generators
    assert len(bundles.all) == len(detectors) + len(generators)


@pytest.mark.parametrize("name", ["person-cse", "sg-gan"])
def test_an_engine_is_overridden_by_what_it_replaces_or_by_its_name(name: str, store: Store, tmp_path: Path) -> None:
    mine = write_surface(tmp_path / "mine")
    bundles = find_bundles(chosen(preset="sg-gan", engine={name: mine.path}), store)
    assert roles(bundles) == {"person-cse": "mine"}


def test_a_detector_is_overridden_by_its_name(store: Store, tmp_path: Path) -> None:
    mine = write_two_stage(tmp_path / "mine", "mask-rcnn", ())
    bundles = find_bundles(chosen(preset="deepprivacy2", engine={"maskrcnn": mine.path}), store)
    assert bundles.detectors[0].path == mine.path


def test_a_preset_takes_a_further_generator_by_what_it_replaces(store: Store, tmp_path: Path) -> None:
    mine = write_unet(tmp_path / "mine")
    bundles = find_bundles(chosen(preset="sg-gan", engine={"person": mine.path}), store)
    assert roles(bundles) == {"person": "mine", "person-cse": "sg-gan"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "sg-gan", "engine": {"persn": Path()}}, "--engine persn: .* did you mean 'person'?"),
        ({"preset": "faces", "plate": "realistic"}, "there is no generator for plates"),
        ({"preset": "sg-gan", "detector": ("fastestdet",)}, "has no generator for persons; give one with --engine"),
        ({"preset": "sg-gan", "face": "realistic"}, "has no generator for faces; give one with --engine face=FOLDER"),
        ({"detector": ("dp2-face",)}, "finds nothing: it is no detector"),
        ({"detector": ("dsdf",)}, "dsdf"),
        ({"preset": "faces", "engine": {"face": Path()}}, "--engine face: nothing in this run would use it"),
        (
            {"preset": "deepprivacy2", "person": "blur", "engine": {"person-cse": Path()}},
            "person-cse: nothing in this run",
        ),
    ],
)
def test_what_cannot_be_meant_is_said(values: dict[str, Any], message: str, store: Store) -> None:
    with pytest.raises(UsageError, match=message):
        find_bundles(chosen(**values), store)


def test_realistic_for_what_nobody_finds_is_said_and_no_error(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not find_bundles(chosen(preset="faces", person="realistic"), store).generators
    assert "no detector of this run finds persons" in caplog.text


@pytest.mark.parametrize(
    ("preset", "missing"),
    [("deepprivacy2", "maskrcnn"), ("deepprivacy2", "dp2-person-cse"), ("sg-gan", "sg-gan"), ("people", "fastestdet")],
)
def test_a_missing_bundle_is_named_with_what_to_do(preset: str, missing: str, store: Store, tmp_path: Path) -> None:
    for folder in (store.root / "bundles").iterdir():
        if folder.name != missing:
            (tmp_path / "bundles").mkdir(exist_ok=True)
            (tmp_path / "bundles" / folder.name).symlink_to(folder)
    with pytest.raises(BundleMissingError) as caught:
        find_bundles(chosen(preset=preset), Store(tmp_path))
    message = str(caught.value)
    assert f"preset {preset}: " in message
    assert missing in message
    assert f"standin engines pull {missing}" in message or f"standin export {missing} --checkpoint" in message
    assert "\n" not in message


def test_all_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(
        BundleMissingError, match=r"'maskrcnn' is not installed .*; missing too: cse, dsfd, dp2-face, .*"
    ):
        find_bundles(chosen(preset="deepprivacy2"), Store(tmp_path))


def test_all_detectors_look(store: Store) -> None:
    picture = Frame(np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8))
    settings = chosen(preset="deepprivacy2")
    detector = open_detector(find_bundles(settings, store), settings, 1)
    regions = detector.detect(picture)
    assert regions.kinds.tolist().count(Kind.FACE) == 2
    # From two detectors in two stages: some have a mask, some a pose, one has both.
    outlines = [outline for i in range(len(regions)) if (outline := regions.outline(i)) is not None]
    assert len(outlines) == 3
    assert sum(outline.surface is not None for outline in outlines) == 2
    detector.close()


@pytest.mark.parametrize(("size", "said"), [(255, True), (256, False)])
def test_a_view_that_is_too_small_for_most_people_is_said(
    size: int, said: bool, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    settings = chosen(preset="faces", detect_size=size)
    open_detector(find_bundles(settings, store), settings, 1).close()
    assert (f"at a --detect-size of {size} only people who fill much of the picture" in caplog.text) == said


@pytest.mark.parametrize(("precision", "graph"), [("auto", "detector_int8"), ("fp32", "detector")])
def test_a_detector_s_integers_run_unless_that_is_not_wanted(
    precision: str, graph: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def noted(bundle: Bundle, graph: str = "detector", **options: Any) -> Runtime:
        opened.append(graph)
        return open_runtime(bundle, graph, **options)

    monkeypatch.setattr(assemble, "open_runtime", noted)
    both = with_integers(write_one_stage(tmp_path / "plain", FACES), tmp_path / "both")
    settings = chosen(preset="faces", detector_precision=precision)
    detector = open_detector(Bundles((both,), {}), settings, 1)
    assert opened == [graph]
    assert len(detector.detect(Frame(np.zeros((90, 120, 3), np.uint8)))) == len(FACES)
    detector.close()


def test_detections_are_kept_in_a_file(store: Store, tmp_path: Path) -> None:
    frame = Frame(np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8))
    settings = chosen(preset="deepprivacy2", detections=tmp_path / "found.db")
    counts = []
    for _ in range(2):
        detector = open_detector(find_bundles(settings, store), settings, 1)
        assert isinstance(detector, CachedDetector)
        detector.detect(frame)
        detector.close()
        counts.append((detector.counts.read, detector.counts.detected))
    assert counts == [(0, 1), (1, 0)]


@pytest.mark.parametrize(
    "values", [{"threshold": 0.5}, {"detect_size": 640}, {"detector": ("maskrcnn", "cse")}, {"tiles": 2}]
)
def test_detections_of_other_detectors_are_refused(values: dict[str, Any], store: Store, tmp_path: Path) -> None:
    path = tmp_path / "found.db"
    settings = chosen(preset="deepprivacy2", detections=path)
    detector = open_detector(find_bundles(settings, store), settings, 1)
    detector.detect(Frame(np.zeros((60, 80, 3), np.uint8)))
    detector.close()
    other = chosen(preset="deepprivacy2", detections=path, **values)
    with pytest.raises(UsageError, match="other detectors"):
        open_detector(find_bundles(other, store), other, 1)


def test_tiles_are_looked_at_by_all_detectors_and_behind_the_file(store: Store, tmp_path: Path) -> None:
    settings = chosen(preset="deepprivacy2", tiles=2)
    detector = open_detector(find_bundles(settings, store), settings, 1)
    assert isinstance(detector, TiledDetector)
    assert len(detector.detect(Frame(np.zeros((90, 120, 3), np.uint8)))) > 0
    detector.close()
    behind = chosen(preset="deepprivacy2", tiles=2, detections=tmp_path / "found.db")
    cached = open_detector(find_bundles(behind, store), behind, 1)
    assert isinstance(cached, CachedDetector)
    cached.close()


def test_who_asks_for_floating_point_does_not_get_what_integers_found(tmp_path: Path) -> None:
    plain = write_one_stage(tmp_path / "plain", FACES)
    auto, exact = (chosen(preset="faces", detector_precision=precision) for precision in ("auto", "fp32"))
    both = Bundles((with_integers(plain, tmp_path / "both"),), {})
    assert detectors_of(both, auto).key != detectors_of(both, exact).key
    # A file of one machine may be read on another.
    elsewhere = chosen(preset="faces", device="cuda")
    assert detectors_of(both, auto).key == detectors_of(both, elsewhere).key
    # Where there are none, all is floating point.
    alone = Bundles((plain,), {})
    assert detectors_of(alone, auto).key == detectors_of(alone, exact).key


@pytest.mark.parametrize(("preset", "style"), [("deepprivacy2", "deepprivacy2"), ("sg-gan", "sg-gan")])
def test_generators_bring_their_rules_and_their_surface(preset: str, style: str, store: Store) -> None:
    settings = chosen(preset=preset, margin=0.1, shape="ellipse")
    stand_ins = open_stand_ins(find_bundles(settings, store), settings, patient=False)
    assert stand_ins is not None
    painters = stand_ins.painters
    assert (painters.style, painters.margin, painters.shape) == (style, 0.1, "ellipse")
    assert painters.surface is not None
    stand_ins.prepare()
    stand_ins.close()


def test_pictures_crops_and_nearest_vertices_are_made_where_the_networks_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Device]] = []

    def open_here(make: Callable[[], SmallGraph], device: Device) -> Runtime:
        asked.append((make().declared.file, device))
        return open_on_cpu(make())

    settings = chosen(preset="deepprivacy2")
    bundles = find_bundles(settings, store)
    frame = Frame(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8))
    found, made = [], []
    for patched in (False, True):
        if patched:
            monkeypatch.setattr(pictures, "open_small", open_here)
            monkeypatch.setattr(assemble, "open_small", open_here)
            monkeypatch.setattr(resampler, "open_small", open_here)
        detector, stand_ins = open_detector(bundles, settings, 1), open_stand_ins(bundles, settings, patient=False)
        assert stand_ins is not None
        assert stand_ins.painters.surface is not None
        found.append(detector.detect(frame))
        made.append((detector, stand_ins, stand_ins.painters.surface))
    # Two detectors look in two stages, and one in one.
    names = [*["pictures.onnx"] * 3, "search.onnx", "levels_uint8.onnx", "levels_float32.onnx"]
    assert asked == [(name, "cpu") for name in names]
    np.testing.assert_allclose(found[1].boxes, found[0].boxes, atol=1e-3)
    plain, there = (surface for _, _, surface in made)
    queries = plain.vertex_embeddings
    np.testing.assert_array_equal(there.nearest(queries), plain.nearest(queries))
    for detector, stand_ins, _ in made:
        detector.close()
        stand_ins.close()
    with pytest.raises(RuntimeFailedError, match="closed"):
        there.nearest(queries)


@pytest.mark.parametrize(
    ("values", "asked"),
    [({"device": "cuda"}, "cuda"), ({"device": "cuda", "engine_server": "/run/engines.sock"}, "cpu"), ({}, "cpu")],
)
def test_a_process_whose_engines_run_in_another_takes_no_memory_on_the_gpu(
    values: dict[str, Any], asked: Device, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[Device] = []

    def note(make: Callable[[], SmallGraph], device: Device) -> None:
        devices.append(device)

    def engines_on_cpu(bundle: Bundle, graph: str = "detector", **_: Any) -> Runtime:
        return open_runtime(bundle, graph)

    monkeypatch.setattr(pictures, "open_small", note)
    monkeypatch.setattr(assemble, "open_runtime", engines_on_cpu)
    settings = chosen(preset="sg-gan", **values)
    open_detector(find_bundles(settings, store), settings, 1).close()
    assert devices == [asked] * 3


def test_generators_may_have_latents_of_other_lengths_than_the_published_ones(store: Store, tmp_path: Path) -> None:
    short = write_surface(tmp_path / "short", latent=64)
    settings = chosen(preset="deepprivacy2", engine={"person-cse": short.path}, seed=3)
    stand_ins = open_stand_ins(find_bundles(settings, store), settings, patient=False)
    assert stand_ins is not None
    assert set(stand_ins.painters.generators) == {"face", "person", "person-cse"}
    stand_ins.prepare()
    stand_ins.close()


@pytest.mark.parametrize("preset", ["deepprivacy2", "sg-gan"])
def test_a_stand_in_is_kept_for_as_long_as_its_track_may_come_back(preset: str, store: Store) -> None:
    settings = chosen(preset=preset, hold=2, remember=9, lookahead=1)
    stand_ins = open_stand_ins(find_bundles(settings, store), settings, patient=False)
    assert stand_ins is not None
    (latents,) = {id(made._latents): made._latents for made in stand_ins.painters.generators.values()}.values()  # type: ignore[attr-defined]
    somebody = Regions.of((10, 10, 60, 100), Kind.PERSON, track_ids=[1])
    stand_ins.follow(somebody)
    drawn = latents.of(1)
    for away, kept in ((settings.hold + settings.remember, True), (50, False)):
        for _ in range(away):
            stand_ins.follow(Regions.empty())
        stand_ins.follow(somebody)
        assert (latents.of(1) is drawn) is kept
    stand_ins.close()


def test_without_generators_there_are_no_stand_ins(store: Store) -> None:
    settings = chosen(preset="faces")
    assert open_stand_ins(find_bundles(settings, store), settings, patient=True) is None


def test_a_generator_for_another_surface_than_the_detectors_is_refused(store: Store, tmp_path: Path) -> None:
    other = some(99, 10, 16)
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    mine = write_unet(tmp_path / "mine", surface=True, replaced={"vertex_embeddings": other})
    settings = chosen(preset="deepprivacy2", engine={"person-cse": mine.path})
    with pytest.raises(UsageError, match="another body surface than cse knows; export both from the same CSE"):
        open_stand_ins(find_bundles(settings, store), settings, patient=False)


def test_the_same_seed_gives_the_same_stand_ins(store: Store) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)

    def image(seed: int | None) -> bytes:
        with Anonymizer.open("deepprivacy2", store=store, seed=seed, lookahead=0) as anonymizer:
            return anonymizer.anonymize(Frame(picture)).image.tobytes()

    assert image(1) == image(1)
    assert image(1) != image(2)
    assert image(None) != image(None)


# --- the starter set


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """What comes with the project, tiny: persons with a pose, and the generator for them."""
    write_starter(tmp_path / "package")
    return tmp_path / "package"


def test_the_starter_set_is_found_without_a_store_and_joined_by_what_is_installed(shipped: Path, store: Store) -> None:
    for root, detectors in (
        (shipped / "none", ["starter-detector"]),
        (store.root, ["starter-detector", "centerface"]),
    ):
        bundles = find_bundles(chosen(preset="starter"), Store(root, built_in=shipped))
        assert [bundle.path.name for bundle in bundles.detectors] == detectors
        assert roles(bundles) == {"person-cse": "starter-generator"}


def test_a_detector_that_joins_may_be_given_and_may_not_be_damaged(shipped: Path, tmp_path: Path) -> None:
    mine = write_one_stage(tmp_path / "mine", ())
    starter = Store(tmp_path / "store", built_in=shipped)
    bundles = find_bundles(chosen(preset="starter", engine={"centerface": mine.path}), starter)
    assert bundles.detectors[1].path == mine.path
    # Detectors that are named are all that look.
    named = find_bundles(chosen(preset="starter", detector=("starter-detector",)), starter)
    assert len(named.detectors) == 1
    for damaged in ("changed", "emptied"):
        joining = write_one_stage(starter.path("centerface"), (), name="centerface")
        joining.file("detector.onnx").write_bytes(b"")
        if damaged == "emptied":
            shutil.rmtree(joining.path)
            joining.path.mkdir()
        with pytest.raises(BundleError, match="engines pull centerface"):
            find_bundles(chosen(preset="starter"), starter)
        shutil.rmtree(joining.path)


def test_a_starter_set_without_its_generator_says_so(shipped: Path, tmp_path: Path) -> None:
    shutil.rmtree(shipped / "starter-generator")
    with pytest.raises(BundleMissingError, match="preset starter: bundle 'starter-generator' is not") as caught:
        find_bundles(chosen(preset="starter"), Store(tmp_path / "store", built_in=shipped))
    assert "\n" not in str(caught.value)
    shutil.rmtree(shipped / "starter-detector")
    with pytest.raises(BundleMissingError, match="missing too: starter-generator"):
        find_bundles(chosen(preset="starter"), Store(tmp_path / "store", built_in=shipped))


def test_caution_is_there_where_it_is_asked_for_and_faces_join_those_who_are_replaced(shipped: Path) -> None:
    settings = chosen(preset="starter")
    stand_ins = open_stand_ins(
        find_bundles(settings, Store(shipped / "none", built_in=shipped)), settings, patient=False
    )
    assert stand_ins is not None
    body, face = posed((20, 10, 60, 110), vertex_embeddings()), Regions.of([(30, 12, 50, 32)], Kind.FACE)
    person = Regions.of([(20, 10, 60, 110)], Kind.PERSON, track_ids=[1], outlines=[Outline(surface=body)])
    regions = Regions.concatenate([person, face])
    for given, left in ((stand_ins, 1), (None, 2)):
        caution = make_caution(settings, given)
        assert caution is not None
        assert len(caution.apply(regions, 160, 120)) == left
        assert caution.remembered == 1
    stand_ins.close()
    for preset in ("faces", "deepprivacy2", "sg-gan"):
        assert make_caution(chosen(preset=preset), None) is None
    assert make_caution(chosen(preset="faces", join_faces=True), None) is None


def test_what_is_kept_or_realistic_has_a_classical_anonymizer_too() -> None:
    fills = make_fills(chosen(face="keep", person="realistic", fallback="mask", mask_colour=(1, 2, 3)))
    patch = np.full((4, 4, 3), 200, np.uint8)
    for kind in Kind:
        assert (fills[kind](patch) == (1, 2, 3)).all()

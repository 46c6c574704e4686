from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from engines.bundle import Bundle
from engines.errors import GenerationError, RuntimeFailedError
from stream.generators.base import Array, Crops, Floats
from stream.generators.open import open_generator
from stream.generators.unet import UnetGenerator
from stream.latents import Latents, Truncation, truncate
from stream.regions import NO_TRACK, Kind
from tests.fakes import finishes_within
from tests.generator_bundles import (
    CENTRES,
    HEIGHT,
    VERTICES,
    W_OFFSET,
    W_SCALE,
    WIDTH,
    Fault,
    Gate,
    Watched,
    crops,
    inputs_of,
    vertex_embeddings,
    write_unet,
)


def make(
    bundle: Bundle,
    *,
    latents: Latents | None = None,
    truncation: Truncation | None = None,
    generator: type[UnetGenerator] = UnetGenerator,
    most: int = 8,
    before: Callable[[int], object] = lambda _: None,
) -> tuple[UnetGenerator, Watched, Watched]:
    """A generator whose graphs are watched: itself, the mapping, the U-Net."""
    mapping, unet = Watched(bundle, "mapping", before), Watched(bundle, "generator")
    centres = bundle.array("w_centers") if "w_centers" in bundle.manifest.arrays else None
    made = generator(
        mapping,
        unet,
        kind=Kind.PERSON,
        size=(HEIGHT, WIDTH),
        inputs=inputs_of(bundle),
        truncation=truncation or Truncation(0.7),
        average=bundle.array("w_avg"),
        centres=centres,
        latents=latents or Latents(0),
        most=most,
    )
    return made, mapping, unet


@pytest.fixture
def plain(tmp_path: Path) -> Bundle:
    return write_unet(tmp_path / "plain")


@pytest.fixture
def with_surface(tmp_path: Path) -> Bundle:
    return write_unet(tmp_path / "surface", surface=True, centres=True)


def among(others: Crops, crop: Crops) -> Crops:
    """A crop as the last one of a frame."""
    fields = {name: np.concatenate([getattr(others, name), getattr(crop, name)]) for name in Crops.__slots__}
    return Crops(**fields)


# With several crops in a run ONNX Runtime sums some things in another order; not so in the graph without a surface.
@pytest.mark.parametrize(("surface", "most"), [(False, 1), (False, 8), (True, 1)])
def test_the_same_track_looks_the_same_in_every_frame_whoever_else_is_there(
    tmp_path: Path, surface: bool, most: int
) -> None:
    generator, mapping, _ = make(write_unet(tmp_path / "b", surface=surface), most=most)
    crop = crops(4, seed=9)
    alone = generator.generate(crop).output[0]
    for others in ((), (1,), (1, 2, 3), tuple(range(10, 17))):
        frame = among(crops(*others, seed=len(others)), crop)
        assert np.array_equal(generator.generate(frame).output[-1], alone)
    assert mapping.runs == 11
    assert all(feeds["z"].shape == (1, 512) for feeds in mapping.fed)


def test_on_the_cpu_each_crop_has_a_run_to_itself_unless_more_are_asked_for(with_surface: Bundle) -> None:
    crop = crops(1, 2, 3)
    alone, together = (
        open_generator(with_surface, latents=Latents(1)),
        open_generator(with_surface, latents=Latents(1), most=8),
    )
    one_by_one = alone.generate(crop).output
    for place in range(3):
        assert np.array_equal(alone.generate(crop[[place]]).output[0], one_by_one[place])
    assert np.abs(together.generate(crop).output - one_by_one).max() < 1e-5


def test_tracks_look_different(plain: Bundle) -> None:
    generator, _, _ = make(plain)
    crop = crops(0)
    pictures = {generator.generate(replace(crop, track_ids=np.array([i]))).output.tobytes() for i in range(10)}
    assert len(pictures) == 10


def test_known_pixels_come_back_and_unknown_ones_are_generated(plain: Bundle) -> None:
    generator, _, _ = make(plain)
    crop = crops(1, 2)
    result = generator.generate(crop)
    assert result.done.all()
    assert result.output.dtype == np.float32
    assert np.array_equal(result.images[crop.known], crop.images[crop.known])
    assert (result.images[~crop.known] != crop.images[~crop.known]).mean() > 0.9


def test_the_graph_gets_each_tracks_truncated_w(with_surface: Bundle) -> None:
    latents = Latents(3)
    average, centres = with_surface.array("w_avg"), with_surface.array("w_centers")
    for truncation in (Truncation(0.7), Truncation(0.5, multi_modal=True), Truncation(7, multi_modal=True)):
        generator, _, unet = make(with_surface, latents=latents, truncation=truncation)
        generator.generate(crops(8, 2))
        for row, track in enumerate((8, 2)):
            latent = latents.of(track)
            towards = centres[latent.centre % CENTRES] if truncation.multi_modal else average
            expected = truncate(W_SCALE * latent.z + W_OFFSET, towards, truncation.value)
            assert np.array_equal(unet.fed[0]["w"][row], expected)


def test_the_graph_gets_the_embedding_of_each_body_pixels_vertex(with_surface: Bundle) -> None:
    generator, _, unet = make(with_surface)
    crop = crops(1, 2)
    generator.generate(crop)
    assert crop.body is not None
    assert crop.vertices is not None
    embedding = unet.fed[0]["embedding"].transpose(0, 2, 3, 1)
    assert np.array_equal(embedding[crop.body], vertex_embeddings()[crop.vertices[crop.body]])
    assert not embedding[~crop.body].any()
    assert np.array_equal(unet.fed[0]["embedding_mask"][:, 0], crop.body)


def test_each_track_is_mapped_once(plain: Bundle) -> None:
    generator, mapping, unet = make(plain)
    for _ in range(5):
        generator.generate(crops(1, 2, 1))
    assert mapping.runs == 2
    assert unet.runs == 5


def test_a_frame_is_one_run_of_the_graph_unless_there_is_a_crowd(plain: Bundle) -> None:
    generator, _, unet = make(plain, most=3)
    crowd = crops(*range(8))
    together = generator.generate(crowd)
    assert [len(feeds["image"]) for feeds in unet.fed] == [3, 3, 2]
    for place in range(8):
        assert np.array_equal(generator.generate(crowd[[place]]).output[0], together.output[place])


def test_without_crops_nothing_runs(plain: Bundle) -> None:
    generator, mapping, unet = make(plain)
    result = generator.generate(crops())
    assert result.output.shape == (0, 3, HEIGHT, WIDTH)
    assert (mapping.runs, unet.runs) == (0, 0)


def test_a_region_without_a_track_is_left_to_the_caller_and_its_pixels_do_not_enter(plain: Bundle) -> None:
    generator, _, unet = make(plain)
    crop = crops(NO_TRACK, 5, NO_TRACK)
    result = generator.generate(crop)
    assert result.done.tolist() == [False, True, False]
    assert not result.output[[0, 2]].any()
    assert len(unet.fed[0]["image"]) == 1
    assert np.array_equal(result.output[1], generator.generate(crop[[1]]).output[0])
    assert (
        generator.ready(crop.track_ids).tolist() == generator.wait(crop.track_ids, 0).tolist() == [False, True, False]
    )
    generator.generate(crops(NO_TRACK))
    assert unet.runs == 2


class Unblanked(UnetGenerator):
    """Feeds the original pixels, those under the mask included."""

    def _feeds(self, crops: Crops, w: Floats) -> dict[str, Array]:
        scaled = (crops.images.astype(np.float32) - 127.5) / 127.5
        return super()._feeds(crops, w) | {"image": np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32)}


@pytest.mark.parametrize(
    ("kind", "fault", "private"),
    [
        (UnetGenerator, "", True),
        # Either guard is enough ...
        (Unblanked, "", True),
        (UnetGenerator, "sees everything", True),
        # ... and the control has none.
        (Unblanked, "sees everything", False),
    ],
)
def test_original_pixels_under_the_mask_do_not_reach_the_output(
    tmp_path: Path, kind: type[UnetGenerator], fault: Fault, private: bool
) -> None:
    generator, _, _ = make(write_unet(tmp_path / "b", surface=True, fault=fault), generator=kind)
    crop = crops(1, 2)
    before = generator.generate(crop).output
    rng = np.random.default_rng(5)
    for _ in range(3):
        noise = rng.integers(0, 256, crop.images.shape, np.uint8)
        changed = replace(crop, images=np.where(crop.known[..., None], crop.images, noise))
        assert np.array_equal(generator.generate(changed).output, before) == private


def test_what_is_not_finite_is_an_error(tmp_path: Path) -> None:
    generator, _, _ = make(write_unet(tmp_path / "b", fault="not finite"))
    with pytest.raises(GenerationError, match="not finite"):
        generator.generate(crops(1))
    with pytest.raises(GenerationError, match="not finite"):
        generator.prepare()


class NotFinite(Watched):
    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {name: value * np.float32(np.nan) for name, value in super()._run(feeds).items()}


class Cropped(Watched):
    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {name: value[..., :1] for name, value in super()._run(feeds).items()}


@pytest.mark.parametrize("broken", [NotFinite, Cropped])
@pytest.mark.parametrize("graph", ["mapping", "generator"])
def test_answers_of_another_kind_are_errors(plain: Bundle, broken: type[Watched], graph: str) -> None:
    generator, mapping, unet = make(plain)
    wrong = UnetGenerator(
        broken(plain, "mapping") if graph == "mapping" else mapping,
        broken(plain, "generator") if graph == "generator" else unet,
        kind=Kind.PERSON,
        size=(HEIGHT, WIDTH),
        inputs=inputs_of(plain),
        truncation=Truncation(0.7),
        average=plain.array("w_avg"),
        centres=None,
        latents=Latents(),
    )
    assert generator.generate(crops(1)).done.all()
    with pytest.raises(GenerationError, match=r"finite|expected"):
        wrong.generate(crops(1))


def test_crops_that_do_not_fit_are_refused(with_surface: Bundle) -> None:
    generator, _, unet = make(with_surface)
    with pytest.raises(GenerationError, match="surface"):
        generator.generate(crops(1, surface=False))
    strange = crops(1)
    assert strange.vertices is not None
    strange.vertices[0, 12, 8] = VERTICES
    with pytest.raises(GenerationError, match="vertices from"):
        generator.generate(strange)
    assert unet.runs == 0


def test_a_track_that_comes_back_under_the_same_id_looks_different_once_it_was_forgotten(plain: Bundle) -> None:
    latents = Latents()
    generator, _, _ = make(plain, latents=latents)
    crop = crops(1, 2)
    first = generator.generate(crop).output
    assert np.array_equal(generator.generate(crop).output, first)
    generator.forget(1)
    assert latents.tracks == 1
    second = generator.generate(crop).output
    assert not np.array_equal(second[0], first[0])
    assert np.array_equal(second[1], first[1])
    generator.reset()
    assert latents.tracks == 0
    third = generator.generate(crop).output
    assert not np.array_equal(third[0], second[0])
    assert not np.array_equal(third[1], second[1])


def test_another_truncation_takes_effect_and_keeps_the_latents(plain: Bundle) -> None:
    generator, _, _ = make(plain, latents=Latents())
    crop = crops(1, 2)
    same = replace(crop, images=crop.images[[0, 0]], body=None, vertices=None)
    first = generator.generate(same).output
    generator.set_truncation(0)
    average = generator.generate(same).output
    assert np.array_equal(average[0], average[1])
    generator.set_truncation(0.7)
    assert np.array_equal(generator.generate(same).output, first)
    assert not np.array_equal(first[0], first[1])


def test_generators_that_share_latents_draw_once_for_both(tmp_path: Path) -> None:
    latents = Latents()
    first, _, one = make(write_unet(tmp_path / "a"), latents=latents)
    second, _, two = make(write_unet(tmp_path / "b", surface=True), latents=latents)
    first.generate(crops(1))
    second.generate(crops(1))
    assert np.array_equal(one.fed[0]["w"], two.fed[0]["w"])


def test_several_threads_may_generate_at_once(plain: Bundle) -> None:
    generator, mapping, _ = make(plain, latents=Latents())
    crop = crops(0)
    wanted = [replace(crop, track_ids=np.array([i % 4])) for i in range(80)]
    with ThreadPoolExecutor(8) as pool:
        # Threads that ask for the same new track at once may each run its mapping, but only once.
        pictures = list(pool.map(lambda one: generator.generate(one).output.tobytes(), wanted))
        assert 4 <= mapping.runs <= 4 * 8
        before = mapping.runs
        assert list(pool.map(lambda one: generator.generate(one).output.tobytes(), wanted)) == pictures
    assert mapping.runs == before
    assert all(pictures[i] == pictures[i % 4] for i in range(80))
    assert len(set(pictures)) == 4


class Locked(UnetGenerator):
    """Holds the lock while the mapping runs."""

    def _map(self, z: Floats) -> Floats:
        with self._lock:
            return super()._map(z)


@pytest.mark.parametrize("kind", [UnetGenerator, Locked])
def test_a_mapping_that_hangs_stops_nobody_else(plain: Bundle, kind: type[UnetGenerator]) -> None:
    gate = Gate()
    generator, mapping, _ = make(plain, generator=kind, before=lambda run: gate(run) if run == 1 else None)
    crop = crops(1)
    there = generator.generate(crop).output
    calls: list[Callable[[], object]] = [
        partial(generator.generate, crop),
        partial(generator.forget, 3),
        partial(generator.forget, 2),
        partial(generator.set_truncation, 0.5),
        generator.reset,
    ]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(generator.generate, crops(2))
        try:
            assert gate.reached.wait(20)
            assert generator.ready([1, 2]).all()
            if kind is Locked:
                # The control: each of them waits for the mapping.
                with pytest.raises(AssertionError, match="still running"):
                    finishes_within(0.2, calls[0])
            else:
                assert np.array_equal(finishes_within(20, partial(generator.generate, crop)).output, there)
                for call in calls:
                    finishes_within(20, call)
                assert mapping.runs == 2
            assert not waiting.done()
        finally:
            gate.open()
        assert waiting.result(20).done.all()


class Remembering(UnetGenerator):
    """Keeps every w that it was ever given, by the id of the track alone."""

    def _w_of(self, track_id: int) -> Floats:
        kept: dict[int, Floats] = self.__dict__.setdefault("kept", {})
        if track_id not in kept:
            kept[track_id] = super()._w_of(track_id)
        return kept[track_id]


CHANGES: dict[str, Callable[[UnetGenerator], None]] = {
    "reset": lambda generator: generator.reset(),
    "forget": lambda generator: generator.forget(1),
    "set_truncation": lambda generator: generator.set_truncation(0.25),
}


@pytest.mark.parametrize(("kind", "right"), [(UnetGenerator, True), (Remembering, False)])
@pytest.mark.parametrize("first", ["the late answer", "the next frame"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_w_that_comes_too_late_is_not_used(
    plain: Bundle, change: str, first: str, kind: type[UnetGenerator], right: bool
) -> None:
    gate, latents = Gate(), Latents()
    generator, mapping, unet = make(
        plain, generator=kind, latents=latents, before=lambda run: gate(run) if run == 0 else None
    )
    truncation = 0.25 if change == "set_truncation" else 0.7
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(generator.generate, crops(1))
        try:
            assert gate.reached.wait(20)
            CHANGES[change](generator)
            if first == "the next frame":
                finishes_within(20, partial(generator.generate, crops(1)))
        finally:
            gate.open()
        late.result(20)
    for _ in range(2):
        generator.generate(crops(1))
    w = truncate(W_SCALE * latents.of(1).z + W_OFFSET, plain.array("w_avg"), truncation)
    assert np.array_equal(unet.fed[-1]["w"][0], w) == right
    assert mapping.runs == (2 if right or first == "the next frame" else 1)


def test_a_latent_that_another_generator_forgot_is_drawn_anew_for_both(tmp_path: Path) -> None:
    latents = Latents()
    first, _, one = make(write_unet(tmp_path / "a"), latents=latents)
    second, _, two = make(write_unet(tmp_path / "b", surface=True), latents=latents)
    for _ in range(2):
        first.generate(crops(1))
        second.generate(crops(1))
        second.forget(1)
    first.generate(crops(1))
    assert len({feeds["w"].tobytes() for feeds in one.fed}) == 3
    assert [feeds["w"].tobytes() for feeds in two.fed] == [feeds["w"].tobytes() for feeds in one.fed[:2]]


@pytest.mark.parametrize("surface", [False, True])
def test_prepare_runs_both_graphs_and_draws_nothing(tmp_path: Path, surface: bool) -> None:
    latents = Latents()
    generator, mapping, unet = make(write_unet(tmp_path / "b", surface=surface), latents=latents)
    generator.prepare()
    assert (mapping.runs, unet.runs) == (1, 1)
    assert latents.tracks == 0


def test_after_close_it_raises(plain: Bundle) -> None:
    generator, mapping, unet = make(plain)
    generator.close()
    generator.close()
    assert mapping.closed
    assert unet.closed
    with pytest.raises(RuntimeFailedError, match="closed"):
        generator.generate(crops(1))


def test_nothing_is_ever_beyond_its_capacity(plain: Bundle) -> None:
    generator = open_generator(plain)
    assert generator.capacity is None
    generator.request([1, 2, 3])
    assert generator.failure(1) is None
    assert generator.generate(crops(*range(100))).done.all()
    generator.close()

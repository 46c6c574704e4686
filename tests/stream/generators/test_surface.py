from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.bundle import Bundle
from engines.errors import GenerationError, RuntimeFailedError
from engines.resident import Resident
from stream.generators.base import Array, Crops, Ints
from stream.generators.surface import SurfaceGenerator
from stream.latents import Latents, Truncation
from stream.regions import NO_TRACK, Kind
from stream.vertex_map import vertex_map
from tests.generator_bundles import (
    HEIGHT,
    TABLES,
    VERTICES,
    WIDTH,
    Elsewhere,
    Fault,
    Gate,
    Watched,
    crops,
    inputs_of,
    write_surface,
)

BYTES = 4 * (VERTICES + 2) * sum(TABLES)
SOON = 20.0


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_surface(tmp_path / "b")


def make(
    bundle: Bundle,
    *,
    slots: int = 8,
    half: bool = False,
    before: Callable[[int], object] = lambda _: None,
    latents: Latents | None = None,
    kind: type[SurfaceGenerator] = SurfaceGenerator,
    most: int = 1,
    unet: Watched | None = None,
    **options: Any,
) -> tuple[SurfaceGenerator, Watched, Watched]:
    """A generator whose graphs are watched: itself, the mapping, the U-Net."""
    mapping = Watched(bundle, "mapping", before)
    unet = unet or Watched(bundle, "generator_fp16" if half else "generator")
    made = kind(
        mapping,
        unet,
        kind=Kind.PERSON,
        size=(HEIGHT, WIDTH),
        inputs=inputs_of(bundle),
        truncation=Truncation(0.7),
        latents=Latents(0) if latents is None else latents,
        budget=slots * BYTES // (2 if half else 1),
        most=most,
        **options,
    )
    return made, mapping, unet


def built(generator: SurfaceGenerator, *track_ids: int) -> SurfaceGenerator:
    generator.request(track_ids)
    generator.wait(track_ids, SOON)
    return generator


def among(others: Crops, crop: Crops) -> Crops:
    fields = {name: np.concatenate([getattr(others, name), getattr(crop, name)]) for name in Crops.__slots__}
    return Crops(**fields)


@pytest.mark.parametrize("half", [False, True])
def test_the_same_track_looks_the_same_in_every_frame_whoever_else_is_there(bundle: Bundle, half: bool) -> None:
    generator, mapping, _ = make(bundle, half=half, slots=9)
    crop = crops(4, seed=9)
    alone = built(generator, 4).generate(crop).output[0]
    for others in ((), (1,), (1, 2, 3), tuple(range(10, 15))):
        frame = among(crops(*others, seed=len(others)), crop)
        result = built(generator, *others, 4).generate(frame)
        assert result.done.all()
        assert np.array_equal(result.output[-1], alone)
    assert mapping.runs == 9
    generator.close()


def test_tracks_look_different_and_known_pixels_come_back(bundle: Bundle) -> None:
    generator, _, _ = make(bundle)
    crop = crops(0)
    pictures = set()
    for track in range(8):
        result = built(generator, track).generate(replace(crop, track_ids=np.array([track])))
        assert result.done.all()
        assert np.array_equal(result.images[crop.known], crop.images[crop.known])
        pictures.add(result.output.tobytes())
    assert len(pictures) == 8
    generator.close()


def test_a_track_is_left_to_the_caller_until_its_tables_are_there(bundle: Bundle) -> None:
    gate = Gate()
    generator, _, unet = make(bundle, before=gate)
    crop = crops(1, NO_TRACK, 2)
    generator.request(crop.track_ids)
    assert gate.reached.wait(SOON)
    early = generator.generate(crop)
    assert not early.done.any()
    assert not early.output.any()
    assert unet.runs == 0
    gate.open()
    assert generator.wait(crop.track_ids, SOON).tolist() == [True, False, True]
    assert generator.ready(crop.track_ids).tolist() == [True, False, True]
    late = generator.generate(crop)
    assert late.done.tolist() == [True, False, True]
    assert late.output[[0, 2]].any(axis=(1, 2, 3)).all()
    assert not late.output[1].any()
    generator.close()


def test_tracks_beyond_the_capacity_are_left_to_the_caller_for_as_long_as_the_others_live(bundle: Bundle) -> None:
    generator, mapping, _ = make(bundle, slots=1)
    assert generator.capacity == 1
    first = built(generator, 1, 2).generate(crops(1, 2)).output
    for _ in range(100):
        result = built(generator, 1, 2).generate(crops(1, 2))
        assert result.done.tolist() == [True, False]
        assert np.array_equal(result.output, first)
    assert mapping.runs == 1
    generator.close()


def test_a_track_that_lost_its_place_comes_back_as_it_was(bundle: Bundle) -> None:
    generator, mapping, _ = make(bundle, slots=1, linger=1, latents=Latents())
    first = built(generator, 1).generate(crops(1)).output
    assert built(generator, 2).generate(crops(1, 2)).done.tolist() == [False, True]
    again = built(generator, 1).generate(crops(1))
    assert again.done.all()
    assert np.array_equal(again.output, first)
    assert mapping.runs == 3
    generator.close()


def test_a_forgotten_track_comes_back_as_somebody_else(bundle: Bundle) -> None:
    latents = Latents()
    generator, _, _ = make(bundle, latents=latents)
    crop = crops(1, 2)
    first = built(generator, 1, 2).generate(crop).output
    generator.forget(1)
    assert latents.tracks == 1
    assert generator.generate(crop).done.tolist() == [False, True]
    second = built(generator, 1, 2).generate(crop).output
    assert not np.array_equal(second[0], first[0])
    assert np.array_equal(second[1], first[1])
    generator.reset()
    assert latents.tracks == 0
    assert not generator.generate(crop).done.any()
    generator.close()


def test_the_graph_gets_rows_slots_and_no_copies(bundle: Bundle) -> None:
    generator, _, unet = make(bundle, most=8)
    crop = crops(5, NO_TRACK, 6)
    built(generator, 5, 6).generate(crop)
    feeds = unet.fed[0]
    assert feeds["slot"].tolist() == [0, 1]
    # Two of eight slots are enough.
    tables = [feeds[f"table_{i}"] for i in range(2)]
    assert all(len(table) == 2 and table.base is not None for table in tables)
    generator.generate(crop)
    assert all(np.shares_memory(feeds[f"table_{i}"], unet.fed[1][f"table_{i}"]) for i in range(2))
    assert crop.vertices is not None
    assert crop.body is not None
    expected = vertex_map(crop.vertices, crop.known, crop.body, VERTICES)[[0, 2]]
    assert np.array_equal(feeds["vertices"], expected)
    generator.close()


def test_where_the_graph_has_its_own_memory_tables_travel_once(bundle: Bundle) -> None:
    generator, _, _ = make(bundle, most=8)
    elsewhere = Elsewhere(bundle, "generator")
    there, _, _ = make(bundle, most=8, unet=elsewhere)
    for tracks in ((5, 6), (6,), (7, 5, 6)):
        crop = crops(*tracks)
        wanted, found = built(generator, *tracks).generate(crop), built(there, *tracks).generate(crop)
        assert np.array_equal(found.output, wanted.output)
    # Both tables of two tracks, and of three.
    assert [len(held.values) for held in elsewhere.held] == [2, 2, 3, 3]
    assert [feeds["slot"].tolist() for feeds in elsewhere.fed] == [[0, 1], [1], [2, 0, 1]]
    generator.close()
    there.close()


def test_the_output_depends_on_each_pixels_vertex(bundle: Bundle) -> None:
    generator, _, _ = make(bundle)
    crop = crops(1)
    before = built(generator, 1).generate(crop).output
    assert crop.vertices is not None
    for y, x, changes in ((12, 8, True), (4, 3, False), (0, 0, False)):
        vertices = crop.vertices.copy()
        vertices[0, y, x] = (vertices[0, y, x] + 1) % VERTICES
        after = generator.generate(replace(crop, vertices=vertices)).output
        where = np.argwhere((after != before).any(axis=1)).tolist()
        assert where == ([[0, y, x]] if changes else [])
    generator.close()


@pytest.mark.parametrize("vertex", [-1, VERTICES, VERTICES + 1, VERTICES + 2, 2**40, -(2**40)])
def test_a_body_pixel_without_a_vertex_of_the_surface_is_an_error(bundle: Bundle, vertex: int) -> None:
    generator, _, unet = make(bundle)
    crop = crops(1, 2)
    built(generator, 1, 2)
    assert crop.vertices is not None
    crop.vertices[1, 12, 8] = vertex
    with pytest.raises(GenerationError, match=rf"vertices from .*{'-' if vertex < 0 else ''}{abs(vertex)}.* 0 to 9"):
        generator.generate(crop)
    assert unet.runs == 0
    # Control: the same number outside the body.
    crop.vertices[1, 12, 8] = 0
    crop.vertices[1, 4, 3] = vertex
    assert generator.generate(crop).done.all()
    generator.close()


class Unblanked(SurfaceGenerator):
    """Feeds the original pixels, those under the mask included."""

    def _feeds(self, crops: Crops, slots: Ints) -> dict[str, Array | Resident]:
        scaled = (crops.images.astype(np.float32) - 127.5) / 127.5
        image = np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32)
        return super()._feeds(crops, slots) | {"image": image}


@pytest.mark.parametrize(
    ("kind", "fault", "private"),
    [
        (SurfaceGenerator, "", True),
        # Either guard is enough ...
        (Unblanked, "", True),
        (SurfaceGenerator, "sees everything", True),
        # ... and the control has none.
        (Unblanked, "sees everything", False),
    ],
)
def test_original_pixels_under_the_mask_do_not_reach_the_output(
    tmp_path: Path, kind: type[SurfaceGenerator], fault: Fault, private: bool
) -> None:
    generator, _, _ = make(write_surface(tmp_path / "b", fault=fault), kind=kind)
    crop = crops(1, 2)
    before = built(generator, 1, 2).generate(crop).output
    rng = np.random.default_rng(5)
    for _ in range(3):
        noise = rng.integers(0, 256, crop.images.shape, np.uint8)
        changed = replace(crop, images=np.where(crop.known[..., None], crop.images, noise))
        assert np.array_equal(generator.generate(changed).output, before) == private
    generator.close()


def test_what_is_not_finite_is_an_error(tmp_path: Path) -> None:
    generator, _, _ = make(write_surface(tmp_path / "b", fault="not finite"))
    with pytest.raises(GenerationError, match="not finite"):
        built(generator, 1).generate(crops(1))
    # The rows were given back all the same.
    generator.forget(1)
    assert built(generator, *range(2, 10)).ready(list(range(2, 10))).all()
    generator.reset()
    with pytest.raises(GenerationError, match="not finite"):
        generator.prepare()
    generator.close()


def test_crops_without_the_surface_are_refused(bundle: Bundle) -> None:
    generator, _, _ = make(bundle)
    built(generator, 1)
    with pytest.raises(GenerationError, match="surface"):
        generator.generate(crops(1, surface=False))
    generator.close()


def test_without_crops_nothing_runs(bundle: Bundle) -> None:
    generator, mapping, unet = make(bundle)
    result = built(generator).generate(crops())
    assert result.output.shape == (0, 3, HEIGHT, WIDTH)
    assert (mapping.runs, unet.runs) == (0, 0)
    generator.close()


def test_prepare_tries_everything_once_and_leaves_no_trace(bundle: Bundle) -> None:
    latents = Latents()
    generator, mapping, unet = make(bundle, slots=1, latents=latents)
    generator.prepare()
    assert (mapping.runs, unet.runs, latents.tracks) == (1, 1, 0)
    assert built(generator, 1).generate(crops(1)).done.all()
    generator.close()


def test_prepare_says_why_tables_cannot_be_built(tmp_path: Path) -> None:
    generator, _, _ = make(write_surface(tmp_path / "b", fault="half overflows"), half=True)
    with pytest.raises(GenerationError, match="not finite in float16"):
        generator.prepare()
    generator.close()


def test_another_truncation_takes_effect_and_keeps_the_latents(bundle: Bundle) -> None:
    generator, _, _ = make(bundle, latents=Latents())
    crop = crops(1)
    other = replace(crop, track_ids=np.array([2]))
    first = built(generator, 1).generate(crop).output
    generator.set_truncation(-3)
    assert not generator.generate(crop).done.any()
    average = built(generator, 1, 2).generate(crop).output
    assert np.array_equal(generator.generate(other).output, average)
    generator.set_truncation(0.7)
    assert np.array_equal(built(generator, 1, 2).generate(crop).output, first)
    assert not np.array_equal(generator.generate(other).output, first)
    generator.close()


def test_threads_that_generate_while_tables_come_and_go_get_the_right_person_or_none(bundle: Bundle) -> None:
    latents, tracks = Latents(), range(5)
    crop = crops(0)
    of = {track: replace(crop, track_ids=np.array([track])) for track in tracks}
    roomy, _, _ = make(bundle, latents=latents)
    expected = {track: built(roomy, track).generate(of[track]).output for track in tracks}
    roomy.close()
    generator, mapping, _ = make(bundle, slots=2, linger=1, latents=latents)

    def use(worker: int) -> int:
        done = 0
        for step in range(60):
            track = (worker + step) % len(tracks)
            generator.request([track])
            if step % 3 == 0:
                generator.wait([track], 0.01)
            result = generator.generate(of[track])
            assert np.array_equal(result.output, expected[track] if result.done[0] else 0 * result.output)
            done += int(result.done[0])
        return done

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(use, range(6))) > 10
    assert mapping.runs > 10
    generator.close()


def test_close_while_tables_are_built(bundle: Bundle) -> None:
    gate = Gate()
    generator, mapping, unet = make(bundle, before=gate)
    generator.request([1])
    assert gate.reached.wait(SOON)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(generator.close)
        gate.open()
        closing.result(SOON)
    generator.close()
    assert mapping.closed
    assert unet.closed
    with pytest.raises(RuntimeFailedError, match="closed"):
        generator.request([1])

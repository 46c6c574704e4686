"""What must hold for any regions in any frame."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.compose import masks
from stream.compose.composer import Composed, compose
from stream.compose.parts import Painters, drop_covered_faces, prepare
from stream.frame import Image
from stream.generators.base import Generator
from stream.generators.open import open_generator
from stream.latents import Latents
from stream.outline import BodySurface, Outline, PixelMask
from stream.regions import Kind, Regions
from stream.roles import Context, Role, Style
from stream.surface import Surface
from tests.compose import (
    FILLS,
    Flat,
    as_regions,
    blob,
    posed,
    repainted,
    under,
)
from tests.generator_bundles import vertex_embeddings, write_surface, write_unet

CONTEXTS: tuple[Context, ...] = ("private", "published")


def noise(height: int, width: int, seed: int = 3) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def flat_painters(style: Style = "deepprivacy2", *, refuses: frozenset[int] = frozenset()) -> Painters:
    generators: dict[Role, Generator] = {
        "face": Flat(Kind.FACE, (24, 24), refuses=refuses),
        "person": Flat(Kind.PERSON, refuses=refuses),
        "person-cse": Flat(Kind.PERSON, surface=True, refuses=refuses),
    }
    return Painters(generators, FILLS, Surface(vertex_embeddings()), style=style)


def crowd(count: int, height: int, width: int, seed: int = 0) -> Regions:
    """Faces, persons with masks, with surfaces, with both and with neither, anywhere, some across the edge."""
    draw = np.random.default_rng(seed)
    parts = []
    for track in range(count):
        w, h = (int(v) for v in draw.integers(8, 90, 2))
        x, y = int(draw.integers(-w // 2, width - w // 2)), int(draw.integers(-h // 2, height - h // 2))
        box = (x, y, x + w, y + h)
        mask, surface = blob(x, y, w, h, track), posed(box, vertex_embeddings(), track)
        outline = [None, Outline(mask), Outline(None, surface), Outline(mask.union(surface.nearest_mask()), surface)]
        kind = Kind.FACE if track % 5 == 4 else Kind.PERSON
        chosen = None if kind == Kind.FACE else outline[track % 4]
        parts.append(Regions.of([box], kind, track_ids=[track], outlines=[chosen]))
    return Regions.concatenate(parts)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[Style, Painters]:
    """Real graphs whose output depends on everything that they are shown."""
    folder = tmp_path_factory.mktemp("tiny")
    latents = Latents(seed=1)
    generators: dict[Role, Generator] = {
        "face": open_generator(write_unet(folder / "face", kind="face"), latents=latents),
        "person": open_generator(write_unet(folder / "person"), latents=latents),
        "person-cse": open_generator(write_unet(folder / "posed", surface=True), latents=latents),
    }
    guided = open_generator(write_surface(folder / "guided"), latents=latents)
    guided.request(list(range(60)))
    guided.wait(list(range(60)))
    surface = Surface(vertex_embeddings())
    return {
        "deepprivacy2": Painters(generators, FILLS, surface),
        "sg-gan": Painters(generators | {"person-cse": guided}, FILLS, surface, style="sg-gan"),
    }


STYLES: tuple[Style, ...] = ("deepprivacy2", "sg-gan")


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seed", range(4))
def test_in_private_the_output_does_not_depend_on_any_pixel_under_a_mask(
    tiny: dict[Style, Painters], style: Style, seed: int
) -> None:
    image, regions = noise(160, 240), crowd(12, 160, 240, seed)
    changed = repainted(image, regions, style)
    made = [compose(picture, regions, tiny[style]) for picture in (image, changed)]
    assert made[0].generated.any()
    assert (made[0].image == made[1].image).all()
    seen = [compose(picture, regions, tiny[style], context="published").image for picture in (image, changed)]
    assert (seen[0] != seen[1]).any()


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("count", [0, 1, 12, 60])
def test_any_number_of_regions_is_replaced(
    tiny: dict[Style, Painters], style: Style, count: int, context: Context
) -> None:
    image, regions = noise(200, 300), crowd(count, 200, 300)
    kept = image.copy()
    made = compose(image, regions, tiny[style], context=context)
    assert (image == kept).all()
    assert made.image.shape == image.shape
    if not count:
        assert (made.image == image).all()
    else:
        written = (made.image != image).any(axis=2)
        # Noise meets the stand-in's colour once in a while.
        assert written[under(regions, image.shape, style)].mean() > 0.999


def test_waves_give_what_one_region_after_the_other_gives(tiny: dict[Style, Painters]) -> None:
    image, painters = noise(300, 400), tiny["deepprivacy2"]
    regions = crowd(30, 300, 400, seed=7)
    together = compose(image, regions, painters, context="published").image
    parts, _ = drop_covered_faces(prepare(regions, (300, 400), painters), (300, 400))
    alone = image
    for part in sorted(parts, key=lambda part: part.rank):
        alone = compose(alone, regions[[part.index]], painters, context="published").image
    assert (together == alone).all()


def test_regions_that_do_not_meet_share_a_batch() -> None:
    painters = flat_painters()
    boxes = [(x, 20, x + 40, 90) for x in range(50, 1000, 150)]
    compose(noise(120, 1100), Regions.of(boxes, Kind.PERSON, track_ids=range(len(boxes))), painters)
    person = painters.generators["person"]
    assert isinstance(person, Flat)
    assert [len(crops) for crops in person.given] == [len(boxes)]


box_sides = st.tuples(*[st.floats(-150, 250, width=32)] * 4)


@given(box_sides, st.integers(1, 120), st.integers(1, 120), st.sampled_from(Kind), st.integers(0, 3), st.data())
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_box_in_any_frame_is_written_and_nothing_else(
    sides: tuple[float, float, float, float], height: int, width: int, kind: Kind, way: int, data: st.DataObject
) -> None:
    x0, x1 = sorted(sides[::2])
    y0, y1 = sorted(sides[1::2])
    style: Style = data.draw(st.sampled_from(STYLES))
    region = Regions.of([[x0, y0, x1, y1]], kind, track_ids=[0])
    outline = _outline(region, way)
    if kind == Kind.PERSON and outline is not None:
        region = Regions.of(region.boxes, kind, track_ids=[0], outlines=[outline])
    image = np.zeros((height, width, 3), np.uint8)
    painters = flat_painters(style)
    made = compose(image, region, painters)
    written = made.image.any(axis=2)
    hidden = under(region, image.shape, style)
    assert not (hidden & ~written).any()
    parts = prepare(region, (height, width), painters)
    if not parts:
        assert not written.any()
        return
    (part,) = parts
    if part.crop is not None and part.crop.cutting != "surface":
        assert made.generated.all()
        assert (made.image[written] == Flat.LEVEL).all()
        whole = (0, 0, width, height)
        x, y, right, bottom = (
            max(low, min(high, v)) for low, high, v in zip((0,) * 4, whole[2:] * 2, part.crop.box, strict=True)
        )
        expected = np.zeros((height, width), np.bool_)
        expected[y:bottom, x:right] = masks.back(part.crop.unknown, part.crop.box, (x, y, right, bottom))
        assert (written == expected).all()


def _outline(region: Regions, way: int) -> Outline | None:
    x0, y0, x1, y1 = (int(v) for v in region.boxes[0])
    box = (x0, y0, max(x1, x0 + 3), max(y1, y0 + 3))
    mask = blob(box[0], box[1], box[2] - box[0], box[3] - box[1])
    surface = posed(box, vertex_embeddings())
    return [None, Outline(mask), Outline(None, surface), Outline(mask, surface)][way]


@pytest.mark.parametrize("style", STYLES)
def test_what_a_generator_does_not_do_is_covered_classically(style: Style) -> None:
    image, regions = np.zeros((160, 240, 3), np.uint8), crowd(12, 160, 240)
    painters = flat_painters(style, refuses=frozenset(range(12)))
    made = compose(image, regions, painters)
    assert not made.generated[regions.kinds == Kind.PERSON].any()
    hidden = under(regions, image.shape, style)
    assert (made.image[hidden] == (255, 0, 255)).all()


def test_persons_without_a_track_and_without_a_generator_are_covered_classically() -> None:
    image = np.zeros((160, 240, 3), np.uint8)
    region = Regions.of([[20, 20, 80, 140]], Kind.PERSON, outlines=[Outline(blob(20, 20, 60, 120))])
    tracked = Regions.of([[20, 20, 80, 140]], Kind.PERSON, track_ids=[3])
    for painters, chosen in ((flat_painters(), region), (Painters({}, FILLS), tracked)):
        made = compose(image, chosen, painters)
        assert not made.generated.any()
        assert (made.image[20:140, 20:80] == (255, 0, 255)).all()
        assert made.image.any(axis=2).sum() == 120 * 60


def test_a_region_too_small_for_a_generator_is_covered_classically() -> None:
    image = np.zeros((160, 240, 3), np.uint8)
    for kind in (Kind.PERSON, Kind.FACE):
        made = compose(image, Regions.of([[20, 20, 28, 30]], kind, track_ids=[1]), flat_painters())
        assert not made.generated.any()
        assert (made.image[20:30, 20:28] == (255, 0, 255)).all()
        large = compose(image, Regions.of([[20, 20, 68, 80]], kind, track_ids=[1]), flat_painters())
        assert large.generated.all()


def test_a_face_is_dropped_only_under_a_person_who_covers_its_grown_box() -> None:
    person = Regions.of([[20, 20, 120, 200]], Kind.PERSON, track_ids=[1])
    inside = Regions.of([[50, 60, 80, 90]], Kind.FACE, track_ids=[2])
    # Inside the person's box, but its grown box looks out of the person's mask.
    outside = Regions.of([[60, 12, 90, 42]], Kind.FACE, track_ids=[3])
    frame = (240, 160)
    for face, gone in ((inside, True), (outside, False)):
        parts = prepare(Regions.concatenate([face, person]), frame, flat_painters())
        _, dropped = drop_covered_faces(parts, frame)
        assert bool(dropped) == gone
    # A person who is covered classically may not cover as much.
    painters = Painters({"face": Flat(Kind.FACE, (24, 24))}, FILLS)
    parts = prepare(Regions.concatenate([inside, person]), frame, painters)
    assert not drop_covered_faces(parts, frame)[1]


def test_the_published_way_drops_faces_in_the_box_round_a_mask() -> None:
    cross = np.zeros((180, 100), np.bool_)
    cross[80:100] = cross[:, 40:60] = True
    person = Regions.of([[20, 20, 120, 200]], Kind.PERSON, track_ids=[1], outlines=[Outline(PixelMask(20, 20, cross))])
    corner = Regions.of([[26, 30, 56, 60]], Kind.FACE, track_ids=[2])
    both = Regions.concatenate([corner, person])
    for whole, gone in ((False, True), (True, False)):
        parts = prepare(both, (240, 160), flat_painters(), whole)
        assert bool(drop_covered_faces(parts, (240, 160), whole)[1]) == gone
    for context in CONTEXTS:
        made: Composed = compose(np.zeros((240, 160, 3), np.uint8), both, flat_painters(), context=context)
        assert made.image[30:60, 26:56].all()
    # The control: as published, the face is dropped and stays raw.
    bare = compose(np.zeros((240, 160, 3), np.uint8), both, flat_painters(), context="published", whole=False)
    assert not bare.image[30:60, 26:56].all()


def test_an_empty_mask_counts_as_the_filled_box() -> None:
    empty = Outline(PixelMask(20, 20, np.zeros((60, 40), np.bool_)))
    nothing = Outline(
        None, BodySurface((20, 20, 60, 80), np.zeros((112, 112), np.bool_), np.zeros((16, 112, 112), np.float32))
    )
    for outline in (empty, nothing):
        region = Regions.of([[20, 20, 60, 80]], Kind.PERSON, track_ids=[1], outlines=[outline])
        made = compose(np.zeros((120, 100, 3), np.uint8), region, flat_painters())
        assert made.generated.all()
        assert (made.image[20:80, 20:60] == Flat.LEVEL).all()


def test_a_dropped_face_is_covered_even_if_the_generator_leaves_its_person_out() -> None:
    person = Regions.of([[20, 20, 121, 203]], Kind.PERSON, track_ids=[1])
    for box in ((50, 60, 80, 90), (19, 19, 60, 60), (90, 170, 122, 204)):
        both = Regions.concatenate([Regions.of([box], Kind.FACE, track_ids=[2]), person])
        image = np.zeros((260, 180, 3), np.uint8)
        parts = prepare(both, image.shape[:2], flat_painters())
        refused = compose(image, both, flat_painters(refuses=frozenset([1, 2])))
        done = compose(image, both, flat_painters())
        # What a stand-in would have written is covered as well.
        assert not (done.image.any(axis=2) & ~refused.image.any(axis=2)).any()
        assert refused.image[box[1] : box[3], box[0] : box[2]].any(axis=2).all()
        assert len(parts) == 2


@pytest.mark.parametrize("style", STYLES)
def test_memory_does_not_grow_with_frame_size_times_persons(style: Style) -> None:
    image = np.zeros((2160, 3840, 3), np.uint8)
    draw = np.random.default_rng(0)
    corners = [(int(x), int(y)) for x, y in draw.integers(0, 1900, (60, 2))]
    outlines = [Outline(None, posed((x, y, x + 90, y + 200), vertex_embeddings())) for x, y in corners]
    regions = as_regions(outlines, list(range(60)))
    painters = flat_painters(style)
    for generator in painters.generators.values():
        assert isinstance(generator, Flat)
        generator.keeps = False
    tracemalloc.start()
    made = compose(image, regions, painters)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert made.generated.all()
    # The picture itself takes 25 MB; a mask of the frame for each person would take 500.
    assert peak < image.nbytes + 60e6


def test_with_a_surface_what_only_another_detector_found_of_a_person_is_written_too() -> None:
    pose = posed((40, 40, 80, 140), vertex_embeddings())
    broad = Outline(PixelMask.filled((20, 30, 110, 150)), pose)
    region = Regions.of([[20, 30, 110, 150]], Kind.PERSON, track_ids=[1], outlines=[broad])
    generators: dict[Role, Generator] = {"person-cse": Flat(Kind.PERSON, (72, 40), surface=True)}
    painters = Painters(generators, FILLS, Surface(vertex_embeddings()), style="sg-gan")
    made = compose(np.zeros((180, 160, 3), np.uint8), region, painters)
    assert made.generated.all()
    assert (made.image[30:150, 20:110] == Flat.LEVEL).all()


def test_in_private_no_crop_shows_a_face_that_is_left_to_a_persons_stand_in() -> None:
    # The face reaches a column beyond the second person's mask, where that person's stand-in will be.
    persons = Regions.of([[40, 60, 95, 180], [100, 20, 180, 220]], Kind.PERSON, track_ids=[1, 2])
    regions = Regions.concatenate([persons, Regions.of([[99, 100, 105, 106]], Kind.FACE, track_ids=[3])])
    seen = []
    for level in (0, 255):
        image = noise(240, 220)
        image[100:106, 99:105] = level
        person, face = Flat(Kind.PERSON, (288, 160)), Flat(Kind.FACE, (64, 64))
        painters = Painters({"person": person, "face": face}, FILLS)
        made = compose(image, regions, painters)
        assert made.generated.all()
        assert not face.given
        seen.append([(crops.images, crops.known) for crops in person.given])
    for (first, known), (second, same) in zip(*seen, strict=True):
        assert (known == same).all()
        assert (first[known] == second[known]).all()


def test_a_mask_beside_the_frame_leaves_the_box_in_it() -> None:
    region = Regions.of(
        [[20, 20, 60, 80]], Kind.PERSON, track_ids=[1], outlines=[Outline(PixelMask.filled((5000, 20, 5040, 80)))]
    )
    made = compose(np.zeros((120, 100, 3), np.uint8), region, flat_painters())
    assert (made.image[20:80, 20:60] == Flat.LEVEL).all()

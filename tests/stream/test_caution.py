"""Caution: what is covered beyond what was found, and that nothing is lost by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from stream import geometry
from stream.caution import Caution, dilated, hull, join_faces, moved, own_pixels, scaled, step_of, with_masks
from stream.compose.composer import compose
from stream.compose.parts import Painters, prepare
from stream.generators.base import Bools, Ints
from stream.outline import BodySurface, Box, Outline, PixelMask
from stream.regions import NO_TRACK, Kind, Origin, Regions
from stream.roles import Style
from stream.stitch import covered_boxes
from stream.surface import Surface
from stream.union import one_for_each_track
from tests.compose import FILLS, Flat, blob, posed
from tests.generator_bundles import vertex_embeddings
from tests.stream.outlines import pixels_of

WIDTH, HEIGHT = 160, 120
MARGIN = 0.2
Canvas = npt.NDArray[np.bool_]
Way = Callable[[Regions], Regions]


def person(box: Box, *masks: Box, track_id: int = 1, surface: BodySurface | None = None) -> Regions:
    """One, whose mask is made of filled boxes."""
    pixels = canvas(*masks)
    mask = PixelMask(0, 0, pixels) if masks else None
    return Regions.of([box], Kind.PERSON, track_ids=[track_id], outlines=[Outline(mask, surface)])


def body(box: Box) -> BodySurface:
    return posed(box, vertex_embeddings())


def face(box: Box, origin: Origin = Origin.DETECTED) -> Regions:
    return Regions.of([box], Kind.FACE, track_ids=[50], origin=origin)


def canvas(*boxes: Box) -> Canvas:
    pixels = np.zeros((HEIGHT, WIDTH), np.bool_)
    for x0, y0, x1, y1 in boxes:
        pixels[y0:y1, x0:x1] = True
    return pixels


def shown(regions: Regions, row: int = 0) -> Canvas:
    return pixels_of(regions.outline(row), WIDTH, HEIGHT)


def covered(regions: Regions, style: Style) -> Canvas:
    """All pixels that are replaced or covered: persons' own ones, and what is covered of all others."""
    painters = Painters({}, FILLS, style=style, margin=MARGIN)
    whole = PixelMask(0, 0, np.zeros((HEIGHT, WIDTH), np.bool_))
    for part in prepare(regions, (HEIGHT, WIDTH), painters):
        x0, y0, x1, y1 = geometry.to_pixels(part.covered, WIDTH, HEIGHT)[0].tolist()
        (part.pixels if part.kind == Kind.PERSON else PixelMask.filled((x0, y0, x1, y1))).paint(whole)
    return whole.pixels


def drawn(seed: int) -> Regions:
    """Persons of all sorts, partly outside the frame, and faces, some of them in persons."""
    draw = np.random.default_rng(seed)
    parts = []
    for number in range(draw.integers(1, 5)):
        x0, y0 = int(draw.integers(-30, WIDTH)), int(draw.integers(-40, HEIGHT))
        width, height = int(draw.integers(2, 60)), int(draw.integers(2, 90))
        box = (x0, y0, x0 + width, y0 + height)
        shift = draw.integers(-8, 9, 2).tolist()
        masks = [None, blob(x0 + shift[0], y0 + shift[1], width, height, number), PixelMask.filled(box)]
        empty = PixelMask(x0, y0, np.zeros((height, width), np.bool_))
        mask = [*masks, empty][int(draw.integers(4))]
        surface = body((x0 - 3, y0 + 2, x0 + width, y0 + height + 4)) if draw.random() < 0.6 else None
        if surface is not None and draw.random() < 0.2:
            surface = replace(surface, segmentation=np.zeros_like(surface.segmentation))
        outline = None if mask is None and surface is None else Outline(mask, surface)
        track_id = int(draw.integers(-1, 4))
        parts.append(Regions.of([box], Kind.PERSON, track_ids=[track_id], outlines=[outline]))
        if draw.random() < 0.7:
            x, y, side = (
                x0 + int(draw.integers(-10, width)),
                y0 + int(draw.integers(-10, 20)),
                int(draw.integers(1, 30)),
            )
            parts.append(Regions.of([(x, y, x + side, y + side)], Kind.FACE, track_ids=[10 + number]))
    return Regions.concatenate(parts)


def lost(seed: int, way: Way, style: Style) -> int:
    """How many pixels that were covered in a few frames are not any more."""
    count = 0
    for frame in range(4):
        # As a run without caution has them.
        regions = one_for_each_track(drawn(10 * seed + frame))
        count += int((covered(regions, style) & ~covered(way(regions), style)).sum())
    return count


def cautious() -> Caution:
    return Caution(mask_margin=0.05, mask_frames=2, join_faces=True, margin=MARGIN)


@pytest.mark.parametrize("style", ["deepprivacy2", "sg-gan"])
@pytest.mark.parametrize("seed", range(25))
def test_what_was_covered_stays_covered(seed: int, style: Style) -> None:
    for caution in (cautious(), Caution(mask_frames=2), Caution(mask_margin=0.3), Caution(join_faces=True, margin=0.2)):
        assert lost(seed, lambda regions, it=caution: it.apply(regions, WIDTH, HEIGHT), style) == 0  # type: ignore[misc]


def _without_faces(regions: Regions) -> Regions:
    grown = Caution(mask_margin=0.05).apply(regions, WIDTH, HEIGHT)
    return grown[grown.kinds != Kind.FACE]


def _narrower(regions: Regions) -> Regions:
    masks = {row: own_pixels(regions.outline(row), WIDTH, HEIGHT) for row in range(len(regions))}
    thin = {row: PixelMask(own.x0, own.y0, own.pixels[1:]) for row, own in masks.items() if own is not None}
    return with_masks(regions, thin)


@pytest.mark.parametrize("way", [_without_faces, _narrower])
def test_a_caution_that_loses_something_is_noticed(way: Way) -> None:
    """The control: faces that go without being united, and masks that lose a row."""
    assert all(sum(lost(seed, way, style) for seed in range(25)) > 0 for style in ("deepprivacy2", "sg-gan"))


def test_a_mask_moves_out_by_a_share_of_the_shorter_side() -> None:
    found = Caution(mask_margin=0.1).apply(person((50, 30, 90, 110), (60, 40, 80, 100)), WIDTH, HEIGHT)
    pixels = shown(found)
    assert pixels[40:100, 56:84].all()
    assert pixels[36:104, 60:80].all()
    assert not pixels[:, :56].any()
    assert not pixels[:, 84:].any()
    # Round at the corners.
    assert not pixels[36, 56]


@pytest.mark.parametrize(("box", "masked"), [((50, 30, 54, 110), (50, 30, 54, 110)), ((0, 0, 3, 3), (0, 0, 3, 3))])
def test_a_mask_moves_out_by_a_pixel_at_least_and_never_out_of_the_frame(box: Box, masked: Box) -> None:
    found = Caution(mask_margin=0.001).apply(person(box, masked), WIDTH, HEIGHT)
    x0, y0, x1, y1 = masked
    wanted = canvas((max(0, x0 - 1), y0, x1 + 1, y1), (x0, max(0, y0 - 1), x1, y1 + 1))
    assert np.array_equal(shown(found) & wanted, wanted)
    outline = found.outline(0)
    assert outline is not None
    assert outline.mask is not None
    assert outline.mask.box[0] >= 0
    assert outline.mask.box[1] >= 0


def test_holes_and_gaps_up_to_that_size_are_closed_and_larger_ones_are_not() -> None:
    # A hole of 8 pixels, a gap of 7, and a gap of 20.
    mask = (40, 20, 70, 50), (77, 20, 90, 50), (40, 70, 90, 80)
    pixels = canvas(*mask)
    pixels[30:38, 50:58] = False
    grown = dilated(PixelMask(0, 0, pixels), 4, WIDTH, HEIGHT)
    whole = PixelMask(0, 0, canvas())
    grown.paint(whole)
    assert whole.pixels[30:38, 50:58].all()
    assert whole.pixels[25:45, 70:77].all()
    assert not whole.pixels[58:62, 45:85].any()


@pytest.mark.parametrize("reach", [1, 3, 7, 8, 15, 20])
def test_large_masks_move_out_a_little_further_at_most(reach: int) -> None:
    body = (np.hypot(*np.mgrid[-20:21, -25:26] / 20) <= 1) | canvas()[:41, :51]
    for mask in (PixelMask(50, 33, body), PixelMask(43, 31, np.ones((40, 61), np.bool_))):
        given, grown = PixelMask(0, 0, canvas()), PixelMask(0, 0, canvas())
        mask.paint(given)
        dilated(mask, reach, WIDTH, HEIGHT).paint(grown)
        away = cv2.distanceTransform((~given.pixels).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        assert grown.pixels[away <= 0.97 * reach].all()
        most = reach if reach < 8 else reach + 3 * (1 + reach // 8)
        assert not grown.pixels[away > most + 1].any()


def test_the_box_holds_the_mask_and_the_surface_stays() -> None:
    surface = body((50, 30, 90, 110))
    found = Caution(mask_margin=0.1).apply(person((50, 30, 90, 110), (50, 30, 90, 110), surface=surface), WIDTH, HEIGHT)
    assert found.boxes.tolist() == [[46, 26, 94, 114]]
    outline = found.outline(0)
    assert outline is not None
    assert outline.surface is surface


def test_faces_and_persons_without_pixels_stay_as_they_are() -> None:
    for regions in (
        face((10, 10, 20, 20)),
        Regions.of([(10, 10, 50, 90)], Kind.PERSON, track_ids=[1]),
        person((10, 10, 50, 90)),
        person((-40, 10, 2, 90), (0, 0, 0, 0)),
        Regions.empty(),
    ):
        found = cautious().apply(regions, WIDTH, HEIGHT)
        assert np.array_equal(found.boxes, regions.boxes)
        assert covered(found, "sg-gan").sum() == covered(regions, "sg-gan").sum()


def arm(x: int = 0, *, there: bool = True, seen: bool = True) -> Regions:
    """A person with an arm to the left, who may be further right; the arm may be missed, by the box as well."""
    masks = [(60 + x, 20, 80 + x, 100)] + ([(45 + x, 40, 60 + x, 50)] if there else [])
    return person((45 + x if seen else 60 + x, 20, 80 + x, 100), *masks)


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("step", [0, 4, -4])
def test_an_arm_that_is_missed_stays_covered_for_some_frames(step: int, seen: bool) -> None:
    caution, forgetful = Caution(mask_frames=2), Caution(mask_margin=0.01)
    for number, there in enumerate([True, False, False, False]):
        regions = arm(number * step, there=there, seen=there or seen)
        wanted = canvas((45 + number * step, 41, 60 + number * step, 49))
        left = (wanted & ~shown(caution.apply(regions, WIDTH, HEIGHT))).sum()
        assert left == 0 if number < 3 else left > 100
        # The control.
        raw = (wanted & ~shown(forgetful.apply(regions, WIDTH, HEIGHT))).sum()
        assert raw == 0 if there else raw > 90


def test_a_gap_in_the_first_masks_of_a_track_is_no_gap() -> None:
    # A head and legs, and of the trunk between them nothing.
    gap = person((40, 10, 80, 110), (50, 10, 66, 26), (44, 70, 76, 110))
    caution = Caution(mask_frames=2)
    for number in range(4):
        pixels = shown(caution.apply(gap, WIDTH, HEIGHT))
        assert pixels[10:110, 52:64].all() == (number < 2)
        assert (pixels & ~canvas((40, 10, 80, 110))).sum() == 0
    # Without memory there is no first mask; nor is there one without a track.
    assert not shown(Caution(mask_margin=0.01).apply(gap, WIDTH, HEIGHT))[30:60].any()


@pytest.mark.parametrize("away", [1, 2, 3])
def test_masks_that_are_too_old_say_nothing_of_a_gap(away: int) -> None:
    gap = person((40, 10, 80, 110), (50, 10, 66, 26), (44, 70, 76, 110))
    caution = Caution(mask_frames=2)
    for _ in range(4):
        covered = shown(caution.apply(gap, WIDTH, HEIGHT))
    assert not covered[10:110, 52:64].all()
    # The same track again, after frames in which it was neither detected nor held.
    for _ in range(away):
        caution.apply(Regions.empty(), WIDTH, HEIGHT)
    assert shown(caution.apply(gap, WIDTH, HEIGHT))[10:110, 52:64].all()


def test_a_hull_is_convex_and_holds_its_mask() -> None:
    for seed in range(20):
        mask = blob(3, 5, 40, 60, seed)
        found = hull(mask)
        assert found.box == mask.box
        assert not (mask.pixels & ~found.pixels).any()
        for lines in (found.pixels, found.pixels.T):
            assert all(np.ptp(np.flatnonzero(line)) + 1 == line.sum() for line in lines if line.any())


def test_a_mask_of_before_grows_with_its_box() -> None:
    before, now = (np.array(box, np.float32) for box in ((20, 20, 40, 60), (30, 10, 70, 90)))
    mask, frame = PixelMask.filled((25, 20, 30, 60)), (0, 0, WIDTH, HEIGHT)
    assert scaled(mask, before, now, frame).tight().box == (40, 10, 50, 90)
    assert not scaled(mask, before, now + 500, frame).pixels.size
    # The left side moved less than the right one, and the upper one less than the lower one.
    step = step_of(before, now)
    assert step.tolist() == [10, -10]
    assert moved(mask, step, frame).box == (35, 10, 40, 50)
    assert moved(mask, step, (0, 20, 38, HEIGHT)).box == (35, 20, 38, 50)


def test_what_was_covered_far_from_the_box_is_left_there() -> None:
    caution = Caution(mask_frames=2)
    caution.apply(person((10, 10, 150, 100), (10, 10, 150, 100)), WIDTH, HEIGHT)
    pixels = shown(caution.apply(person((20, 20, 40, 60), (25, 25, 35, 55)), WIDTH, HEIGHT))
    assert pixels[20:60, 20:40].all()
    assert not pixels[:, 51:].any()
    assert not pixels[71:].any()


def test_memory_does_not_remember_what_memory_covered() -> None:
    caution = Caution(mask_frames=1)
    for x in range(0, 60, 10):
        pixels = shown(caution.apply(person((0, 0, 100, 100), (x, 40, x + 10, 50)), WIDTH, HEIGHT))
        assert pixels.sum() == (200 if x else 100)


def test_memory_is_bounded_by_live_tracks() -> None:
    caution = Caution(mask_frames=3)
    for track_id in range(50):
        caution.apply(person((10, 10, 50, 90), (20, 20, 40, 80), track_id=track_id), WIDTH, HEIGHT)
        assert caution.remembered <= 3
    for _ in range(3):
        caution.apply(Regions.empty(), WIDTH, HEIGHT)
    assert caution.remembered == 0
    for _ in range(10):
        caution.apply(person((10, 10, 50, 90), (20, 20, 40, 80)), WIDTH, HEIGHT)
        caution.apply(person((10, 10, 50, 90), (20, 20, 40, 80), track_id=NO_TRACK), WIDTH, HEIGHT)
    assert caution.remembered <= 3
    caution.reset()
    assert caution.remembered == 0


def test_a_mask_of_before_is_forgotten_when_its_track_was_away_for_longer() -> None:
    caution = Caution(mask_frames=2)
    caution.apply(arm(), WIDTH, HEIGHT)
    caution.apply(Regions.empty(), WIDTH, HEIGHT)
    caution.apply(Regions.empty(), WIDTH, HEIGHT)
    assert np.array_equal(shown(caution.apply(arm(there=False), WIDTH, HEIGHT)), shown(arm(there=False)))


def test_regions_of_one_track_become_one() -> None:
    two = Regions.concatenate([person((10, 10, 40, 90), (12, 12, 38, 88)), person((30, 10, 60, 90), (35, 20, 55, 80))])
    caution = Caution(mask_frames=1)
    caution.apply(two, WIDTH, HEIGHT)
    found = caution.apply(two, WIDTH, HEIGHT)
    assert found.boxes.tolist() == [[10, 10, 60, 90]]
    assert np.array_equal(shown(found), canvas((12, 12, 38, 88), (35, 20, 55, 80)))


BODY = (50, 20, 90, 110)


def joined(*parts: Regions) -> Regions:
    return Caution(join_faces=True, margin=MARGIN).apply(Regions.concatenate(parts), WIDTH, HEIGHT)


@pytest.mark.parametrize(
    "box",
    [
        # In the upper part of the box, half above it, and low but in the mask.
        (60, 22, 80, 42),
        (60, 11, 80, 31),
        (60, 80, 80, 100),
    ],
)
def test_a_face_in_a_person_who_is_replaced_goes_with_all_that_would_have_been_covered(box: Box) -> None:
    mine = person(BODY, (60, 30, 80, 110), surface=body(BODY))
    found = joined(mine, face(box))
    assert found.kinds.tolist() == [Kind.PERSON]
    x0, y0, x1, y1 = geometry.to_pixels(covered_boxes(face(box), MARGIN, "box"), WIDTH, HEIGHT)[0].tolist()
    assert shown(found)[y0:y1, x0:x1].all()


@pytest.mark.parametrize(
    ("mine", "other"),
    [
        # Elsewhere; low in the box and not in the mask; more above the person than in it.
        (person(BODY, (60, 30, 80, 110), surface=body(BODY)), face((110, 22, 130, 42))),
        (person(BODY, (60, 30, 70, 110)), face((78, 85, 90, 100))),
        (person(BODY, (60, 30, 80, 110), surface=body(BODY)), face((60, 5, 80, 30))),
        # Persons who get no stand-in, and faces by hand.
        (person(BODY, (60, 30, 80, 110)), face((60, 22, 80, 42))),
        (person(BODY, (60, 30, 80, 110), surface=body(BODY), track_id=NO_TRACK), face((60, 22, 80, 42))),
        (person(BODY, (60, 30, 80, 110), surface=body(BODY)), face((60, 22, 80, 42), Origin.MANUAL)),
    ],
)
def test_other_faces_stay(mine: Regions, other: Regions) -> None:
    found = joined(mine, other)
    assert found.kinds.tolist() == [Kind.PERSON, Kind.FACE]
    assert np.array_equal(found.boxes[1], other.boxes[0])


def test_a_face_belongs_to_the_person_who_has_most_of_it() -> None:
    near, far = BODY, (10, 20, 66, 110)
    regions = Regions.concatenate(
        [
            person(far, (20, 30, 56, 110), surface=body(far), track_id=2),
            person(near, (60, 30, 80, 110), surface=body(near)),
            face((60, 22, 80, 42)),
        ]
    )
    masks = {row: own for row in (0, 1) if (own := own_pixels(regions.outline(row), WIDTH, HEIGHT)) is not None}
    changed, left = join_faces(regions, masks, geometry.to_pixels(regions.boxes, WIDTH, HEIGHT))
    assert left.tolist() == [True, True, False]
    assert changed[0] is masks[0]
    assert changed[1].area > masks[1].area


class _NeverReady(Flat):
    """A generator that is not ready for anybody."""

    def ready(self, track_ids: Sequence[int] | Ints) -> Bools:
        return np.zeros(len(track_ids), np.bool_)


@pytest.mark.parametrize("style", ["deepprivacy2", "sg-gan"])
@pytest.mark.parametrize(
    ("generator", "replaced"),
    [
        (Flat(Kind.PERSON, surface=True), True),
        (Flat(Kind.PERSON, surface=True, refuses=frozenset([1])), False),
        (_NeverReady(Kind.PERSON, surface=True), False),
    ],
)
def test_a_joined_face_is_covered_whether_its_person_is_replaced_or_not(
    generator: Flat, replaced: bool, style: Style
) -> None:
    image = np.random.default_rng(0).integers(0, 100, (HEIGHT, WIDTH, 3), np.uint8)
    painters = Painters({"person-cse": generator}, FILLS, Surface(vertex_embeddings()), style=style, margin=MARGIN)
    # Half of it is above the person.
    regions = Regions.concatenate([person(BODY, surface=body(BODY)), face((60, 11, 80, 31))])
    found = cautious().apply(regions, WIDTH, HEIGHT)
    assert len(found) == 1
    result = compose(image, found, painters)
    where = covered(regions, style)
    assert (result.image != image).any(axis=2)[where].all()
    assert result.generated.tolist() == [replaced]
    # The control: without the face, not all of it is.
    without = compose(image, regions[:1], Painters({"person-cse": generator}, FILLS, Surface(vertex_embeddings())))
    assert not (without.image != image).any(axis=2)[where].all()

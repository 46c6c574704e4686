import numpy as np
import pytest

from engines.errors import UsageError
from stream.compose.parts import Painters, prepare
from stream.outline import Outline
from stream.regions import Kind, Regions
from stream.surface import Surface
from tests.compose import FILLS, Flat, blob, posed
from tests.generator_bundles import vertex_embeddings

FRAME = (240, 160)


def test_a_generator_with_a_surface_needs_its_vertices() -> None:
    with pytest.raises(UsageError, match="vertices"):
        Painters({"person-cse": Flat(Kind.PERSON, surface=True)}, FILLS)


def test_a_generator_must_fit_its_role() -> None:
    surface = Surface(vertex_embeddings())
    with pytest.raises(UsageError, match="takes no surface"):
        Painters({"person-cse": Flat(Kind.PERSON)}, FILLS, surface)
    with pytest.raises(UsageError, match="needs surface"):
        Painters({"person": Flat(Kind.PERSON, surface=True)}, FILLS, surface)


def test_a_generator_needs_a_classical_anonymizer_to_fall_back_on() -> None:
    with pytest.raises(UsageError, match="fall back"):
        Painters({"face": Flat(Kind.FACE)}, {Kind.PERSON: FILLS[Kind.PERSON]})


def test_a_person_with_a_surface_goes_to_the_generator_that_is_there() -> None:
    outline = Outline(blob(20, 20, 60, 120), posed((20, 20, 80, 140), vertex_embeddings()))
    region = Regions.of([[20, 20, 80, 140]], Kind.PERSON, track_ids=[0], outlines=[outline])
    plain, with_surface = Flat(Kind.PERSON), Flat(Kind.PERSON, surface=True)
    surface = Surface(vertex_embeddings())
    for painters, role in (
        (Painters({"person": plain, "person-cse": with_surface}, FILLS, surface), "person-cse"),
        (Painters({"person": plain}, FILLS, surface), "person"),
        (Painters({}, FILLS, surface), None),
    ):
        (part,) = prepare(region, FRAME, painters)
        assert (part.crop.role if part.crop else None) == role


def test_what_lies_outside_the_frame_is_no_part() -> None:
    away = Regions.of([[500, 500, 600, 600], [10, 10, 90, 90]], Kind.PERSON, track_ids=[0, 1])
    parts = prepare(away, FRAME, Painters({}, FILLS))
    assert [part.index for part in parts] == [1]


def test_thin_pixels_are_added_to_the_published_mask() -> None:
    line = np.zeros((200, 120), np.bool_)
    line[60:140, 20:100] = True
    line[:, 3] = True
    mask = blob(20, 20, 120, 200)
    mask.pixels[...] = line
    region = Regions.of([[20, 20, 140, 220]], Kind.PERSON, track_ids=[0], outlines=[Outline(mask)])
    painters = Painters({"person": Flat(Kind.PERSON)}, FILLS)
    made = [prepare(region, FRAME, painters, whole)[0].crop for whole in (True, False)]
    ours, published = (crop.unknown for crop in made if crop is not None)
    assert not (published & ~ours).any()
    assert (ours & ~published).any()

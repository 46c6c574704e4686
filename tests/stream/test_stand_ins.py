"""Generators told which tracks are live, and asked for stand-ins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from stream.compose.parts import Painters
from stream.generators.base import Bools, Generator, Ints
from stream.outline import Outline, PixelMask
from stream.regions import NO_TRACK, Kind, Regions
from stream.roles import Role
from stream.stand_ins import StandIns
from stream.stitch import stitch
from stream.surface import Surface
from tests.compose import FILLS, Flat, posed
from tests.generator_bundles import vertex_embeddings

IMAGE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)


class Noted(Flat):
    """A generator that notes what it is told, and needs a while for each new track if it is slow."""

    def __init__(self, kind: Kind, *, surface: bool = False, slow: bool = False) -> None:
        super().__init__(kind, surface=surface)
        self.told: list[object] = []
        self.slow = slow
        self.built: set[int] = set()

    def request(self, track_ids: Sequence[int] | Ints) -> None:
        self.told.append(sorted(int(i) for i in track_ids))

    def ready(self, track_ids: Sequence[int] | Ints) -> Bools:
        known = np.array([not self.slow or int(i) in self.built for i in track_ids], np.bool_)
        return known & super().ready(track_ids)

    def wait(self, track_ids: Sequence[int] | Ints, timeout: float | None = None) -> Bools:
        self.told.append(("wait", timeout))
        self.built |= {int(i) for i in track_ids}
        return self.ready(track_ids)

    def prepare(self) -> None:
        self.told.append("prepare")

    def forget(self, track_id: int) -> None:
        self.told.append(("forget", track_id))

    def reset(self) -> None:
        self.told.append("reset")

    def close(self) -> None:
        self.told.append("close")


def people(*track_ids: int, kind: Kind = Kind.PERSON, pose: bool = False) -> Regions:
    boxes = np.array([[10, 10, 60, 100]] * len(track_ids), np.float32).reshape(-1, 4)
    outlines = [Outline(surface=posed((10, 10, 60, 100), vertex_embeddings()))] * len(track_ids) if pose else None
    return Regions.of(boxes, kind, track_ids=np.array(track_ids, np.int64), outlines=outlines)


def made(generators: dict[Role, Noted], **options: float) -> StandIns:
    held: dict[Role, Generator] = dict(generators)
    return StandIns(Painters(held, FILLS, Surface(vertex_embeddings())), **{"linger": 2, **options})  # type: ignore[arg-type]


def test_each_generator_hears_of_the_tracks_that_it_may_be_asked_for() -> None:
    faces, persons, bodies = Noted(Kind.FACE), Noted(Kind.PERSON), Noted(Kind.PERSON, surface=True)
    stand_ins = made({"face": faces, "person": persons, "person-cse": bodies})
    regions = Regions.concatenate(
        [people(3, NO_TRACK, kind=Kind.FACE), people(5, 4), people(7, pose=True), people(9, kind=Kind.PLATE)]
    )
    stand_ins.follow(regions)
    assert faces.told == [[3]]
    assert persons.told == [[4, 5, 7]]
    # What it keeps of a track is large, and only persons with a pose come to it.
    assert bodies.told == [[7]]


def test_a_frame_without_anybody_is_told_as_well() -> None:
    persons = Noted(Kind.PERSON)
    made({"person": persons}).follow(Regions.empty())
    assert persons.told == [[]]


def test_a_track_is_forgotten_when_it_has_been_away_for_longer_than_any_track_may() -> None:
    persons = Noted(Kind.PERSON)
    stand_ins = made({"person": persons})
    for regions in (people(1), people(2), people(), people(1), people(), people(), people()):
        stand_ins.follow(regions)
    assert [told for told in persons.told if isinstance(told, tuple)] == [("forget", 2), ("forget", 1)]
    # Of track 1 only after its second stay.
    assert persons.told.index(("forget", 1)) == len(persons.told) - 2


def test_a_region_without_a_track_is_nobody_to_forget() -> None:
    persons = Noted(Kind.PERSON)
    stand_ins = made({"person": persons})
    for regions in (people(NO_TRACK), people(), people(), people(), people()):
        stand_ins.follow(regions)
    assert persons.told == [[]] * 5


def test_another_stream_begins_with_nobody() -> None:
    persons = Noted(Kind.PERSON)
    stand_ins = made({"person": persons})
    stand_ins.follow(people(1))
    stand_ins.reset()
    for _ in range(5):
        stand_ins.follow(people())
    assert persons.told == [[1], "reset", *[[]] * 5]


def test_a_stream_that_can_wait_waits_for_each_new_track() -> None:
    bodies = Noted(Kind.PERSON, surface=True, slow=True)
    stand_ins = made({"person-cse": bodies}, patience=3.0)
    stand_ins.follow(people(1, 2, pose=True))
    stand_ins.follow(people(1, 2, pose=True))
    assert bodies.told == [[1, 2], ("wait", 6.0), [1, 2]]


def test_nobody_waits_twice_for_a_track_that_never_gets_ready() -> None:
    class Stuck(Noted):
        def wait(self, track_ids: Sequence[int] | Ints, timeout: float | None = None) -> Bools:
            self.told.append(("wait", timeout))
            return self.ready(track_ids)

    bodies = Stuck(Kind.PERSON, surface=True, slow=True)
    stand_ins = made({"person-cse": bodies}, patience=3.0)
    for tracks in ((1,), (1,), (1, 2), (1, 2)):
        stand_ins.follow(people(*tracks, pose=True))
    assert bodies.told == [[1], ("wait", 3.0), [1], [1, 2], ("wait", 3.0), [1, 2]]
    # Another stream, another try.
    stand_ins.reset()
    stand_ins.follow(people(1, pose=True))
    assert bodies.told[-2:] == [[1], ("wait", 3.0)]


@pytest.mark.parametrize(("patience", "generated"), [(0.0, [False]), (3.0, [True])])
def test_a_live_stream_does_not_wait_and_covers_classically(patience: float, generated: list[bool]) -> None:
    stand_ins = made({"person-cse": Noted(Kind.PERSON, surface=True, slow=True)}, patience=patience)
    regions = people(1, pose=True)
    stand_ins.follow(regions)
    composed = stand_ins.paint(IMAGE, regions)
    assert composed.generated.tolist() == generated
    assert not (composed.image[30:80, 25:45] == IMAGE[30:80, 25:45]).all(axis=2).any()


def test_all_generators_are_prepared_and_closed() -> None:
    faces, persons = Noted(Kind.FACE), Noted(Kind.PERSON)
    stand_ins = made({"face": faces, "person": persons})
    stand_ins.prepare()
    stand_ins.close()
    assert faces.told == persons.told == ["prepare", "close"]


def test_in_haste_everybody_is_covered_as_if_no_generator_was_ready() -> None:
    mask = PixelMask(50, 20, np.ones((70, 40), np.bool_))
    # More of somebody than the box says, as after several frames of a mask that moves.
    regions = Regions.of([[10, 10, 60, 100]], Kind.PERSON, track_ids=[1], outlines=[Outline(mask)])
    ready, slow = Noted(Kind.PERSON), Noted(Kind.PERSON, slow=True)
    hasty = made({"person": ready}).paint(IMAGE, regions, simple=True)
    late = made({"person": slow}).paint(IMAGE, regions)
    assert not hasty.generated.any()
    np.testing.assert_array_equal(hasty.image, late.image)
    shown = (hasty.image == IMAGE).all(axis=2)
    assert not shown[20:90, 50:90].any()
    # The control: the boxes alone leave a part of the mask as it was.
    assert (stitch(IMAGE, regions, FILLS) == IMAGE).all(axis=2)[20:90, 50:90].any()

"""The frame's benchmark: every step is timed once, and the scene is what it says."""

import pytest

from benchmarks.frame import PLAIN, POSED, STEPS, Scene, make_scene, measure, regions_of
from stream.compose.parts import Painters
from stream.generators import classical
from stream.regions import Kind
from stream.surface import Surface
from tests.compose import Flat
from tests.generator_bundles import vertex_embeddings


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene()


def painters(*, refuses: frozenset[int] = frozenset()) -> Painters:
    return Painters(
        {
            "person-cse": Flat(Kind.PERSON, (288, 160), surface=True, refuses=refuses),
            "person": Flat(Kind.PERSON, (288, 160)),
        },
        dict.fromkeys(Kind, classical.mask_out((0, 0, 0))),
        Surface(vertex_embeddings()),
    )


def test_the_scene_has_posed_and_other_persons(scene: Scene) -> None:
    regions = regions_of(scene)
    surfaces = [outline is not None and outline.surface is not None for outline in map(regions.outline, range(5))]
    assert len(regions) == len(POSED) + len(PLAIN) == 5
    assert surfaces == [True] * 3 + [False] * 2


def test_steps_add_up_to_the_frame_and_each_of_them_is_seen(scene: Scene) -> None:
    row = measure(scene, painters(), "private", rounds=1)
    steps = {step["step"]: step["ms"] for step in row["steps"]}
    assert list(steps) == [*STEPS, "everything else"]
    # This one is not the real generator.
    unseen = {name for name, taken in steps.items() if taken <= 0}
    assert unseen <= {"generators"}
    assert sum(step["share"] for step in row["steps"]) == pytest.approx(1, abs=0.01)
    assert row["best_ms"] <= row["frame_ms"]


def test_a_frame_that_was_covered_classically_is_no_measurement(scene: Scene) -> None:
    with pytest.raises(RuntimeError, match="not generated"):
        measure(scene, painters(refuses=frozenset([0])), "private", rounds=1)

"""What is right and what is wrong in a picture."""

from __future__ import annotations

import numpy as np

from benchmarks.starter_pictures import Looked, look, sheet
from stream.outline import Outline, PixelMask
from stream.regions import Kind, Regions
from tests.export.starter import made_people


def test_a_scene_is_compared_and_drawn_over() -> None:
    scene = made_people.scene(3)
    own = scene.instances == 1
    rows, columns = np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))
    x0, x1, y0, y1 = int(columns[0]), int(columns[-1]) + 1, int(rows[0]), int(rows[-1]) + 1
    mask = PixelMask(x0, y0, own[y0:y1, x0:x1])
    regions = Regions.of(
        [(x0, y0, x1, y1), (0, 0, 10, 10)], Kind.PERSON, scores=[0.9, 0.5], outlines=[Outline(mask=mask), None]
    )
    looked = look(scene, regions)
    # The other person is missed, and one box is nobody's.
    assert looked.faults == 2
    assert looked.covered == own.sum() / (scene.instances > 0).sum()
    assert (looked.picture[own] != scene.image[own]).any()
    assert (looked.picture[0, 0] == (240, 40, 40)).all()
    nobody = look(scene, Regions.empty())
    assert (nobody.faults, nobody.covered) == (2, 0.0)


def test_pictures_lie_side_by_side() -> None:
    one = Looked(np.full((36, 64, 3), 7, np.uint8), 0, 1.0)
    assert sheet([one] * 20).size == (4 * 36 + 4, 3 * 22 + 4)

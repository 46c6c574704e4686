from __future__ import annotations

import numpy as np

from stream.regions import Kind
from stream.verify.crop import cut

IMAGE = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)


def test_a_person_is_cut_out_as_its_box() -> None:
    assert np.array_equal(cut(IMAGE, (3.0, 2.0, 9.0, 14.0), Kind.PERSON), IMAGE[2:14, 3:9])


def test_a_face_is_cut_out_as_a_square_with_a_margin() -> None:
    assert np.array_equal(cut(IMAGE, (10.0, 5.0, 16.0, 15.0), Kind.FACE), IMAGE[4:16, 7:19])


def test_outside_the_frame_its_edge_goes_on() -> None:
    found = cut(IMAGE, (-2.0, 18.0, 2.0, 24.0), Kind.PERSON)
    assert found.shape == (6, 4, 3)
    assert np.array_equal(found[0], IMAGE[18, [0, 0, 0, 1]])
    assert np.array_equal(found[5], IMAGE[19, [0, 0, 0, 1]])


def test_nothing_is_cut_out_smaller_than_two_pixels() -> None:
    assert cut(IMAGE, (5.0, 5.0, 5.2, 5.2), Kind.PERSON).shape == (2, 2, 3)

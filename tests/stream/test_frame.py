from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from stream.frame import WITHHELD_LEVEL, Frame, flat_image

IMAGE = np.zeros((6, 8, 3), np.uint8)


def test_a_frame_knows_its_size_and_time() -> None:
    frame = Frame(IMAGE, pts=90, time_base=Fraction(1, 60))
    assert (frame.width, frame.height, frame.time) == (8, 6, 1.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": IMAGE.astype(np.float32)}, "must be a uint8 array, got float32"),
        ({"image": [[1]]}, "must be a uint8 array, got list"),
        ({"image": IMAGE[:, :, 0]}, "must be RGB"),
        ({"image": np.zeros((6, 8, 4), np.uint8)}, "must be RGB"),
        ({"image": np.zeros((0, 8, 3), np.uint8)}, "must be RGB"),
        ({"time_base": Fraction(0)}, "time_base must be positive"),
        ({"pixel_aspect": Fraction(-1)}, "pixel_aspect must be positive"),
    ],
)
def test_a_frame_that_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Frame(**({"image": IMAGE} | changes))


def test_another_picture_keeps_time_and_place() -> None:
    frame = Frame(IMAGE, pts=5, time_base=Fraction(1, 30), source="a", duration=2, pixel_aspect=Fraction(4, 3))
    other = frame.with_image(IMAGE + 1)
    assert (other.pts, other.time_base, other.source, other.duration) == (5, Fraction(1, 30), "a", 2)
    assert other.pixel_aspect == Fraction(4, 3)
    assert (other.image == 1).all()


def test_another_picture_must_have_the_same_size_and_type() -> None:
    with pytest.raises(ValueError, match="new image is"):
        Frame(IMAGE).with_image(IMAGE[:-1])
    with pytest.raises(ValueError, match="uint8"):
        Frame(IMAGE).with_image(IMAGE.astype(np.float64))


def test_a_flat_image_has_one_level() -> None:
    assert (flat_image((4, 5, 3)) == WITHHELD_LEVEL).all()
    assert flat_image((4, 5, 3), 7).shape == (4, 5, 3)

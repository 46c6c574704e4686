from __future__ import annotations

import cv2
import numpy as np
import pytest

from stream.anonymizer import Anonymized
from stream.frame import Frame
from stream.regions import Regions
from stream.service.preview import LONGEST, preview


def shown(height: int, width: int) -> np.ndarray:
    image = np.full((height, width, 3), (200, 100, 0), np.uint8)
    content = preview(Anonymized(Frame(image), Regions.empty()))
    assert content.startswith(b"\xff\xd8")
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(picture)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((720, 1280), (180, LONGEST)),
        ((1280, 720), (LONGEST, 180)),
        ((48, 64), (48, 64)),
        ((1, 5000), (1, LONGEST)),
        ((1, 1), (1, 1)),
    ],
)
def test_the_longer_side_is_limited_and_small_pictures_stay(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert shown(*size).shape[:2] == expected


def test_colours_are_those_of_the_frame() -> None:
    assert np.allclose(shown(360, 640)[50, 50], (0, 100, 200), atol=6)  # OpenCV's order

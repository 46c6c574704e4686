import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.compose import boxes
from stream.outline import Box, intersection

SIZE = (288, 160)


@pytest.mark.parametrize(
    ("span", "wanted", "limit", "expected"),
    [
        ((10, 20), 10, 100, (10, 20)),
        ((10, 20), 14, 100, (8, 22)),
        ((10, 20), 15, 100, (8, 23)),
        ((2, 12), 20, 100, (0, 20)),
        ((88, 98), 20, 100, (80, 100)),
        ((40, 60), 120, 100, (-10, 110)),
        ((0, 60), 100, 100, (0, 100)),
        ((0, 10), 8, 100, (1, 9)),
    ],
)
def test_spans_grow_about_their_middle_and_move_inside(
    span: tuple[int, int], wanted: int, limit: int, expected: tuple[int, int]
) -> None:
    assert boxes.stretch(*span, wanted, limit) == expected


@st.composite
def frames_and_boxes(draw: st.DrawFn) -> tuple[tuple[int, int], Box]:
    height, width = draw(st.integers(1, 2000)), draw(st.integers(1, 2000))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return (height, width), (x0, y0, draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height)))


@given(frames_and_boxes(), st.floats(0.01, 1))
def test_a_persons_box_holds_the_person_and_some_background(drawn: tuple[tuple[int, int], Box], share: float) -> None:
    frame, tight = drawn
    area = max(1, int(share * (tight[2] - tight[0]) * (tight[3] - tight[1])))
    box = boxes.person_box(tight, area, frame, SIZE)
    assert intersection(box, tight) == tight
    assert area <= 0.7 * (box[2] - box[0]) * (box[3] - box[1]) + 1
    guided = boxes.surface_box(tight, share, tight, frame, SIZE)
    assert intersection(guided, tight) == tight


@given(frames_and_boxes())
def test_a_faces_box_is_a_square_about_its_middle(drawn: tuple[tuple[int, int], Box]) -> None:
    face = drawn[1]
    box = boxes.face_box(face)
    assert box[2] - box[0] == box[3] - box[1]
    longer = max(face[2] - face[0], face[3] - face[1])
    assert 1.4 * longer - 2 < box[2] - box[0] <= 1.4 * longer
    assert abs((box[0] + box[2]) - (face[0] + face[2])) <= 1


def test_the_box_round_a_crops_unknown_pixels_is_in_the_frame() -> None:
    unknown = np.zeros((20, 10), np.bool_)
    assert boxes.dilated_box((5, 6, 25, 46), unknown) == (5, 6, 5, 6)
    unknown[2:4, 3] = True
    assert boxes.dilated_box((5, 6, 25, 46), unknown) == (11, 10, 13, 14)

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.compose.waves import waves
from stream.outline import Box, intersection, is_empty

boxes = st.builds(
    lambda x, y, w, h: (x, y, x + w, y + h),
    st.integers(-5, 40),
    st.integers(-5, 40),
    st.integers(1, 20),
    st.integers(1, 20),
)


def by_the_rule(given_boxes: list[Box]) -> list[list[int]]:
    """One wave after the other, region by region, as the rule is written down."""
    left, found = list(range(len(given_boxes))), []
    while left:
        wave = [i for i in left if all(is_empty(intersection(given_boxes[i], given_boxes[j])) for j in left if j < i)]
        found.append(wave)
        left = [i for i in left if i not in wave]
    return found


@given(st.lists(boxes, max_size=15))
def test_a_region_joins_as_soon_as_it_meets_no_earlier_one_that_waits(given_boxes: list[Box]) -> None:
    assert waves(given_boxes) == by_the_rule(given_boxes)


def test_no_region_needs_no_wave() -> None:
    assert waves([]) == []


def test_apart_is_one_wave_and_piled_up_is_one_each() -> None:
    assert waves([(10 * i, 0, 10 * i + 10, 5) for i in range(12)]) == [list(range(12))]
    assert waves([(0, 0, 10 + i, 5) for i in range(4)]) == [[i] for i in range(4)]


def test_boxes_of_a_wave_are_disjoint_and_earlier_ones_come_first() -> None:
    draw = np.random.default_rng(0)
    corners = draw.integers(0, 200, (40, 2))
    piled: list[Box] = [(int(x), int(y), int(x) + 40, int(y) + 40) for x, y in corners]
    turn = {i: number for number, wave in enumerate(waves(piled)) for i in wave}
    assert len(turn) == 40
    for i in range(40):
        for j in range(i):
            if not is_empty(intersection(piled[i], piled[j])):
                assert turn[j] < turn[i]

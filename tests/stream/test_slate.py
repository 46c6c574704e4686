"""What is shown while a source is away."""

from __future__ import annotations

import numpy as np
import pytest

from stream.anonymizer import Anonymized
from stream.frame import Frame, flat_image
from stream.regions import Regions
from stream.slate import LastPicture
from stream.sources.live import AWAY


def item(level: int, withheld: str | None = None, side: int = 4) -> Anonymized:
    return Anonymized(Frame(flat_image((side, side, 3), level)), Regions.empty(), withheld=withheld)


def levels(*items: Anonymized) -> list[int]:
    shown = LastPicture()
    return [int(shown(one).image[0, 0, 0]) for one in items]


def test_the_last_anonymized_picture_stays_while_the_source_is_away() -> None:
    assert levels(item(10), item(20), item(128, AWAY), item(128, AWAY), item(30)) == [10, 20, 20, 20, 30]


def test_what_is_withheld_for_another_reason_stays_flat_and_is_never_shown_again() -> None:
    assert levels(item(10), item(128, "detection failed"), item(128, AWAY)) == [10, 128, 10]


@pytest.mark.parametrize("before", [[], [item(10, side=8)]])
def test_without_a_picture_of_that_size_frames_stay_flat(before: list[Anonymized]) -> None:
    assert levels(*before, item(128, AWAY))[-1] == 128


def test_the_reason_stays() -> None:
    shown = LastPicture()
    shown(item(10))
    changed = shown(item(128, AWAY))
    assert changed.withheld == AWAY
    assert np.array_equal(changed.image, flat_image((4, 4, 3), 10))

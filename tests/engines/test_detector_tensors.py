from __future__ import annotations

import pytest

from engines.detector_tensors import decided_tensors


@pytest.mark.parametrize("most", [64, "M"])
def test_boxes_and_all_that_is_said_of_each_have_the_same_places(most: int | str) -> None:
    tensors = decided_tensors(most, boxes="where", scores="how sure", classes="what", floor="what was lost")
    assert {tensor.name: (tensor.dtype, tensor.shape) for tensor in tensors} == {
        "boxes": ("float32", ("N", most, 4)),
        "scores": ("float32", ("N", most)),
        "classes": ("int64", ("N", most)),
        "count": ("int64", ("N",)),
        "floor": ("float32", ("N",)),
    }


def test_each_meaning_is_with_its_own_output() -> None:
    tensors = decided_tensors("M", boxes="where", scores="how sure", classes="what", floor="what was lost")
    # A graph gives its outputs in this order.
    assert [(tensor.name, tensor.meaning) for tensor in tensors] == [
        ("boxes", "where"),
        ("scores", "how sure"),
        ("classes", "what"),
        ("count", "how many boxes there are"),
        ("floor", "what was lost"),
    ]

"""The outputs that `detector.onnx` of every bundle has: names, types and shapes in one place."""

from __future__ import annotations

from engines.manifest import Tensor


def decided_tensors(most: int | str, *, boxes: str, scores: str, classes: str, floor: str) -> tuple[Tensor, ...]:
    """`boxes`, `scores`, `classes`, `count` and `floor`, in this order.

    Args:
        most: M, boxes a frame; a word where it depends on the frame.
        boxes: what they mean.
        scores: likewise.
        classes: likewise.
        floor: likewise.
    """
    return (
        Tensor(name="boxes", dtype="float32", shape=("N", most, 4), meaning=boxes),
        Tensor(name="scores", dtype="float32", shape=("N", most), meaning=scores),
        Tensor(name="classes", dtype="int64", shape=("N", most), meaning=classes),
        Tensor(name="count", dtype="int64", shape=("N",), meaning="how many boxes there are"),
        Tensor(name="floor", dtype="float32", shape=("N",), meaning=floor),
    )

from __future__ import annotations

from typing import TYPE_CHECKING

import av
import numpy as np

from export.starter.__main__ import main
from export.starter.body import save_body
from export.starter.clips import walking_clip
from tests.export.starter.bodies import tiny_body
from tests.export.starter.drawing import skip_without_drawing

if TYPE_CHECKING:
    from pathlib import Path


def test_people_walk_on_and_the_room_stays() -> None:
    skip_without_drawing()
    frames = list(walking_clip(tiny_body(), 3, 12, people=1, size=(96, 54), rate=4.0))

    middles = [np.nonzero(frame.instances)[1].mean() for frame in frames if frame.instances.any()]
    assert len(middles) > 5
    steps = np.diff(middles)
    assert abs(np.sign(np.median(steps))) == 1
    assert np.mean(np.sign(steps) == np.sign(np.median(steps))) > 0.8
    first, last = frames[0], frames[-1]
    assert np.median(np.abs(first.image.astype(int) - last.image)) == 0
    np.testing.assert_array_equal(first.looks, last.looks)


def test_the_command_writes_a_clip_that_plays(tmp_path: Path) -> None:
    skip_without_drawing()
    save_body(tmp_path / "body.npz", tiny_body())
    words = ["clip", "--seconds", "0.2", "--size", "96x54", "--body", str(tmp_path / "body.npz")]

    assert main([*words, "--output", str(tmp_path / "walk.mp4")]) == 0

    with av.open(str(tmp_path / "walk.mp4")) as clip:
        shapes = [frame.to_ndarray(format="rgb24").shape for frame in clip.decode(video=0)]
    assert shapes == [(54, 96, 3)] * 5

"""The benchmarks' shared parts: a wrong yardstick would make every figure wrong."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks.common import covered_share, frames_of, loop_clip, machine


@pytest.mark.parametrize(
    ("covers", "expected"),
    [
        ([], 0.0),
        ([(0, 0, 10, 10)], 1.0),
        ([(0, 0, 5, 10)], 0.5),
        ([(0, 0, 5, 10), (5, 0, 10, 10)], 1.0),
        ([(0, 0, 5, 10), (0, 0, 5, 10)], 0.5),
        ([(20, 20, 30, 30)], 0.0),
        ([(3, 3, 3, 9)], 0.0),
    ],
)
def test_covered_share_is_the_area_under_the_union_of_boxes(covers: list[tuple[int, ...]], expected: float) -> None:
    assert covered_share((0, 0, 10, 10), covers) == pytest.approx(expected, abs=0.02)


def test_an_inscribed_ellipse_covers_less_than_its_box() -> None:
    assert covered_share((0, 0, 10, 10), [(0, 0, 10, 10)], ellipse=True) == pytest.approx(np.pi / 4, abs=0.02)


@pytest.mark.parametrize("ending", [".mkv", ".mp4"])
def test_a_looped_clip_shows_the_same_pictures_again_in_step(tmp_path: Path, ending: str) -> None:
    clip = tmp_path / f"clip{ending}"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "10", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(0, 240, 20):
            picture = np.full((48, 64, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    looped = frames_of(loop_clip(clip, tmp_path / f"looped{ending}", 30))
    assert len(looped) == 36
    levels = [float(frame.image.mean()) for frame in looped]
    assert levels[:12] == levels[12:24] == levels[24:]
    gaps = np.diff([frame.time for frame in looped])
    assert np.abs(gaps - 0.1).max() < 0.002


def test_the_machine_is_named() -> None:
    described = machine()
    assert described["cores"] >= 1
    assert described["processor"]

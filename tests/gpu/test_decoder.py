"""The GPU's own video decoder: the processor's pictures at the processor's times."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from engines.errors import RuntimeUnavailableError
from engines.runtime import Device
from stream.config import DecoderDevice
from stream.frame import Frame
from stream.sources.hardware import check_decoder
from stream.sources.video import VideoSource
from tests.media import busy_pictures, write_clip

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def decoder(gpu: Device) -> None:
    """Skips where there is none."""
    try:
        check_decoder("cuda")
    except RuntimeUnavailableError as error:
        pytest.skip(f"{gpu}: {error}")


def frames(path: Path, device: DecoderDevice, start: float | None = None) -> list[Frame]:
    with closing(VideoSource(path, start=start, strict=False, decoder=device)) as source:
        return list(source)


@pytest.mark.parametrize("start", [None, 0.5])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_pictures_and_their_times_are_the_processors(codec: str, start: float | None, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, busy_pictures(30, 640, 360), codec=codec)
    ours, theirs = frames(path, "cpu", start), frames(path, "cuda", start)
    assert [frame.pts for frame in theirs] == [frame.pts for frame in ours]
    assert not any(frame.damaged for frame in theirs)
    # Both codecs say what comes out to the bit.
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(other.image, one.image)

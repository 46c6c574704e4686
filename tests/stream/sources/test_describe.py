"""What pictures say of themselves is read without keeping them."""

from __future__ import annotations

import gc
import io

import av

from stream.orientation import Orientation
from stream.sources.describe import can_demux, display_matrix, orientation_of
from tests.stream.sources.camera import HALF_TURN, turning


def test_a_picture_that_was_asked_what_it_carries_goes_when_nobody_holds_it() -> None:
    clip = io.BytesIO(b"".join(turning(HALF_TURN, before=5, count=20)))
    gc.collect()
    gc.disable()
    try:
        kept = sum(type(one) is av.VideoFrame for one in gc.get_objects())
        seen = []
        with av.open(clip, "r", format="mpegts") as container:
            for frame in container.decode(video=0):
                seen.append(orientation_of(frame))
                # Whoever asks again gets the same.
                assert display_matrix(frame) == display_matrix(frame)
                assert (display_matrix(frame) is not None) == (len(seen) > 5)
        del frame
        assert sum(type(one) is av.VideoFrame for one in gc.get_objects()) == kept
    finally:
        gc.enable()
    assert seen == [Orientation()] * 5 + [Orientation(mirror_x=True, mirror_y=True)] * 15


def test_which_formats_can_be_read() -> None:
    assert can_demux("hls")
    assert not can_demux("no-such-format")
    # Written, and not read.
    assert not can_demux("null")

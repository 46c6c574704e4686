"""Where GStreamer says that the pixels of its buffers are.

The element reads these too, inside a program whose Python may not be able to load all of ours: nothing here reaches
for the network.
"""

from __future__ import annotations

from typing import Any

from stream.gst import bindings
from stream.gst_pixels import Layout


def layout_from(video: Any) -> Layout:
    """Where the pixels of a stream's buffers are.

    Args:
        video: GstVideoInfo.
    """
    planes = video.finfo.n_planes
    return Layout(
        video.finfo.name,
        video.width,
        video.height,
        tuple(video.offset[:planes]),
        tuple(video.stride[:planes]),
        video.size,
    )


def layout_of(buffer: Any, usual: Layout) -> Layout:
    """Where a buffer says by a meta that its rows lie elsewhere than usual."""
    meta = bindings().video.buffer_get_video_meta(buffer)
    if meta is None:
        return usual
    planes = len(usual.offsets)
    return Layout(
        usual.format, meta.width, meta.height, tuple(meta.offset[:planes]), tuple(meta.stride[:planes]), usual.size
    )

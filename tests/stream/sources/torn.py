"""Clips that cannot be read to their end."""

from __future__ import annotations

from pathlib import Path

import av

from tests.media import busy_pictures, write_clip

#: Pictures that are sent before others that are shown earlier, so that a decoder holds some back.
REORDERED = {"bf": "2", "preset": "medium"}


def write_unreadable(path: Path, count: int) -> Path:
    """A clip in NUT that is whole up to the packet of this number, and rubbish from there on.

    Args:
        path: of the clip.
        count: packets that are whole; over 30, since what FFmpeg meets while it opens a clip is no error to it.
    """
    write_clip(path, busy_pictures(count + 10), options=REORDERED, gop=12)
    with av.open(str(path)) as container:
        last = [packet for packet in container.demux(video=0) if packet.size][count - 1]
    assert last.pos is not None
    path.write_bytes(path.read_bytes()[: last.pos + last.size] + b"\xff" * 300)
    return path

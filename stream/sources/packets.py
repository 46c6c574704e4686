"""Packets of one stream, up to its end or as far as they can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream


def read_packets(
    container: InputContainer, stream: VideoStream, name: str, tell: Callable[[str], None]
) -> Iterator[Packet[VideoStream]]:
    """All packets that can be read, and in any case the empty one that brings out what the decoder still holds.

    Args:
        container: where it stands.
        stream: of the container.
        name: of the input, for what is told.
        tell: gets the reason why this was not all, if there is one.
    """
    packets = container.demux(stream)
    cut = False
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            if cut:
                tell(f"{name} ends in the middle of a picture")
            return
        except av.error.FFmpegError as error:
            tell(f"{name} cannot be read to its end: {error.strerror}")
            # What came before is whole, and nothing else says to the decoder that there is no more.
            empty = cast("Packet[VideoStream]", Packet())
            empty.stream = stream
            yield empty
            return
        cut = packet.is_corrupt if packet.size else cut
        yield packet

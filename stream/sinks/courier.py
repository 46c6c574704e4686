"""Courier: the process that takes encoded, anonymized packets to a server.

FFmpeg cannot time out a server that accepts a connection and never reads, and a call into it cannot be cut short. So
this is a process of its own, which can be killed at any moment. It imports nothing of ours that takes time, and is told
by standard input: a line of JSON with `url`, `format`, `options` and `sample`, the length of a NUT file with the first
key frame, which follows and says what the stream is; then the packets, each behind `HEADER`. (A NUT stream would do,
but FFmpeg gives every packet out only when the next one is there.) Credentials stay out of its command line. For every
packet that the server took it writes a byte to standard output; errors go to standard error.
"""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO, Final, cast

import av
import av.error

from engines.own_process import end_with_parent

#: Before each packet: presentation and decoding time, whether it is a key frame, its length.
HEADER: Final = struct.Struct("<qq?I")
EXIT_FAILED: Final = 1


def main() -> int:
    """Carry everything from standard input to the server; the process's exit code."""
    # Ctrl-C in a terminal reaches every process: whoever started this one decides when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A call that a server blocks sees no end of input: where the run was killed, this goes with it.
    end_with_parent()
    given = sys.stdin.buffer
    order = json.loads(given.readline())
    clock = Fraction(order["time_base"])
    try:
        with (
            av.open(io.BytesIO(given.read(order["sample"])), "r", format="nut") as sample,
            av.open(order["url"], "w", format=order["format"], options=order["options"]) as server,
        ):
            stream = server.add_stream_from_template(sample.streams.video[0])
            for packet in _packets(given):
                packet.stream, packet.time_base = stream, clock
                server.mux_one(packet)
                os.write(sys.stdout.fileno(), b".")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        os.write(sys.stderr.fileno(), str(getattr(error, "strerror", None) or error).encode())
        return EXIT_FAILED
    return 0


def _packets(given: BinaryIO) -> Iterator[av.Packet[av.VideoStream]]:
    while len(head := given.read(HEADER.size)) == HEADER.size:
        pts, dts, is_key, length = HEADER.unpack(head)
        content = given.read(length)
        if len(content) < length:
            return
        packet = cast("av.Packet[av.VideoStream]", av.Packet(content))
        packet.pts, packet.dts, packet.is_keyframe = pts, dts, is_key
        yield packet


if __name__ == "__main__":
    code = main()
    # Nothing is taken apart: a server that hung up must not hold the process.
    os._exit(code)

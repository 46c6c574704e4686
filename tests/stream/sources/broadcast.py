"""Senders on loopback that are read by URL: a live playlist, MPEG-TS over UDP, RTMP."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.stream.sources.camera import RATE, packets

#: Seconds of a piece of a playlist, and how many it names.
PIECE, PIECES = 2, 3
_PATIENCE = 20.0
#: A process of its own: FFmpeg holds Python's lock while it waits for a client. `tee` lets its option through.
_RTMP = """
import itertools, sys, time
import av, numpy as np
with av.open(f"[f=flv:listen=1]{sys.argv[1]}", "w", format="tee") as container:
    options = {"tune": "zerolatency", "preset": "ultrafast"}
    stream = container.add_stream("libx264", rate=20, options=options)
    stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 10
    stream.codec_context.flags |= av.codec.context.Flags.global_header
    for number in itertools.count():
        image = np.full((48, 64, 3), 20 + number * 8 % 200, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        time.sleep(1 / 20)
"""


@contextmanager
def playlist(path: Path) -> Iterator[None]:
    """A playlist that slides while it is served. It is full from the beginning."""
    ended = threading.Event()
    thread = threading.Thread(target=_slide, args=(path, ended), daemon=True)
    thread.start()
    end = time.monotonic() + _PATIENCE
    while not path.exists() or path.read_text().count("#EXTINF") < PIECES:
        assert time.monotonic() < end, "there is no playlist"
        time.sleep(0.02)
    try:
        yield
    finally:
        ended.set()
        thread.join(_PATIENCE)


def _slide(path: Path, ended: threading.Event) -> None:
    options = {"hls_time": str(PIECE), "hls_list_size": str(PIECES), "hls_flags": "delete_segments+temp_file"}
    with av.open(str(path), "w", format="hls", options=options) as container:
        stream = container.add_stream("mpeg2video", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.gop_size, stream.max_b_frames = RATE, 0
        due = 0.0
        for number in itertools.count():
            image = np.full((48, 64, 3), 20 + number * 8 % 200, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            at_once = number <= PIECE * PIECES * RATE
            due = time.monotonic() if at_once else due + 1 / RATE
            if ended.wait(max(0.0, due - time.monotonic())):
                return


@contextmanager
def over_udp(port: int) -> Iterator[threading.Event]:
    """A camera's transport stream, over and over, to a port. Gives what makes it silent while it is set."""
    ended, silent = threading.Event(), threading.Event()

    def run() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for piece in itertools.cycle(packets()):
                while silent.is_set() and not ended.wait(0.01):
                    pass
                for at in range(0, len(piece), 1316):
                    sender.sendto(piece[at : at + 1316], ("127.0.0.1", port))
                if ended.wait(1 / RATE):
                    return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield silent
    finally:
        ended.set()
        thread.join(_PATIENCE)


@contextmanager
def rtmp_server(url: str) -> Iterator[None]:
    """Waits for one client, and sends to it."""
    process = subprocess.Popen([sys.executable, "-c", _RTMP, url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait(_PATIENCE)


def with_sound(pictures: int, seconds: int) -> list[bytes]:
    """MPEG-TS in pieces, one for the time of a picture: sound for so long, but only so many pictures."""
    pieces, sent, target = [], 0, _Growing()
    # Sound waits neither for more of it nor for pictures.
    options = {"flush_packets": "1", "pes_payload_size": "0", "max_interleave_delta": "1"}
    with av.open(target, "w", format="mpegts", options=options) as container:
        video = container.add_stream("mpeg2video", rate=RATE)
        video.width, video.height, video.pix_fmt, video.gop_size = 64, 48, "yuv420p", 5
        sound = container.add_stream("mp2", rate=48_000)
        sound.codec_context.layout = "mono"
        for number in range(seconds * RATE):
            if number < pictures:
                image = np.full((48, 64, 3), 20 + number * 8 % 200, np.uint8)
                container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 48_000 // RATE), np.int16), format="s16", layout="mono")
            samples.sample_rate, samples.pts = 48_000, number * 48_000 // RATE
            samples.time_base = Fraction(1, 48_000)
            container.mux(sound.encode(samples))
            pieces.append(bytes(target.content[sent:]))
            sent = len(target.content)
    return pieces


class _Growing:
    """A file that is only written at its end."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, content: bytes) -> int:
        self.content += content
        return len(content)

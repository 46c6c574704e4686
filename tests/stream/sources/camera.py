"""A camera on loopback: MPEG-TS over HTTP, at its own pace, that can be unplugged, frozen and plugged in again."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from fractions import Fraction
from types import TracebackType
from typing import Self

import av
import numpy as np

RATE = 20
_GROUP = 5
_SECONDS = 60


def packets(
    size: tuple[int, int] = (64, 48), *, brightness: int = 0, streams: int = 1, aspect: int | Fraction = 1
) -> list[bytes]:
    """MPEG-TS in pieces, one for each picture; pictures count their number in grey levels, alike in all streams."""
    target = io.BytesIO()
    pieces: list[bytes] = []
    sent = 0
    with av.open(target, "w", format="mpegts", options={"flush_packets": "1"}) as container:
        alike = [container.add_stream("mpeg2video", rate=RATE) for _ in range(streams)]
        for stream in alike:
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.time_base = Fraction(1, RATE)
            stream.gop_size, stream.max_b_frames = _GROUP, 0
            stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        for number in range(RATE * _SECONDS // 10):
            image = np.full((size[1], size[0], 3), (brightness + number * 8) % 200 + 20, np.uint8)
            for stream in alike:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            pieces.append(target.getvalue()[sent:])
            sent += len(pieces[-1])
    return pieces


def turning(bits: bytes, *, size: tuple[int, int] = (64, 48), before: int = 40, count: int = 120) -> list[bytes]:
    """MPEG-TS with H.264, a piece a picture, bright in the upper half as stored, which say from one on that they turn.

    Args:
        bits: three bytes of a display orientation (ITU-T H.264, D.1.27).
        size: of the pictures as stored.
        before: pictures that say nothing.
        count: of all pictures.
    """
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = *size, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, RATE), Fraction(RATE)
    encoder.gop_size, encoder.max_b_frames = _GROUP, 0
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "repeat-headers=1:scenecut=0"}
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[: size[1] // 2] = 200
    target, pieces, sent = io.BytesIO(), [], 0
    with av.open(target, "w", format="mpegts", options={"flush_packets": "1"}) as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = *size, "yuv420p", Fraction(1, RATE)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, encoder.time_base
            for encoded in encoder.encode(frame):
                turn = b"\0\0\0\1\6\x2f\3" + bits + b"\x80" if number >= before else b""
                packet = av.Packet(turn + bytes(encoded))
                packet.pts, packet.dts, packet.is_keyframe = encoded.pts, encoded.dts, encoded.is_keyframe
                packet.stream, packet.time_base = stream, Fraction(1, RATE)
                container.mux_one(packet)
            pieces.append(target.getvalue()[sent:])
            sent += len(pieces[-1])
    return pieces


#: Display orientations: upside down, and a quarter turn.
HALF_TURN, QUARTER_TURN = b"\x10\0\x09", b"\x08\0\x09"


class Camera:
    """Serves one client after another, each from the beginning.

    Args:
        pieces: what is sent, one a picture, over and over.
    """

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.frozen = threading.Event()
        #: What whoever calls is answered.
        self.status = "200 OK"
        self._plugged = threading.Event()
        self._ended = threading.Event()
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self.port = 0
        self.clients = 0
        self.plug_in()

    @property
    def url(self) -> str:
        return f"http://user:secret@127.0.0.1:{self.port}/live.ts"

    def plug_in(self) -> None:
        """Listen, on the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        self.port = self._listener.getsockname()[1]
        self._plugged.set()
        thread = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        thread.start()
        self._threads.append(thread)

    def unplug(self) -> None:
        """Close everything at once."""
        self._plugged.clear()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self.frozen.clear()
        self.unplug()

    def _accept(self, listener: socket.socket) -> None:
        while self._plugged.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.clients += 1
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.recv(4096)
            client.sendall(f"HTTP/1.0 {self.status}\r\nContent-Type: video/mp2t\r\n\r\n".encode())
            if not self.status.startswith("200"):
                return
            due = time.monotonic()
            while True:
                for piece in self.pieces:
                    while self.frozen.is_set() and not self._ended.is_set():
                        time.sleep(0.01)
                    if not self._plugged.is_set() or self._ended.is_set():
                        return
                    client.sendall(piece)
                    due += 1 / RATE
                    time.sleep(max(0.0, due - time.monotonic()))

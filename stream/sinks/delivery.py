"""Delivery: one courier process (`stream.sinks.courier`), the pipe to it, and whether it still moves."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, Final, cast

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from stream.address import redacted
from stream.sinks.courier import HEADER

_LONGEST_MESSAGE: Final = 400

if TYPE_CHECKING:
    VideoPacket = Packet[av.VideoStream]


Process = subprocess.Popen[bytes]


def start_courier() -> Process:
    """A courier's process, which waits for its order. Half a second goes into its imports."""
    return subprocess.Popen(
        [sys.executable, "-m", "stream.sinks.courier"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # a packet that waits for the next one is late
    )


def dismiss(process: Process) -> None:
    """End a courier's process, whatever it does, and let go of its pipes."""
    _kill(process)
    for pipe in (process.stdin, process.stdout, process.stderr):
        with contextlib.suppress(OSError):
            cast("IO[bytes]", pipe).close()


def _kill(process: Process) -> None:
    if process.poll() is None:
        process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1.0)


class Delivery:
    """One courier, from its key frame to its end.

    Args:
        order: what it is told: `url`, `format` and `options`.
        context: of the encoder whose packets it carries.
        process: started before, None to start one.
        on_taken: called once, by a thread of its own, when the server has taken the first packet.
    """

    def __init__(
        self,
        order: dict[str, Any],
        context: VideoCodecContext,
        process: Process | None = None,
        *,
        on_taken: Callable[[], None] = lambda: None,
    ) -> None:
        self._process = process or start_courier()
        self._context = context
        self._order = order
        self._on_taken = on_taken
        self._sent = 0
        #: Packets that the server took.
        self.carried = 0
        self._heard = time.monotonic()
        self._silent = False
        self._listener = threading.Thread(target=self._listen, name="standin-sent", daemon=True)
        self._listener.start()

    @property
    def lost(self) -> int:
        """Packets that the server has not taken, or not yet."""
        return max(0, self._sent - self.carried)

    @property
    def gone(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def send(self, packet: VideoPacket) -> None:
        """Write one packet into the pipe; the first is a key frame. Raises OSError where the process has gone."""
        content = bytes(packet)
        head = HEADER.pack(packet.pts or 0, packet.dts or 0, packet.is_keyframe, len(content))
        if not self._sent:
            sample = self._sample(packet)
            order = self._order | {"sample": len(sample), "time_base": str(self._context.time_base)}
            head = json.dumps(order).encode() + b"\n" + sample + head
        if self._sent == self.carried:
            # Nothing was under way: silence begins now.
            self._heard = time.monotonic()
        self._sent += 1
        self._write(head + content)

    def check(self, timeout: float) -> None:
        """Kill the process if packets are under way and it has been silent for so long. Any thread may call it."""
        if self._sent > self.carried and time.monotonic() - self._heard > timeout:
            self._silent = True
            self.kill()

    def finish(self, seconds: float) -> None:
        """Close the pipe and let the process end."""
        with contextlib.suppress(OSError):
            cast("IO[bytes]", self._process.stdin).close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
            # What it said last.
            self._listener.join(1.0)

    def kill(self) -> None:
        """End the process, whatever it does, and wait for nothing."""
        if self._process.poll() is None:
            self._process.kill()

    def close(self) -> None:
        """End the process and let go of its pipes."""
        self.kill()
        self._listener.join(1.0)
        dismiss(self._process)

    def reason(self) -> str:
        """Why the process is no use any more."""
        if self._silent:
            return "the server took nothing in time"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        said = cast("IO[bytes]", self._process.stderr).read(_LONGEST_MESSAGE).decode("utf-8", "replace")
        return redacted(" ".join(said.split())) or f"the connection broke (exit code {self._process.returncode})"

    def _write(self, content: bytes) -> None:
        """All of it: a pipe without a buffer of its own may take a part."""
        pipe, rest = cast("IO[bytes]", self._process.stdin), memoryview(content)
        while rest:
            rest = rest[pipe.write(rest) :]

    def _sample(self, packet: VideoPacket) -> bytes:
        """A file that says what the stream is."""
        target, context = io.BytesIO(), self._context
        with av.open(target, "w", format="nut") as container:
            stream = container.add_mux_stream(
                context.codec.canonical_name, rate=context.framerate, width=context.width, height=context.height
            )
            stream.time_base = context.time_base
            first = cast("VideoPacket", av.Packet(bytes(packet)))
            first.pts, first.dts, first.time_base, first.is_keyframe = packet.pts, packet.dts, packet.time_base, True
            first.stream = cast("av.VideoStream", stream)
            container.mux_one(first)
        return target.getvalue()

    def _listen(self) -> None:
        """A byte for every packet that the server took."""
        heard = cast("IO[bytes]", self._process.stdout)
        while some := heard.read(4096):
            first = not self.carried
            self.carried += len(some)
            self._heard = time.monotonic()
            if first:
                self._on_taken()

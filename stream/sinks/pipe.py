"""Pipe: anonymized frames as Matroska to standard output, for whatever program reads there.

Nothing is sought and nothing waits for its end: every frame is on its way when the next one comes. A reader that is
slow holds up the stream, as in any pipe; one that never reads does not hold up its end.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import select
import stat
import time
from collections.abc import Iterator
from typing import IO, BinaryIO, Final, cast

import av
import av.error

from engines.errors import SinkError, StreamStoppedError, UsageError
from stream.anonymizer import Anonymized
from stream.sinks.live_encoder import LiveEncoder
from stream.sources.base import StreamInfo

#: Milliseconds after which whoever waits for the reader looks whether it still should.
_PATIENCE: Final = 100
#: What a pipe that has room takes without waiting.
_AT_ONCE: Final = select.PIPE_BUF


class PipeSink:
    """Writes Matroska into a stream that cannot be sought. The stream stays open: it is its owner's.

    Args:
        stream: such as `sys.stdout.buffer`.
        info: of the frames.
        codec: encoder by name, None for H.264.
        crf: quality, None for our default.
        speed: the encoder's preset, None for our default.
        timeout: seconds in which whoever reads must take something, None for any time: a reader may pause, but then
            all other outputs of the run wait with it.
        name: of the stream, for messages.

    Raises:
        UsageError: the stream is a terminal, or there is no such encoder, or Matroska does not take it.
        SinkError: the encoder takes no such pictures.
    """

    def __init__(
        self,
        stream: IO[bytes],
        info: StreamInfo,
        *,
        codec: str | None = None,
        crf: float | None = None,
        speed: str | None = None,
        timeout: float | None = None,
        name: str = "standard output",
    ) -> None:
        if stream.isatty():
            raise UsageError(f"{name} is a terminal; send the video to a program or a file, such as `... - | ffplay -`")
        self._name = name
        self._size = (info.width, info.height)
        self._writer = _Writer(stream, name, timeout)
        self._muxed = _Muxed()
        # A cluster for each frame: it leaves when the next frame comes.
        options = {"cluster_time_limit": "0", "flush_packets": "1"}
        self._container = av.open(cast("BinaryIO", self._muxed), "w", format="matroska", container_options=options)
        self._encoder = LiveEncoder(info, codec=codec, crf=crf, speed=speed, container=self._container)
        try:
            self._container.start_encoding()
        except av.error.FFmpegError as error:
            raise UsageError(f"Matroska cannot hold {codec or 'this video'} ({error.strerror})") from error
        self._frames = 0
        self._ended = False

    def write(self, item: Anonymized) -> None:
        """Encode the next frame and write it; waits for the reader.

        Raises:
            StreamStoppedError: the picture has another size than before.
            SinkError: whoever read has gone or must not be waited for.
        """
        height, width = item.image.shape[:2]
        if (width, height) != self._size:
            raise StreamStoppedError(
                f"the pictures have become {width}x{height} instead of {self._size[0]}x{self._size[1]}, which a"
                f" Matroska stream on {self._name} cannot follow: start again, or record into a folder"
            )
        self._frames += 1
        with self._explained():
            for packet in self._encoder.encode(item):
                self._container.mux_one(packet)
        self._writer.write(self._muxed.take())

    def close(self) -> None:
        """Write what is left. Without any frame nothing is written at all.

        Raises:
            SinkError: whoever read has gone or must not be waited for.
        """
        if self._ended or not self._frames:
            self.abort()
            return
        self._ended = True
        with self._explained():
            for packet in self._encoder.flush():
                self._container.mux_one(packet)
            self._container.close()
        self._writer.write(self._muxed.take())

    def abort(self) -> None:
        """Write nothing more; a write that waits in another thread ends at once."""
        self._writer.hurry(0.0)
        self._ended = True
        with contextlib.suppress(av.error.FFmpegError):
            self._container.close()

    def hurry(self, seconds: float) -> None:
        """From now on, wait so many seconds for the reader altogether. May be called from a signal handler."""
        self._writer.hurry(seconds)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except av.error.FFmpegError as error:
            raise SinkError(f"cannot write to {self._name}: {error.strerror}") from error


class _Muxed:
    """What FFmpeg has made: a file object that only collects, since an error in a call from there would be lost."""

    def __init__(self) -> None:
        self._content = bytearray()

    def write(self, content: bytes) -> int:
        """Collect it."""
        self._content += content
        return len(content)

    def take(self) -> bytes:
        """What was collected since the last time."""
        content, self._content = bytes(self._content), bytearray()
        return content


class _Writer:
    """Writes all of something into a stream, for as long as it may wait."""

    def __init__(self, stream: IO[bytes], name: str, timeout: float | None) -> None:
        self._stream = stream
        self._name = name
        self._timeout = math.inf if timeout is None else timeout
        self._until = math.inf
        stream.flush()
        try:
            self._descriptor: int | None = stream.fileno()
        except io.UnsupportedOperation:
            self._descriptor = None
        mode = 0 if self._descriptor is None else os.fstat(self._descriptor).st_mode
        self._waits = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)

    def hurry(self, seconds: float) -> None:
        """Stop waiting then, if not sooner."""
        self._until = min(self._until, time.monotonic() + seconds)

    def write(self, content: bytes) -> None:
        """Write all of it."""
        try:
            if self._descriptor is None:
                self._stream.write(content)
            elif self._waits:
                self._write_in_turn(self._descriptor, content)
            else:
                self._write_at_once(self._descriptor, content)
        except BrokenPipeError as error:
            raise SinkError(f"whoever read {self._name} has gone") from error
        except OSError as error:
            if isinstance(error, SinkError):
                raise
            raise SinkError(f"cannot write to {self._name}: {error.strerror}") from error

    def _write_in_turn(self, descriptor: int, content: bytes) -> None:
        """No call waits for the reader: what is written is only what there is room for."""
        room = select.poll()
        room.register(descriptor, select.POLLOUT)
        rest, silent = memoryview(content), time.monotonic()
        while rest:
            if room.poll(_PATIENCE):
                rest, silent = rest[os.write(descriptor, rest[:_AT_ONCE]) :], time.monotonic()
            elif time.monotonic() >= min(self._until, silent + self._timeout):
                raise SinkError(f"whoever reads {self._name} took nothing in time")

    def _write_at_once(self, descriptor: int, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]

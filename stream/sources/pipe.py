"""Video from a pipe, such as standard input: any container that can be read without seeking, or bare frames."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import chain
from typing import Final, TypeVar

import av
import av.error
from av.container import InputContainer

from engines.errors import SourceError
from stream.config import DecoderDevice
from stream.frame import Frame
from stream.raw_video import RawVideo
from stream.sources.decoder import Decoder, Lost, Picture
from stream.sources.describe import describe, main_video, shortfall, step
from stream.sources.hardware import accelerated, begun, check_accelerated, hint
from stream.sources.packets import read_packets
from stream.sources.pictures import FrameMaker

T = TypeVar("T")

NAME: Final = "the pipe"
_STANDARD_INPUT: Final = 0
#: Milliseconds between two looks at whether there is anything to wait for.
_LOOK: Final = 100
#: Bytes that are read at once; pipes rarely hold more.
_AT_ONCE: Final = 2**16
#: What who opens it gets to see that nobody waits any more.
_SECONDS_TO_END: Final = 0.5


class PipeSource:
    """Frames of the main video stream that comes through a pipe. Nothing is dropped: whoever writes has to wait.

    Args:
        descriptor: of the pipe's reading end.
        raw: what bare frames are like, None for a container.
        strict: whether pictures count as damaged where the decoder could conceal the damage.
        wanted: number or title of the video stream to take, None for the main one.
        decoder: where it is decoded.

    Raises:
        UsageError: the wanted stream is not there.
        SourceError: what comes is no video, or ends before its first picture.
    """

    def __init__(
        self,
        descriptor: int = _STANDARD_INPUT,
        *,
        raw: RawVideo | None = None,
        strict: bool = True,
        decoder: DecoderDevice = "cpu",
        wanted: str | None = None,
    ) -> None:
        self._problems: list[str] = []
        self._pipe = _Pipe(descriptor)
        # By a thread: PyAV lets no signal through that comes while it waits for us.
        opening: Future[tuple[list[Picture | Lost], Picture]] = Future()
        thread = threading.Thread(target=self._open, args=(opening, raw, strict, wanted, decoder), name="standin-open")
        thread.daemon = True
        thread.start()
        try:
            self._waiting, first = _in_steps(opening)
        except BaseException:
            self._pipe.ended = True
            thread.join(_SECONDS_TO_END)
            raise
        begin = next((item.pts for item in self._waiting if item.pts is not None), 0)
        self.info = describe(NAME, self._container, self._stream, first.frame, begin, (None, None))
        self._frames = FrameMaker(self.info)

    def __iter__(self) -> Iterator[Frame]:
        """Frames in order of presentation, with strictly increasing `pts`."""
        last, end = self.info.start_pts - 1, 0
        due, usual = self.info.start_pts, step(self.info)
        waiting, self._waiting = self._waiting, []
        for item in chain(waiting, self._items):
            last = max(due if item.pts is None else item.pts, last + 1)
            due, end = last + usual, last + (item.duration or usual)
            yield self._frames.make(item, last, item.duration)
        if self._pipe.error is not None:
            self._note(f"{NAME} cannot be read to its end: {self._pipe.error}")
        if not self._problems and (missing := shortfall(self.info, self._container, self._stream, end)):
            self._note(missing)

    @property
    def waited(self) -> float:
        """See `Patient`."""
        return self._pipe.waited

    def problems(self) -> tuple[str, ...]:
        """Why it could not be read to its end, if so."""
        return tuple(self._problems)

    def side_exits(self) -> tuple[str, ...]:
        """Other streams, and data that frames carried."""
        return (*self.info.dropped, *self._frames.side_exits)

    def end(self) -> None:
        """Wait for nothing any more, and give nothing further. May be called from a signal handler."""
        self._pipe.ended = True

    def close(self) -> None:
        """Let go of the pipe."""
        self._container.close()

    def _note(self, problem: str) -> None:
        # Who does not want the rest is not told that it is missing.
        if not self._pipe.ended:
            self._problems.append(problem)

    def _open(
        self,
        opening: Future[tuple[list[Picture | Lost], Picture]],
        raw: RawVideo | None,
        strict: bool,
        wanted: str | None,
        decoder: DecoderDevice,
    ) -> None:
        """Open it, and look for its first picture."""
        try:
            self._container = _opened(self._pipe, raw, decoder)
            try:
                self._stream = main_video(self._container, NAME, wanted)
                check_accelerated(self._stream, decoder, NAME)
                packets = read_packets(self._container, self._stream, NAME, self._note)
                self._items = Decoder(self._stream, strict=strict).pictures(packets)
                opening.set_result(self._first(decoder))
            except BaseException:
                self._container.close()
                raise
        except BaseException as error:  # noqa: BLE001  carried to the thread that waits
            opening.set_exception(error)

    def _first(self, decoder: DecoderDevice) -> tuple[list[Picture | Lost], Picture]:
        """What comes up to the first picture, which says what the stream is like."""
        came: list[Picture | Lost] = []
        for item in begun(self._items, NAME, decoder):
            came.append(item)
            if isinstance(item, Picture):
                return came, item
        raise SourceError(f"{NAME} ended before its first picture; {'; '.join(self._problems) or 'nothing was wrong'}")


class _Pipe:
    """A pipe as a file that waits in steps, so that signals are seen meanwhile and it can be told to end.

    Args:
        descriptor: of its reading end.
    """

    def __init__(self, descriptor: int) -> None:
        self.name = NAME
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        #: Whether nobody wants any more.
        self.ended = False
        #: Why it cannot be read any further, None if it can, or has simply ended.
        self.error: str | None = None
        #: Seconds in which nothing was there.
        self.waited = 0.0

    def read(self, size: int) -> bytes:
        """Some bytes, at most so many; none at the end."""
        try:
            while not self.ended:
                began = time.monotonic()
                came = self._poll.poll(_LOOK)
                self.waited += time.monotonic() - began
                if came:
                    return os.read(self._descriptor, size)
        except OSError as error:
            self.error = error.strerror
        return b""


def _in_steps(future: Future[T]) -> T:
    """Its result, waited for so that signals are seen meanwhile."""
    while True:
        with contextlib.suppress(TimeoutError):
            return future.result(_LOOK / 1000)


def _opened(pipe: _Pipe, raw: RawVideo | None, decoder: DecoderDevice) -> InputContainer:
    try:
        return av.open(
            pipe,
            "r",
            format=None if raw is None else "rawvideo",
            options={} if raw is None else raw.options,
            buffer_size=_AT_ONCE,
            metadata_errors="replace",
            hwaccel=accelerated(decoder),
        )
    except (av.error.FFmpegError, ValueError) as error:
        reason = pipe.error or getattr(error, "strerror", None) or error
        raise SourceError(
            f"what comes through the pipe cannot be read as video: {reason}. Matroska and MPEG-TS can be read without "
            "seeking; bare frames need --raw"
        ) from error
    except RuntimeError as error:
        # PyAV's own, of decoders; FFmpeg's, some of which are such errors too, came first.
        raise SourceError(f"what comes through the pipe cannot be read: {error}{hint(decoder)}") from error

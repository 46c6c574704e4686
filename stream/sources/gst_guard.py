"""Guard: what reaches the decoders of a pipeline. After a hole nothing is decoded up to the next key frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from stream.gst import bindings
from stream.sources.decoder import DEPENDENT, Lost

#: Key frames that are remembered: decoders hold back less than that.
_KEYS = 32


class _Gate:
    """Before one decoder: after a hole nothing passes until a picture that depends on no other one.

    Decoders conceal what they lack, and GStreamer says of the holes only what comes behind them.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._begun = False
        self._broken = False

    def __call__(self, _pad: Any, info: Any) -> Any:
        gst = bindings().gst
        buffer, flags = info.get_buffer(), gst.BufferFlags
        corrupted = buffer.has_flags(flags.CORRUPTED)
        depends = buffer.has_flags(flags.DELTA_UNIT)
        if not self._guard.strict:
            return gst.PadProbeReturn.OK
        self._broken |= corrupted or (self._begun and buffer.has_flags(flags.DISCONT))
        self._broken &= corrupted or depends
        if self._broken or (depends and not self._begun):
            self._guard.kept += 1
            if self._begun:
                self._guard.note(buffer.pts, buffer.duration)
            return gst.PadProbeReturn.DROP
        self._begun = True
        if not depends:
            self._guard.keys.append(int(buffer.pts))
        return gst.PadProbeReturn.OK


class Guard:
    """Gates before all video decoders of a pipeline, also those that come later, and what they kept back.

    Args:
        pipeline: not begun.
    """

    def __init__(self, pipeline: Any) -> None:
        self.strict = True
        #: How much was kept back so far, what came before the first key frame included.
        self.kept = 0
        self._lost: deque[Lost] = deque()
        #: Time stamps of the last pictures that depend on no other one.
        self.keys: deque[int] = deque(maxlen=_KEYS)
        self._wrong: int | None = None
        pipeline.connect("deep-element-added", lambda _pipeline, _bin, element: self._watch(element))
        elements = pipeline.iterate_recurse()
        _each(elements, self._watch)

    def note(self, pts: int, duration: int) -> None:
        """One more picture was kept back."""
        none = bindings().gst.CLOCK_TIME_NONE
        self._lost.append(Lost(0 if pts == none else pts, 0 if duration == none else duration, DEPENDENT))

    def lost(self, before: int | None) -> Iterator[Lost]:
        """What was kept back and belongs before this time; all of it where the time is None."""
        while self._lost and (before is None or (self._lost[0].pts or 0) < before):
            yield self._lost.popleft()

    def judge(self, pts: int, damaged: str | None) -> str | None:
        """Why a picture that came out must not be trusted, None if it may.

        Args:
            pts: of the picture.
            damaged: what is wrong with it by itself.
        """
        if damaged is not None:
            self._wrong = pts if self.strict and self.keys else None
            return damaged
        if self._wrong is not None:
            if not any(self._wrong < key <= pts for key in tuple(self.keys)):
                return DEPENDENT
            self._wrong = None
        return None

    def _watch(self, element: Any) -> None:
        gst = bindings().gst
        factory = element.get_factory()
        kind = factory.get_metadata("klass") if factory is not None else None
        pad = element.get_static_pad("sink")
        if pad is not None and kind and "Decoder" in kind and ("Video" in kind or "Image" in kind):
            pad.add_probe(gst.PadProbeType.BUFFER, _Gate(self))


def _each(elements: Any, use: Callable[[Any], None]) -> None:
    """Every element of one of GStreamer's iterators."""
    gst = bindings().gst
    while True:
        result, element = elements.next()
        if result != gst.IteratorResult.OK:
            return
        use(element)

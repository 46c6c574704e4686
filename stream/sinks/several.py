"""Several sinks at once, as if they were one."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from engines.errors import SinkError, StreamStoppedError
from stream.anonymizer import Anonymized
from stream.sinks.base import Hurried, Sink

_log = logging.getLogger(__name__)

#: What sinks that wait for somebody get to see that their time is over.
_SECONDS_TO_GIVE_UP = 0.5
#: What they get to end without waiting for anybody.
_SECONDS_TO_ABORT = 1.0


class SeveralSinks:
    """Gives every frame to all sinks.

    A failing sink ends the run, since whoever asked for three outputs would not know that there are two. But it does
    not take the others with it: what they hold is whole and anonymized, and whoever has lost the server wants the
    recording all the more. So they get the frame at which it failed, too, and are closed and not aborted.

    Those that wait for nobody are closed first: whatever servers do, files and recordings are whole by then. The
    others end side by side.

    Args:
        sinks: at least one; they are written to in this order.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        if not sinks:
            raise ValueError("expected at least one sink, got none")
        self.sinks = tuple(sinks)
        self._ended = False
        self._latest = math.inf

    def write(self, item: Anonymized) -> None:
        """Write the next frame to all of them.

        Raises:
            StreamStoppedError: at least one cannot go on, and none has failed; all can be closed.
            SinkError: at least one failed; the others are closed.
        """
        if self._ended:
            raise SinkError("the outputs are closed already")
        errors = _each(self.sinks, lambda sink: sink.write(item))
        failed = [sink for sink, error in errors if not isinstance(error, StreamStoppedError)]
        if failed:
            self._ended = True
            errors += self._close([sink for sink in self.sinks if not any(sink is other for other in failed)])
            _abort(failed)
        if errors:
            raise _joined(errors)

    def close(self) -> None:
        """Finish all outputs.

        Raises:
            SinkError: at least one could not be finished; the others are.
        """
        if self._ended:
            return
        self._ended = True
        if errors := self._close(self.sinks):
            raise _joined(errors)

    def abort(self) -> None:
        """Abort all; those that are closed keep what they have."""
        self._ended = True
        _abort(self.sinks)

    def hurry(self, seconds: float) -> None:
        """From now on, each waits so many seconds altogether. May be called from a signal handler."""
        self._latest = min(self._latest, time.monotonic() + seconds)
        for sink in self.sinks:
            if isinstance(sink, Hurried):
                sink.hurry(seconds)

    def _close(self, sinks: Sequence[Sink]) -> _Errors:
        errors = _end(sinks, lambda sink: sink.close(), self._latest + _SECONDS_TO_GIVE_UP)
        _abort(sink for sink, _ in errors)
        return errors


_Errors = list[tuple[Sink, Exception]]


def _each(sinks: Iterable[Sink], do: Callable[[Sink], None]) -> _Errors:
    """Do it with all of them, whatever some say."""
    errors: _Errors = []
    for sink in sinks:
        try:
            do(sink)
        except Exception as error:  # noqa: BLE001  raised when all have had their turn
            errors.append((sink, error))
    return errors


def _end(sinks: Iterable[Sink], do: Callable[[Sink], None], latest: float) -> _Errors:
    """First those that wait for nobody, one after the other, and then the others side by side."""
    first: list[Sink] = []
    waiting: list[Sink] = []
    for sink in sinks:
        (waiting if isinstance(sink, Hurried) else first).append(sink)
    return _each(first, do) + _each_at_once(waiting, do, latest)


def _each_at_once(sinks: Sequence[Sink], do: Callable[[Sink], None], latest: float) -> _Errors:
    """Do it with all of them side by side; those that are not done by then are left behind."""
    if len(sinks) == 1:
        return _each(sinks, do)
    errors: list[_Errors] = [[] for _ in sinks]

    def one(place: int) -> None:
        errors[place] = _each(sinks[place : place + 1], do)

    threads = [
        threading.Thread(target=one, args=(place,), name="standin-close", daemon=True) for place in range(len(sinks))
    ]
    for thread in threads:
        thread.start()
    for thread, sink in zip(threads, sinks, strict=True):
        thread.join(None if latest == math.inf else max(0.0, latest - time.monotonic()))
        if thread.is_alive():
            _log.warning("%s did not end in time", type(sink).__name__)
    return [error for some in errors for error in some]


def _abort(sinks: Iterable[Sink]) -> None:
    for sink, error in _end(sinks, lambda sink: sink.abort(), time.monotonic() + _SECONDS_TO_ABORT):
        _log.error("%s cannot be given up: %s", type(sink).__name__, error)


def _joined(errors: _Errors) -> Exception:
    """One error that says all that they say; a single one is itself."""
    _, first = errors[0]
    if len(errors) == 1:
        return first
    stopped = all(isinstance(error, StreamStoppedError) for _, error in errors)
    kind = StreamStoppedError if stopped else SinkError
    joined = kind(f"{len(errors)} outputs failed: {'; '.join(str(error) for _, error in errors)}")
    joined.__cause__ = first
    return joined

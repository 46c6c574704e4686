"""What every sink is."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from stream.anonymizer import Anonymized


class Sink(Protocol):
    """Writes anonymized frames. Raw frames have another type, so they do not fit in here."""

    def write(self, item: Anonymized) -> None:
        """Write the next frame.

        Raises:
            SinkError: it cannot be written.
        """
        ...

    def close(self) -> None:
        """Finish the output and put it in its place.

        Raises:
            SinkError: it cannot be finished.
        """
        ...

    def abort(self) -> None:
        """Leave nothing behind under the final name. Never raises; harmless after `close`."""
        ...


@runtime_checkable
class Hurried(Protocol):
    """A sink that may wait for somebody, and can be told not to."""

    def hurry(self, seconds: float) -> None:
        """From now on, wait so many seconds altogether. May be called from a signal handler."""
        ...

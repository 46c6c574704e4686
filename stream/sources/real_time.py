"""Pictures for those behind who have no time of their own: each when it would be shown, and none earlier."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from stream.frame import Frame
from stream.sources.base import Endable, Source, StreamInfo

#: Seconds by which frames may be late and be made up for; after more of them time begins anew.
_MOST_BEHIND: Final = 0.5
#: Seconds between two looks at whether there is anything to wait for.
_LOOK: Final = 0.1


class Due:
    """When pictures are due, as a player shows them. What is too late is due at once, and so is all the rest later.

    Args:
        leap: seconds by which a stream's time may leap ahead from one picture to the next, and be waited for; None for
            any number.
        clock: monotonic seconds.
    """

    def __init__(self, *, leap: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._leap = leap
        self._clock = clock
        self._begin: float | None = None
        self._last = 0.0

    def early(self, at: float) -> float:
        """Seconds until the picture of this time of its stream is due; none, or less, where it is now.

        Args:
            at: seconds by the stream's clock.
        """
        now = self._clock()
        leaps = self._leap is not None and at - self._last > self._leap
        if self._begin is None or leaps or now - (self._begin + at) > _MOST_BEHIND:
            self._begin = now - at
        self._last = at
        return self._begin + at - now


class RealTime:
    """A source's frames at the pace at which a player shows them, or slower where they are taken more slowly.

    Args:
        source: of a recording, which can wait.
        clock: monotonic seconds.
        sleep: waits so many of them.
    """

    def __init__(
        self,
        source: Source,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._source = source
        self._clock = clock
        self._sleep = sleep
        self._ended = False
        self.waited = 0.0
        """See `Patient`."""

    @property
    def info(self) -> StreamInfo:
        """What is known before the first frame."""
        return self._source.info

    def __iter__(self) -> Iterator[Frame]:
        """The frames, once.

        Raises:
            SourceError: see the source.
        """
        due = Due(clock=self._clock)
        for frame in self._source:
            began = self._clock()
            while (early := due.early(frame.time)) > 0 and not self._ended:
                self._sleep(min(early, _LOOK))
            self.waited += self._clock() - began
            yield frame
            del frame

    def problems(self) -> tuple[str, ...]:
        """What could not be read so far."""
        return self._source.problems()

    def side_exits(self) -> tuple[str, ...]:
        """What was found so far that does not go on."""
        return self._source.side_exits()

    def end(self) -> None:
        """Wait for nothing any more. May be called from a signal handler."""
        self._ended = True
        if isinstance(self._source, Endable):
            self._source.end()

    def close(self) -> None:
        """Release the input."""
        self._source.close()

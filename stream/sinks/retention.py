"""Retention: the oldest segments of a recording go when there are too many or when they are too old."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from stream.quantities import Extent
from stream.sinks.segments import named_time

_log = logging.getLogger(__name__)


class Retention:
    """Deletes segments of a folder. Files of any other name are never touched.

    Names say how old segments are when they are first seen; from then on the monotonic clock does, so that a step of
    the wall clock deletes nothing.

    Args:
        folder: of the recording.
        limit: how old segments may be, and how large all together.
        monotonic: seconds.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        limit: Extent,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._limit = limit
        self._monotonic = monotonic
        self._wall = wall
        self._born: dict[str, float] = {}
        self._sizes: dict[str, int] = {}
        #: Segments deleted so far.
        self.deleted = 0

    def look(self) -> None:
        """See which segments there are now.

        Raises:
            OSError: the folder cannot be read.
        """
        if self._limit == Extent():
            return
        self._sizes = _sizes(self._folder)
        now, wall = self._monotonic(), self._wall()
        born = {}
        for name in self._sizes:
            began = named_time(name)
            age = 0.0 if began is None else max(0.0, wall - began.timestamp())
            born[name] = self._born.get(name, now - age)
        self._born = born

    def apply(self, writing: int = 0) -> None:
        """Delete what is too much, the oldest first.

        Args:
            writing: bytes of the segment that is being written; they count.
        """
        now = self._monotonic()
        total = sum(self._sizes.values()) + writing
        for name in sorted(self._sizes, key=lambda name: (self._born[name], name)):
            too_old = self._limit.seconds is not None and now - self._born[name] > self._limit.seconds
            if not too_old and (self._limit.size is None or total <= self._limit.size):
                return
            total -= self._sizes.pop(name)
            self._delete(name)

    def _delete(self, name: str) -> None:
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("cannot delete the old segment %s: %s", self._folder / name, error.strerror)
        else:
            self.deleted += 1


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of every segment by its name."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if named_time(entry.name) is None:
                continue
            try:
                state = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                # Another run deletes, too.
                continue
            if stat.S_ISREG(state.st_mode):
                found[entry.name] = state.st_size
    return found

"""What waits for a server: the last few seconds, or a spool that keeps much more while the server is away.

Packets are encoded from anonymized pictures, so that they may lie on a disk. They are dropped by whole groups, from a
key frame to the next: a part of one is of no use to anybody.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast

import av
from av.video.codeccontext import VideoCodecContext

from stream.sinks.courier import HEADER

if TYPE_CHECKING:
    from stream.sinks.delivery import VideoPacket

_log = logging.getLogger(__name__)

#: What `Recent` keeps, in seconds of the stream.
_MOST_SECONDS: Final = 5.0
#: Bytes of whole groups that a spool keeps in memory; the rest is in files.
_IN_MEMORY: Final = 4 * 2**20
#: Of how many files a full spool consists: as long as anything in one of them is needed, all of it stays.
_FILES: Final = 32
_SMALLEST_FILE: Final = 2**20


class Backlog(Protocol):
    """Packets on their way to a courier. Not safe for several threads.

    Attributes:
        dropped: packets that no courier will get.
    """

    dropped: int

    @property
    def waiting(self) -> int:
        """How many packets there are."""
        ...

    def put(self, packet: VideoPacket, stream: VideoCodecContext) -> None:
        """Add a packet of a stream. Another stream begins with a key frame."""
        ...

    def take(self) -> VideoPacket | None:
        """The next packet, None where there is none yet."""
        ...

    def following(self) -> VideoCodecContext | None:
        """The stream of the packet that `take` would give."""
        ...

    def wants_key(self) -> bool:
        """Whether the next packet must be a key frame to be of use."""
        ...

    def settle(self, carried: int) -> None:
        """The server took so many packets since `restart`."""
        ...

    def restart(self) -> None:
        """Another courier begins: what it takes first is a key frame."""
        ...

    def clear(self) -> None:
        """Drop all."""
        ...


class Recent:
    """Keeps what happens now: who was away for longer than a few seconds begins with the next key frame."""

    def __init__(self) -> None:
        self.dropped = 0
        self._packets: deque[tuple[VideoPacket, VideoCodecContext]] = deque()
        self._begun = False  # whether the courier got its key frame

    @property
    def waiting(self) -> int:
        """How many packets there are."""
        return len(self._packets)

    def put(self, packet: VideoPacket, stream: VideoCodecContext) -> None:
        """Add a packet of a stream."""
        self._packets.append((packet, stream))
        first, last = self._packets[0][0], self._packets[-1][0]
        if first.pts is None or last.pts is None or first.time_base is None:
            return
        if float((last.pts - first.pts) * first.time_base) > _MOST_SECONDS:
            # Later packets depend on these, so that they are of use only from the next key frame on.
            self.clear()
            self._begun = False

    def take(self) -> VideoPacket | None:
        """The next packet, None where there is none yet."""
        self._skip()
        if not self._packets:
            return None
        self._begun = True
        return self._packets.popleft()[0]

    def following(self) -> VideoCodecContext | None:
        """The stream of the packet that `take` would give."""
        self._skip()
        return self._packets[0][1] if self._packets else None

    def wants_key(self) -> bool:
        """Whether the next packet must be a key frame to be of use."""
        return not self._begun and not any(packet.is_keyframe for packet, _ in self._packets)

    def settle(self, carried: int) -> None:
        """What was taken is gone, whether the server took it or not."""

    def restart(self) -> None:
        """Another courier begins with what happens now."""
        self._begun = False
        self._skip()

    def clear(self) -> None:
        """Drop all."""
        self.dropped += len(self._packets)
        self._packets.clear()

    def _skip(self) -> None:
        while self._packets and not self._begun and not self._packets[0][0].is_keyframe:
            self._packets.popleft()
            self.dropped += 1


@dataclass(slots=True)
class _Group:
    """A key frame and what depends on it.

    Attributes:
        stream: that it belongs to.
        packets: None while they lie in a file.
        count: packets.
        size: bytes.
        chunk: the file in which they lie, and `start`, where.
    """

    stream: VideoCodecContext
    packets: list[VideoPacket] | None = field(default_factory=list)
    count: int = 0
    size: int = 0
    chunk: _Chunk | None = None
    start: int = 0


class _Chunk:
    """A file without a name, which is gone when its last group is."""

    def __init__(self, folder: Path | None) -> None:
        self._file = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115  closed with its last group
        self.length = 0
        self.groups = 0

    def add(self, content: bytes) -> int:
        """Append it; where it begins."""
        start, done = self.length, 0
        try:
            while done < len(content):
                done += os.pwrite(self._file.fileno(), content[done:], start + done)
        except OSError:
            self._close_if_empty()
            raise
        self.length += len(content)
        self.groups += 1
        return start

    def get(self, start: int, length: int) -> bytes:
        """What was appended there."""
        return os.pread(self._file.fileno(), length, start)

    def release(self) -> None:
        """A group of it is not needed any more."""
        self.groups -= 1
        self._close_if_empty()

    def _close_if_empty(self) -> None:
        if not self.groups:
            self._file.close()


class Spool:
    """Keeps everything up to so many bytes; then the oldest groups go.

    A courier takes more than its server does, so that a group stays until the server took all of it. A courier that
    takes the place of another one gets the group again in which that one was lost.

    Args:
        limit: bytes.
        in_memory: bytes of whole groups that are not written to a file.
        folder: of the files, None for where large temporary files go.
    """

    def __init__(self, limit: int, *, in_memory: int = _IN_MEMORY, folder: Path | None = None) -> None:
        self.dropped = 0
        self._limit = limit
        self._in_memory = in_memory
        self._folder = folder or _temporary_folder()
        self._groups: deque[_Group] = deque()
        self._at = 0  # the group that is being taken
        self._taken = 0  # packets of it
        self._carried = 0  # packets that the server took from the courier
        self._gone = 0  # packets that the courier took, of groups that were let go since
        self._size = 0
        self._chunk: _Chunk | None = None
        self._complained = False

    @property
    def waiting(self) -> int:
        """How many packets no server took."""
        return sum(group.count for group in self._groups) - self._settled()

    def put(self, packet: VideoPacket, stream: VideoCodecContext) -> None:
        """Add a packet of a stream. Another stream begins with a key frame."""
        if packet.is_keyframe:
            if self._groups:
                self._store(self._groups[-1])
            self._groups.append(_Group(stream))
        if not self._groups:
            # What it depends on was dropped.
            self.dropped += 1
            return
        last = self._groups[-1]
        cast("list[VideoPacket]", last.packets).append(packet)
        last.count += 1
        last.size += packet.size
        self._size += packet.size
        while self._size > self._limit:
            self._drop()

    def take(self) -> VideoPacket | None:
        """The next packet, None where there is none yet."""
        if self.following() is None:
            return None
        self._taken += 1
        return self._load(self._groups[self._at])[self._taken - 1]

    def following(self) -> VideoCodecContext | None:
        """The stream of the packet that `take` would give."""
        while self._at < len(self._groups) - 1 and self._taken == self._groups[self._at].count:
            self._at, self._taken = self._at + 1, 0
        if self._at == len(self._groups) or self._taken == self._groups[self._at].count:
            return None
        return self._groups[self._at].stream

    def wants_key(self) -> bool:
        """Whether the next packet must be a key frame to be of use."""
        return not self._groups

    def settle(self, carried: int) -> None:
        """The server took so many packets since `restart`: the groups that it has go."""
        self._carried = carried
        while self._at and self._settled() >= self._groups[0].count:
            self._drop()

    def restart(self) -> None:
        """Another courier begins with the group that the last one was at."""
        # What was let go while it was under way did not arrive any more.
        self.dropped += max(0, self._gone - self._carried)
        self._at = self._taken = self._carried = self._gone = 0

    def clear(self) -> None:
        """Drop all."""
        while self._groups:
            self._drop()
        self.restart()

    def _settled(self) -> int:
        """Packets of the groups that are there which the server took."""
        return max(0, self._carried - self._gone)

    def _drop(self) -> None:
        group = self._groups.popleft()
        taken = group.count if self._at else self._taken
        self.dropped += group.count - taken
        self._gone += taken
        if self._at:
            self._at -= 1
        else:
            self._taken = 0
        self._size -= group.size
        if group.chunk is not None:
            group.chunk.release()

    def _store(self, group: _Group) -> None:
        """The group is complete: it goes to a file where memory is full. Without room there, the oldest go."""
        while self._at < len(self._groups) - 1 and self._held() > self._in_memory:
            try:
                self._write(group)
            except OSError as error:
                if not self._complained:
                    _log.warning("cannot spool to a file: %s; less is kept", error.strerror)
                    self._complained = True
                self._drop()
            else:
                return

    def _held(self) -> int:
        """Bytes in memory."""
        return sum(group.size for group in self._groups if group.packets is not None)

    def _write(self, group: _Group) -> None:
        content = b"".join(_written(packet) for packet in cast("list[VideoPacket]", group.packets))
        chunk = self._chunk
        if chunk is None or not chunk.groups or chunk.length >= max(_SMALLEST_FILE, self._limit // _FILES):
            chunk = _Chunk(self._folder)
        group.start = chunk.add(content)
        self._chunk = group.chunk = chunk
        group.packets = None
        self._size += len(content) - group.size
        group.size = len(content)

    def _load(self, group: _Group) -> list[VideoPacket]:
        if group.packets is None:
            content = cast("_Chunk", group.chunk).get(group.start, group.size)
            group.packets = _read(content, group.stream)
            cast("_Chunk", group.chunk).release()
            group.chunk = None
        return group.packets


def _written(packet: VideoPacket) -> bytes:
    content = bytes(packet)
    return HEADER.pack(packet.pts or 0, packet.dts or 0, packet.is_keyframe, len(content)) + content


def _read(content: bytes, stream: VideoCodecContext) -> list[VideoPacket]:
    packets, at = [], 0
    while at < len(content):
        pts, dts, is_key, length = HEADER.unpack_from(content, at)
        at += HEADER.size
        packet = cast("VideoPacket", av.Packet(content[at : at + length]))
        packet.pts, packet.dts, packet.is_keyframe = pts, dts, is_key
        packet.time_base = stream.time_base
        packets.append(packet)
        at += length
    return packets


def _temporary_folder() -> Path | None:
    """Where much may lie: /tmp is often in memory."""
    if "TMPDIR" in os.environ:
        return None
    large = Path("/var/tmp")  # noqa: S108  the file has no name in it
    return large if os.access(large, os.W_OK) else None

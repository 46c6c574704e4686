"""Bytes of a video file that no player shows: a film behind the film, or whatever was put between its parts.

MP4 and MOV are walked box by box (ISO/IEC 14496-12, section 4.2); of Matroska, WebM and AVI the sizes are compared. In
MPEG transport streams stuffing is usual, so that nothing can be told from sizes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from av.container import InputContainer

#: Bytes that nobody asks about: comments of muxers, room that was kept for an index.
_ALLOWED: Final = 2**16
#: Further ones: of the media, by packet and by fragment, as headers and indices take them.
_SHARE, _BY_PACKET, _BY_FRAGMENT = 0.01, 64, 512
#: A text of a muxer in a box that may hold anything.
_NOTE: Final = 2**10
_MEDIA, _FRAGMENT = b"mdat", b"moof"
_INDEX: Final = frozenset({b"moov", _FRAGMENT, b"mfra", b"sidx", b"ssix"})
#: Boxes of a file's outermost level whose content FFmpeg reads, or that hold a few numbers.
_SHORT: Final = frozenset({b"ftyp", b"styp", b"wide", b"pdin", b"prft"})
_CHUNK: Final = 2**20


def unread(path: Path, container: InputContainer) -> Iterator[str]:
    """What a video file holds beside what is in its streams; for people.

    Args:
        path: of the file.
        container: the same, open; it is read to its end.
    """
    names = container.format.name.split(",")
    if not {"mp4", "matroska", "avi"} & set(names):
        return
    sizes = [packet.size for packet in container.demux()]
    taken, count = sum(sizes), len(sizes)
    if "mp4" in names:
        yield from _in_boxes(path, taken, count)
        return
    loose = path.stat().st_size - taken
    if loose > _ALLOWED + _SHARE * taken + _BY_PACKET * count:
        yield f"{loose} bytes that belong to no stream"


def _in_boxes(path: Path, taken: int, count: int) -> Iterator[str]:
    seen: Counter[bytes] = Counter()
    sizes: Counter[bytes] = Counter()
    with path.open("rb") as file:
        end = path.stat().st_size
        for kind, at, size in _boxes(file, end):
            seen[kind] += 1
            sizes[kind] += size
            if kind in (_MEDIA, *_INDEX, *_SHORT):
                continue
            if (held := _held(file, at, size)) > (_NOTE if kind else 0):
                yield f"{held} bytes in a box {kind.decode('latin-1')!r}" if kind else f"{held} bytes behind its end"
    if seen[b"ftyp"] > 1 or seen[b"moov"] > 1:
        yield "a second film in the file"
    if (loose := sizes[_MEDIA] - taken) > _ALLOWED + _SHARE * taken:
        yield f"{loose} bytes of media that belong to no stream"
    index = sum(sizes[kind] for kind in _INDEX)
    if index > _ALLOWED + _BY_PACKET * count + _BY_FRAGMENT * seen[_FRAGMENT]:
        yield f"{index} bytes of an index for {count} packets"


def _boxes(file: BinaryIO, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The outermost boxes: kind, place and size of the content; what is no box any more has no kind."""
    at = 0
    while at < end:
        file.seek(at)
        header = file.read(16)
        size, kind, head = int.from_bytes(header[:4], "big"), header[4:8], 8
        if size == 1:
            size, head = int.from_bytes(header[8:16], "big"), 16
        elif size == 0:
            size = end - at
        # The last one of a recording that was cut off is shorter than it says.
        cut = at + size > end and kind not in (_MEDIA, _FRAGMENT)
        if len(header) < head or size < head or cut or not kind.isascii():
            yield b"", at, end - at
            return
        size = min(size, end - at)
        yield kind, at + head, size - head
        at += size


def _held(file: BinaryIO, at: int, size: int) -> int:
    """How many bytes of a part are not zero."""
    file.seek(at)
    held = 0
    while size > 0 and (content := file.read(min(size, _CHUNK))):
        held += len(content) - content.count(0)
        size -= len(content)
    return held

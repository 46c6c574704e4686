"""Fragments: how much of a recording that was cut off anywhere can still be played.

Fragmented MP4 is a head (`ftyp`, `moov`) and then pairs of `moof` and `mdat`; Matroska is a head and then clusters.
Each says how long it is, so that whole ones are told from a torn tail without decoding anything.
"""

from __future__ import annotations

import os
import struct
from typing import Final

_EBML: Final = 0x1A45DFA3
_SEGMENT: Final = 0x18538067
_CLUSTER: Final = 0x1F43B675
#: What stands behind the clusters of a finished file: cues and tags.
_BEHIND: Final = (0x1C53BB6B, 0x1254C367)


def whole_length(descriptor: int) -> int:
    """Bytes up to the end of the last whole fragment, 0 where there is none.

    Args:
        descriptor: of a file that can be read, MP4 or Matroska as `stream.sinks.recorder` writes them.
    """
    size = os.fstat(descriptor).st_size
    if os.pread(descriptor, 4, 0) == _EBML.to_bytes(4, "big"):
        return _matroska(descriptor, size)
    return _mp4(descriptor, size)


def _mp4(descriptor: int, size: int) -> int:
    at, whole = 0, 0
    seen: set[bytes] = set()
    while (box := _box(descriptor, at, size)) is not None:
        kind, at = box
        seen.add(kind)
        if kind in (b"mdat", b"mfra") and {b"moov", b"moof"} <= seen:
            whole = at
    return whole


def _box(descriptor: int, at: int, size: int) -> tuple[bytes, int] | None:
    """The kind of the box at a place, and where it ends; None where it is not all there."""
    head = os.pread(descriptor, 16, at)
    if len(head) < 8:
        return None
    length, kind = struct.unpack(">I4s", head[:8])
    if length == 1 and len(head) == 16:
        (length,) = struct.unpack(">Q", head[8:])
    return (kind, at + length) if 8 <= length <= size - at else None


def _matroska(descriptor: int, size: int) -> int:
    header = _element(descriptor, 0)
    if header is None or header[2] is None:
        return 0
    segment = _element(descriptor, header[2])
    if segment is None or segment[0] != _SEGMENT:
        return 0
    # While it is written, the segment does not say how long it is: its children do.
    at, whole = segment[1], 0
    while (element := _element(descriptor, at)) is not None:
        name, _, end = element
        if end is None or end > size:
            break
        at = end
        if name == _CLUSTER or (whole and name in _BEHIND):
            whole = end
    return whole


def _element(descriptor: int, at: int) -> tuple[int, int, int | None] | None:
    """An element's name, where its content begins, and where it ends (None if it does not say)."""
    head = os.pread(descriptor, 12, at)
    name_length = _vint_length(head, 0, longest=4)
    if name_length is None:
        return None
    length = _vint_length(head, name_length, longest=8)
    if length is None or len(head) < name_length + length:
        return None
    bits = 7 * length
    value = int.from_bytes(head[name_length : name_length + length], "big") & ((1 << bits) - 1)
    begin = at + name_length + length
    return int.from_bytes(head[:name_length], "big"), begin, None if value == (1 << bits) - 1 else begin + value


def _vint_length(head: bytes, at: int, *, longest: int) -> int | None:
    """Bytes of a number of variable length: as many as there are leading zeros in its first byte, and one."""
    if at >= len(head):
        return None
    length = 9 - head[at].bit_length()
    return length if length <= longest else None

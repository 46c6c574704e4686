"""Decoder: packets to pictures, and for every picture whether it can be trusted.

Decoders conceal what they cannot read, and every picture that is predicted from a wrong one is wrong too, without any
mark. A detector that looks at such a picture may miss a person who is still to be seen in it. So after an error nothing
counts as healthy until a key frame that was sent after it.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import av
import av.error
from av.packet import Packet
from av.video.stream import VideoStream

_log = logging.getLogger(__name__)

#: Decoders that give exactly one picture for every packet, so that a missing one is an error even if none is raised.
_ONE_EACH = {"vp9", "libdav1d", "av1", "ffv1", "mpeg1video", "mpeg2video"}
#: No codec holds more pictures back than this; H.264 and HEVC come nearest.
_DEEPEST_REORDERING = 16
_MEMORY = 256
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))

FAILED = "decoding failed"
CONCEALED = "the decoder calls the picture damaged"
DEPENDENT = "an earlier picture that this one may depend on is damaged"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that came out of the decoder.

    Attributes:
        frame: as decoded.
        damaged: why it must not be trusted, None if it may.
    """

    frame: av.VideoFrame
    damaged: str | None

    @property
    def pts(self) -> int | None:
        """Presentation time in units of the stream's time base."""
        return self.frame.pts

    @property
    def duration(self) -> int:
        """In the same unit, 0 where unknown."""
        return self.frame.duration or 0


@dataclass(frozen=True, slots=True)
class Lost:
    """A picture that should have come out and did not, or that cannot be trusted.

    Attributes:
        pts: presentation time in units of the stream's time base, None where the stream has none.
        duration: in the same unit, 0 where unknown.
        damaged: why.
    """

    pts: int | None
    duration: int
    damaged: str = FAILED


class Decoder:
    """Decodes one stream from one point on.

    Args:
        stream: freshly opened or sought.
        strict: whether the codec reports whatever it could conceal. Some cameras write streams that break the rules in
            harmless places, which a strict decoder refuses from there on.
    """

    def __init__(self, stream: VideoStream, *, strict: bool = True) -> None:
        context = stream.codec_context
        if not context.is_open:
            if strict:
                context.options = {**context.options, "err_detect": "crccheck+explode"}
            # With frame threads errors belong to no certain packet, and H.264's decoder may even hang after one; its
            # slice threads switch its own error marks off.
            context.thread_type = "SLICE"
            if context.name == "h264":
                context.thread_count = 1
        self._stream = stream
        self._codec = context.name
        self._has_sums = False
        #: By number of the packet: time stamp and duration of pictures that were sent and did not come out yet.
        self._expected: dict[int, tuple[int, int]] = {}
        self._reasons: dict[int, str] = {}
        #: By time stamp: the numbers of the last packets.
        self._numbers: dict[int, int] = {}
        #: Whether packets have time stamps; they do, except in raw streams.
        self._timed = False
        self._sent = -1
        #: Number of the packet up to which the stream is broken: key frames that were sent later end that.
        self._broken: int | None = None
        #: Pictures before this time were displayed before a key frame, but sent after it, and one of them failed.
        self._leading_until: int | None = None
        self._key_pts: int | None = None
        self._first_key_pts: int | None = None

    def pictures(self, packets: Iterable[Packet[VideoStream]]) -> Iterator[Picture | Lost]:
        """Pictures in order of presentation.

        Args:
            packets: of the stream, the empty one at its end included.
        """
        for packet in packets:
            if not packet.size and (packet.pts is not None or packet.dts is not None):
                # "Nothing new" in AVI; to the decoder it would be the end of the stream.
                continue
            for frame in self._decode(packet):
                yield from self._take(frame)
            if self._broken is not None and packet.dts is not None:
                # No later packet is shown before its own time for decoding.
                yield from self._give_up(before=packet.dts)
        if self._broken is not None or self._leading_until is not None:
            yield from self._give_up(before=None)

    def _take(self, frame: av.VideoFrame) -> Iterator[Picture | Lost]:
        number = self._number(frame)
        own = {key for key, (time, _) in self._expected.items() if time == frame.pts}
        overdue = {key for key, (time, _) in self._expected.items() if frame.pts is not None and time < frame.pts} - own
        if overdue and self._broken is None and self._codec in _ONE_EACH:
            self._broken = max(overdue)
        troubled = self._broken is not None or self._leading_until is not None
        damage = self._damage(frame, number)
        if damage is not None and self._timed and frame.pts is not None:
            self._reasons.update(dict.fromkeys(own, damage))
            # After an error decoders may give pictures in a wrong order; their packets know the right one.
            return
        if troubled and damage is None:
            yield from self._give_up(before=frame.pts, but=own)
        elif not troubled:
            # Without an error, a packet without a picture is how the stream is made (second fields, hidden pictures).
            for key in overdue:
                del self._expected[key]
        for key in own:
            del self._expected[key]
        yield Picture(frame, damage)

    def _give_up(self, *, before: int | None, but: Collection[int] = ()) -> Iterator[Lost]:
        """What should have come out before this time and did not, or not as it should."""
        late = sorted(
            (time, duration, key)
            for key, (time, duration) in self._expected.items()
            if key not in but and (before is None or time < before)
        )
        for time, duration, key in late:
            del self._expected[key]
            yield Lost(time, duration, self._reasons.pop(key, FAILED))

    def _number(self, frame: av.VideoFrame) -> int | None:
        """Of the packet that a frame came from, not more than that where it cannot be known, None if nothing is known.

        PyAV's own way to know this (`opaque`) finds objects by their address, and may free them on a decoder's thread.
        """
        if frame.pts is not None:
            return self._numbers.get(frame.pts)
        return None if self._timed else self._sent - _DEEPEST_REORDERING

    def _decode(self, packet: Packet[VideoStream]) -> list[av.VideoFrame]:
        if packet.size:
            self._note(packet)
        try:
            return self._stream.decode(packet)
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            # A line for the first of a broken stretch, and not one for every packet of it.
            known = self._broken is not None or self._leading_until is not None
            _log.log(logging.DEBUG if known else logging.INFO, "a packet cannot be decoded: %s", error.strerror)
            if self._key_pts is not None and packet.pts is not None and packet.pts < self._key_pts:
                # No later picture depends on those that are shown before their key frame.
                self._leading_until = self._key_pts
            else:
                self._broken = self._sent
            return []

    def _note(self, packet: Packet[VideoStream]) -> None:
        self._sent += 1
        if packet.pts is not None:
            # Of two packets with one time stamp the earlier counts: a key frame ends less then.
            self._numbers.setdefault(packet.pts, self._sent)
            if len(self._numbers) > _MEMORY:
                del self._numbers[next(iter(self._numbers))]
        if packet.is_keyframe and packet.pts is not None:
            self._key_pts = packet.pts
            if self._sent == 0:
                self._first_key_pts = packet.pts
        if packet.is_corrupt or (self._codec == "ffv1" and not self._sums_match(bytes(packet))):
            self._broken = self._sent
        # What is shown before the very first key frame depends on pictures that are not in the file.
        leading = self._first_key_pts is not None and packet.pts is not None and packet.pts < self._first_key_pts
        self._timed |= packet.pts is not None
        if packet.pts is not None and not packet.is_discard and not leading:
            self._expected[self._sent] = (packet.pts, packet.duration or 0)

    def _sums_match(self, content: bytes) -> bool:
        """FFV1's decoder replaces slices with a wrong check sum by those of the picture before, without any mark."""
        whole = ffv1_sums_match(content)
        self._has_sums |= whole
        return whole or not self._has_sums

    def _damage(self, frame: av.VideoFrame, number: int | None) -> str | None:
        if frame.is_corrupt:
            self._broken = max(self._broken or 0, self._sent if number is None else number)
            return CONCEALED
        if self._broken is not None:
            if not (frame.key_frame and number is not None and number > self._broken):
                return DEPENDENT
            self._broken = None
        if self._leading_until is not None:
            if frame.pts is None or frame.pts < self._leading_until:
                return DEPENDENT
            self._leading_until = None
        return None


def ffv1_sums_match(content: bytes) -> bool:
    """Whether a packet is made of slices with a right check sum each (RFC 9043, 4.9: size, status, CRC-32).

    Args:
        content: of the packet.
    """
    end = len(content)
    while end >= 8:
        begin = end - 8 - int.from_bytes(content[end - 8 : end - 5], "big")
        # zlib's CRC-32 takes bits the other way round and begins and ends with ones; this one does neither.
        if begin < 0 or content[end - 5] or zlib.crc32(content[begin:end].translate(_REVERSED), 2**32 - 1) != 2**32 - 1:
            return False
        end = begin
    return end == 0 and bool(content)

"""Connections: what a live source reads through, whoever decodes; and the one that PyAV makes, with time-outs."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from engines.errors import SourceError
from stream.address import Address, Place, redacted
from stream.config import DecoderDevice
from stream.sources.base import StreamInfo
from stream.sources.decoder import Decoder, Lost, Picture
from stream.sources.describe import describe, main_video, orientation_of
from stream.sources.hardware import accelerated, check_accelerated, hint
from stream.sources.real_time import Due
from stream.tls import REFUSED_PLAYLIST, check_source, may_be_playlist, tls_options

#: Schemes of what may be a recording that waits.
_DOWNLOADED: Final = ("http", "https")
#: What a download may lead to: no file of this machine, and nothing that is no download.
_PROTOCOLS: Final = "http,https,tcp,tls,httpproxy,crypto"
#: FFmpeg's formats that name further addresses.
_PLAYLISTS: Final = {"hls", "applehttp", "dash", "webm_dash_manifest", "concat", "imf", "sdp", "rtsp", "rtp"}
#: Those of them that come in pieces, each at once.
_PIECES: Final = {"hls", "applehttp", "dash"}
_NAMES_OF_PLAYLISTS: Final = (".m3u8", ".m3u", ".mpd")
#: Seconds of silence between two pieces that mean nothing; few last longer than ten.
_BETWEEN_PIECES: Final = 30.0
#: A new connection begins some pieces back: what lies so many seconds before the last picture was shown before it.
_SHOWN_BEFORE: Final = 60.0
#: Where pieces have gone before they were read, time leaps: by more than so many seconds, and so many usual steps.
_LEAP: Final = 1.0
_LEAP_STEPS: Final = 5
#: FFmpeg's formats without time stamps. It makes some up, of a rate that it makes up, too.
_WITHOUT_CLOCK: Final = {
    "mpjpeg", "mjpeg", "mjpeg_2000", "jpeg_pipe", "h264", "hevc", "vvc", "av1", "obu", "m4v", "mpegvideo"
}  # fmt: skip
#: Microseconds of a stream that are looked at before its first picture; FFmpeg's own 5 s would be 5 s of delay.
_ANALYSE: Final = 1_000_000
#: What PyAV's time-outs mean.
_NO_ANSWER: Final = "no answer in time"
#: Packets whose arrival is remembered until their pictures come out of the decoder.
_MEMORY: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """How a live address is talked to.

    Attributes:
        connect_timeout: seconds until a connection must stand.
        read_timeout: seconds until the next packet of the video must come; live playlists get more, since they come
            in pieces.
        rtsp_transport: `tcp` or `udp`.
        insecure: take any certificate.
    """

    connect_timeout: float = 5.0
    read_timeout: float = 5.0
    rtsp_transport: str = "tcp"
    insecure: bool = False


@dataclass(slots=True)
class Progress:
    """How far a live playlist was shown, over all connections.

    Attributes:
        at: time of its last picture in seconds by its own clock, None before the first.
    """

    at: float | None = None

    def has(self, at: float) -> bool:
        """Whether the picture of this time was shown. A clock that begins anew is hardly that near to the last one."""
        return self.at is not None and self.at - _SHOWN_BEFORE < at <= self.at


class Connection(Protocol):
    """One connection to a live source. Used by one thread."""

    @property
    def ends(self) -> bool:
        """Whether it is a recording, whose end is no loss; known with the first picture."""
        ...

    @property
    def waits(self) -> bool:
        """Whether nothing is lost if nobody takes pictures for a while; known with the first picture."""
        ...

    def pictures(self, *, strict: bool, beat: Callable[[], None] = lambda: None) -> Iterator[Picture | Lost]:
        """Pictures in order of presentation, from the first key frame on.

        Args:
            strict: whether pictures count as damaged where the decoder could conceal the damage.
            beat: called whenever something came, were it no picture yet.

        Raises:
            SourceError: nothing came in time, or the connection broke.
        """
        ...

    def shape(self, picture: Picture) -> Hashable:
        """How a picture that has just come lies and is measured: where that changes, it is described again."""
        ...

    def describe(self, picture: Picture) -> StreamInfo:
        """The stream of a picture that has just come."""
        ...

    def arrived(self, item: Picture | Lost) -> float | None:
        """When the packet of a picture that has just come arrived, in monotonic seconds; None where that is now."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


class Bytes(Protocol):
    """A stream that somebody else fetches."""

    @property
    def error(self) -> SourceError | None:
        """Why it has ended, None if it simply has."""
        ...

    def read(self, size: int) -> bytes:
        """Some bytes, at most so many; none at the end. Raises nothing."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


class AvConnection:
    """A connection that PyAV makes. Used by one thread.

    Args:
        address: of a network source or a camera.
        peer: how to talk to it.
        fetched: an MPEG transport stream from there that is fetched already; closed with the connection.
        wanted: number or title of the video stream to take, None for the main one.
        decoder: where it is decoded.
        progress: of the connections before, where it is a live playlist; it is continued.

    Raises:
        UsageError: the wanted stream is not there, or it is a playlist behind TLS.
        SourceError: it cannot be reached, or sends no video that can be decoded here.
    """

    def __init__(
        self,
        address: Address,
        peer: Peer,
        fetched: Bytes | None = None,
        *,
        wanted: str | None = None,
        decoder: DecoderDevice = "cpu",
        progress: Progress | None = None,
    ) -> None:
        self._address = address
        self._progress = progress or Progress()
        self._fetched = fetched
        patient = replace(peer, read_timeout=max(peer.read_timeout, _BETWEEN_PIECES))
        named = urlsplit(address.text).path.lower().endswith(_NAMES_OF_PLAYLISTS)
        self._patience = patient.read_timeout if named else peer.read_timeout
        #: By time stamp, of the last packets.
        self._arrived: dict[int, float] = {}
        self._came: float | None = None
        try:
            self._container = _opened(address, patient if named else peer, fetched, decoder)
            if self._in_pieces and self._patience < patient.read_timeout:
                # PyAV's time-outs are set when a container is opened, and only now it is known what it is.
                self._container.close()
                self._patience = patient.read_timeout
                self._container = _opened(address, patient, None, decoder)
        except BaseException:
            if fetched is not None:
                fetched.close()
            raise
        try:
            self._stream: VideoStream = main_video(self._container, str(address), wanted)
            check_accelerated(self._stream, decoder, str(address))
        except BaseException:
            self.close()
            raise
        self._coded_aspect = self._stream.codec_context.sample_aspect_ratio or None

    @property
    def ends(self) -> bool:
        """Whether it is a recording, whose end is no loss: one that says how long it is."""
        return bool(self._container.duration)

    @property
    def waits(self) -> bool:
        """Whether nothing is lost if nobody takes pictures for a while: a recording that is downloaded."""
        return self.ends and self._address.scheme in _DOWNLOADED

    def pictures(self, *, strict: bool, beat: Callable[[], None] = lambda: None) -> Iterator[Picture | Lost]:
        """Pictures in order of presentation, from the first key frame on: of a live playlist each when it is due.

        Args:
            strict: whether pictures count as damaged where the decoder could conceal the damage.
            beat: called whenever something came, were it no picture yet.

        Raises:
            SourceError: nothing came in time, or the connection broke.
        """
        items = Decoder(self._stream, strict=strict).pictures(self._packets(beat))
        if self._in_pieces:
            # Packets lie there since their piece came: what is counted from is the time at which a picture is due.
            yield from self._due(items)
            return
        clockless = not self.ends and bool(self._formats & _WITHOUT_CLOCK)
        for item in items:
            self._came = None if item.pts is None else self._arrived.get(item.pts)
            yield _without_stamp(item) if clockless else item

    def shape(self, picture: Picture) -> Hashable:
        """Size, orientation and pixel aspect of a picture that has just come."""
        frame = picture.frame
        return frame.width, frame.height, orientation_of(frame), self._stream.codec_context.sample_aspect_ratio

    def describe(self, picture: Picture) -> StreamInfo:
        """The stream of a picture that has just come."""
        info = describe(
            str(self._address), self._container, self._stream, picture.frame, picture.pts or 0, (None, None)
        )
        # What a container says holds for all of it, and what the codec said for as long as it did.
        aspect = self._stream.codec_context.sample_aspect_ratio
        return replace(info, pixel_aspect=aspect or None) if info.pixel_aspect == self._coded_aspect else info

    def arrived(self, item: Picture | Lost) -> float | None:
        """When the packet of a picture that has just come arrived, in monotonic seconds; None where that is now."""
        del item
        return self._came

    def close(self) -> None:
        """Hang up."""
        self._container.close()
        if self._fetched is not None:
            self._fetched.close()

    @property
    def _formats(self) -> set[str]:
        """FFmpeg's names of what comes."""
        return set(self._container.format.name.split(","))

    @property
    def _in_pieces(self) -> bool:
        """Whether it is a live playlist: its pieces come as fast as the network is, and then nothing for a while."""
        return not self.ends and bool(self._formats & _PIECES)

    def _packets(self, beat: Callable[[], None]) -> Iterator[Packet[VideoStream]]:
        """Packets from the first key frame on: pictures before it depend on some that never came."""
        begun, since = False, time.monotonic()
        # Of all streams: PyAV's time-out begins anew with each packet of any, so that sound would hide lost video.
        packets = self._container.demux()
        while True:
            asked = time.monotonic()
            try:
                packet = next(packets)
            except StopIteration:
                if self._fetched is not None and self._fetched.error is not None:
                    raise self._fetched.error from None
                return
            except (av.error.FFmpegError, OSError) as error:
                raise SourceError(f"{self._address} cannot be read any further: {_reason(error)}") from error
            if (lost := self._lost(time.monotonic() - asked)) is not None:
                raise lost
            beat()
            if packet.stream.index != self._stream.index:
                # A recording's sound may be longer, and is read at once.
                if not self.ends and time.monotonic() - since > self._patience:
                    raise SourceError(f"{self._address} cannot be read any further: no video came in time")
                continue
            video = cast("Packet[VideoStream]", packet)
            begun = begun or video.is_keyframe or not video.size
            if begun:
                self._note(video)
                yield video
            # Whoever takes pictures may have been busy: waiting begins now.
            since = time.monotonic()

    def _lost(self, seconds: float) -> SourceError | None:
        """Why there is no connection any more though a packet came: demuxers give what they held back when it is lost.

        Args:
            seconds: that the packet took.
        """
        if self._fetched is not None:
            return self._fetched.error
        if self._address.place is Place.NETWORK and seconds >= self._patience:
            return SourceError(f"{self._address} cannot be read any further: {_NO_ANSWER}")
        return None

    def _due(self, items: Iterator[Picture | Lost]) -> Iterator[Picture | Lost]:
        """Pictures that were not shown before, each when it is due."""
        rate = max(1.0, float(self._stream.average_rate or 25))
        due, begun = Due(leap=max(_LEAP, _LEAP_STEPS / rate)), False
        for item in items:
            if item.pts is not None and self._stream.time_base is not None:
                at = float(item.pts * self._stream.time_base)
                # Later on, a clock that goes back is one that was set.
                if not begun and self._progress.has(at):
                    continue
                begun, self._progress.at = True, at
                time.sleep(max(0.0, due.early(at)))
            yield item

    def _note(self, packet: Packet[VideoStream]) -> None:
        if packet.pts is not None:
            self._arrived[packet.pts] = time.monotonic()
            while len(self._arrived) > _MEMORY:
                del self._arrived[next(iter(self._arrived))]


def _without_stamp(item: Picture | Lost) -> Picture | Lost:
    """A picture whose stamp was made up."""
    if isinstance(item, Lost):
        return replace(item, pts=None)
    item.frame.pts = None
    return item


def _opened(address: Address, peer: Peer, fetched: Bytes | None, decoder: DecoderDevice) -> InputContainer:
    options, acceleration = _options(address, peer), accelerated(decoder)
    if fetched is None:
        check_source(address, peer.insecure)
    try:
        if fetched is not None:
            return av.open(
                fetched, "r", format="mpegts", options=options, metadata_errors="replace", hwaccel=acceleration
            )
        return av.open(
            address.text,
            "r",
            format="video4linux2" if address.place is Place.DEVICE else None,
            options=options,
            timeout=(peer.connect_timeout, peer.read_timeout),
            metadata_errors="replace",
            hwaccel=acceleration,
        )
    except (av.error.FFmpegError, ValueError, OSError) as error:
        if fetched is not None and fetched.error is not None:
            raise fetched.error from error
        refused = "format_whitelist" in options and getattr(error, "errno", None) == errno.EINVAL
        also = f"; it may be a playlist: {REFUSED_PLAYLIST}" if refused else ""
        raise SourceError(f"{address} cannot be opened: {_reason(error)}{also}") from error
    except RuntimeError as error:
        # PyAV's own, of decoders; FFmpeg's, some of which are such errors too, came first.
        raise SourceError(f"{address} cannot be opened: {_reason(error)}{hint(decoder)}") from error


def _options(address: Address, peer: Peer) -> dict[str, str]:
    options: dict[str, str] = {}
    if address.place is Place.NETWORK:
        options |= {"analyzeduration": str(_ANALYSE), "fflags": "nobuffer"}
    if address.scheme in {"rtsp", "rtsps"}:
        options["rtsp_transport"] = peer.rtsp_transport
    if address.scheme in _DOWNLOADED:
        options["protocol_whitelist"] = _PROTOCOLS
    if may_be_playlist(address, peer.insecure):
        # A server can send a playlist under any name.
        names = {name for names in av.formats_available for name in names.split(",")}
        options["format_whitelist"] = ",".join(sorted(names - _PLAYLISTS))
    return options | tls_options(address, peer.insecure)


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.ExitError):
        return _NO_ANSWER
    return redacted(str(getattr(error, "strerror", None) or error))

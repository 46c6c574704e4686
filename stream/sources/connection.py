"""Connections: what a live source reads through, whoever decodes; and the one that PyAV makes, with time-outs."""

from __future__ import annotations

import errno
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Protocol

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from engines.errors import SourceError
from stream.address import Address, Place, redacted
from stream.sources.base import StreamInfo
from stream.sources.decoder import Decoder, Lost, Picture
from stream.sources.describe import describe, main_video, orientation_of
from stream.tls import REFUSED_PLAYLIST, check_source, may_be_playlist, tls_options

#: Schemes of what may be a recording that waits.
_DOWNLOADED: Final = ("http", "https")
#: What a download may lead to: no file of this machine, and nothing that is no download.
_PROTOCOLS: Final = "http,https,tcp,tls,httpproxy,crypto"
#: FFmpeg's formats that name further addresses.
_PLAYLISTS: Final = {"hls", "applehttp", "dash", "webm_dash_manifest", "concat", "imf", "sdp", "rtsp", "rtp"}
#: Microseconds of a stream that are looked at before its first picture; FFmpeg's own 5 s would be 5 s of delay.
_ANALYSE: Final = 1_000_000
#: Packets whose arrival is remembered until their pictures come out of the decoder.
_MEMORY: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """How a live address is talked to.

    Attributes:
        connect_timeout: seconds until a connection must stand.
        read_timeout: seconds until the next packet must come.
        rtsp_transport: `tcp` or `udp`.
        insecure: take any certificate.
    """

    connect_timeout: float = 5.0
    read_timeout: float = 5.0
    rtsp_transport: str = "tcp"
    insecure: bool = False


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

    def pictures(self, *, strict: bool) -> Iterator[Picture | Lost]:
        """Pictures in order of presentation, from the first key frame on.

        Args:
            strict: whether pictures count as damaged where the decoder could conceal the damage.

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
        """When the packet of a picture that has just come arrived, in monotonic seconds; None where nobody knows."""
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

    Raises:
        UsageError: the wanted stream is not there, or it is a playlist behind TLS.
        SourceError: it cannot be reached, or sends no video that can be decoded here.
    """

    def __init__(
        self, address: Address, peer: Peer, fetched: Bytes | None = None, *, wanted: str | None = None
    ) -> None:
        self._address = address
        self._fetched = fetched
        #: By time stamp, of the last packets.
        self._arrived: dict[int, float] = {}
        try:
            self._container = _opened(address, peer, fetched)
        except BaseException:
            if fetched is not None:
                fetched.close()
            raise
        try:
            self._stream: VideoStream = main_video(self._container, str(address), wanted)
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

    def pictures(self, *, strict: bool) -> Iterator[Picture | Lost]:
        """Pictures in order of presentation, from the first key frame on.

        Args:
            strict: whether pictures count as damaged where the decoder could conceal the damage.

        Raises:
            SourceError: nothing came in time, or the connection broke.
        """
        yield from Decoder(self._stream, strict=strict).pictures(self._packets())

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
        """When the packet of a picture that has just come arrived, in monotonic seconds."""
        return None if item.pts is None else self._arrived.get(item.pts)

    def close(self) -> None:
        """Hang up."""
        self._container.close()
        if self._fetched is not None:
            self._fetched.close()

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """Packets from the first key frame on: pictures before it depend on some that never came."""
        begun = False
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                if self._fetched is not None and self._fetched.error is not None:
                    raise self._fetched.error from None
                return
            except (av.error.FFmpegError, OSError) as error:
                raise SourceError(f"{self._address} cannot be read any further: {_reason(error)}") from error
            begun = begun or packet.is_keyframe or not packet.size
            if begun:
                self._note(packet)
                yield packet

    def _note(self, packet: Packet[VideoStream]) -> None:
        if packet.pts is not None:
            self._arrived[packet.pts] = time.monotonic()
            while len(self._arrived) > _MEMORY:
                del self._arrived[next(iter(self._arrived))]


def _opened(address: Address, peer: Peer, fetched: Bytes | None) -> InputContainer:
    options = _options(address, peer)
    if fetched is None:
        check_source(address, peer.insecure)
    try:
        if fetched is not None:
            return av.open(fetched, "r", format="mpegts", options=options, metadata_errors="replace")
        return av.open(
            address.text,
            "r",
            format="video4linux2" if address.place is Place.DEVICE else None,
            options=options,
            timeout=(peer.connect_timeout, peer.read_timeout),
            metadata_errors="replace",
        )
    except (av.error.FFmpegError, ValueError, OSError) as error:
        if fetched is not None and fetched.error is not None:
            raise fetched.error from error
        refused = "format_whitelist" in options and getattr(error, "errno", None) == errno.EINVAL
        also = f"; it may be a playlist: {REFUSED_PLAYLIST}" if refused else ""
        raise SourceError(f"{address} cannot be opened: {_reason(error)}{also}") from error


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
        # What PyAV's time-outs raise.
        return "no answer in time"
    return redacted(str(getattr(error, "strerror", None) or error))

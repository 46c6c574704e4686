"""Connections: a live address opened through PyAV, with time-outs, and its packets from the first key frame on."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from engines.errors import SourceError
from stream.address import Address, Place, redacted
from stream.sources.describe import main_video

#: Microseconds of a stream that are looked at before its first picture; FFmpeg's own 5 s would be 5 s of delay.
_ANALYSE: Final = 1_000_000


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


class Connection:
    """One connection to a live source. Used by one thread.

    Args:
        address: of a network source or a camera.
        peer: how to talk to it.

    Raises:
        SourceError: it cannot be reached, or sends no video that can be decoded here.
    """

    def __init__(self, address: Address, peer: Peer) -> None:
        self._address = address
        try:
            self.container: InputContainer = av.open(
                address.text,
                format="video4linux2" if address.place is Place.DEVICE else None,
                options=_options(address, peer),
                timeout=(peer.connect_timeout, peer.read_timeout),
                metadata_errors="replace",
            )
        except (av.error.FFmpegError, ValueError, OSError) as error:
            raise SourceError(f"{address} cannot be opened: {_reason(error)}") from error
        try:
            self.stream: VideoStream = main_video(self.container, str(address))
        except BaseException:
            self.container.close()
            raise

    @property
    def ends(self) -> bool:
        """Whether it is a recording, whose end is no loss: one that says how long it is."""
        return bool(self.container.duration)

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """Packets from the first key frame on: pictures before it depend on some that never came.

        Raises:
            SourceError: nothing came in time, or the connection broke.
        """
        begun = False
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError) as error:
                raise SourceError(f"{self._address} cannot be read any further: {_reason(error)}") from error
            begun = begun or packet.is_keyframe or not packet.size
            if begun:
                yield packet

    def close(self) -> None:
        """Hang up."""
        self.container.close()


def _options(address: Address, peer: Peer) -> dict[str, str]:
    options: dict[str, str] = {}
    if address.place is Place.NETWORK:
        options |= {"analyzeduration": str(_ANALYSE), "fflags": "nobuffer"}
    if address.scheme in {"rtsp", "rtsps"}:
        options["rtsp_transport"] = peer.rtsp_transport
    if address.secure:
        # FFmpeg takes any certificate unless it is told otherwise.
        options["tls_verify"] = "0" if peer.insecure else "1"
        if authorities := ssl.get_default_verify_paths().cafile:
            options["ca_file"] = authorities
    return options


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.ExitError):
        # What PyAV's time-outs raise.
        return "no answer in time"
    return redacted(str(getattr(error, "strerror", None) or error))

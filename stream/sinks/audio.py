"""Audio: copies the input's sound beside the anonymized pictures, only where it was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

from engines.errors import SinkError, UsageError
from stream.sources.base import file_url

#: FFmpeg writes any codec into a transport stream, but only these are found again.
_IN_TRANSPORT_STREAMS = {"aac", "aac_latm", "ac3", "eac3", "dts", "mp2", "mp3", "opus", "truehd"}


class AudioCopy:
    """Packets of the first audio stream of a file, copied without decoding, up to where the pictures are.

    Args:
        path: of the input.
        output: to which the stream is added.
        start: seconds of the input's clock at which the pictures begin.
        shift: seconds that time stamps move back by (what was cut off at the start).

    Raises:
        UsageError: the output's container does not take this kind of audio.
    """

    def __init__(
        self, path: Path, output: OutputContainer, *, start: Fraction = Fraction(0), shift: Fraction = Fraction(0)
    ) -> None:
        self._input = av.open(file_url(path), metadata_errors="replace")
        self._output = output
        self._start = start
        self._shift = shift
        self._next: Packet[AudioStream] | None = None
        streams = self._input.streams.audio
        self._stream: AudioStream | None = streams[0] if streams else None
        if self._stream is None:
            return
        context = self._stream.codec_context
        codec = "this kind of" if context is None else context.codec.canonical_name
        try:
            if context is None or (output.format.name == "mpegts" and codec not in _IN_TRANSPORT_STREAMS):
                raise ValueError("it would become a stream of unknown data")
            self._copy = output.add_stream_from_template(self._stream)
        except (av.error.FFmpegError, ValueError) as error:
            self._input.close()
            raise UsageError(
                f"this output cannot hold {codec} audio: choose another ending, for example .mkv, or --audio drop"
            ) from error
        self._packets = self._wanted()

    def write_until(self, time: Fraction) -> None:
        """Copy packets that begin before this time of the input, in seconds.

        Raises:
            SinkError: the output does not take them.
        """
        if self._stream is None:
            return
        while True:
            packet = self._next or next(self._packets, None)
            self._next = packet
            if packet is None or packet.time_base is None or packet.pts is None:
                return
            if packet.pts * packet.time_base >= time:
                return
            self._next = None
            self._mux(packet)

    def close(self) -> None:
        """Close the input."""
        self._input.close()

    def _mux(self, packet: Packet[AudioStream]) -> None:
        if packet.pts is None or packet.time_base is None:
            return
        moved = round(self._shift / packet.time_base)
        packet.pts -= moved
        packet.dts = packet.pts if packet.dts is None else packet.dts - moved
        packet.stream = self._copy
        try:
            self._output.mux_one(packet)
        except av.error.FFmpegError as error:
            raise SinkError(f"cannot write audio: {error.strerror}") from error

    def _wanted(self) -> Iterator[Packet[AudioStream]]:
        try:
            for packet in self._input.demux(audio=0):
                if packet.pts is None or packet.time_base is None:
                    continue
                # Without a cut, what the codec needs to get going lies before the first picture.
                if not self._shift or packet.pts * packet.time_base >= self._start:
                    yield packet
        except av.error.FFmpegError:
            # The pictures come from the same file, and its own source reports that it ends early.
            return

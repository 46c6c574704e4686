"""A run's source and sinks, from addresses and settings."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypedDict

from engines.errors import SourceError
from stream.address import Address, Place
from stream.config import RunSettings
from stream.raw_video import RawVideo
from stream.run_checks import PLAYLIST, is_recording
from stream.sinks.base import Sink
from stream.sinks.encoder import usual_codec
from stream.sinks.gst import GstServerSink, GstSink
from stream.sinks.hls import HlsSink
from stream.sinks.images import ImageSink
from stream.sinks.network import NetworkSink, SinkOptions
from stream.sinks.pipe import PipeSink
from stream.sinks.recorder import Recorder, RecorderOptions
from stream.sinks.rtsp_server import RTSP_SERVER_SCHEMES, RtspServerSink
from stream.sinks.video import VideoSink
from stream.sources.base import Source, StreamInfo
from stream.sources.connection import Peer
from stream.sources.hardware import check_decoder
from stream.sources.images import ImageSource
from stream.sources.live import LiveOptions, LiveSource
from stream.sources.pipe import PipeSource
from stream.sources.video import VideoSource


class _Coding(TypedDict):
    """How pictures become packets: what every sink with an encoder takes."""

    codec: str | None
    crf: float | None
    speed: str | None


def open_source(
    address: Address,
    settings: RunSettings,
    *,
    still: bool,
    on_change: Callable[[str | None], None] = lambda _: None,
) -> Source:
    """What frames come from.

    Args:
        address: where they are.
        settings: of the run.
        still: whether that is an image or a folder of images.
        on_change: of a live source (see `LiveSource`).

    Raises:
        StandinError: it cannot be opened.
    """
    strict = settings.decoding == "strict"
    check_decoder(settings.decoder)
    if address.place is Place.PIPE:
        raw = None if settings.raw is None else RawVideo.parse(settings.raw)
        return PipeSource(raw=raw, strict=strict, wanted=settings.video_stream, decoder=settings.decoder)
    if address.live:
        return LiveSource(address, live_options(settings), on_change=on_change)
    if still:
        return ImageSource(address.path)
    try:
        return VideoSource(
            address.path,
            start=settings.start,
            end=settings.end,
            strict=strict,
            wanted=settings.video_stream,
            decoder=settings.decoder,
        )
    except PermissionError as error:
        raise SourceError(f"cannot read {address.path}: {error.strerror}") from error


def live_options(settings: RunSettings) -> LiveOptions:
    """How a live source is read, as the settings say."""
    return LiveOptions(
        peer=Peer(
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
            rtsp_transport=settings.rtsp_transport,
            insecure=settings.insecure,
        ),
        attempts=settings.reconnect_attempts,
        when_lost=settings.when_lost,
        budget=settings.latency_budget / 1000,
        strict=settings.decoding == "strict",
        backend=settings.backend,
        when_slow=settings.when_slow,
        video_stream=settings.video_stream,
        decoder=settings.decoder,
    )


def sink_options(settings: RunSettings) -> SinkOptions:
    """How a server is written to, as the settings say."""
    return SinkOptions(
        timeout=settings.sink_timeout,
        attempts=settings.reconnect_attempts,
        insecure=settings.insecure,
        spool=settings.spool or 0,
    )


def open_sinks(
    source: Address, outputs: Sequence[Address], info: StreamInfo, settings: RunSettings, *, still: bool
) -> list[Sink]:
    """What anonymized frames go to, in the order of the outputs.

    Args:
        source: where they come from.
        outputs: where they go.
        info: of the frames.
        settings: of the run.
        still: whether they come from an image or a folder of images.

    Raises:
        StandinError: one of them cannot be opened; the others are given up.
    """
    with contextlib.ExitStack() as stack:
        sinks: list[Sink] = []
        for output in outputs:
            if output.place is Place.PIPE:
                # Whoever does not read may hold up a file, and neither a camera nor a recording beside it.
                waits = not source.live and len(outputs) == 1
                timeout = None if waits else settings.sink_timeout
                sinks.append(PipeSink(sys.stdout.buffer, info, timeout=timeout, **_coding(settings)))
            else:
                sinks.append(_open_sink(source, output, info, settings, still=still))
            stack.callback(sinks[-1].abort)
        stack.pop_all()
        return sinks


def _coding(settings: RunSettings) -> _Coding:
    codec = settings.codec or usual_codec(settings.device)
    return {"codec": codec, "crf": settings.crf, "speed": settings.speed}


def _open_sink(source: Address, output: Address, info: StreamInfo, settings: RunSettings, *, still: bool) -> Sink:
    if output.place is Place.PIPELINE:
        return GstSink(output, info, sink_options(settings), patient=not source.live)
    if output.place is Place.NETWORK:
        return _open_server(output, info, settings, patient=source.place is Place.FILE)
    if still:
        return ImageSink(
            output.path,
            folder=source.path.is_dir(),
            overwrite=settings.overwrite,
            inputs=source.path,
            metadata=settings.metadata == "keep",
        )
    coding = _coding(settings)
    if is_recording(output, settings):
        usual = RecorderOptions()
        options = replace(usual, segment=settings.segment or usual.segment, retain=settings.retain or usual.retain)
        return Recorder(output.path, info, options, **coding)
    if output.path.suffix.lower() == PLAYLIST:
        return HlsSink(output.path, info, overwrite=settings.overwrite, **coding)
    return VideoSink(
        output.path,
        info,
        **coding,
        overwrite=settings.overwrite,
        metadata=settings.metadata == "keep",
        audio_from=source.path if settings.audio == "keep" else None,
        start=settings.start,
    )


def _open_server(output: Address, info: StreamInfo, settings: RunSettings, *, patient: bool) -> Sink:
    coding = _coding(settings)
    if output.scheme in RTSP_SERVER_SCHEMES:
        return RtspServerSink(
            output, info, certificate=settings.certificate, private_key=settings.private_key, **coding
        )
    if output.scheme == "srt" or settings.backend == "gst":
        return GstServerSink(output, info, sink_options(settings), patient=patient, **coding)
    return NetworkSink(output, info, sink_options(settings), patient=patient, **coding)

"""Whether the input, the outputs and the settings of a run can be meant together. Said before anything is opened."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from engines.errors import SourceError, UsageError
from stream.address import Address, Place
from stream.config import RunSettings
from stream.sinks.target import check_target
from stream.sources.base import StreamInfo
from stream.sources.describe import can_demux
from stream.sources.images import ENDINGS
from stream.tls import check_sink, check_source

#: Of a playlist, whose segments lie beside it.
PLAYLIST: Final = ".m3u8"
#: Of a playlist of DASH.
_DASH: Final = ".mpd"
#: Of a report that is written line by line, for runs that do not end.
LINES: Final = ".jsonl"
#: Names that nobody gives to a folder.
_FILE_ENDINGS: Final = ENDINGS | {
    ".avi", ".gif", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".ogv", ".ts", ".webm", PLAYLIST,
}  # fmt: skip
#: Bytes of frames that may wait for later ones.
_MOST_WAITING: Final = 2 * 2**30
#: What FFmpeg takes apart even where GStreamer fetches it.
_TAKEN_APART_BY_FFMPEG: Final = ("srt", "udp")
#: Of servers of ours that are given none.
_RTSP_PORT: Final = 8554


def is_still(path: Path) -> bool:
    """Whether the input is an image, or a folder of images.

    Raises:
        UsageError: there is nothing of that name.
        SourceError: it cannot be looked at.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"no such file or folder: {path}") from error
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    return path.is_dir() or path.suffix.lower() in ENDINGS


def is_recording(output: Address, settings: RunSettings) -> bool:
    """Whether an output for video is a folder of segments: said by a `/` at its end, or by `segment`."""
    if output.place is not Place.FILE:
        return False
    named = output.path.suffix.lower() in _FILE_ENDINGS
    return output.text.endswith("/") or (settings.segment is not None and not named)


def check_run(source: Address, outputs: Sequence[Address], settings: RunSettings, *, still: bool) -> None:
    """Compares all that a run was told.

    Args:
        source: where frames come from.
        outputs: where they go.
        settings: of the run.
        still: whether the input is an image or a folder of images.

    Raises:
        UsageError: it cannot be meant; the message says what does not go together.
    """
    check_settings(source, outputs, settings)
    if still and len(outputs) > 1:
        raise UsageError("images have one output; give one file or one folder")
    for output in outputs:
        _check_output(source, output, settings, still=still)
    for first, second in combinations(outputs, 2):
        if _same_file(first, second):
            raise UsageError(f"two outputs are the same: {first}")
    _check_extras(source, outputs, settings)


def check_settings(source: Address, outputs: Sequence[Address], settings: RunSettings) -> None:
    """Compares what can be compared without a look at any file.

    Args:
        source: where frames come from.
        outputs: where they go.
        settings: of the run.

    Raises:
        UsageError: it cannot be meant; the message says what does not go together.
    """
    if not outputs:
        raise UsageError("there is no output")
    _check_source(source, settings)
    for output in outputs:
        if settings.audio == "keep" and output.place is not Place.FILE:
            raise UsageError(f"--audio keep is for files; no sound is sent to {output}")
        if settings.audio == "keep" and is_recording(output, settings):
            raise UsageError("--audio keep is for files; no sound is kept in segments")
        if settings.backend == "av":
            check_sink(output, settings.insecure)
    if sum(output.place is Place.PIPE for output in outputs) > 1:
        raise UsageError("standard output can be one output only")
    for first, second in combinations(outputs, 2):
        if first == second:
            raise UsageError(f"two outputs are the same: {first}")
        if None is not _port(first) == _port(second):
            raise UsageError(f"{first} and {second} have one port; each needs its own port")
    _check_needless(outputs, settings)
    if settings.contact_sheet and settings.contact_sheet.suffix.lower() != ".png":
        raise UsageError(
            f"--contact-sheet writes PNG, so its name must end in .png, got {settings.contact_sheet.name!r}"
        )


def check_lookahead(info: StreamInfo, lookahead: int) -> None:
    """Frames that wait for later ones wait in memory, uncompressed.

    Raises:
        UsageError: they would need too much of it.
    """
    frame = info.width * info.height * 3
    if lookahead * frame > _MOST_WAITING:
        raise UsageError(
            f"lookahead={lookahead} keeps {lookahead * frame / 2**30:.1f} GiB of {info.width}x{info.height} frames in "
            f"memory; use at most {_MOST_WAITING // frame}"
        )


def for_stills(settings: RunSettings) -> RunSettings:
    """Images in a folder have nothing to do with each other, unless the user says so by giving hold or lookahead.

    Who is in one and, after others, in another is a stranger there, unless remember is given as well.

    Raises:
        UsageError: settings that are for video.
    """
    if settings.start is not None or settings.end is not None:
        raise UsageError("--start and --end are for video; the input is an image or a folder of images")
    unset = {"hold": 0, "remember": 0, "lookahead": 0}.items()
    # Pillow reads images, whoever decodes video.
    return settings.model_copy(
        update={"decoder": "cpu"} | {k: v for k, v in unset if k not in settings.model_fields_set}
    )


def _decoded_by_gst(source: Address, settings: RunSettings) -> bool:
    """Whether GStreamer chooses the stream and its decoder, and not FFmpeg."""
    fetched = settings.backend == "gst" and source.place is Place.NETWORK
    return source.place is Place.PIPELINE or (fetched and source.scheme not in _TAKEN_APART_BY_FFMPEG)


def _check_decoder(source: Address, settings: RunSettings) -> None:
    """A GPU's decoder says nothing of damage, and is FFmpeg's."""
    if settings.decoder == "cpu":
        return
    if settings.decoding == "strict":
        raise UsageError(
            f"--decoder {settings.decoder} conceals damaged pictures without a word, which --decoding strict would "
            "withhold; give --decoding lenient as well, or let the processor decode"
        )
    if _decoded_by_gst(source, settings):
        raise UsageError(f"--decoder is for what FFmpeg reads; GStreamer chooses the decoder of {source} itself")
    if settings.raw is not None:
        raise UsageError("--decoder has nothing to decode of bare frames (--raw)")


def _check_source(source: Address, settings: RunSettings) -> None:
    _check_decoder(source, settings)
    if settings.raw is not None and source.place is not Place.PIPE:
        raise UsageError("--raw says what bare frames on standard input are like; the input must be -")
    if source.place is Place.FILE:
        return
    if settings.video_stream is not None and _decoded_by_gst(source, settings):
        raise UsageError(f"--video-stream is for what FFmpeg reads; GStreamer chooses the stream of {source} itself")
    if settings.backend != "gst" or source.place is not Place.NETWORK:
        check_source(source, settings.insecure)
    if settings.backend != "gst" and source.place is Place.NETWORK:
        _check_dash(source)
    kind = "a pipe" if source.place is Place.PIPE else "a live source"
    if settings.start is not None or settings.end is not None:
        raise UsageError(f"--start and --end are for files; {kind} begins now and ends when it is stopped")
    if settings.audio == "keep":
        raise UsageError(f"--audio keep is for files; the sound of {kind} is dropped")
    if settings.detections is not None:
        raise UsageError(f"--detections is for files; what {kind} shows never comes again")


def _check_dash(source: Address) -> None:
    """FFmpeg is often built without what reads DASH, and would say again and again that the data are invalid."""
    if urlsplit(source.text).path.lower().endswith(_DASH) and not can_demux("dash"):
        raise UsageError(
            f"{source} is DASH, which PyAV's FFmpeg was built without; --backend gst reads it with GStreamer, or give "
            "the HLS playlist of the same stream"
        )


def _check_needless(outputs: Sequence[Address], settings: RunSettings) -> None:
    """Settings that no output heeds: whoever gives one expects it to do something."""
    if not any(is_recording(output, settings) for output in outputs) and (settings.segment or settings.retain):
        raise UsageError("--segment and --retain are for recordings; give a folder as output")
    if settings.spool and not any(_spools(output, settings) for output in outputs):
        raise UsageError("--spool is for servers that FFmpeg writes to, rtsp:// and rtmp://; no output is one")
    coding = {"--codec": settings.codec, "--crf": settings.crf, "--speed": settings.speed}
    given = [option for option, value in coding.items() if value is not None]
    if given and all(output.place is Place.PIPELINE for output in outputs):
        raise UsageError(f"{', '.join(given)}: gst: outputs get bare pictures; put the encoder into the pipeline")
    if settings.certificate and not any(output.scheme == "rtsps-server" for output in outputs):
        raise UsageError("--certificate and --private-key are for rtsps-server://; no output is one")


def _check_output(source: Address, output: Address, settings: RunSettings, *, still: bool) -> None:
    """Whether one output can be meant for this input."""
    if output.place is not Place.FILE:
        if still:
            raise UsageError(f"images cannot be sent to {output}; give a file or a folder for them")
        return
    path, inputs = output.path, _files(source)
    if still:
        _check_still(source.path, path, settings)
    elif not is_recording(output, settings):
        if path.is_dir():
            raise UsageError(f"{path} is a folder; a file is expected, or --segment for segments in it")
        check_target(path, overwrite=settings.overwrite, inputs=inputs)
        if path.suffix.lower() in ENDINGS:
            raise UsageError(f"the input is a video, so the output {path.name!r} must be one too")


def _check_still(source: Path, path: Path, settings: RunSettings) -> None:
    if source.is_dir():
        if path.suffix.lower() in _FILE_ENDINGS:
            raise UsageError(f"the input {source} is a folder, so the output {path.name!r} must be one too")
        return
    check_target(path, overwrite=settings.overwrite, inputs=(source,))
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"the input is an image, so the output {path.name!r} must be one too")


def _check_extras(source: Address, outputs: Sequence[Address], settings: RunSettings) -> None:
    """Files that are read or written beside the input and the outputs."""
    inputs, written = _files(source), [path for output in outputs for path in _files(output)]
    extras = {"--report": settings.report, "--contact-sheet": settings.contact_sheet}
    for option, path in extras.items():
        if path is None:
            continue
        lines = option == "--report" and path.suffix.lower() == LINES
        # Lines are added to what is there.
        check_target(path, overwrite=settings.overwrite or lines, inputs=inputs)
        if path.resolve() in {result.resolve() for result in written}:
            raise UsageError(f"{option} and the output are the same file: {path}")
    if settings.detections and settings.detections.resolve() in {
        path.resolve() for path in (*inputs, *written, *extras.values()) if path is not None
    }:
        raise UsageError(
            f"--detections is the input or an output, too: {settings.detections}; give it a file of its own"
        )
    if settings.report and settings.contact_sheet and settings.report.resolve() == settings.contact_sheet.resolve():
        raise UsageError(f"--report and --contact-sheet are the same file: {settings.report}")


def _spools(output: Address, settings: RunSettings) -> bool:
    """Whether what a server misses can wait for it. With UDP nobody knows what it missed."""
    return settings.backend == "av" and output.scheme in {"rtsp", "rtsps", "rtmp", "rtmps"}


def _port(address: Address) -> int | None:
    """Of a server of ours."""
    if address.scheme not in ("rtsp-server", "rtsps-server"):
        return None
    return urlsplit(address.text).port or _RTSP_PORT


def _files(address: Address) -> tuple[Path, ...]:
    return (address.path,) if address.place is Place.FILE else ()


def _same_file(first: Address, second: Address) -> bool:
    return first.place is second.place is Place.FILE and first.path.resolve() == second.path.resolve()

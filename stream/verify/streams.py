"""What is in a result beside its pictures: other streams, and words about where, when and with what it was made.

Only the names of what is left are kept, never the values: a report about a place that was left must not spread it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import av
import av.error
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition, Stream
from PIL import Image as Pillow
from PIL.ExifTags import GPSTAGS, IFD, TAGS, Base

from engines.errors import SourceError
from stream.sources.base import file_url
from stream.sources.describe import main_video, side_data
from stream.sources.images import FORMATS
from stream.verify.unread import unread

#: What muxers write by themselves, and what says how a stream is laid out.
_HARMLESS: Final = frozenset(
    {
        "major_brand", "minor_version", "compatible_brands", "encoder", "encoder_options", "duration", "language",
        "vendor_id", "number_of_frames", "number_of_bytes", "bps", "rotate", "timecode_rate", "loop",
        "variant_bitrate",
    }
)  # fmt: skip
#: Keys that muxers write with a value of their own.
_BY_MUXERS: Final = {
    "handler_name": {"videohandler", "soundhandler", "core media video", "core media audio", ""},
    "service_name": {"service01"},
    "service_provider": {"ffmpeg"},
}
#: ... whatever the key, where they name themselves.
_FFMPEG: Final = ("Lavf", "Lavc")
#: What a key is about, by what it holds.
_TOPICS: Final = {
    "place": ("location", "gps", "xyz", "latitude", "longitude", "altitude", "iso6709", "country", "city"),
    "device": ("make", "model", "device", "camera", "lens", "serial", "android", "firmware", "manufacturer"),
    "time": ("date", "time", "year"),
    "title": ("title", "comment", "description", "synopsis", "artist", "author", "copyright", "album", "subject"),
}
_SIDE_DATA: Final = {
    SideDataType.A53_CC: "closed captions",
    SideDataType.S12M_TIMECODE: "time code",
    SideDataType.GOP_TIMECODE: "time code",
    SideDataType.SEI_UNREGISTERED: "SEI user data",
}
#: What encoders write about themselves, behind an identifier of 16 bytes.
_ENCODERS: Final = (b"x264", b"x265", b"Lavc", b"SVT", b"NVENC")
#: Segments of JPEG that are looked into, or say how the picture is to be shown.
_KNOWN_SEGMENTS: Final = (b"Exif\0", b"http://ns.adobe.com/xap/", b"ICC_PROFILE\0", b"Adobe", b"MPF\0", b"Photoshop ")
#: Of a clip's beginning, how many frames are asked what they carry.
_FRAMES: Final = 50
#: Of the first directory: what is about the picture's place, time, device or people.
_EXIF: Final = (
    Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.HostComputer,
    Base.Copyright, Base.XPTitle, Base.XPComment, Base.XPAuthor, Base.XPKeywords, Base.XPSubject,
)  # fmt: skip
#: Of the others: what says how the picture is to be shown.
_LAYOUT: Final = frozenset(
    {"ColorSpace", "ExifVersion", "ComponentsConfiguration", "FlashPixVersion", "ExifImageWidth", "ExifImageHeight",
     "ExifInteroperabilityOffset", "GPSVersionID", "Gamma"}
)  # fmt: skip
#: What Pillow keeps of a file, beside what says how it is compressed.
_BLOCKS: Final = {"xmp": "XMP", "XML:com.adobe.xmp": "XMP", "comment": "a comment", "photoshop": "Photoshop's block"}


def left_streams(path: Path) -> tuple[str, ...]:
    """What a video file has beside its main stream: others, attachments, covers, bytes of none; for people.

    Raises:
        SourceError: it cannot be opened as video.
    """
    with _opened(path) as container:
        main = main_video(container, str(path))
        found = [_stream_label(stream) for stream in container.streams if stream.index != main.index]
        if count := len(container.chapters()):
            found.append(f"{count} chapter{'s' if count > 1 else ''}")
        # What cannot be read to its end is said where pictures are compared.
        with contextlib.suppress(av.error.FFmpegError):
            found += unread(path, container)
    return tuple(found)


def left_metadata(path: Path) -> tuple[str, ...]:
    """What a video file says about where, when and with what it was made, and what its frames carry; for people.

    Raises:
        SourceError: it cannot be opened as video.
    """
    found: dict[str, None] = {}
    with _opened(path) as container:
        main = main_video(container, str(path))
        found |= dict.fromkeys(_words("container", container.metadata))
        for stream in container.streams:
            found |= dict.fromkeys(_words(f"stream {stream.index}", stream.metadata))
        # What cannot be decoded is said where pictures are compared.
        with contextlib.suppress(av.error.FFmpegError):
            for frame in islice(container.decode(main), _FRAMES):
                found |= dict.fromkeys(_carried(frame))
    return tuple(found)


def left_in_image(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What an image file holds beside its picture: further pictures or files, and words; for people.

    Raises:
        SourceError: it cannot be read as an image.
    """
    streams: dict[str, None] = {}
    words: dict[str, None] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Pillow.open(path, formats=FORMATS) as picture:
                picture.load()
                if (count := getattr(picture, "n_frames", 1)) > 1:
                    streams[f"{count - 1} further picture{'s' if count > 2 else ''} in the file"] = None
                words |= dict.fromkeys(_exif(picture.getexif()))
                words |= dict.fromkeys(_segments(getattr(picture, "applist", ())))
                words |= {label: None for key, label in _BLOCKS.items() if picture.info.get(key)}
                words |= dict.fromkeys(f"text {key!r}" for key in getattr(picture, "text", {}) if key not in _BLOCKS)
                # In TIFF the second directory is a further picture, and counted as such.
                if picture.format != "TIFF" and picture.getexif().get_ifd(IFD.IFD1):
                    streams["a thumbnail in its EXIF"] = None
        if behind := _behind(path.read_bytes()):
            streams[f"{behind} bytes behind the picture's end"] = None
    except Exception as error:
        # For broken files Pillow raises whatever its parsers run into.
        raise SourceError(f"{path} cannot be read as an image: {' '.join(str(error).split())}") from error
    return tuple(streams), tuple(words)


def _segments(segments: Sequence[tuple[str, bytes]]) -> Iterator[str]:
    """Segments of a JPEG that no decoder needs, of those that are not looked into elsewhere."""
    for name, content in segments:
        if name == "APP0" and content.startswith(b"JFIF\0") and not any(content[12:14]):
            continue
        if name == "APP0" or (name.startswith("APP") and not content.startswith(_KNOWN_SEGMENTS)):
            yield f"a segment {name}"


def _opened(path: Path) -> InputContainer:
    try:
        # What MP4's demuxer keeps to itself otherwise: unknown entries, and XMP, where a place may stand.
        return av.open(file_url(path), metadata_errors="replace", options={"export_all": "1", "export_xmp": "1"})
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{path} cannot be opened as video: {reason}. Is it a video file, and complete?") from error


def _stream_label(stream: Stream) -> str:
    if stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails):
        return f"cover picture (stream {stream.index})"
    words = {"audio": "audio", "subtitle": "subtitles", "data": "data", "attachment": "attachment", "video": "video"}
    codec = stream.codec_context.name if stream.codec_context is not None else "unknown codec"
    return f"{words.get(stream.type, stream.type)} (stream {stream.index}, {codec})"


def _words(where: str, metadata: Mapping[str, str]) -> Iterator[str]:
    names = {key.lower().strip() for key in metadata}
    for key, value in metadata.items():
        # Matroska's and QuickTime's own prefixes and languages say nothing.
        name = key.lower().strip()
        if key.startswith("_STATISTICS_") or name.partition("-")[0] in _HARMLESS:
            continue
        if value.lower() in _BY_MUXERS.get(name, ()) or value.startswith(_FFMPEG):
            continue
        # MP4 gives what has a language a second time, as `location-eng`.
        if name.rpartition("-")[0] in names:
            continue
        yield f"{_topic(name)}: {' '.join(key.split())} ({where})"


def _topic(name: str) -> str:
    return next((topic for topic, signs in _TOPICS.items() if any(sign in name for sign in signs)), "other")


def _carried(frame: av.VideoFrame) -> Iterator[str]:
    for data in side_data(frame):
        label = _SIDE_DATA.get(data.type)
        if label is None:
            continue
        # Sixteen bytes name whose data it is, and then encoders write their name.
        if data.type == SideDataType.SEI_UNREGISTERED and bytes(data)[16:80].lstrip().startswith(_ENCODERS):
            continue
        yield f"{label} (in frames)"


def _exif(exif: Pillow.Exif) -> Iterator[str]:
    for tag in _EXIF:
        if exif.get(tag):
            yield f"{_topic(TAGS[tag].lower())}: {TAGS[tag]} (EXIF)"
    for directory, names in ((IFD.Exif, TAGS), (IFD.GPSInfo, GPSTAGS)):
        for number, value in exif.get_ifd(directory).items():
            name = names.get(number, f"tag {number}")
            if name in _LAYOUT or not value:
                continue
            yield f"{'place' if directory is IFD.GPSInfo else _topic(name.lower())}: {name} (EXIF)"


def _behind(content: bytes) -> int:
    """How many bytes follow the end of a JPEG or PNG picture: a video of the moment, or whatever was put there."""
    if content.startswith(b"\x89PNG"):
        end = content.find(b"\0\0\0\0IEND")
        return max(0, len(content) - end - 12) if end > 0 else 0
    if not content.startswith(b"\xff\xd8"):
        return 0
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != 0xDA:
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    end = content.find(b"\xff\xd9", place)
    return len(content[end + 2 :].strip(b"\0")) if end > 0 else 0

"""Small media made in code: pictures, clips with every property that matters here, and what is in a finished file."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags
from av.filter import Graph
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.video.format import VideoFormat
from av.video.stream import VideoStream

from stream.anonymizer import Anonymized
from stream.colour import ColourTags
from stream.frame import Frame, Image
from stream.regions import Regions
from stream.sinks.video import VideoSink
from stream.sources.base import StreamInfo
from stream.sources.video import VideoSource

Floats = npt.NDArray[np.float64]

#: Kr and Kb by AVColorSpace; 2 (unspecified) is what players take for small pictures.
LUMA_WEIGHTS = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}

#: What each AVFieldOrder is called here.
TOP_FIRST, BOTTOM_FIRST = "tff", "bff"

#: Display matrices (ISO/IEC 14496-12) of all eight orientations, and the EXIF orientation that means the same.
MATRICES: dict[int, tuple[int, ...]] = {
    1: (1, 0, 0, 0, 1, 0),
    2: (-1, 0, 0, 0, 1, 0),
    3: (-1, 0, 0, 0, -1, 0),
    4: (1, 0, 0, 0, -1, 0),
    5: (0, 1, 0, 1, 0, 0),
    6: (0, 1, 0, -1, 0, 0),
    7: (0, -1, 0, -1, 0, 0),
    8: (0, -1, 0, 1, 0, 0),
}


def display_matrix(orientation: int) -> tuple[int, ...]:
    """The nine 16.16 (last column 2.30) numbers of a display matrix by its EXIF orientation."""
    return (*(value << 16 for value in MATRICES[orientation]), 0, 0, 1 << 30)


def stored_picture(upright: Image, orientation: int) -> Image:
    """How an upright picture is stored under an EXIF orientation (EXIF 2.3, 4.6.4 A), written out case by case."""
    mirrored = upright[:, ::-1]
    cases = {
        1: upright,
        2: mirrored,
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }
    return np.ascontiguousarray(cases[orientation])


def picture(width: int = 64, height: int = 48, phase: float = 0.0) -> Image:
    """A smooth coloured picture without any symmetry; `phase` moves it."""
    x = np.linspace(0, 1, width)[None, :]
    y = np.linspace(0, 1, height)[:, None]
    red = 40 + 150 * x + 30 * y
    green = 60 + 140 * y + 0 * x
    blue = 128 + 60 * np.sin(2 * np.pi * (0.7 * x + 0.3 * y) + phase)
    return np.asarray(np.stack([red, green, blue], axis=2).round(), np.uint8)


def pictures(count: int, width: int = 64, height: int = 48) -> list[Image]:
    """Smooth pictures, each a little different from the one before."""
    return [picture(width, height, phase=0.2 * index) for index in range(count)]


def noise(count: int, width: int = 64, height: int = 48, seed: int = 0) -> list[Image]:
    """Pictures in which every pixel counts."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]


def busy_pictures(count: int, width: int = 160, height: int = 120, seed: int = 0) -> list[Image]:
    """Textured pictures that move, so that packets are large and every frame depends on the one before."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 226, (height // 4 + 2 * count, width // 4 + 2 * count, 3), np.uint8)
    scene = coarse.repeat(4, axis=0).repeat(4, axis=1)
    return [np.ascontiguousarray(scene[2 * i : 2 * i + height, 3 * i : 3 * i + width]) for i in range(count)]


def to_frame(
    rgb: npt.NDArray[np.generic],
    pix_fmt: str = "yuv420p",
    *,
    matrix: int = 2,
    full: bool = False,
) -> av.VideoFrame:
    """A frame of an encoder's format, by the formulas of ITU-R BT.601, BT.709 and BT.2020 (not by swscale).

    Args:
        rgb: (height, width, 3), uint8 or float in 0..255.
        pix_fmt: planar, of 8 to 16 bits.
        matrix: AVColorSpace.
        full: whether values use the full range.
    """
    shape = VideoFormat(pix_fmt, rgb.shape[1], rgb.shape[0])
    values = rgb.astype(np.float64) / 255
    bits = shape.components[0].bits
    if shape.is_rgb:
        planes = [values[..., channel] * (2**bits - 1) for channel in (1, 2, 0)]
    else:
        kr, kb = LUMA_WEIGHTS[matrix]
        y = kr * values[..., 0] + (1 - kr - kb) * values[..., 1] + kb * values[..., 2]
        cb, cr = (values[..., 2] - y) / (2 - 2 * kb), (values[..., 0] - y) / (2 - 2 * kr)
        step = 2 ** (bits - 8)
        middle = 2 ** (bits - 1)
        if full:
            planes = [y * (2**bits - 1), *(middle + c * (2**bits - 1) for c in (cb, cr))]
        else:
            planes = [step * (16 + 219 * y), *(middle + step * 224 * c for c in (cb, cr))]
    frame = av.VideoFrame(rgb.shape[1], rgb.shape[0], pix_fmt)
    for plane, content in zip(frame.planes, planes, strict=False):
        reduced = _reduce(content, plane.height, plane.width)
        _fill(plane, reduced.round().clip(0, 2**bits - 1).astype("<u2" if bits > 8 else np.uint8))
    return frame


def _reduce(plane: Floats, height: int, width: int) -> Floats:
    """Averages of whole blocks; sides that do not divide repeat their last row or column."""
    fy, fx = -(-plane.shape[0] // height), -(-plane.shape[1] // width)
    padding = ((0, fy * height - plane.shape[0]), (0, fx * width - plane.shape[1]))
    padded = np.pad(plane, padding, mode="edge")
    return np.asarray(padded.reshape(height, fy, width, fx).mean(axis=(1, 3)))


def _fill(plane: Any, content: npt.NDArray[Any]) -> None:
    rows = np.zeros((content.shape[0], plane.line_size), np.uint8)
    raw = np.ascontiguousarray(content).view(np.uint8).reshape(content.shape[0], -1)
    rows[:, : raw.shape[1]] = raw
    plane.update(rows.tobytes()[: plane.buffer_size].ljust(plane.buffer_size, b"\0"))


def write_clip(
    path: Path,
    images: Iterable[npt.NDArray[np.generic] | av.VideoFrame],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: Fraction | int = 25,
    time_base: Fraction | None = None,
    times: Sequence[int] | None = None,
    durations: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    gop: int | None = None,
    tags: ColourTags | None = None,
    aspect: Fraction | None = None,
    matrix: Sequence[int] | None = None,
    fields: str | None = None,
    metadata: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode pictures.

    Args:
        path: its ending chooses the container.
        images: RGB pictures, or frames that are ready.
        codec: encoder.
        pix_fmt: of the encoder.
        rate: average frames per second.
        time_base: seconds per unit of `times`, 1/rate where not given.
        times: `pts` of each frame, 0, 1, 2, ... where not given.
        durations: of each frame, in the same unit.
        options: of the encoder.
        gop: frames between key frames.
        tags: colour tags; they choose the matrix and range of pictures that are converted here.
        aspect: of a pixel.
        matrix: display matrix.
        fields: TOP_FIRST or BOTTOM_FIRST for interlaced pictures.
        metadata: of the container.
        container_options: of the muxer.
    """
    tags = tags or ColourTags()
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        ready = [
            image
            if isinstance(image, av.VideoFrame)
            else to_frame(image, pix_fmt, matrix=tags.matrix, full=tags.colour_range == 2 or pix_fmt.startswith("yuvj"))
            for image in images
        ]
        defaults = {"preset": "ultrafast", "crf": "12"} if codec in {"libx264", "libx265"} else {}
        chosen = defaults | (options or {})
        if codec == "libx265":
            # Without threads of its own: its lookahead has been seen to wait for them for ever.
            wanted = chosen.get("x265-params", "log-level=error")
            chosen["x265-params"] = f"{wanted}:pools=none:frame-threads=1"
        stream = container.add_stream(codec, rate=Fraction(rate), options=chosen)
        assert isinstance(stream, VideoStream)
        _configure(stream, ready[0], time_base or 1 / Fraction(rate), tags, fields)
        if gop is not None:
            stream.codec_context.gop_size = gop
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if matrix is not None:
            stream.set_display_matrix(matrix)
        container.metadata.update(metadata or {})
        for index, plain in enumerate(ready):
            frame = plain if fields is None else _with_fields(plain, fields)
            tags.write_to(frame)
            frame.pts = index if times is None else times[index]
            frame.time_base = time_base or 1 / Fraction(rate)
            frame.duration = 0 if durations is None else durations[index]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _configure(
    stream: VideoStream, first: av.VideoFrame, time_base: Fraction, tags: ColourTags, fields: str | None
) -> None:
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = first.width, first.height, first.format.name
    context.time_base = stream.time_base = time_base
    context.flags |= Flags.frame_duration
    context.color_range, context.colorspace = tags.colour_range, tags.matrix
    context.color_primaries, context.color_trc = tags.primaries, tags.transfer
    if fields is not None:
        context.flags |= Flags.interlaced_dct | Flags.interlaced_me
        context.field_order = 2 if fields == TOP_FIRST else 3


def _with_fields(frame: av.VideoFrame, fields: str) -> av.VideoFrame:
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000))
    graph.link_nodes(source, graph.add("setfield", f"mode={fields}"), graph.add("buffersink")).configure()
    graph.push(frame)
    marked = graph.pull()
    assert isinstance(marked, av.VideoFrame)
    return marked


@dataclass
class Decoded:
    """What a file holds, as FFmpeg sees it without any of our code.

    Attributes:
        images: pictures as stored, RGB.
        times: of each frame, in seconds.
        length: of the container, in seconds.
        rate: average.
        aspect: of a pixel as stored.
        tags: of the first frame.
        pix_fmt: of the first frame.
        matrix: display matrix of the first frame.
        interlaced: for each frame.
        field_order: AVFieldOrder of the stream.
        types: of all streams.
        metadata: of the container.
        side_data: names of what frames carried.
        chapters: how many.
    """

    images: list[Image] = field(default_factory=list)
    times: list[Fraction] = field(default_factory=list)
    length: Fraction = Fraction(0)
    rate: Fraction | None = None
    aspect: Fraction | None = None
    tags: ColourTags = field(default_factory=ColourTags)
    pix_fmt: str = ""
    matrix: tuple[int, ...] | None = None
    interlaced: list[bool] = field(default_factory=list)
    field_order: int = 0
    types: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    side_data: set[str] = field(default_factory=set)
    chapters: int = 0


def read_clip(path: Path) -> Decoded:
    """Decode a file with plain PyAV."""
    out = Decoded()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        out.types = [other.type for other in container.streams]
        out.metadata = dict(container.metadata)
        out.chapters = len(container.chapters())
        out.rate, out.aspect = stream.average_rate, stream.sample_aspect_ratio
        out.field_order = stream.codec_context.field_order
        out.length = Fraction(container.duration or 0, 1_000_000)
        for frame in container.decode(stream):
            _add(out, frame)
    return out


def _add(out: Decoded, frame: av.VideoFrame) -> None:
    # By index: iterating the container itself gives what its type stubs say it does not.
    entries = cast("Sequence[SideData]", frame.side_data)
    data = {entries[index].type: entries[index] for index in range(len(entries))}
    if not out.images:
        out.tags, out.pix_fmt = ColourTags.of(frame), frame.format.name
        if matrix := data.get(SideDataType.DISPLAYMATRIX):
            out.matrix = tuple(np.frombuffer(bytes(matrix)[:36], np.int32).tolist())
    if frame.pts is None or frame.time_base is None:
        raise AssertionError("a decoded frame has no time")
    out.times.append(frame.pts * frame.time_base)
    out.interlaced.append(frame.interlaced_frame)
    out.side_data |= {kind.name for kind in data}
    out.images.append(np.asarray(frame.reformat(format="rgb24", dst_color_range="JPEG").to_ndarray(), np.uint8))


def copy_clip(
    source: Path,
    target: Path,
    *,
    start: float | None = None,
    end: float | None = None,
    wanted: str | None = None,
    **sink_settings: Any,
) -> list[Frame]:
    """Pass a clip through `VideoSource` and `VideoSink` as if nobody was in it; damaged frames go flat.

    Returns:
        The frames that the source gave.
    """
    reader = VideoSource(source, start=start, end=end, wanted=wanted)
    writer = VideoSink(target, reader.info, start=start, **sink_settings)
    frames = []
    try:
        for frame in reader:
            frames.append(frame)
            writer.write(Anonymized(frame, Regions.empty(), withheld=frame.damaged))
        writer.close()
    finally:
        writer.abort()
        reader.close()
    return frames


def mean_error(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> float:
    """Mean absolute difference in levels."""
    return float(np.abs(first.astype(np.int64) - second.astype(np.int64)).mean())


def info_like(image: Image, **changes: Any) -> StreamInfo:
    """A stream of pictures of this size at 25 a second."""
    defaults: dict[str, Any] = {"time_base": Fraction(1, 25), "rate": Fraction(25), "pix_fmt": "yuv420p"}
    height, width = image.shape[:2]
    return StreamInfo("made", width, height, **(defaults | changes))


def exif_block(
    *,
    orientation: int = 1,
    make: str = "Fruit",
    latitude: tuple[int, int, int] = (59, 54, 77),
    maker_note: bytes = b"",
    user_comment: bytes = b"",
    thumbnail: bytes = b"",
) -> bytes:
    """An EXIF block (with its `Exif` header) with places, maker note and a thumbnail in its second directory."""
    name = make.encode() + b"\0"
    place = b"".join(struct.pack("<II", value, 1) for value in latitude)
    directories: list[list[tuple[int, int, int, bytes]]] = [
        [(0x010F, 2, len(name), name), (0x0112, 3, 1, struct.pack("<HH", orientation, 0))],
        [(0x927C, 7, len(maker_note), maker_note), (0x9286, 7, len(user_comment), user_comment)],
        [(1, 2, 2, b"N\0\0\0"), (2, 5, 3, place)],
        [(0x0103, 3, 1, struct.pack("<HH", 6, 0)), (0x0202, 4, 1, struct.pack("<I", len(thumbnail)))],
    ]
    # The first directory points to the second and third, and the fourth, the thumbnail's, follows it.
    sizes = [2 + 12 * (len(entries) + extra) + 4 for entries, extra in zip(directories, (2, 0, 0, 1), strict=True)]
    starts = [8 + sum(sizes[:index]) for index in range(4)]
    directories[0] += [(0x8769, 4, 1, struct.pack("<I", starts[1])), (0x8825, 4, 1, struct.pack("<I", starts[2]))]
    data = thumbnail
    base = 8 + sum(sizes)
    directories[3].insert(1, (0x0201, 4, 1, struct.pack("<I", base)))
    out = b"II*\0" + struct.pack("<I", 8)
    for number, entries in enumerate(directories):
        out += struct.pack("<H", len(entries))
        for tag, kind, count, value in entries:
            if len(value) > 4:
                offset, data = base + len(data), data + value
                value = struct.pack("<I", offset)
            out += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
        out += struct.pack("<I", starts[3] if number == 0 else 0)
    return b"Exif\0\0" + out + data

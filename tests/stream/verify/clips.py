"""Clips of faces that move, detectors that follow them, and what is planted into results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import onnx
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from skimage import data as _data

from engines.bundle import Bundle, write_bundle
from engines.centerface import INPUTS, OUTPUTS
from engines.manifest import Graph, ManifestDraft, Normalisation, Provenance, Tensor
from stream.frame import Image
from stream.regions import Kind, Regions
from tests.media import read_clip, write_clip

Box = tuple[float, float, float, float]

WIDTH, HEIGHT = 224, 160
COUNT = 40
#: Where the first face is in frame 0, and the second one, which stands lower; both move to the right.
FIRST: Box = (20, 20, 68, 80)
SECOND: Box = (90, 84, 130, 134)
#: Levels of the corner in which every frame says how far the faces have moved, in pixels.
_ZERO, _PER_PIXEL = 40, 2
_CORNER = 16


def moved(box: Box, index: int) -> Box:
    """Where a face is in a frame."""
    return box[0] + index, box[1], box[2] + index, box[3]


def background() -> Image:
    """Texture of many sizes, in which nobody is."""
    rng = np.random.default_rng(1)
    layers = [
        cv2.resize(rng.integers(0, 256, (HEIGHT // n, WIDTH // n, 3), np.uint8), (WIDTH, HEIGHT)) for n in (16, 8, 4)
    ]
    mixed = sum(layer.astype(np.float64) for layer in layers) / 3
    return np.asarray((mixed - 128) * 1.4 + 128, np.float64).clip(20, 235).astype(np.uint8)


def astronaut(width: int, height: int) -> Image:
    """A real face, cut tightly."""
    cut = np.ascontiguousarray(np.asarray(_data.astronaut(), np.uint8)[30:180, 165:285])  # type: ignore[no-untyped-call]
    return np.asarray(cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def scene(index: int, faces: Sequence[Box] = (FIRST, SECOND)) -> Image:
    """One frame: faces over the background, and the corner."""
    image = background()
    for box in faces:
        x0, y0, x1, y1 = (int(value) for value in moved(box, index))
        image[y0:y1, x0:x1] = astronaut(x1 - x0, y1 - y0)
    image[:_CORNER, -_CORNER:] = _ZERO + _PER_PIXEL * index
    return image


def scenes(count: int = COUNT, faces: Sequence[Box] = (FIRST, SECOND)) -> list[Image]:
    return [scene(index, faces) for index in range(count)]


def write_scenes(path: Path, count: int = COUNT, faces: Sequence[Box] = (FIRST, SECOND), **options: Any) -> Path:
    """The original."""
    return write_clip(path, scenes(count, faces), options={"preset": "ultrafast", "crf": "14"}, **options)


def following(path: Path, name: str, boxes: Sequence[Box], kinds: Sequence[str] = ("face",)) -> Bundle:
    """A bundle that sees faces at these places of frame 0, moved as far as the picture's corner says.

    Args:
        path: of the bundle.
        name: of the bundle.
        boxes: of the faces, or of whatever `kinds` names first.
        kinds: of the bundle.
    """
    count = len(boxes)
    answers: dict[str, npt.NDArray[Any]] = {
        "scores": np.full((1, count), 0.9, np.float32),
        "classes": np.zeros((1, count), np.int64),
        "floor": np.zeros(1, np.float32),
        "count": np.array([count], np.int64),
    }
    constants: dict[str, npt.NDArray[Any]] = {f"{name}.value": value for name, value in answers.items()} | {
        "places": np.array([boxes], np.float32).reshape(1, count, 4),
        "begin": np.array([4, WIDTH - 12], np.int64),
        "end": np.array([12, WIDTH - 4], np.int64),
        "axes": np.array([2, 3], np.int64),
        "zero": np.array(_ZERO, np.float32),
        "slope": np.array(_PER_PIXEL, np.float32),
        "across": np.array([1, 0, 1, 0], np.float32),
    }
    nodes = [onnx.helper.make_node("Identity", [f"{name}.value"], [name]) for name in answers]
    nodes += [
        onnx.helper.make_node("Slice", ["image", "begin", "end", "axes"], ["corner"]),
        onnx.helper.make_node("ReduceMean", ["corner"], ["level"], keepdims=0),
        onnx.helper.make_node("Sub", ["level", "zero"], ["above"]),
        onnx.helper.make_node("Div", ["above", "slope"], ["pixels"]),
        onnx.helper.make_node("Mul", ["pixels", "across"], ["shift"]),
        onnx.helper.make_node("Add", ["places", "shift"], ["boxes"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "following",
        [_value_info(tensor) for tensor in INPUTS],
        [_value_info(tensor) for tensor in OUTPUTS],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    draft = ManifestDraft(
        name=name,
        task="detection",
        family="test",
        kinds=tuple(kinds),
        graphs={"detector": Graph(file="detector.onnx", inputs=INPUTS, outputs=OUTPUTS)},
        normalisation=Normalisation(colour="rgb", mean=(0, 0, 0), std=(1, 1, 1), multiple=32),
        licence="MIT",
        provenance=Provenance(artefact="following", source="code", sha256="0" * 64, homepage="https://example.org"),
        exporter="test",
    )
    return write_bundle(path, draft, {"detector.onnx": model.SerializeToString()})


def _value_info(tensor: Tensor) -> onnx.ValueInfoProto:
    code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return onnx.helper.make_tensor_value_info(tensor.name, code, list(tensor.shape))


def again(source: Path, target: Path, *, crf: int = 20, codec: str = "libx264", **options: Any) -> Path:
    """The same pictures, encoded once more with plain PyAV."""
    pictures = read_clip(source).images
    if codec == "ffv1":
        return write_clip(target, pictures, codec=codec, **options)
    return write_clip(target, pictures, options={"preset": "veryfast", "crf": str(crf)}, **options)


def planted(
    clean: Path, original: Path, target: Path, what: Callable[[int, Image, Image], Image | None], **options: Any
) -> Path:
    """A result with faults.

    Args:
        clean: a result without them.
        original: of that result.
        target: where it goes.
        what: given the place, the clean and the original picture, the picture that goes out; None for none.
        options: of `write_clip`.
    """
    pairs = zip(read_clip(clean).images, read_clip(original).images, strict=True)
    pictures = {index: what(index, good, raw) for index, (good, raw) in enumerate(pairs)}
    kept = {index: picture for index, picture in pictures.items() if picture is not None}
    settings: dict[str, Any] = {
        "options": {"preset": "ultrafast", "crf": "16"},
        "time_base": Fraction(1, 1000),
        "times": [40 * index for index in kept],
    }
    return write_clip(target, list(kept.values()), **(settings | options))


def raw_box(good: Image, raw: Image, box: Box) -> Image:
    """The clean picture with the original's pixels in a box, and a little round it."""
    x0, y0, x1, y1 = (int(value) for value in box)
    out = good.copy()
    out[y0 - 4 : y1 + 4, x0 - 4 : x1 + 4] = raw[y0 - 4 : y1 + 4, x0 - 4 : x1 + 4]
    return out


def add_sound(source: Path, target: Path) -> Path:
    """The same video packets, and a tone beside them."""
    with av.open(str(source)) as before, av.open(str(target), "w") as after:
        video = before.streams.video[0]
        copied = after.add_stream_from_template(video)
        assert isinstance(copied, VideoStream)
        sound = after.add_stream("aac", rate=48_000)
        assert isinstance(sound, AudioStream)
        for packet in before.demux(video):
            if packet.size:
                packet.stream = copied
                after.mux(packet)
        tone = (8000 * np.sin(np.arange(48_000) / 20)).astype(np.int16)
        piece = av.AudioFrame.from_ndarray(tone.repeat(2)[None], "s16", "stereo")
        piece.rate, piece.pts, piece.time_base = 48_000, 0, Fraction(1, 48_000)
        after.mux([*sound.encode(piece), *sound.encode(None)])
    return target


def face_regions(*boxes: Box) -> Regions:
    return Regions.of(np.array(boxes, np.float32).reshape(-1, 4), Kind.FACE)


def tag(source: Path, target: Path, words: Mapping[str, str]) -> Path:
    """The same packets with words in the container."""
    with av.open(str(source)) as before, av.open(str(target), "w") as after:
        after.metadata.update(words)
        video = before.streams.video[0]
        copied = after.add_stream_from_template(video)
        for packet in before.demux(video):
            if packet.size:
                packet.stream = copied
                after.mux(packet)
    return target

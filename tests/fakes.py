"""Small real objects that tests put in the place of cameras, networks and files; some fail on purpose."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
import numpy.typing as npt
import onnx
from av.video.stream import VideoStream

from engines.bundle import Bundle, write_bundle
from engines.centerface import INPUTS, OUTPUTS
from engines.errors import SinkError
from engines.manifest import Graph, ManifestDraft, Normalisation, Provenance, Tensor
from stream.anonymizer import Anonymized
from stream.config import AnonymizerSettings
from stream.frame import Frame, Image
from stream.generators.classical import Fill, mask_out
from stream.regions import Kind, Regions
from stream.sources.base import StreamInfo
from stream.tracker import Step, Tracker

T = TypeVar("T")
Box = tuple[float, float, float, float]

RATE = 25
BLACK = (0, 0, 0)
FILLS: dict[Kind, Fill] = dict.fromkeys(Kind, mask_out(BLACK))


def noise(count: int, width: int = 64, height: int = 48, seed: int = 0) -> list[Image]:
    """Pictures in which nothing is black, so that black means covered, and of which no two are alike."""
    rng = np.random.default_rng(seed)
    return [rng.integers(20, 236, (height, width, 3), np.uint8) for _ in range(count)]


def frames(images: Sequence[Image]) -> list[Frame]:
    """Pictures as a stream; `pts` is the place in the order."""
    return [Frame(image, pts=index, time_base=Fraction(1, RATE)) for index, image in enumerate(images)]


def number(frame: Frame) -> int:
    """The place of a frame in its stream, from its time, so that it survives containers with other time bases."""
    return round(frame.time * RATE)


def faces(*boxes: Sequence[float], score: float = 0.9) -> Regions:
    """Detected faces."""
    return Regions.of(np.array(boxes, np.float32).reshape(-1, 4), Kind.FACE, scores=[score] * len(boxes))


def write_lossless(path: Path, images: Sequence[Image]) -> Path:
    """A clip that decodes to exactly these pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "bgr0"
        # Each picture by itself, so that damage to one does not spread.
        stream.codec_context.gop_size = 1
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="bgr0")))
        container.mux(stream.encode(None))
    return path


def read_pictures(path: Path) -> list[Image]:
    """All pictures of a clip."""
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]


def whole(image: Image, box: Box) -> Image:
    """The pixels that a box touches."""
    height, width = image.shape[:2]
    x0, y0 = (max(0, int(np.floor(v))) for v in box[:2])
    x1, y1 = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    return image[y0:y1, x0:x1]


def covered_share(image: Image, box: Box) -> float:
    """How much of a box is black."""
    return float((whole(image, box) == 0).all(axis=2).mean())


def shows_nothing(image: Image, box: Box) -> bool:
    """Whether a box is black, or the whole picture flat: a frame that was withheld, as on a machine that is busy."""
    return covered_share(image, box) == 1 or bool((np.ptp(image.reshape(-1, 3), axis=0) <= 4).all())


def finishes_within(seconds: float, function: Callable[[], T]) -> T:
    """The function's result; a failure if it takes longer, so that a dead-lock is a red test and not a hanging one."""
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001  carried over
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"still running after {seconds} s"
    if errors:
        raise errors[0]
    return results[0]


class FunctionDetector:
    """Answers whatever a function of the frame says."""

    def __init__(self, answer: Callable[[Frame], Regions]) -> None:
        self._answer = answer
        self.looked = 0
        self.resets = 0
        self.closed = False

    def detect(self, frame: Frame) -> Regions:
        self.looked += 1
        return self._answer(frame)

    def reset(self) -> None:
        self.resets += 1

    def prepare(self, width: int, height: int, parallel: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class FixedDetector(FunctionDetector):
    """Sees the same boxes in every frame."""

    def __init__(self, *boxes: Box) -> None:
        super().__init__(lambda _: faces(*boxes))


class FailingTracker(Tracker):
    """Raises in its n-th step."""

    def __init__(self, hold: int, remember: int = 0, *, at: int) -> None:
        super().__init__(hold, remember)
        self._left = at

    def step(self, detections: Regions, width: int, height: int) -> Step:
        self._left -= 1
        if self._left < 0:
            raise ArithmeticError("the tracker diverged")
        return super().step(detections, width, height)


def flat_settings(**changes: object) -> AnonymizerSettings:
    """Nothing but the boxes themselves is covered, in flat black."""
    plain: dict[str, object] = {"face": "mask", "margin": 0.0, "hold": 0, "lookahead": 0}
    return AnonymizerSettings.model_validate(plain | changes)


@dataclass
class MemorySource:
    """Frames from a list.

    Attributes:
        frames: what it gives.
        before: called before each frame, with its number; may sleep or raise.
    """

    frames: Sequence[Frame]
    before: Callable[[int], object] = lambda _: None
    closed: bool = False

    @property
    def info(self) -> StreamInfo:
        first = self.frames[0]
        return StreamInfo(
            "memory", first.width, first.height, len(self.frames), time_base=first.time_base, rate=Fraction(RATE)
        )

    def __iter__(self) -> Iterator[Frame]:
        for index, frame in enumerate(self.frames):
            self.before(index)
            yield frame

    def problems(self) -> tuple[str, ...]:
        return ()

    def side_exits(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        self.closed = True


@dataclass
class MemorySink:
    """Keeps what it is given.

    Attributes:
        before: called before each frame, with its number; may sleep or raise.
        fails_to_close: whether `close` raises, as a full disk would make it.
    """

    before: Callable[[int], object] = lambda _: None
    fails_to_close: bool = False
    items: list[Anonymized] = field(default_factory=list)
    closed: bool = False
    aborted: bool = False

    def write(self, item: Anonymized) -> None:
        self.before(len(self.items))
        self.items.append(item)

    def close(self) -> None:
        if self.fails_to_close:
            raise SinkError("the disk is full")
        self.closed = True

    def abort(self) -> None:
        self.aborted = True


def install_bundle(home: Path, box: Box, *, brighter_than: float = 0.0) -> Bundle:
    """A bundle under the name `centerface` that sees one face at a fixed place wherever the picture is bright.

    Args:
        home: root of the store, as in $STANDIN_HOME.
        box: in pixels of the picture that the network sees.
        brighter_than: level that at least one channel of one pixel must be over.
    """
    answers: dict[str, npt.NDArray[Any]] = {
        "boxes": np.array([[box]], np.float32),
        "scores": np.array([[0.9]], np.float32),
        "classes": np.zeros((1, 1), np.int64),
        "floor": np.zeros(1, np.float32),
    }
    nodes = [onnx.helper.make_node("Identity", [f"{name}.value"], [name]) for name in answers]
    nodes += [
        onnx.helper.make_node("ReduceMax", ["image"], ["brightest"], keepdims=0),
        onnx.helper.make_node("Greater", ["brightest", "limit"], ["bright"]),
        onnx.helper.make_node("Cast", ["bright"], ["number"], to=onnx.TensorProto.INT64),
        onnx.helper.make_node("Reshape", ["number", "one"], ["count"]),
    ]
    constants = {f"{name}.value": value for name, value in answers.items()}
    constants["limit"] = np.array(brighter_than, np.float32)
    constants["one"] = np.array([1], np.int64)
    graph = onnx.helper.make_graph(
        nodes,
        "fixed",
        [_value_info(tensor) for tensor in INPUTS],
        [_value_info(tensor) for tensor in OUTPUTS],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    draft = ManifestDraft(
        name="centerface",
        task="detection",
        family="test",
        kinds=("face",),
        graphs={"detector": Graph(file="detector.onnx", inputs=INPUTS, outputs=OUTPUTS)},
        normalisation=Normalisation(colour="rgb", mean=(0, 0, 0), std=(1, 1, 1), multiple=32),
        licence="MIT",
        provenance=Provenance(artefact="fixed", source="code", sha256="0" * 64, homepage="https://example.org"),
        exporter="test",
    )
    return write_bundle(home / "bundles" / "centerface", draft, {"detector.onnx": model.SerializeToString()})


def _value_info(tensor: Tensor) -> onnx.ValueInfoProto:
    code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return onnx.helper.make_tensor_value_info(tensor.name, code, list(tensor.shape))

"""The input of detectors, made of a frame on the host, or on the device on which they run."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from engines.errors import BundleError
from engines.manifest import Normalisation, Tensor
from engines.resident import Resident
from engines.runtime import Device, Runtime
from engines.small_graphs import SmallGraph, open_small, small_graph
from stream import resample
from stream.detectors.view import Shown, full_picture, limited_picture, normalised, shrinks, tone_curve
from stream.frame import Frame

if TYPE_CHECKING:
    from engines.bundle import Bundle
    from engines.resident import Feeds

Floats = npt.NDArray[np.float32]

#: Sizes of frames whose weights stay on the device: a stream has one, or few.
_MOST_SIZES: Final = 4


@dataclass(frozen=True, slots=True)
class Form:
    """What pictures a detector takes.

    Attributes:
        normalisation: of its bundle.
        size: height and width of the only ones that it takes; None for any, padded to the next multiples.
        one_stage: whether frames are resized with OpenCV's filters and padded with black, as networks in one stage are
            trained; else with an antialiased filter, and padded with 0 after normalising, as detectron2's are.
    """

    normalisation: Normalisation
    size: tuple[int, int] | None = None
    one_stage: bool = False

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """Of a detection bundle.

        Raises:
            BundleError: it has no graph `detector`, or one without a picture (N, 3, h, w).
        """
        image = next((tensor for tensor in bundle.graph("detector").inputs if tensor.name == "image"), None)
        if image is None or len(image.shape) != 4:
            raise BundleError(
                f"the detector of {bundle.manifest.name} takes no image (N,3,h,w); build the bundle again"
            )
        height, width = image.shape[2:]
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        return cls(bundle.manifest.normalisation, size, bundle.manifest.detection is None)

    def padded(self, shown: Shown) -> tuple[int, int]:
        """Height and width of the network's input."""
        step = self.normalisation.multiple
        return self.size or (-(-shown.height // step) * step, -(-shown.width // step) * step)


class Pictures(Protocol):
    """Makes a network's input of a frame."""

    def make(self, frame: Frame, shown: Shown) -> Floats | Resident:
        """Float32 (1, 3, h, w): resized, rounded to levels, toned, normalised and padded.

        Args:
            frame: upright, in stored pixels.
            shown: how large.
        """

    def close(self) -> None:
        """Frees what it holds."""


def open_pictures(form: Form, device: Device) -> Pictures:
    """What makes the input of a network that runs on a device.

    Args:
        form: of the input.
        device: of the network; `cpu` where it runs in another process, whose memory is not ours.

    Raises:
        RuntimeUnavailableError: the device is not usable here.
    """
    runtime = open_small(pictures_graph, device)
    return HostPictures(form) if runtime is None else DevicePictures(runtime, form)


class HostPictures:
    """Makes them on the processor.

    Args:
        form: of the input.
    """

    def __init__(self, form: Form) -> None:
        self._form = form

    def make(self, frame: Frame, shown: Shown) -> Floats:
        """See `Pictures`."""
        one_stage, normal = self._form.one_stage, self._form.normalisation
        image = limited_picture(frame, shown) if one_stage else full_picture(frame, shown)
        return normalised(image, normal.mean, normal.std, self._form.padded(shown), black=one_stage)

    def close(self) -> None:
        """There is nothing to free."""


def pictures_graph() -> SmallGraph:
    """A frame to a network's input, as two products with the weights of the resampling.

    Antialiased filters of free sizes are what runtimes do not share (TensorRT has none); products they all have, and a
    GPU does these few billion operations in less time than the picture takes to get there.
    """
    # The package onnx is not needed on a processor.
    from onnx import TensorProto

    from engines.nodes import Nodes

    nodes = Nodes("pictures")
    levels = nodes.levels("frame", "rows", "columns")
    toned = nodes.one("Gather", "tone", nodes.one("Cast", levels, to=TensorProto.INT64), axis=0)
    normal = nodes.one("Div", nodes.one("Sub", toned, "mean"), "std")
    inside = nodes.one("Mul", nodes.one("Mul", normal, "inside_rows"), "inside_columns")
    nodes.named("image", "Unsqueeze", inside, nodes.integers(0))
    inputs = (
        Tensor(name="frame", dtype="uint8", shape=("H", "W", 3), meaning="RGB"),
        Tensor(name="rows", dtype="float32", shape=("h", "H"), meaning="weights of rows; 0 in the padding"),
        Tensor(name="columns", dtype="float32", shape=("W", "w"), meaning="weights of columns; 0 in the padding"),
        Tensor(name="inside_rows", dtype="float32", shape=("h", 1), meaning="1, and 0 where the input is 0"),
        Tensor(name="inside_columns", dtype="float32", shape=(1, "w"), meaning="1, and 0 where the input is 0"),
        Tensor(name="tone", dtype="float32", shape=(256,), meaning="the level that counts for each level"),
        Tensor(name="mean", dtype="float32", shape=(3, 1, 1), meaning="of levels, by channel"),
        Tensor(name="std", dtype="float32", shape=(3, 1, 1), meaning="of levels, by channel"),
    )
    image = Tensor(name="image", dtype="float32", shape=(1, 3, "h", "w"), meaning="(level - mean) / std, then padded")
    return small_graph("pictures.onnx", inputs, [image], nodes)


class DevicePictures:
    """Makes them where the detector runs: of a frame only its bytes travel, a quarter of what the network takes.

    May be called from several threads at once.

    Args:
        runtime: of `pictures_graph`, with memory that the detector's runtime shares.
        form: of the input.
    """

    def __init__(self, runtime: Runtime, form: Form) -> None:
        self._runtime, self._form = runtime, form
        self._held: dict[tuple[Any, ...], dict[str, Resident]] = {}
        self._lock = threading.Lock()

    def make(self, frame: Frame, shown: Shown) -> Resident:
        """See `Pictures`; it stays on the device."""
        feeds: Feeds = {"frame": np.ascontiguousarray(frame.image), **self._weights(frame, shown)}
        made: Resident = self._runtime.run(feeds, keep=["image"])["image"]
        return made

    def close(self) -> None:
        """Frees the graph and its weights; may be called again."""
        self._held.clear()
        self._runtime.close()

    def _weights(self, frame: Frame, shown: Shown) -> dict[str, Resident]:
        key = frame.height, frame.width, shown.height, shown.width, frame.transfer
        with self._lock:
            if key not in self._held:
                while len(self._held) >= _MOST_SIZES:
                    del self._held[next(iter(self._held))]
                self._held[key] = {name: self._runtime.hold(array) for name, array in self._make(frame, shown).items()}
            return self._held[key]

    def _make(self, frame: Frame, shown: Shown) -> dict[str, Floats]:
        form = self._form
        height, width = form.padded(shown)
        filter_: resample.Filter = "bilinear"
        if form.one_stage:
            filter_ = "area" if shrinks(frame, shown) else "linear"
        # Where there are no weights it is black, which for networks in one stage is normalised as any other level.
        inside = (height, width) if form.one_stage else (shown.height, shown.width)
        normal = form.normalisation
        return {
            "rows": _axis(filter_, frame.height, shown.height, height),
            "columns": np.ascontiguousarray(_axis(filter_, frame.width, shown.width, width).T),
            "inside_rows": (np.arange(height) < inside[0])[:, None].astype(np.float32),
            "inside_columns": (np.arange(width) < inside[1])[None].astype(np.float32),
            "tone": tone_curve(frame.transfer).astype(np.float32),
            "mean": np.array(normal.mean, np.float32)[:, None, None],
            "std": np.array(normal.std, np.float32)[:, None, None],
        }


def _axis(filter_: resample.Filter, given: int, wanted: int, padded: int) -> Floats:
    """Weights (padded, given) of an axis; none in the padding."""
    weights = np.zeros((padded, given), np.float32)
    weights[:wanted] = resample.axis(filter_, given, wanted).dense()
    return weights

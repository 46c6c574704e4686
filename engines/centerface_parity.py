"""CenterFace's decoding once more, in numpy, and how the built graph compares with the published network."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engines import centerface
from engines.errors import BundleError
from engines.manifest import Parity

if TYPE_CHECKING:
    from types import ModuleType

    import onnx
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

log = logging.getLogger(__name__)

#: (height, width) padded, (height, width) of the image inside, seed. With these seeds no candidate is so
#: close to a limit (score, overlap) that another processor's rounding would decide it differently.
_CASES = (((160, 224), (160, 224), 97), ((256, 192), (233, 171), 2))
_MAPS = ("537", "538", "539")
#: Boxes are in pixels, scores in 0..1.
_TOLERANCES = {"boxes": 1e-2, "scores": 1e-4, "floor": 1e-4}


@dataclass(frozen=True)
class Decoded:
    """What one image has: boxes (count,4) xyxy and scores (count,), descending, and the floor."""

    boxes: Floats
    scores: Floats
    floor: float


def _suppress(boxes: Floats, limit: float) -> list[int]:
    """Greedy non-maximum suppression of boxes in descending order of score: which rows stay."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    stay: list[int] = []
    for row in range(len(boxes)):
        others = np.array(stay, dtype=np.int64)
        low = np.maximum(boxes[row, :2], boxes[others, :2])
        high = np.minimum(boxes[row, 2:], boxes[others, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        if not np.any(shared / (area[row] + area[others] - shared) > limit):
            stay.append(row)
    return stay


def decode(
    heat: Floats,
    scale: Floats,
    offset: Floats,
    size: tuple[int, int],
    *,
    most: int = centerface.MOST_CANDIDATES,
) -> Decoded:
    """Decodes the maps of one image, independently of the graph (CenterFace, section 3).

    Args:
        heat: (gh,gw), 0..1.
        scale: (2,gh,gw), log height and log width in cells.
        offset: (2,gh,gw), y and x in cells.
        size: Height and width in pixels before padding.
        most: How many of the best candidates are considered.
    """
    rows, columns = np.mgrid[0 : heat.shape[0], 0 : heat.shape[1]].astype(np.float32)
    y = ((rows + offset[0] + np.float32(0.5)) * centerface.STRIDE).ravel()
    x = ((columns + offset[1] + np.float32(0.5)) * centerface.STRIDE).ravel()
    height, width = np.exp(scale.reshape(2, -1)) * centerface.STRIDE
    scores = np.where((y < size[0]) & (x < size[1]), heat.ravel(), np.float32(0))
    order = np.argsort(-scores, kind="stable")
    best = order[:most]
    lost = np.count_nonzero(scores > centerface.SCORE_FLOOR) > len(best)
    kept = best[scores[best] > centerface.SCORE_FLOOR]
    boxes = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)[kept]
    stay = _suppress(boxes, centerface.IOU_LIMIT)
    return Decoded(boxes[stay], scores[kept][stay], float(scores[best[-1]]) if lost else 0.0)


def _drawn_faces(height: int, width: int, seed: int) -> Floats:
    """Cartoon faces on a gradient, (1,3,height,width), 0..255: noise alone has no candidates to compare."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    image = np.stack([rows, columns, rows + columns]) * (90 / (height + width)) + 60
    for _ in range(4):
        radius = draw.uniform(0.1, 0.2) * min(height, width)
        cy, cx = draw.uniform(0.2, 0.8) * height, draw.uniform(0.2, 0.8) * width
        u, v = (columns - cx) / radius, (rows - cy) / (1.3 * radius)
        skin = np.array([215.0, 170.0, 140.0]) * draw.uniform(0.8, 1.1)
        image = np.where(u**2 + v**2 < 1, skin[:, None, None], image)
        for at_u, at_v, size_u, size_v in (
            (-0.4, -0.2, 0.16, 0.08),
            (0.4, -0.2, 0.16, 0.08),
            (0, 0.5, 0.35, 0.08),
        ):
            image = np.where(((u - at_u) / size_u) ** 2 + ((v - at_v) / size_v) ** 2 < 1, 45.0, image)
    image += draw.normal(0, 4, image.shape)
    return np.clip(image, 0, 255).astype(np.float32)[None]


def measure_parity(published: onnx.ModelProto, detector: onnx.ModelProto) -> tuple[Parity, ...]:
    """Runs the published network with `decode` and the built graph on the same images, and compares.

    Args:
        published: The network with the maps 537 (heat), 538 (scale) and 539 (offset).
        detector: What `centerface.build_detector` made of it.

    Returns:
        One result for each compared output; none where ONNX Runtime is not installed.

    Raises:
        BundleError: They differ by more than the tolerance, or there was nothing to compare.
    """
    try:
        import onnxruntime
    except ImportError:
        log.warning("ONNX Runtime is not installed: the parity of the detector graph was not measured")
        return ()
    network = _session(onnxruntime, centerface.dynamic_network(published, _MAPS))
    graph = _session(onnxruntime, detector)
    largest = dict.fromkeys(_TOLERANCES, 0.0)
    candidates = 0
    for (height, width), size, seed in _CASES:
        image = _drawn_faces(height, width, seed)
        heat, scale, offset = network.run(_MAPS, {"image": image})
        expected = decode(heat[0, 0], scale[0], offset[0], size)
        candidates += len(expected.scores)
        for name, difference in _differences(graph, image, size, expected).items():
            largest[name] = max(largest[name], difference)
    return _results(largest, candidates)


def _differences(graph: Any, image: Floats, size: tuple[int, int], expected: Decoded) -> dict[str, float]:
    names = ["boxes", "scores", "floor", "count"]
    feeds = {"image": image, "image_size": np.array([size], dtype=np.int64)}
    boxes, scores, floor, count = graph.run(names, feeds)
    number = int(count[0])
    if number != len(expected.scores):
        raise BundleError(
            f"the detector graph returns {number} boxes, the published network {len(expected.scores)}; "
            "the recipe does not fit this ONNX Runtime; report it"
        )
    pairs = (
        ("boxes", boxes[0, :number], expected.boxes),
        ("scores", scores[0, :number], expected.scores),
        ("floor", floor, np.array([expected.floor])),
    )
    return {name: float(np.abs(found - wanted).max(initial=0)) for name, found, wanted in pairs}


def _session(onnxruntime: ModuleType, model: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )


def _results(largest: dict[str, float], candidates: int) -> tuple[Parity, ...]:
    if candidates == 0:
        raise BundleError("the parity images have no candidates, so nothing was compared; report it")
    for name, tolerance in _TOLERANCES.items():
        if not largest[name] <= tolerance:
            raise BundleError(
                f"the detector graph's {name} differ from the published network by {largest[name]:.3g}, "
                f"expected at most {tolerance:g}; the recipe does not fit this ONNX Runtime; report it"
            )
    return tuple(
        Parity(
            graph="detector",
            output=name,
            largest_difference=largest[name],
            tolerance=tolerance,
            cases=len(_CASES),
        )
        for name, tolerance in _TOLERANCES.items()
    )

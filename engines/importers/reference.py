"""The same decoding once more, in numpy, and how a built graph compares with the file that it was made of."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from onnx import helper

from engines.errors import BundleError
from engines.importers.forms import Cells, Columns, Lists, Priors, Queries, Rows
from engines.importers.graph import build_detector, limits_of
from engines.importers.text import shown
from engines.manifest import Parity

if TYPE_CHECKING:
    from engines.importers.classes import Classes
    from engines.importers.forms import Groups
    from engines.importers.network import Network
    from engines.importers.recognise import Recipe

    Floats = npt.NDArray[np.float32]
    Arrays = dict[str, npt.NDArray[Any]]

log = logging.getLogger(__name__)

#: (height, width) of the picture's share of the input, seed.
_CASES = (((1.0, 1.0), 11), ((0.7, 0.9), 12))
#: Sides where the file leaves them open.
_OPEN_SIDE = 320
_MOST_COMPARED = 200
#: Boxes are in pixels, scores in 0..1, masks in 0..255.
_TOLERANCES = {"boxes": 0.1, "scores": 1e-3, "masks": 1.0}


@dataclass(frozen=True)
class Decoded:
    """One picture's candidates: boxes (A,4) `xyxy` in pixels, scores (C,A), masks (A,mh,mw) 0..1 or None."""

    boxes: Floats
    scores: Floats
    masks: Floats | None


def decode(form: object, raw: Arrays, size: tuple[int, int], groups: Groups) -> Decoded:
    """Decodes a network's outputs for one picture.

    Args:
        form: One of `engines.importers.forms`.
        raw: The network's outputs by name, N = 1.
        size: Height and width of the network's picture.
        groups: For each kind the network's classes.
    """
    height, width = size
    share = np.array([width, height, width, height], np.float32)
    if isinstance(form, Columns):
        rows = raw[form.name][0] if form.rows else raw[form.name][0].T
        first = 4 + int(form.objectness)
        scores = rows[:, first : first + form.classes] * (rows[:, 4:5] if form.objectness else 1)
        boxes = _corners(rows[:, :4] * (share if form.unit else 1))
        return Decoded(boxes, _of_columns(scores, groups), _prototypes(form, raw, rows, boxes, size))
    if isinstance(form, Rows):
        rows = raw[form.name][0]
        boxes = rows[:, :4]
        return Decoded(boxes, _of_labels(rows[:, 4], rows[:, 5], groups), _prototypes(form, raw, rows, boxes, size))
    if isinstance(form, Queries):
        boxes = _corners(raw[form.boxes][0] * share)
        return Decoded(boxes, _of_columns(_sigmoid(raw[form.logits][0]), groups), None)
    if isinstance(form, Lists):
        boxes, scores, labels = (raw[name] for name in (form.boxes, form.scores, form.labels))
        if form.batched:
            boxes, scores, labels = boxes[0], scores[0], labels[0]
        return Decoded(boxes.reshape(-1, 4), _of_labels(scores, labels, groups), _quarter(form, raw))
    if isinstance(form, Cells):
        return _cells(form, raw[form.name][0], share, groups)
    if isinstance(form, Priors):
        return Decoded(raw[form.boxes][0] * share, _of_columns(raw[form.scores][0][:, 1:], groups), None)
    raise TypeError(f"no decoder for {type(form).__name__}")


def _cells(form: Cells, maps: Floats, share: Floats, groups: Groups) -> Decoded:
    rows, columns = np.mgrid[0 : maps.shape[1], 0 : maps.shape[2]]
    x = (columns + np.tanh(maps[1])) / maps.shape[2]
    y = (rows + np.tanh(maps[2])) / maps.shape[1]
    centred = np.stack([x, y, _sigmoid(maps[3]), _sigmoid(maps[4])], axis=-1).reshape(-1, 4)
    scores = maps[0].reshape(-1, 1) ** 0.6 * maps[5:].reshape(form.classes, -1).T ** 0.4
    return Decoded(_corners(centred.astype(np.float32) * share), _of_columns(scores, groups), None)


def _corners(centred: Floats) -> Floats:
    centre, half = centred[:, :2], centred[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _sigmoid(values: Floats) -> Floats:
    # Not 1 / (1 + exp(-x)), which overflows.
    return np.asarray((np.tanh(values.astype(np.float64) / 2) + 1) / 2, np.float32)


def _of_columns(scores: Floats, groups: Groups) -> Floats:
    return np.stack([scores[:, list(group)].max(axis=1) for group in groups]).astype(np.float32)


def _of_labels(scores: Floats, labels: npt.NDArray[Any], groups: Groups) -> Floats:
    return np.stack([np.where(np.isin(labels.astype(np.int64), group), scores, 0) for group in groups])


def _prototypes(form: Columns | Rows, raw: Arrays, rows: Floats, boxes: Floats, size: tuple[int, int]) -> Floats | None:
    if form.prototypes is None:
        return None
    prototypes = raw[form.prototypes][0]
    masks = _sigmoid(np.tensordot(rows[:, -form.coefficients :], prototypes, axes=1))
    for axis, low, high in ((1, boxes[:, 1], boxes[:, 3]), (2, boxes[:, 0], boxes[:, 2])):
        step = size[axis - 1] / masks.shape[axis]
        edges = np.arange(masks.shape[axis]) * step
        touched = (edges + step > low[:, None]) & (edges < high[:, None])
        masks = masks * np.expand_dims(touched, 3 - axis)
    return masks


def _quarter(form: Lists, raw: Arrays) -> Floats | None:
    if form.masks is None:
        return None
    masks = raw[form.masks][:, 0]
    rows, columns = (-(-side // 4) * 4 for side in masks.shape[1:])
    padded = np.full((len(masks), rows, columns), np.nan, np.float32)
    padded[:, : masks.shape[1], : masks.shape[2]] = masks
    blocks = padded.reshape(len(masks), rows // 4, 4, columns // 4, 4)
    return np.asarray(np.nanmean(blocks, axis=(2, 4)), np.float32) if len(masks) else padded[:, ::4, ::4]


def candidates(found: Decoded, size: tuple[int, int]) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """All (anchor, kind) pairs whose centre lies in the picture, best first: boxes, scores, places (kind * A + anchor).

    Args:
        found: What was decoded.
        size: Height and width of the picture before padding.
    """
    low, high = found.boxes[:, :2], found.boxes[:, 2:]
    thin = (high - low >= 0) & (high - low < 1)
    spare = np.where(thin, (1 - (high - low)) / 2, 0)
    boxes = np.concatenate([low - spare, high + spare], axis=1).astype(np.float32)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = (centre < np.array(size)[::-1]).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    scores = np.where(inside, found.scores, 0).ravel()
    order = np.argsort(-scores, kind="stable")
    return boxes[order % len(boxes)], scores[order], order


def drawn_picture(height: int, width: int, seed: int) -> Floats:
    """A picture (1,3,height,width) 0..255 of gradients, disks and noise: something for a network to look at."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    image = np.stack([rows, columns, rows + columns]) * (90 / (height + width)) + 60
    for _ in range(6):
        radius = draw.uniform(0.05, 0.2) * min(height, width)
        cy, cx = draw.uniform(0.1, 0.9) * height, draw.uniform(0.1, 0.9) * width
        disk = (columns - cx) ** 2 + ((rows - cy) / 2) ** 2 < radius**2
        image = np.where(disk, draw.uniform(0, 255, (3, 1, 1)), image)
    return np.clip(image + draw.normal(0, 6, image.shape), 0, 255).astype(np.float32)[None]


def measure_parity(network: Network, recipe: Recipe, classes: Classes) -> tuple[Parity, ...]:
    """Runs the file as it is with `decode`, and the built graph, on the same pictures, and compares all candidates.

    The graph is built without suppression and without a lowest score here, so that there are candidates on any picture.

    Returns:
        One result for each compared output; none where ONNX Runtime is not installed.

    Raises:
        BundleError: The network cannot run, its scores are none, or they differ by more than the tolerance.
    """
    try:
        import onnxruntime
    except ImportError:
        log.warning("ONNX Runtime is not installed: the detector was not tried")
        return ()
    limits = replace(limits_of(recipe), iou=None, score=-1.0)
    limits = replace(limits, returned=min(limits.returned, _MOST_COMPARED))
    try:
        plain = _session(onnxruntime, network.original)
        built = _session(onnxruntime, build_detector(network, recipe, classes, limits))
    except BundleError:
        raise
    except Exception as error:  # noqa: BLE001  ONNX Runtime's exceptions have no common base class
        raise BundleError(f"ONNX Runtime cannot load the network ({_line(error)}); export it again") from None
    largest: dict[str, float] = {}
    for share, seed in _CASES:
        try:
            differences = _differences(plain, built, network, recipe, classes, share, seed)
        except BundleError:
            raise
        except Exception as error:  # noqa: BLE001  as above
            raise BundleError(f"the network fails on a picture ({_line(error)}); export it again") from None
        for name, difference in differences.items():
            largest[name] = max(largest.get(name, 0.0), difference)
    return _results(largest)


def _differences(
    plain: Any,
    built: Any,
    network: Network,
    recipe: Recipe,
    classes: Classes,
    share: tuple[float, float],
    seed: int,
) -> dict[str, float]:
    height, width = (side if isinstance(side, int) else _OPEN_SIDE for side in network.size)
    inside = max(1, round(height * share[0])), max(1, round(width * share[1]))
    image = (drawn_picture(height, width, seed) - recipe.mean) / np.float32(recipe.std)
    names = recipe.form.outputs
    answers = plain.run(list(names), _feeds(network, recipe, image, inside))
    raw = {n: v.astype(np.float32) if v.dtype == np.float16 else v for n, v in zip(names, answers, strict=True)}
    expected = decode(recipe.form, raw, (height, width), classes.groups)
    _require_scores(expected.scores)
    outputs = ["boxes", "scores", "count", *(["masks"] if recipe.form.has_masks else [])]
    feeds = {"image": image.astype(np.float32), "image_size": np.array([inside], np.int64)}
    found = dict(zip(outputs, built.run(outputs, feeds), strict=True))
    return _compare(found, expected, inside)


def _feeds(network: Network, recipe: Recipe, image: Floats, inside: tuple[int, int]) -> Arrays:
    """What the file itself is fed, made without the graph's front."""
    picture = image.copy()
    if recipe.padding:
        picture[:, :, inside[0] :] = recipe.padding
        picture[:, :, :, inside[1] :] = recipe.padding
    if recipe.bgr:
        picture = picture[:, ::-1]
    if len(network.picture.shape or ()) == 3:
        picture = picture[0]
    code = helper.tensor_dtype_to_np_dtype(network.picture.code)
    feeds: Arrays = {network.picture.name: np.ascontiguousarray(picture, code)}
    for port in network.others:
        feeds[port.name] = np.array([image.shape[:1:-1]], helper.tensor_dtype_to_np_dtype(port.code))
    return feeds


def _require_scores(scores: Floats) -> None:
    if not np.isfinite(scores).all():
        raise BundleError("the network's scores are not finite on an ordinary picture; its weights are damaged")
    if scores.size and (scores.min() < -1e-3 or scores.max() > 1 + 1e-3):
        raise BundleError(
            f"the network's scores reach from {scores.min():.3g} to {scores.max():.3g}, expected 0 to 1; "
            "it has another layout or gives out logits; choose another --kind, or export it with its last activation"
        )


def _compare(found: Arrays, expected: Decoded, inside: tuple[int, int]) -> dict[str, float]:
    boxes, scores, places = candidates(expected, inside)
    number = min(int(found["count"][0]), _MOST_COMPARED, len(scores))
    if not number:
        return {}
    # Equal scores may come in either order: a box is compared with all that have about its score.
    gaps = np.abs(found["scores"][0, :number, None] - scores[None, : number + 50])
    largest = {"scores": float(np.abs(found["scores"][0, :number] - scores[:number]).max())}
    distance = np.abs(found["boxes"][0, :number, None] - boxes[None, : number + 50]).max(axis=2)
    alike = np.where(gaps <= gaps.min(axis=1, keepdims=True) + 1e-5, distance, np.inf)
    largest["boxes"] = float(alike.min(axis=1).max())
    if expected.masks is not None:
        partner = places[alike.argmin(axis=1)] % len(expected.boxes)
        largest["masks"] = float(np.abs(found["masks"][0, :number] - 255 * expected.masks[partner]).max())
    return largest


def _session(onnxruntime: Any, model: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )


def _results(largest: dict[str, float]) -> tuple[Parity, ...]:
    for name, difference in largest.items():
        if not difference <= _TOLERANCES[name]:
            raise BundleError(
                f"the detector's {name} differ from those of the file by {difference:.3g}, expected at most "
                f"{_TOLERANCES[name]:g}; it does not fit this ONNX Runtime; report it"
            )
    return tuple(
        Parity(
            graph="detector",
            output=name,
            largest_difference=difference,
            tolerance=_TOLERANCES[name],
            cases=len(_CASES),
        )
        for name, difference in largest.items()
    )


def _line(error: Exception) -> str:
    return shown(" ".join(str(error).split()), 300)

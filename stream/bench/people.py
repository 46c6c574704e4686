"""People who are put into what detectors answer, so that a benchmark has as many as it wants.

The engines run on every frame as they do in a run; only what they answer is replaced: boxes on their way to the heads,
then masks and dense poses on their way out. All that comes after them, from tracking to stand-ins, cannot tell.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from engines.bundle import Bundle
from engines.resident import as_numpy
from engines.runtime import Runtime
from stream.bench.wrapped import WrappedRuntime

if TYPE_CHECKING:
    from engines.resident import Feeds

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

#: A person's height, as a share of the frame's: the same however many there are, so that only their number differs.
_TALL: Final = 0.4
#: Height over width of a person.
_SLENDER: Final = 2.4
#: Of a person's box: where the face is.
_FACE: Final = (0.35, 0.03, 0.65, 0.16)
_SCORE: Final = 0.9
#: Most that can be put into a frame; detectors weigh a few hundred boxes.
MOST_PERSONS: Final = 100


def places(count: int, aspect: float) -> Floats:
    """Boxes (N, 4) of persons in rows, as shares of the frame's width and height.

    Where there is no more room, the next stand half in front of those who are there.

    Args:
        count: how many.
        aspect: width over height of the frame.
    """
    wide = min(1.0, _TALL / _SLENDER / aspect)
    columns, rows = max(1, int(1 / wide)), int(1 / _TALL)
    made = []
    for number in range(count):
        layer, place = divmod(number, columns * rows)
        row, column = divmod(place, columns)
        x0 = min(column / columns + (layer % 2) * wide / 2, 1 - wide)
        y0 = min(row / rows + (layer // 2 % 5 * 0.2) * _TALL, 1 - _TALL)
        made.append((x0, y0, x0 + wide, y0 + _TALL))
    return np.array(made, np.float32).reshape(-1, 4)


def faces_of(persons: Floats) -> Floats:
    """The faces (N, 4) of persons."""
    low, side = persons[:, :2], persons[:, 2:] - persons[:, :2]
    share = np.array(_FACE, np.float32)
    return np.concatenate([low + side * share[:2], low + side * share[2:]], axis=1)


def body(height: int, width: int) -> npt.NDArray[np.bool_]:
    """A person in the box: most of it, but not the corners, (height, width)."""
    y = (np.arange(height)[:, None] + 0.5) / height - 0.5
    x = (np.arange(width)[None] + 0.5) / width - 0.5
    return np.asarray(x**2 + y**2 < 0.24)


def smooth_pose(vertices: Floats, side: int) -> Floats:
    """An embedding for every pixel of a body, (C, side, side): neighbours on the surface are neighbours in the picture.

    Vertices are laid out by the two directions in which their embeddings differ most.

    Args:
        vertices: (K, C) embeddings of the surface.
        side: of the picture.
    """
    centred = vertices - vertices.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    down, across = centred @ axes[:, -1], centred @ axes[:, -2]
    order = np.argsort(down, kind="stable")
    rows = np.array_split(order, min(side, len(order)))
    picture = np.empty((side, side), np.int64)
    for y in range(side):
        row = rows[y * len(rows) // side]
        row = row[np.argsort(across[row], kind="stable")]
        picture[y] = row[np.arange(side) * len(row) // side]
    return np.ascontiguousarray(vertices[picture].transpose(2, 0, 1), np.float32)


class PlacedRuntime(WrappedRuntime):
    """A detector's graph that answers with people who were put there; the graph itself runs as well.

    Args:
        bundle: a detection bundle.
        name: of the graph, `detector` or `heads`.
        inner: runs it.
        persons: how many people there are.
        aspect: width over height of the frame.
    """

    def __init__(self, bundle: Bundle, name: str, inner: Runtime, *, persons: int, aspect: float) -> None:
        super().__init__(bundle, name, inner)
        shares = places(persons, aspect)
        of_kind = {"person": shares, "face": faces_of(shares)}
        boxes, classes = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int64)]
        for label, kind in enumerate(bundle.manifest.kinds):
            if kind in of_kind:
                boxes.append(of_kind[kind])
                classes.append(np.full(persons, label, np.int64))
        self._boxes, self._classes = np.concatenate(boxes), np.concatenate(classes)
        self._pose: Floats | None = None
        if name == "heads" and "vertex_embeddings" in bundle.manifest.arrays:
            side = next((t.shape[-1] for t in self.outputs if t.name == "embedding"), None)
            if isinstance(side, int):
                self._pose = smooth_pose(np.asarray(bundle.array("vertex_embeddings"), np.float32), side)

    def _run_there(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        answer = dict(self._inner.run(feeds, keep))
        if "count" in answer:
            return answer | self._found(feeds, answer)
        return answer | self._looked_closer(answer)

    def _found(self, feeds: Feeds, answer: Mapping[str, Any]) -> dict[str, Array]:
        height, width = (int(side) for side in as_numpy(feeds["image_size"])[0])
        count = len(self._boxes)
        boxes = self._boxes * np.array([width, height, width, height], np.float32)
        placed: dict[str, Any] = {
            "boxes": boxes[None],
            "scores": np.full((1, count), _SCORE, np.float32),
            "classes": self._classes[None],
            "count": np.array([count], np.int64),
            "floor": np.zeros(1, np.float32),
        }
        if "masks" in answer:
            placed["masks"] = _whole_masks(boxes, feeds["image"].shape[2:], answer["masks"].shape[2:])[None]
        return placed

    def _looked_closer(self, answer: Mapping[str, Array]) -> dict[str, Array]:
        placed: dict[str, Array] = {}
        for name in ("masks", "coarse_segm"):
            if name in answer:
                shape = answer[name].shape
                inside = body(*shape[-2:]).astype(np.float32)
                channels = inside if name == "masks" else np.stack([1 - inside, inside])
                placed[name] = np.broadcast_to(channels, shape).copy()
        if "embedding" in answer and self._pose is not None:
            placed["embedding"] = np.broadcast_to(self._pose, answer["embedding"].shape).copy()
        return placed


def _whole_masks(boxes: Floats, view: tuple[int, ...], cells: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Masks (N, mh, mw) over a whole view of that height and width, as detectors in one graph give them."""
    made = np.zeros((len(boxes), *cells), np.uint8)
    scale = np.array([cells[1] / view[1], cells[0] / view[0]] * 2)
    for mask, box in zip(made, np.rint(boxes * scale).astype(int), strict=True):
        x0, y0, x1, y1 = box.tolist()
        shown = mask[y0:y1, x0:x1]
        shown[:] = 255 * body(*shown.shape) if shown.size else 0
    return made

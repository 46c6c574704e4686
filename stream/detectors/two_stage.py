"""Detectors in two graphs: `detector.onnx` finds boxes, `heads.onnx` looks closer at those that count.

Mask R-CNN (https://arxiv.org/abs/1703.06870) gives each person a mask, DensePose CSE
(https://arxiv.org/abs/2011.12438) a place on the body's surface for every pixel.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.bundle import Bundle
from engines.errors import BundleError, DetectionError
from engines.runtime import Runtime
from stream.detectors.base import check_detections
from stream.detectors.masks import pasted
from stream.detectors.pictures import Form, HostPictures, Pictures
from stream.detectors.second_look import is_worth_it, longer_sides, with_near
from stream.detectors.view import Shown, shortest_edge, show_full
from stream.frame import Frame, flat_image
from stream.outline import BodySurface, Outline
from stream.regions import Kind, Regions

Arrays = dict[str, Any]

#: Boxes in one run of the heads: a crowd must not exhaust the memory (a dense pose takes about 50 MB a box).
_MOST_BOXES = 16
#: What is read of a detector's answer; everything else that it gives is features.
_READ = ("boxes", "scores", "classes", "count", "floor")
#: What heads take that is no feature of the detector's.
_OF_BOXES = ("boxes", "index", "classes")


class TwoStageDetector:
    """Runs a bundle of Mask R-CNN or of DensePose CSE on whole frames, as published.

    Persons come with an outline: Mask R-CNN's with a mask, CSE's with a `BodySurface`. Where a mask has no pixel the
    region is its box; nothing that was found is dropped. Of other kinds the box is covered, so that they need none.

    Where its manifest says so, a frame with something very near is looked at a second time (`second_look`).

    `detect` keeps nothing between calls and may be called from several threads at once.

    Args:
        bundle: task `detection`, with `detection` in its manifest.
        detector: runtime of the bundle's graph `detector`.
        heads: of its graph `heads`.
        threshold: regions with a lower score are not reported. The graph has one of its own, which counts if it is
            higher.
        longest: limits the longer side of the picture that is looked at, None for what the bundle says.
        pictures: makes the detector's input, None for `HostPictures`; it is closed with the detector.

    Raises:
        BundleError: the bundle is of another kind of detector, or its graphs do not fit together.
    """

    def __init__(
        self,
        bundle: Bundle,
        detector: Runtime,
        heads: Runtime,
        *,
        threshold: float,
        longest: int | None = None,
        pictures: Pictures | None = None,
    ) -> None:
        detection = bundle.manifest.detection
        if detection is None:
            raise BundleError(f"{bundle.manifest.name} is no detector in two stages; its manifest has no `detection`")
        self._detector = detector
        self._heads = heads
        self._declared = detection
        self._kinds = np.array([Kind.of(name) for name in bundle.manifest.kinds], np.uint8)
        self._name = bundle.manifest.name
        form = Form.of(bundle)
        self._size = form.size
        # A network that takes pictures of one size only sees a frame once, at that size.
        self._second_look = detection.second_look if self._size is None else None
        self._pictures = pictures or HostPictures(form)
        self._features = [tensor.name for tensor in heads.inputs if tensor.name not in _OF_BOXES]
        self._kept_there = [tensor.name for tensor in detector.outputs if tensor.name not in _READ]
        if lacking := set(self._features) - {tensor.name for tensor in detector.outputs}:
            raise BundleError(
                f"the heads of {bundle.manifest.name} take {', '.join(sorted(lacking))}, which its detector does not "
                "give; build the bundle again"
            )
        self._longest = detection.max_size if longest is None else min(longest, detection.max_size)
        self._threshold = max(threshold, detection.threshold)

    def detect(self, frame: Frame) -> Regions:
        """All regions of the frame over the threshold, in its pixels.

        Raises:
            DetectionError: numbers that no working detector gives, or more boxes than the graph can give.
        """
        shown = self._shown(frame)
        found = self._find(frame, shown)
        fine = self._regions(found, frame, shown)
        again = self._second_look
        if again is None or not is_worth_it(found["boxes"][0, : int(found["count"][0])], again):
            return fine
        small = self._shown(frame, again.scale)
        coarse = self._regions(self._find(frame, small), frame, small)
        near = again.from_size / max(shown.scale_x, shown.scale_y)
        return with_near(fine, coarse[longer_sides(coarse.boxes) >= near])

    def _regions(self, found: Arrays, frame: Frame, shown: Shown) -> Regions:
        boxes, scores, classes = self._kept(found)
        in_frame = _clipped(shown.to_frame(boxes), frame.width, frame.height)
        # As published, what is left without area by clipping goes. A NaN stays, for the check that follows.
        there = ~(in_frame[:, 2:] <= in_frame[:, :2]).any(axis=1)
        boxes, scores, classes, in_frame = boxes[there], scores[there], classes[there], in_frame[there]
        check_detections(in_frame, scores, frame.width, frame.height)
        if ((classes < 0) | (classes >= len(self._kinds))).any():
            raise DetectionError(f"{self._name} returned a class that its manifest does not name")
        kinds = self._kinds[classes]
        outlines: list[Outline | None] = [None] * len(boxes)
        persons = np.flatnonzero(kinds == Kind.PERSON)
        for start in range(0, len(persons), _MOST_BOXES):
            rows = persons[start : start + _MOST_BOXES]
            made = self._look_closer(found, boxes[rows], classes[rows], in_frame[rows], frame)
            for row, outline in zip(rows.tolist(), made, strict=True):
                outlines[row] = outline
        regions = Regions.of(in_frame, Kind.PERSON, scores=scores, outlines=outlines)
        regions.kinds[:] = kinds
        return regions

    @property
    def scales(self) -> tuple[float, ...]:
        """Of the pictures that it may look at, against the first one."""
        return (1.0,) if self._second_look is None else (1.0, self._second_look.scale)

    def inputs(self, frame: Frame, scale: float = 1.0) -> Arrays:
        """What the graph `detector` takes of a frame, at one of `scales`."""
        return self._fed(frame, self._shown(frame, scale))

    def reset(self) -> None:
        """Nothing to forget: every frame is looked at by itself."""

    def prepare(self, width: int, height: int, parallel: int) -> None:
        """Run both graphs on as many flat frames at once as will be under way."""
        frame = Frame(flat_image((height, width, 3)))

        def trial() -> None:
            for shown in [self._shown(frame, scale) for scale in self.scales]:
                found = self._find(frame, shown)
                # Whatever a flat frame shows, the heads get a box: their first run must not fall into the stream.
                box = np.array([[0, 0, shown.width, shown.height]], np.float32)
                self._run_heads(found, box, np.zeros(1, np.int64))

        with ThreadPoolExecutor(parallel) as pool:
            for run in [pool.submit(trial) for _ in range(parallel)]:
                run.result()

    def close(self) -> None:
        """Release the runtimes."""
        self._pictures.close()
        self._detector.close()
        self._heads.close()

    def _find(self, frame: Frame, shown: Shown) -> Arrays:
        # Features are hundreds of megabytes a frame, which the heads take where they are.
        return dict(self._detector.run(self._fed(frame, shown), keep=self._kept_there))

    def _fed(self, frame: Frame, shown: Shown) -> Arrays:
        return {
            "image": self._pictures.make(frame, shown),
            "image_size": np.array([[shown.height, shown.width]], np.int64),
        }

    def _shown(self, frame: Frame, part: float = 1.0) -> Shown:
        def scale(height: float, width: float) -> float:
            chosen = shortest_edge(height, width, self._declared.min_size, self._longest)
            if self._size is None:
                return part * chosen
            return min(chosen, self._size[0] / height, self._size[1] / width)

        return show_full(frame, scale)

    def _kept(self, found: Arrays) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        count = int(found["count"][0])
        boxes, scores, classes = (found[name][0, :count] for name in ("boxes", "scores", "classes"))
        # Negated, as below: a NaN must not pass as "small enough".
        if not float(found["floor"][0]) < self._threshold:
            raise DetectionError(
                f"{self._name} found more than the {self._declared.most} boxes that it gives; some may be missing"
            )
        kept = ~(scores < self._threshold)
        return boxes[kept], scores[kept], classes[kept]

    def _look_closer(
        self,
        found: Arrays,
        boxes: npt.NDArray[np.float32],
        classes: npt.NDArray[np.int64],
        in_frame: npt.NDArray[np.float32],
        frame: Frame,
    ) -> list[Outline | None]:
        """What the heads say about some boxes, given in the view's pixels and in the frame's."""
        out = self._run_heads(found, boxes, classes)
        if not all(np.isfinite(values).all() for values in out.values()):
            raise DetectionError(f"{self._name} returned numbers that are not finite for a box")
        if "masks" in out:
            masks = [
                pasted(mask, box, frame.width, frame.height) for mask, box in zip(out["masks"], in_frame, strict=True)
            ]
            return [Outline(mask) if mask.pixels.any() else None for mask in masks]
        segmented = out["coarse_segm"].argmax(axis=1) > 0
        return [
            _posed(box, body, embedding)
            for box, body, embedding in zip(in_frame, segmented, out["embedding"], strict=True)
        ]

    def _run_heads(self, found: Arrays, boxes: npt.NDArray[np.float32], classes: npt.NDArray[np.int64]) -> Arrays:
        feeds = {name: found[name] for name in self._features}
        feeds |= {"boxes": np.ascontiguousarray(boxes), "index": np.zeros(len(boxes), np.int64)}
        if any(tensor.name == "classes" for tensor in self._heads.inputs):
            feeds["classes"] = classes
        return dict(self._heads.run(feeds))


def _clipped(boxes: npt.NDArray[np.float32], width: int, height: int) -> npt.NDArray[np.float32]:
    """Within the frame; rounding may have put an edge just outside."""
    limits = np.array([width, height, width, height], np.float32)
    return np.asarray(np.clip(boxes, 0, limits), np.float32)


def _posed(
    box: npt.NDArray[np.float32], body: npt.NDArray[np.bool_], embedding: npt.NDArray[np.float32]
) -> Outline | None:
    """A dense pose on its box in whole pixels, None where that leaves no area."""
    x0, y0, x1, y1 = (int(edge) for edge in np.rint(box))
    if x1 <= x0 or y1 <= y0:
        return None
    return Outline(surface=BodySurface((x0, y0, x1, y1), body, np.ascontiguousarray(embedding)))

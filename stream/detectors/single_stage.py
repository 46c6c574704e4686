"""Detectors whose whole answer is in `detector.onnx`: boxes, scores, classes, count (CenterFace, imported ones)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from engines.bundle import Bundle
from engines.errors import DetectionError
from engines.runtime import Runtime
from stream import geometry
from stream.detectors.base import check_detections
from stream.detectors.masks import outlines_of
from stream.detectors.pictures import Form, HostPictures, Pictures
from stream.detectors.view import Shown, show_limited
from stream.frame import Frame, flat_image
from stream.regions import Kind, Regions
from stream.union import replaced_outlines, united_outline

#: CenterFace's boxes stop growing at about 500 pixels (benchmarks/recall.py, "large faces"): a face that fills more of
#: the view gets a box on a part of it. From this size on, a second look at a quarter of the size has the say.
_LARGE = 320
_COARSE = 4


class SingleStageDetector:
    """Runs a detection bundle on whole frames: once at the view's size, and once small for what is very large.

    A network that takes pictures of one size only sees the frame once, at that size. Persons whose masks the network
    gives have an outline; of other kinds the whole box is covered, so that theirs is not used.

    `detect` keeps nothing between calls and may be called from several threads at once.

    Args:
        bundle: task `detection`; its manifest names the kinds and the normalisation.
        runtime: of the bundle's graph `detector`.
        longest: the view's longer side is limited to this many pixels, where the network does not fix its size.
        threshold: regions with a lower score are not reported.
        pictures: makes the network's input, None for `HostPictures`; it is closed with the detector.
    """

    def __init__(
        self, bundle: Bundle, runtime: Runtime, *, longest: int, threshold: float, pictures: Pictures | None = None
    ) -> None:
        self._runtime = runtime
        self._form = Form.of(bundle)
        self._pictures = pictures or HostPictures(self._form)
        self._kinds = np.array([Kind.of(name) for name in bundle.manifest.kinds], np.uint8)
        self._name = bundle.manifest.name
        self._longest = longest
        self._threshold = threshold

    def detect(self, frame: Frame) -> Regions:
        """All regions of the frame over the threshold, in its pixels.

        Raises:
            DetectionError: numbers that no working detector gives, or more candidates than the graph can weigh.
        """
        fine = self._look(frame, self._longest)
        shown = min(self._longest, max(frame.width, frame.height))
        if self._form.size is not None or shown <= 2 * _LARGE:
            # Nothing in such a view can be too large for the network.
            return fine
        coarse = self._look(frame, shown // _COARSE)
        limit = _LARGE * max(frame.width, frame.height) / shown
        return _with_large(fine, coarse[(coarse.boxes[:, 2:] - coarse.boxes[:, :2]).max(axis=1) >= limit])

    def reset(self) -> None:
        """Nothing to forget: every frame is looked at whole."""

    def prepare(self, width: int, height: int, parallel: int) -> None:
        """Run on as many flat frames at once as will be under way, so that memory is taken and plans are built now."""
        frame = Frame(flat_image((height, width, 3)))
        with ThreadPoolExecutor(parallel) as pool:
            for run in [pool.submit(self.detect, frame) for _ in range(parallel)]:
                run.result()

    def close(self) -> None:
        """Release the runtime."""
        self._pictures.close()
        self._runtime.close()

    #: Of the pictures that count everywhere, against the first one; the coarse one is for what is very large alone.
    scales = (1.0,)

    def inputs(self, frame: Frame, scale: float = 1.0) -> dict[str, Any]:
        """What the network takes of a frame, with the longer side limited to this part of what it is in a run."""
        return self._fed(frame, self._shown(frame, round(scale * self._longest)))

    def _look(self, frame: Frame, longest: int) -> Regions:
        shown = self._shown(frame, longest)
        return self._regions(self._runtime.run(self._fed(frame, shown)), shown, frame)

    def _shown(self, frame: Frame, longest: int) -> Shown:
        return show_limited(frame, longest, self._form.size, stretch=self._form.normalisation.fit == "stretch")

    def _fed(self, frame: Frame, shown: Shown) -> dict[str, Any]:
        return {
            "image": self._pictures.make(frame, shown),
            "image_size": np.array([[shown.height, shown.width]], np.int64),
        }

    def _regions(self, out: dict[str, Any], shown: Shown, frame: Frame) -> Regions:
        count = int(out["count"][0])
        boxes, scores, classes = out["boxes"][0, :count], out["scores"][0, :count], out["classes"][0, :count]
        # Negated, as below: a NaN must not pass as "small enough".
        if not float(out["floor"][0]) < self._threshold:
            raise DetectionError(f"{self._name} found more candidates than it can weigh; some may be missing")
        # Not "scores >= threshold": a NaN would fall through that comparison and pass as "nothing found".
        kept = ~(scores < self._threshold)
        boxes = shown.to_frame(boxes[kept])
        scores = scores[kept]
        check_detections(boxes, scores, frame.width, frame.height)
        found = classes[kept]
        if ((found < 0) | (found >= len(self._kinds))).any():
            raise DetectionError(f"{self._name} returned a class that its manifest does not name")
        kinds = self._kinds[found]
        regions = Regions.of(boxes, Kind.FACE, scores=scores)
        if "masks" in out:
            persons = np.flatnonzero(kinds == Kind.PERSON)
            masks = out["masks"][0, :count][kept][persons]
            outlines = outlines_of(masks, boxes[persons], shown, self._form.padded(shown), frame.width, frame.height)
            known = dict(zip(persons.tolist(), outlines, strict=True))
            regions = replace(regions, outlines=replaced_outlines(regions, known))
        regions.kinds[:] = kinds
        return regions


def _with_large(fine: Regions, coarse: Regions) -> Regions:
    """Both looks united: where they mean the same thing, one region that holds both boxes.

    They mean the same thing if the kinds agree and most of the smaller box lies inside the other one.
    """
    boxes, left = fine.boxes.copy(), np.ones(len(coarse), bool)
    merged = fine
    for index, box in enumerate(coarse.boxes):
        low = np.maximum(boxes[:, :2], box[:2])
        high = np.minimum(boxes[:, 2:], box[2:])
        shared = np.maximum(high - low, 0).prod(axis=1)
        smaller = np.minimum(geometry.area(boxes), geometry.area(box))
        same = (shared >= 0.7 * smaller) & (fine.kinds == coarse.kinds[index])
        changes = {row: united_outline(merged, row, coarse, index) for row in np.flatnonzero(same).tolist()}
        boxes[same] = geometry.union_box(boxes[same], np.broadcast_to(box, (int(same.sum()), 4)))
        left[index] = not same.any()
        merged = replace(merged, boxes=boxes.copy(), outlines=replaced_outlines(merged, changes))
    return Regions.concatenate([merged, coarse[left]])

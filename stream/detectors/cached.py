"""A detector that looks into a detections file before it asks another one."""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from engines.bundle import Bundle
from engines.errors import DetectionError, UsageError
from stream.detections import DetectionsFile, Detectors, Place, Row, Rows
from stream.detectors.base import Detector, check_detections
from stream.frame import Frame
from stream.outline import BodySurface, Bools, Box, Outline, PixelMask, intersection
from stream.regions import Kind, Regions
from stream.surface import Indices, Surface

#: Pixels by which a mask or a pose may reach out of its region's box: boxes are no whole pixels, masks are pasted with
#: a rim.
_RIM = 2


@dataclass(frozen=True, slots=True)
class Counts:
    """Frames by where their detections came from.

    Attributes:
        read: from the file.
        detected: by the detector.
    """

    read: int
    detected: int


class CachedDetector:
    """Answers from a detections file where it can, else asks and keeps the answer; is a `Detector` itself.

    Whether an answer is read or new, it went through the same rows: a run that reads gets the very regions of the run
    that wrote. So every embedding is that of its nearest vertex, and 0 outside the body. `detect` may be called from
    several threads at once.

    Args:
        detector: what is asked; closed together with this one. Its answer must depend on the frame alone.
        file: where answers are kept; closed together with this one.
        surface: whose vertices stand for embeddings; None where the detector gives no dense poses.
    """

    def __init__(self, detector: Detector, file: DetectionsFile, surface: Surface | None = None) -> None:
        self._detector = detector
        self._file = file
        self._surface = surface
        self._lock = threading.Lock()
        self._read = self._detected = 0

    @classmethod
    def open(cls, path: Path, detector: Detector, made_by: Detectors) -> Self:
        """Put a detections file before a detector.

        Args:
            path: the file; made where there is none.
            detector: what is asked where the file has no answer. If this raises, it remains the caller's to close.
            made_by: the bundles and settings that it runs, and the surface where it gives dense poses.

        Raises:
            UsageError: the file cannot be used, or a bundle gives dense poses of another surface, or none is given.
        """
        for bundle in made_by.bundles:
            _check_surface(bundle, made_by.surface)
        return cls(detector, DetectionsFile(path, made_by), made_by.surface)

    @property
    def counts(self) -> Counts:
        """How many frames were answered so far, and from where."""
        with self._lock:
            return Counts(self._read, self._detected)

    def detect(self, frame: Frame) -> Regions:
        """The regions of this frame, from the file or from the detector.

        Raises:
            DetectionError: the detector's answer cannot be trusted; it is not kept.
        """
        place = Place.of(frame)
        known = self._known(place, frame)
        if known is None:
            found = self._detector.detect(frame)
            check_detections(found.boxes, found.scores, frame.width, frame.height)
            rows = to_rows(found, self._surface)
            regions = from_rows(rows, self._surface)
            self._file.add(place, rows)
        with self._lock:
            self._read += known is not None
            self._detected += known is None
        return regions if known is None else known

    def reset(self) -> None:
        """Let the detector forget; the file holds for any stream."""
        self._detector.reset()

    def prepare(self, width: int, height: int, parallel: int) -> None:
        """Get the detector ready: any frame may be one that the file does not know.

        Raises:
            StandinError: the engine cannot run on such frames.
        """
        self._detector.prepare(width, height, parallel)

    def close(self) -> None:
        """Write what is not yet written, close the file, and release what the detector holds."""
        try:
            self._file.close()
        finally:
            self._detector.close()

    def _known(self, place: Place, frame: Frame) -> Regions | None:
        """What the file says of the frame; None where it says nothing, or nothing that a detector could have found."""
        rows = self._file.find(place)
        if rows is None:
            return None
        try:
            # What float32 cannot hold becomes infinite, which regions refuse: no need for a warning of numpy's as well.
            with np.errstate(over="ignore"):
                regions = from_rows(rows, self._surface)
            check_detections(regions.boxes, regions.scores, frame.width, frame.height)
            _check_outlines(regions, frame.width, frame.height)
        except (ValueError, TypeError, OverflowError, zlib.error, DetectionError):
            self._file.distrust("an entry is not what it should be")
            return None
        return regions


def _check_surface(bundle: Bundle, surface: Surface | None) -> None:
    """Vertices of one surface say nothing about embeddings of another."""
    detection, name = bundle.manifest.detection, bundle.manifest.name
    channels = 0 if detection is None else detection.embedding_channels
    if not channels:
        return
    if surface is None:
        raise UsageError(f"{name} gives dense poses, which are kept as vertices: it needs its surface for --detections")
    own = bundle.array("vertex_embeddings") if "vertex_embeddings" in bundle.manifest.arrays else None
    if surface.channels != channels or not (own is None or np.array_equal(own, surface.vertex_embeddings)):
        raise UsageError(
            f"{name} gives dense poses of another body surface than the one whose vertices --detections keeps: "
            "use detectors that were exported from the same CSE checkpoint, or leave --detections out"
        )


def _check_outlines(regions: Regions, width: int, height: int) -> None:
    """Refuse pixels that are not where their region is: they would be replaced, and the region would stay raw.

    Raises:
        DetectionError: a mask has no pixel in the frame, or a mask or a dense pose lies beside its region's box.
    """
    for index in range(len(regions)):
        outline = regions.outline(index)
        x0, y0, x1, y1 = regions.boxes[index].tolist()
        around = math.floor(x0) - _RIM, math.floor(y0) - _RIM, math.ceil(x1) + _RIM, math.ceil(y1) + _RIM
        if outline is not None and outline.mask is not None:
            if not outline.mask.within((0, 0, width, height)).pixels.any():
                raise DetectionError("a mask has no pixel in the frame")
            _check_inside(outline.mask.tight().box, around)
        if outline is not None and outline.surface is not None:
            _check_inside(outline.surface.box, around)


def _check_inside(box: Box, around: Box) -> None:
    if intersection(box, around) != box:
        raise DetectionError("a mask or a dense pose lies beside its region's box")


def to_rows(regions: Regions, surface: Surface | None) -> Rows:
    """Regions as a detections file keeps them: without tracks and origins, and with vertices for embeddings.

    Raises:
        DetectionError: there is a dense pose but no surface, or an embedding is not finite.
        TensorError: a dense pose's embedding has other channels than the surface.
    """
    # SQLite knows no negative zero.
    boxes, scores = (regions.boxes + 0.0).tolist(), (regions.scores + 0.0).tolist()
    rows = []
    for index, kind in enumerate(regions.kinds.tolist()):
        row, outline = Row(index, Kind(kind).label, scores[index], *boxes[index]), regions.outline(index)
        if outline is not None and outline.mask is not None:
            row = _with_mask(row, outline.mask)
        if outline is not None and outline.surface is not None:
            row = _with_pose(row, outline.surface, surface)
        rows.append(row)
    return rows


def from_rows(rows: Rows, surface: Surface | None) -> Regions:
    """The regions that rows stand for; every embedding is that of its vertex, 0 outside the body.

    Raises:
        ValueError, TypeError, zlib.error, DetectionError: a row is not what it should be.
    """
    outlines = [_outline(row, surface) for row in rows]
    regions = Regions.of(
        [(row.x0, row.y0, row.x1, row.y1) for row in rows],
        Kind.FACE,
        scores=[row.score for row in rows],
        outlines=outlines if any(outline is not None for outline in outlines) else None,
    )
    return replace(regions, kinds=np.array([Kind.of(row.kind) for row in rows], np.uint8))


def _with_mask(row: Row, mask: PixelMask) -> Row:
    height, width = mask.pixels.shape
    return row._replace(
        mask_x=int(mask.x0), mask_y=int(mask.y0), mask_width=width, mask_height=height, mask=_packed(mask.pixels)
    )


def _with_pose(row: Row, pose: BodySurface, surface: Surface | None) -> Row:
    x0, y0, x1, y1 = map(int, pose.box)
    height, width = pose.segmentation.shape
    body = pose.segmentation
    vertices = _given(surface).nearest(np.ascontiguousarray(pose.embedding[:, body].T))
    return row._replace(
        pose_x0=x0,
        pose_y0=y0,
        pose_x1=x1,
        pose_y1=y1,
        grid_width=width,
        grid_height=height,
        body=_packed(body),
        vertices=zlib.compress(vertices.astype(_dtype(_given(surface))).tobytes()),
    )


def _outline(row: Row, surface: Surface | None) -> Outline | None:
    mask = pose = None
    if row.mask is not None:
        x0, y0, width, height = _whole(row.mask_x, row.mask_y, row.mask_width, row.mask_height)
        mask = PixelMask(x0, y0, _unpacked(row.mask, height, width))
    if row.body is not None:
        x0, y0, x1, y1 = _whole(row.pose_x0, row.pose_y0, row.pose_x1, row.pose_y1)
        width, height = _whole(row.grid_width, row.grid_height)
        body = _unpacked(row.body, height, width)
        pose = BodySurface((x0, y0, x1, y1), body, _embedding(body, row.vertices or b"", _given(surface)))
    return None if mask is None and pose is None else Outline(mask, pose)


def _embedding(body: Bools, packed: bytes, surface: Surface) -> npt.NDArray[np.float32]:
    """(D, h, w): each body pixel's vertex embedding, 0 elsewhere."""
    dtype = _dtype(surface)
    content = _inflated(packed, int(np.count_nonzero(body)) * dtype.itemsize)
    vertices: Indices = np.full((1, *body.shape), surface.known, np.int64)
    vertices[0, body] = np.frombuffer(content, dtype)
    return np.asarray(surface.embeddings(vertices)[0])


def _dtype(surface: Surface) -> np.dtype[np.unsignedinteger]:
    """Of vertices in the file."""
    return np.dtype("<u2" if surface.count <= 1 << 16 else "<u4")


def _packed(pixels: Bools) -> bytes:
    return zlib.compress(np.packbits(pixels).tobytes())


def _unpacked(packed: bytes, height: int, width: int) -> Bools:
    bits = np.frombuffer(_inflated(packed, -(-height * width // 8)), np.uint8)
    return np.unpackbits(bits, count=height * width).view(np.bool_).reshape(height, width)


def _inflated(packed: bytes, size: int) -> bytes:
    """What was deflated, of exactly that size; never more memory than that is taken."""
    content = zlib.decompressobj().decompress(packed, size + 1)
    if len(content) != size:
        raise ValueError(f"{len(content)} bytes, expected {size}")
    return content


def _whole(*values: int | None) -> Sequence[int]:
    """The same numbers, none of them missing."""
    given = [value for value in values if isinstance(value, int)]
    if len(given) != len(values):
        raise ValueError("a number is missing")
    return given


def _given(surface: Surface | None) -> Surface:
    if surface is None:
        raise DetectionError("a detector gave a dense pose, but there is no surface to take its vertices from")
    return surface

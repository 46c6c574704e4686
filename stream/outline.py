"""What is known of a region beyond its box: which pixels it has, and where on the body's surface they lie."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from stream import resample

Bools = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]


def intersection(first: Box, second: Box) -> Box:
    """The box of what two boxes share, `xyxy`; without area where they share nothing."""
    x0, y0 = max(first[0], second[0]), max(first[1], second[1])
    return x0, y0, max(x0, min(first[2], second[2])), max(y0, min(first[3], second[3]))


def is_empty(box: Box) -> bool:
    """Whether a box holds no pixel."""
    return box[2] <= box[0] or box[3] <= box[1]


@dataclass(frozen=True, slots=True, eq=False)
class PixelMask:
    """Pixels of a frame, kept in the box that holds them rather than in a mask of the whole frame.

    Attributes:
        x0: column of the frame at which `pixels` begins; may be negative.
        y0: its row.
        pixels: bool (h, w), True where the region is.
    """

    x0: int
    y0: int
    pixels: Bools

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.bool_ or self.pixels.ndim != 2:
            raise ValueError(f"PixelMask.pixels must be bool (h, w), got {self.pixels.dtype} {self.pixels.shape}")

    @classmethod
    def filled(cls, box: Box) -> PixelMask:
        """All pixels of a box."""
        return cls(box[0], box[1], np.ones((max(0, box[3] - box[1]), max(0, box[2] - box[0])), np.bool_))

    @property
    def box(self) -> Box:
        """Of the array, `xyxy`; the pixels may fill less of it."""
        height, width = self.pixels.shape
        return self.x0, self.y0, self.x0 + width, self.y0 + height

    @property
    def area(self) -> int:
        """How many pixels it has."""
        return int(np.count_nonzero(self.pixels))

    def within(self, box: Box) -> PixelMask:
        """The part that lies in a box; a view, nothing is copied."""
        x0, y0, x1, y1 = intersection(self.box, box)
        return PixelMask(x0, y0, self.pixels[y0 - self.y0 : y1 - self.y0, x0 - self.x0 : x1 - self.x0])

    def tight(self) -> PixelMask:
        """Without empty rows and columns round it; a view."""
        rows = np.flatnonzero(self.pixels.any(axis=1))
        columns = np.flatnonzero(self.pixels.any(axis=0))
        if not len(rows):
            return PixelMask(self.x0, self.y0, self.pixels[:0, :0])
        y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        return PixelMask(self.x0 + x0, self.y0 + y0, self.pixels[y0:y1, x0:x1])

    def union(self, other: PixelMask) -> PixelMask:
        """The pixels of both."""
        if not self.pixels.size or not other.pixels.size:
            return self if self.pixels.size else other
        x0, y0 = min(self.x0, other.x0), min(self.y0, other.y0)
        x1, y1 = max(self.box[2], other.box[2]), max(self.box[3], other.box[3])
        pixels = np.zeros((y1 - y0, x1 - x0), np.bool_)
        whole = PixelMask(x0, y0, pixels)
        self.paint(whole)
        other.paint(whole)
        return whole

    def spread(self, moves: Box, window: Box) -> PixelMask:
        """The union of its pixels at every place within a range of moves, as large as a window.

        A pixel is in it if the mask has a pixel in the rectangle from which it can be reached. Those pixels are counted
        by running sums, so that the cost does not depend on how far the moves go.

        Args:
            moves: the smallest move to the right and down and the largest ones, all inclusive, in pixels.
            window: the part of the frame that is wanted.
        """
        # Without the moves that reach nothing of the window, whatever is built is of its size or the mask's.
        x0, y0, x1, y1 = self.box
        left, right = max(moves[0], window[0] - x1 + 1), min(moves[2], window[2] - x0 - 1)
        up, down = max(moves[1], window[1] - y1 + 1), min(moves[3], window[3] - y0 - 1)
        if is_empty(window) or is_empty(self.box) or left > right or up > down:
            return PixelMask(window[0], window[1], np.zeros_like(PixelMask.filled(window).pixels))
        # All begin with the smallest move, so that what is left goes to the right and down only.
        reach = right - left, down - up
        start = PixelMask(x0 + left, y0 + up, self.pixels)
        part = start.within((window[0] - reach[0], window[1] - reach[1], window[2], window[3]))
        x0, y0 = min(window[0], part.x0), min(window[1], part.y0)
        canvas = PixelMask(x0, y0, np.zeros((window[3] - y0, window[2] - x0), np.bool_))
        canvas.within(part.box).pixels[...] = part.pixels
        counts = cv2.boxFilter(
            canvas.pixels.view(np.uint8),
            cv2.CV_32S,
            (reach[0] + 1, reach[1] + 1),
            anchor=reach,
            normalize=False,
            borderType=cv2.BORDER_CONSTANT,
        )
        return PixelMask(window[0], window[1], np.asarray(counts[window[1] - y0 :, window[0] - x0 :] > 0))

    def paint(self, target: PixelMask, *, value: bool = True) -> None:
        """Set the pixels of `target` that are pixels of this one."""
        mine, theirs = self.within(target.box), target.within(self.box)
        if mine.pixels.size:
            theirs.pixels[mine.pixels] = value


def overlap(first: PixelMask, second: PixelMask) -> float:
    """Intersection over union of two masks; 0 where both are empty."""
    both = _intersection(first, second)
    total = first.area + second.area - both
    return both / total if total else 0.0


def shared(first: PixelMask, second: PixelMask) -> float:
    """The part of the smaller mask that the other one has, too; 0 where one is empty."""
    smaller = min(first.area, second.area)
    return _intersection(first, second) / smaller if smaller else 0.0


def _intersection(first: PixelMask, second: PixelMask) -> int:
    return int(np.count_nonzero(first.within(second.box).pixels & second.within(first.box).pixels))


@dataclass(frozen=True, slots=True, eq=False)
class BodySurface:
    """A CSE detection: body or not, and the embedding, on a grid over its box.

    Attributes:
        box: in whole pixels of the frame, with area.
        segmentation: bool (112, 112), True on the body.
        embedding: float32 (16, 112, 112), as regressed.
    """

    box: Box
    segmentation: Bools
    embedding: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.segmentation.dtype != np.bool_ or self.segmentation.ndim != 2:
            raise ValueError(f"BodySurface.segmentation must be bool (h, w), got {self.segmentation.shape}")
        if self.embedding.dtype != np.float32 or self.embedding.shape[1:] != self.segmentation.shape:
            raise ValueError(
                f"BodySurface.embedding must be float32 (C, {self.segmentation.shape}), got {self.embedding.dtype} "
                f"{self.embedding.shape}"
            )
        if is_empty(self.box):
            raise ValueError(f"BodySurface.box must have area, got {self.box}")

    def nearest_mask(self) -> PixelMask:
        """Its pixels in the frame as DeepPrivacy2 pastes them: the nearest point of the grid."""
        x0, y0 = self.box[:2]
        rows, columns = (
            resample.nearest(n, side) for n, side in zip(self.segmentation.shape, self._sides, strict=True)
        )
        return PixelMask(x0, y0, self.segmentation[rows[:, None], columns])

    def linear_mask(self) -> PixelMask:
        """Its pixels in the frame as SG-GAN takes them: any of the four points round a pixel is enough."""
        pixels = self.segmentation
        for turn, side in enumerate(self._sides):
            along = resample.axis("linear", pixels.shape[turn], side)
            moved = along.apply(pixels.astype(np.float32).swapaxes(0, turn)).swapaxes(0, turn)
            pixels = np.asarray(moved > 0)
        return PixelMask(self.box[0], self.box[1], np.ascontiguousarray(pixels))

    def moved(self, x: int, y: int) -> BodySurface:
        """The same surface, so many pixels further to the right and down."""
        box = self.box[0] + x, self.box[1] + y, self.box[2] + x, self.box[3] + y
        return BodySurface(box, self.segmentation, self.embedding)

    @property
    def _sides(self) -> tuple[int, int]:
        return self.box[3] - self.box[1], self.box[2] - self.box[0]


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """A region's pixels and surface, as far as its detectors give them.

    Attributes:
        mask: its pixels; None where only the box, or only the surface is known.
        surface: None where there is no dense pose.
    """

    mask: PixelMask | None = None
    surface: BodySurface | None = None

    def kept(self) -> Outline | None:
        """What is to be remembered of it: the pixels that count, and the surface, in arrays of their own.

        Detectors give views of what they found in a whole frame, and a view keeps all of that in memory.

        Returns:
            With a mask in any case, since a surface counts by its nearest pixels; None where its mask has no pixel, so
            that the box counts.
        """
        mask, surface = self.mask, self.surface
        if surface is not None and (mask is None or mask.pixels.any()):
            nearest = surface.nearest_mask()
            mask = nearest if mask is None else mask.union(nearest)
            surface = BodySurface(surface.box, surface.segmentation.copy(), surface.embedding.copy())
        if mask is None or not mask.pixels.any():
            return None
        tight = mask.tight()
        return Outline(PixelMask(tight.x0, tight.y0, tight.pixels.copy()), surface)

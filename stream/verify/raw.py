"""Raw pixels: how much of a region of the original is still to be seen, as it was, in the output.

An output has been encoded again, so that no pixel need be what it was, and equal pixels alone prove nothing: a grey
wall behind a grey cover is equal too. What is compared is therefore structure, in the luma plane:

1. Round every pixel (a Gaussian window of some seven pixels) the covariance of original and output is set against both
   variances, as in the contrast-structure term of SSIM, and both are summed over a third of the region's side before
   they are divided. The result is 1 for the same texture, and near 0 for another one, for none (a flat cover, a blurred
   one) or for a coarse copy (cells of pixelate, which are flat inside). A changed brightness is no difference. Sums
   let strong texture, which encoders keep, speak louder than weak texture, and single pixels that look alike by chance
   not at all. Edges count no more for being stronger: a stand-in has the silhouette of the one for whom it stands.
2. Only pixels with texture round them can tell; what is flat in the original is neither raw nor covered. The share of
   a region is that of its telling pixels, and regions with too few of them are not judged, and counted.
3. How much of the texture survives an encoder that did nothing else is measured in the same frame, on the background:
   outside of all that detectors or the run's report name. From there comes the similarity from which a pixel counts as
   raw. A hard compression lowers it, but never to where blurred and pixelated regions are; without a background a fixed
   value is taken. (Of a raw face nearly all is found up to H.264's CRF 30, most of it at 38, and a part at 45.)
4. What counts has to fill a square of a third of the core's side, from which it is followed pixel by pixel; less may be
   chance, or an edge that both have.

An output that was moved or scaled by a little is first brought back: where the background does not fit, an affine
motion is estimated on it, kept if the background fits better with it, and used for the next frames. Where not even the
best of the background fits, the output is no result of this original, or was changed so much that nothing can be told:
that is said, and is no clean frame.

Only the core of a region counts, since detectors differ in where a face or a person ends, and a box holds background
at its corners, which a stand-in rightly leaves: an ellipse inside the box, or the mask with its border taken off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from stream import geometry
from stream.frame import Image
from stream.outline import PixelMask
from stream.regions import Kind, Regions

Bools = npt.NDArray[np.bool_]
Plane = npt.NDArray[np.float32]

#: Standard deviation of the window, in pixels.
_SIGMA: Final = 1.5
#: ... and of the one over which a change is one of brightness.
_BRIGHTNESS: Final = 8.0
#: Variance that counts as nothing, so that flat places do not divide by zero.
_FLOOR: Final = 1.0
#: Sum of both variances from which texture is an edge, and counts no more for being stronger.
_EDGE: Final = 2 * 8.0**2
#: Standard deviation, in levels, from which texture tells.
_TELLING: Final = 3.0
#: ... and in multiples of what the encoder changes.
_ABOVE_NOISE: Final = 1.5
#: What the similarity from which a pixel is raw is kept between, and what it is without a background.
_LOWEST, _HIGHEST, _USUAL = 0.45, 0.7, 0.6
#: It lies so far below that of nine tenths of the background.
_BELOW: Final = 0.2
#: The core's shorter side is so many times that of the squares that count, which have so many pixels at least and most.
_PART: Final = 3
_PARTS: Final = (5, 21)
#: Side of the squares over which the background is summed, in pixels.
_SQUARE: Final = 9
#: Pixels of background from which it says something.
_ENOUGH: Final = 400
#: Share of a core that must tell before the region is judged, and pixels.
_JUDGED_SHARE, _JUDGED_PIXELS = 0.05, 24
#: From this share of its telling pixels on a region counts as left raw, and below this one its raw pixels as chance.
RAW_REGION: Final = 0.2
BY_CHANCE: Final = 0.1
#: Of faces and of persons without a mask: width and height of the core's ellipse, as shares of the box.
_CORES: Final = {Kind.FACE: (0.65, 0.65), Kind.PERSON: (0.45, 0.8), Kind.PLATE: (0.8, 0.7)}
#: A mask's border is taken off by this share of the box's shorter side.
_BORDER: Final = 0.08
#: Similarity of the background below which it is tried whether the output was moved, how much better it must get, and
#: in how many frames it is tried in vain.
_MOVED, _WORTH_IT, _TRIES = 0.98, 0.02, 3
#: The best tenth of a background that fits is at least so similar. A wrong one, or one out of its place, is not; nine
#: tenths of it may have been covered.
_FITS: Final = 0.55
_ALIGN_SIDE: Final = 480
_CRITERIA: Final = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)


@dataclass(frozen=True, slots=True)
class RawShare:
    """What is left of one region.

    Attributes:
        area: pixels of its core.
        telling: of these, how many have texture round them in the original.
        raw: of these, how many still show it.
    """

    area: int
    telling: int
    raw: int

    @property
    def judged(self) -> bool:
        """Whether the region has enough texture to say anything."""
        return self.telling >= max(_JUDGED_PIXELS, _JUDGED_SHARE * self.area)

    @property
    def share(self) -> float:
        """Raw pixels among those that tell, 0 to 1; 0 where the region cannot be judged."""
        return self.raw / self.telling if self.judged else 0.0

    @property
    def is_raw(self) -> bool:
        """Whether the region counts as left raw."""
        return self.share >= RAW_REGION


class Aligner:
    """Brings pictures that were moved or scaled by a little back to their originals; remembers how, for the next."""

    def __init__(self) -> None:
        self._motion: Plane | None = None
        self._tries = _TRIES

    @property
    def moved(self) -> bool:
        """Whether outputs were brought back so far."""
        return self._motion is not None

    def look(self, before: Image, after: Image, background: Bools) -> RawLook:
        """Compares an original with its output, after bringing it back where that is needed.

        Args:
            before: uint8 RGB (height, width, 3), of the original.
            after: of the same size, of the output.
            background: bool (height, width), True where nothing should have changed.

        Raises:
            ValueError: sizes differ.
        """
        old, new = _luma(before), _luma(after)
        plain = RawLook(old, new, background)
        if plain.background >= _MOVED or plain.best is None:
            return plain
        if self._motion is not None:
            back = RawLook(old, _moved_back(new, self._motion), background)
            return back if back.background > plain.background else plain
        if not self._tries:
            return plain
        self._tries -= 1
        motion = _motion(old, new, background)
        if motion is not None:
            back = RawLook(old, _moved_back(new, motion), background)
            if back.background > plain.background + _WORTH_IT:
                self._motion = motion
                return back
        return plain


class RawLook:
    """One frame of the original beside its output.

    Args:
        before: float32 (height, width), luma of the original.
        after: of the same size, luma of the output.
        background: bool (height, width), True where nothing should have changed.

    Attributes:
        knows_background: whether there is enough of it, with enough texture.
        background: median similarity of the background, 0 where too little of it is known.
        noise: median difference in levels between both pictures there, without that in brightness: what encoding did.
        best: similarity of the best tenth of the background's texture, None where too little of it is known.
        limit: similarity from which a pixel counts as raw.

    Raises:
        ValueError: sizes differ.
    """

    def __init__(self, before: Plane, after: Plane, background: Bools) -> None:
        if before.shape != after.shape or before.shape != background.shape:
            raise ValueError(f"pictures differ in size: {before.shape}, {after.shape}, background {background.shape}")
        mean_old, mean_new = _window(before), _window(after)
        variance = np.maximum(_window(before * before) - mean_old * mean_old, 0)
        other = np.maximum(_window(after * after) - mean_new * mean_new, 0)
        self._shared = 2 * (_window(before * after) - mean_old * mean_new)
        self._energy = variance + other
        # A stand-in has the original's silhouette: one strong edge must not outweigh all that is inside it.
        tamed = np.minimum(1, _EDGE / (self._energy + _FLOOR))
        self._shared, self._energy = self._shared * tamed, self._energy * tamed
        known = int(background.sum()) >= _ENOUGH
        changed = before - after
        # A picture that is brighter or darker, by places too, is no noise.
        changed -= np.asarray(cv2.GaussianBlur(changed, (0, 0), _BRIGHTNESS), np.float32)
        self.noise = float(np.median(np.abs(changed)[background])) if known else 0.0
        self._telling = np.asarray(variance >= max(_TELLING, _ABOVE_NOISE * self.noise) ** 2)
        usable = background & self._telling
        self.knows_background = int(usable.sum()) >= _ENOUGH
        self.background, self.limit = 0.0, _USUAL
        everywhere = _similar(self._shared, self._energy, _SQUARE)
        textured = background & (variance >= _TELLING**2)
        self.best = float(np.percentile(everywhere[textured], 90)) if int(textured.sum()) >= _ENOUGH else None
        if self.knows_background:
            similar = everywhere[usable]
            low, middle = np.percentile(similar, (10, 50))
            self.background, self.limit = float(middle), float(np.clip(low - _BELOW, _LOWEST, _HIGHEST))

    @property
    def foreign(self) -> bool:
        """Whether the output is no picture of the original's place: then nobody can be told to be raw."""
        return self.best is not None and self.best < _FITS

    def share(self, core: PixelMask) -> RawShare:
        """How much of a region's core is left.

        Args:
            core: pixels of the frame, as `cores` gives them.
        """
        height, width = self._telling.shape
        core = core.within((0, 0, width, height))
        if not core.pixels.size:
            return RawShare(0, 0, 0)
        x0, y0, x1, y1 = core.box
        telling = core.pixels & self._telling[y0:y1, x0:x1]
        return RawShare(core.area, int(telling.sum()), int((self.raw_pixels(core) & telling).sum()))

    def raw_pixels(self, core: PixelMask) -> Bools:
        """Which pixels of a core inside the frame look raw, bool of the core's shape."""
        x0, y0, x1, y1 = core.box
        side = int(np.clip(min(x1 - x0, y1 - y0) // _PART, *_PARTS)) | 1
        # What lies outside the core says nothing about it: there may be background, raw by right.
        shared = np.where(core.pixels, self._shared[y0:y1, x0:x1], 0)
        energy = np.where(core.pixels, self._energy[y0:y1, x0:x1], 0)
        raw = core.pixels & (_similar(shared, energy, side) >= self.limit)
        square = np.ones((side, side), np.uint8)
        sure = cv2.morphologyEx(raw.astype(np.uint8), cv2.MORPH_OPEN, square)
        # Beside what is covered, sums over large squares are of both; from there on single pixels decide.
        near = cv2.dilate(sure, np.ones((2 * side + 1, 2 * side + 1), np.uint8)) > 0
        fine = core.pixels & (_similar(shared, energy, _PARTS[0]) >= self.limit)
        return np.asarray((sure > 0) | (near & fine))


def cores(regions: Regions) -> list[PixelMask]:
    """The core of every region: what must not be raw, whoever draws its border."""
    return [_core(regions, index) for index in range(len(regions))]


def background_of(shape: tuple[int, int], covered: npt.ArrayLike, *, margin: float = 0.5) -> Bools:
    """Where nothing should have changed, bool (height, width).

    Args:
        shape: height and width of the frame.
        covered: (N, 4) boxes of all that may have been covered.
        margin: by which share of their sides they are grown.
    """
    free = np.ones(shape, np.bool_)
    for x0, y0, x1, y1 in geometry.to_pixels(geometry.grow(covered, margin), shape[1], shape[0]).tolist():
        free[y0:y1, x0:x1] = False
    return free


def _core(regions: Regions, index: int) -> PixelMask:
    outline = regions.outline(index)
    kept = None if outline is None else outline.kept()
    x0, y0, x1, y1 = (float(v) for v in regions.boxes[index])
    if kept is not None and kept.mask is not None:
        off = max(1, round(_BORDER * min(x1 - x0, y1 - y0)))
        # One more pixel round it, so that the mask's array's own edge counts as a border.
        padded = np.pad(kept.mask.pixels.astype(np.uint8), 1)
        disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * off + 1, 2 * off + 1))
        inner = cv2.erode(padded, disk, borderValue=0)[1:-1, 1:-1] > 0
        if inner.any():
            return PixelMask(kept.mask.x0, kept.mask.y0, np.asarray(inner))
    wide, high = _CORES[Kind(int(regions.kinds[index]))]
    half_width, half_height = max(1.0, (x1 - x0) * wide / 2), max(1.0, (y1 - y0) * high / 2)
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    left, top = int(np.floor(middle_x - half_width)), int(np.floor(middle_y - half_height))
    columns = np.arange(left, int(np.ceil(middle_x + half_width))) + 0.5
    rows = np.arange(top, int(np.ceil(middle_y + half_height))) + 0.5
    across = ((columns - middle_x) / half_width)[None] ** 2 + ((rows - middle_y) / half_height)[:, None] ** 2
    return PixelMask(left, top, np.asarray(across <= 1))


def _luma(image: Image) -> Plane:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.float32)


def _window(plane: Plane) -> Plane:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), _SIGMA), np.float32)


def _similar(shared: Plane, energy: Plane, side: int) -> Plane:
    """Similarity round every pixel, over squares of so many pixels."""
    sums = [cv2.blur(plane, (side, side), borderType=cv2.BORDER_REFLECT) for plane in (shared, energy)]
    return np.asarray(sums[0] / (sums[1] + _FLOOR), np.float32)


def _moved_back(plane: Plane, motion: Plane) -> Plane:
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    size = plane.shape[1], plane.shape[0]
    return np.asarray(cv2.warpAffine(plane, motion, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _motion(old: Plane, new: Plane, background: Bools) -> Plane | None:
    """An affine motion (2, 3) from the original's pixels to the output's, None where none can be found."""
    height, width = old.shape
    scale = min(1.0, _ALIGN_SIDE / max(height, width))
    size = max(16, round(width * scale)), max(16, round(height * scale))
    small = [cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in (old, new)]
    mask = cv2.resize(background.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    start = np.eye(2, 3, dtype=np.float32)
    try:
        _, found = cv2.findTransformECC(small[0], small[1], start, cv2.MOTION_AFFINE, _CRITERIA, mask, 5)
    except cv2.error:
        # It does not converge: whatever happened, it was no small motion.
        return None
    motion = np.asarray(found, np.float32)
    motion[0, 2] *= width / size[0]
    motion[1, 2] *= height / size[1]
    return motion

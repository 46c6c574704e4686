"""Still images and folders of them, through Pillow."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms, ImageOps

from engines.errors import SourceError
from stream.frame import Frame, Image
from stream.sources.base import StreamInfo

#: What is taken for a still image, by ending. Moving GIFs are video.
ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
#: Pillow's names for them; its JPEG reader takes files with several pictures (MPO) as well.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
#: Of floating-point values; a picture in eight bits that stays below this is black.
_SURELY_EIGHT_BIT = 16
_SIXTEEN_BIT = {"I;16", "I;16L", "I;16B", "I"}


class ImageSource:
    """One image, or all images below a folder in the order of their paths.

    Each frame's `source` is the image's path below the folder (its name for a single image), its time is its place in
    the order, in seconds. An image that cannot be read gives no frame; it is listed in `problems`.

    Args:
        path: an image or a folder.

    Raises:
        SourceError: the image cannot be read, or there is no image in the folder.
    """

    def __init__(self, path: Path) -> None:
        self._root = path if path.is_dir() else path.parent
        found = _look_below(path) if path.is_dir() else _Found([path])
        self._paths = sorted(found.images)
        self._problems = sorted(found.problems)
        self._exits = dict.fromkeys(sorted(found.others))
        if not self._paths:
            raise SourceError(f"{path} holds no image ({', '.join(sorted(ENDINGS))})")
        if path.is_dir():
            width, height = 1, 1
        else:
            height, width = self._read(path).shape[:2]
        self.info = StreamInfo(
            name=path.name,
            width=width,
            height=height,
            frames=len(self._paths),
            rate=Fraction(1),
            dropped=tuple(self._exits),
        )

    def __iter__(self) -> Iterator[Frame]:
        """One frame an image."""
        for index, path in enumerate(self._paths):
            try:
                image = self._read(path)
            except SourceError as error:
                self._problems.append(str(error))
                continue
            yield Frame(image, pts=index, time_base=Fraction(1), source=str(path.relative_to(self._root)))

    def problems(self) -> tuple[str, ...]:
        """Images and folders that could not be read."""
        return tuple(self._problems)

    def side_exits(self) -> tuple[str, ...]:
        """Files that are no images, and in images transparency and pictures beside the main one."""
        return tuple(self._exits)

    def close(self) -> None:
        """Nothing stays open."""

    def _read(self, path: Path) -> Image:
        try:
            with warnings.catch_warnings():
                # About details of the metadata; what matters is raised.
                warnings.simplefilter("ignore")
                with Pillow.open(path, formats=FORMATS) as picture:
                    if getattr(picture, "n_frames", 1) > 1:
                        self._exits[f"{path.name}: further pictures in the file"] = None
                    if picture.has_transparency_data:
                        self._exits[f"{path.name}: transparency"] = None
                    return to_rgb(picture)
        except Exception as error:
            # For broken files Pillow raises whatever its parsers run into: SyntaxError, struct.error, EOFError, ...
            reason = " ".join(str(error).split()) or type(error).__name__
            raise SourceError(f"{path} cannot be read as an image: {reason}") from error


def to_rgb(picture: Pillow.Image) -> Image:
    """An opened image as upright uint8 RGB (height, width, 3), in sRGB if it carries a colour profile.

    Raises:
        OSError: the image data is broken or ends early.
        ValueError: it is not certain which of its values is white.
    """
    picture.load()
    profile = picture.info.get("icc_profile")
    upright = ImageOps.exif_transpose(picture)
    if upright.mode in _SIXTEEN_BIT:
        values = np.asarray(upright, np.int64)
        # 32-bit integers are used for eight bits as well.
        shift = 0 if upright.mode == "I" and values.max(initial=0) <= np.iinfo(np.uint8).max else 8
        grey = (values >> shift).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if upright.mode == "F":
        return np.repeat(_from_floats(np.asarray(upright, np.float32))[:, :, None], 3, axis=2)
    rgb = upright.convert("RGB") if upright.mode != "CMYK" or not profile else upright
    if profile:
        try:
            rgb = (
                ImageCms.profileToProfile(
                    rgb,
                    ImageCms.ImageCmsProfile(BytesIO(profile)),
                    ImageCms.createProfile("sRGB"),
                    outputMode="RGB",
                )
                or rgb
            )
        except (ImageCms.PyCMSError, OSError):
            # A broken profile is no reason not to look: the plain values are what most programs show.
            rgb = rgb.convert("RGB")
    return np.array(rgb.convert("RGB"), np.uint8)


def images_below(folder: Path) -> Iterator[Path]:
    """Every file that is taken for an image, in no certain order."""
    return iter(_look_below(folder).images)


def _from_floats(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Image:
    """Grey whose white is 1 or 255."""
    values = np.nan_to_num(values, nan=0.0)
    highest = float(values.max(initial=0))
    if 1 < highest < _SURELY_EIGHT_BIT or highest > np.iinfo(np.uint8).max:
        raise ValueError(f"its floating-point values go up to {highest:g}, and only 0 to 1 and 0 to 255 are known")
    scale = 255 if highest <= 1 else 1
    return np.asarray((values * scale).round().clip(0, 255), np.uint8)


@dataclass(slots=True)
class _Found:
    images: list[Path] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def _look_below(folder: Path) -> _Found:
    """Whatever lies below a folder: nothing is passed over in silence."""
    found = _Found()

    def note(error: OSError) -> None:
        found.problems.append(f"{error.filename} cannot be read: {error.strerror}")

    for place, folders, files in os.walk(folder, onerror=note):
        for name in folders:
            if (path := Path(place, name)).is_symlink():
                found.others.append(f"{path.relative_to(folder)} (a link to a folder)")
        for name in files:
            path = Path(place, name)
            if path.suffix.lower() not in ENDINGS:
                found.others.append(f"{path.relative_to(folder)} (not an image)")
            elif path.is_file():
                found.images.append(path)
            else:
                reason = "a link to nothing" if path.is_symlink() else "not a file"
                found.problems.append(f"{path} cannot be read as an image: it is {reason}")
    return found

"""Still images and folders of them, through Pillow."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

from PIL import Image as Pillow
from PIL.ExifTags import IFD, Base

from engines.errors import SinkError, UsageError
from stream.anonymizer import Anonymized
from stream.sinks.target import Target, check_target
from stream.sources.images import ENDINGS, FORMATS, images_below

_log = logging.getLogger(__name__)

_FORMATS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
    "TIFF": {"compression": "tiff_deflate"},
}
#: What is kept of the first directory: descriptions only. Everything else there says how the old file was laid out, or
#: may hold pictures (previews, Photoshop's resources and layers, XMP).
_KEPT_TAGS = {
    Base.ImageDescription,
    Base.Make,
    Base.Model,
    Base.Software,
    Base.DateTime,
    Base.Artist,
    Base.HostComputer,
    Base.Copyright,
}
#: Entries of the other directories that hold, or may hold, pictures or point to them.
_PICTURE_TAGS = {Base.MakerNote, Base.UserComment, Base.ExifInteroperabilityOffset}
_LONGEST_ENTRY = 1024


class ImageSink:
    """Writes every frame as an image.

    EXIF is stripped unless asked for; thumbnails, maker notes and other embedded pictures go in any case.

    Args:
        path: a file for one image; a folder (created if missing) for a folder.
        folder: whether `path` is a folder; frames then go to their `source` below it.
        overwrite: replace existing files.
        inputs: the input file or folder; nothing in it is ever written.
        metadata: keep EXIF (without embedded pictures) of the input.

    Raises:
        UsageError: the output cannot be meant: unknown ending, inside the input, existing.
        SinkError: the folder cannot be created.
    """

    def __init__(self, path: Path, *, folder: bool, overwrite: bool, inputs: Path, metadata: bool = False) -> None:
        self._path = path
        self._folder = folder
        self._overwrite = overwrite
        self._inputs = inputs
        self._metadata = metadata
        if folder:
            _check_folder(path, inputs)
            for source in images_below(inputs):
                # Before any work is done, not in the middle of it.
                self._check(source.relative_to(inputs))
            try:
                path.mkdir(exist_ok=True)
            except OSError as error:
                raise SinkError(f"cannot create the folder {path}: {error.strerror}") from error
        else:
            if path.suffix.lower() not in ENDINGS:
                raise UsageError(f"{path.name!r} has no ending of an image: use one of {', '.join(sorted(ENDINGS))}")
            check_target(path, overwrite=overwrite, inputs=(inputs,))

    def write(self, item: Anonymized) -> None:
        """Write one image.

        Raises:
            UsageError: the file exists and may not be replaced.
            SinkError: it cannot be written.
        """
        target_path = self._place(item.frame.source)
        target = Target(target_path, overwrite=self._overwrite)
        try:
            options = dict(_OPTIONS.get(_FORMATS[target_path.suffix.lower()], {}))
            if self._metadata and item.withheld is None and (exif := self._exif(item.frame.source)):
                options["exif"] = exif
                # libtiff takes no directories within a directory; Pillow's own writer does, but does not compress.
                options.pop("compression", None)
            Pillow.fromarray(item.image).save(target.temporary, format=_FORMATS[target_path.suffix.lower()], **options)
        except Exception as error:
            # Pillow's writers raise RuntimeError, ValueError and struct.error as well.
            target.discard()
            raise SinkError(f"cannot write {target_path}: {getattr(error, 'strerror', None) or error}") from error
        except BaseException:
            target.discard()
            raise
        target.commit()

    def close(self) -> None:
        """Every image is in its place already."""

    def abort(self) -> None:
        """Images that are in their place are whole and stay."""

    def _place(self, source: str) -> Path:
        if not self._folder:
            return self._path
        path = self._path / source
        self._check(Path(source))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"cannot create the folder {path.parent}: {error.strerror}") from error
        return path

    def _check(self, source: Path) -> None:
        path = self._path / source
        if os.path.lexists(path):
            check_target(path, overwrite=self._overwrite, inputs=(self._inputs / source,))

    def _exif(self, source: str) -> bytes | None:
        """The input's EXIF without orientation (the pixels are upright) and without what can hold a picture."""
        path = self._inputs / source if self._folder else self._inputs
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Pillow.open(path, formats=FORMATS) as original:
                    return _without_pictures(original.getexif())
        except Exception as error:  # noqa: BLE001  whatever a broken directory makes Pillow raise
            _log.warning("%s: its EXIF cannot be read and is not kept: %s", source, error)
            return None


def _without_pictures(exif: Pillow.Exif) -> bytes | None:
    kept = Pillow.Exif()
    found = False
    for tag, value in exif.items():
        if tag in _KEPT_TAGS and _is_short(value):
            kept[tag] = value
            found = True
    for ifd in (IFD.Exif, IFD.GPSInfo):
        directory = exif.get_ifd(ifd)
        entries = {tag: value for tag, value in directory.items() if tag not in _PICTURE_TAGS and _is_short(value)}
        if entries:
            kept.get_ifd(ifd).update(entries)
            found = True
    return kept.tobytes() if found else None


def _is_short(value: object) -> bool:
    return not isinstance(value, bytes | str | tuple) or len(value) <= _LONGEST_ENTRY


def _check_folder(path: Path, inputs: Path) -> None:
    if path.exists() and not path.is_dir():
        raise UsageError(f"the output {path} is a file; a folder is expected since the input is one")
    if not path.parent.is_dir():
        raise UsageError(f"the folder of the output {path} does not exist: create {path.parent} first")
    inner, outer = path.resolve(), inputs.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise UsageError(f"the output {path} and the input {inputs} lie inside each other: give a folder apart")

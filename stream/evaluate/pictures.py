"""Folders of pictures, read one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from engines.errors import SourceError, UsageError
from stream.frame import Image
from stream.sources.images import ImageSource, images_below


def check_folder(folder: Path) -> None:
    """See that there is such a folder.

    Raises:
        UsageError: there is none.
    """
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}" if not folder.exists() else f"{folder} is a file; give a folder")


def list_pictures(folder: Path) -> list[str]:
    """The paths of all pictures below a folder, relative to it, in order.

    Raises:
        UsageError: there is no such folder, or no picture in it.
    """
    check_folder(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in images_below(folder))
    if not names:
        raise UsageError(f"{folder} holds no picture; give a folder with JPEG, PNG, WebP, BMP or TIFF files")
    return names


def read_picture(folder: Path, name: str) -> Image:
    """One picture, upright, uint8 RGB (height, width, 3).

    Raises:
        SourceError: it cannot be read.
    """
    source = ImageSource(folder / name)
    for frame in source:
        return frame.image
    raise SourceError(f"{folder / name} cannot be read as an image")


def read_pairs(first: Path, second: Path, names: Sequence[str]) -> Iterator[tuple[str, Image, Image]]:
    """Pictures of the same path in two folders, one pair after another.

    Args:
        first: a folder.
        second: another one.
        names: of pictures, relative to both.

    Raises:
        SourceError: one cannot be read, or two of a pair differ in size.
    """
    for name in names:
        one, other = read_picture(first, name), read_picture(second, name)
        if one.shape != other.shape:
            sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (one, other)]
            raise SourceError(f"{name} is {sizes[0]} in {first} and {sizes[1]} in {second}; sizes must agree")
        yield name, one, other


def partners(first: Path, second: Path) -> list[str]:
    """The pictures of a folder, all of which another folder must have.

    Raises:
        UsageError: a folder is missing or empty, or one lacks what the other has.
    """
    names, others = list_pictures(first), set(list_pictures(second))
    if missing := [name for name in names if name not in others]:
        raise UsageError(
            f"{second} lacks {len(missing)} of the {len(names)} pictures of {first}, such as {missing[0]}; "
            "results must have the names of their originals"
        )
    return names

"""What the renderer gives and the training reads: one synthetic picture with its people, and files of them."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.errors import SourceError

IN_FILE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture of people (or of none) and what is known about every pixel of it.

    Attributes:
        image: uint8 RGB, (H, W, 3).
        instances: uint8, (H, W); 0 is background, else 1 + the person's index.
        vertices: int32, (H, W); the body's vertex nearest to what the pixel shows, 0..K-1, or -1 on background.
        looks: float32, (N, Z); the look of each person, also of those that nothing in the picture shows: the standard
            normal latent that ``looks.look_of`` turns into colours, clothes, hair and face.
    """

    image: np.ndarray
    instances: np.ndarray
    vertices: np.ndarray
    looks: np.ndarray

    def __post_init__(self) -> None:
        size = self.image.shape[:2]
        _check("image", self.image, np.uint8, (*size, 3))
        _check("instances", self.instances, np.uint8, size)
        _check("vertices", self.vertices, np.int32, size)
        if self.looks.ndim != 2 or self.looks.dtype != np.float32:
            raise ValueError(f"looks is {self.looks.dtype} {self.looks.shape}; expected float32 (N, Z)")
        people = int(self.instances.max(initial=0))
        if people > len(self.looks):
            raise ValueError(f"instances name person {people}, but there are looks of {len(self.looks)}")
        if not np.array_equal(self.instances > 0, self.vertices >= 0):
            raise ValueError("instances and vertices disagree about where people are")


def _check(name: str, array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{name} is {array.dtype} {array.shape}; expected {np.dtype(dtype)} {shape}")


def write_scenes(folder: Path, scenes: Iterable[Scene], *, in_file: int = IN_FILE) -> None:
    """Write ``scenes`` as compressed files ``scenes-00000.npz`` ..., ``in_file`` scenes in each.

    Files are written under another name and renamed, so that a file that is there is whole. Numbers go on after the
    files that are in ``folder`` already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remaining = iter(scenes)
    number = 1 + max((int(path.stem.split("-")[1]) for path in scene_files(folder)), default=-1)
    while batch := list(itertools.islice(remaining, in_file)):
        _write_file(folder / f"scenes-{number:05d}.npz", batch)
        number += 1


def _write_file(path: Path, scenes: list[Scene]) -> None:
    arrays: dict[str, np.ndarray] = {}
    for index, scene in enumerate(scenes):
        for name in Scene.__slots__:
            arrays[f"{name}_{index}"] = getattr(scene, name)
    temporary = path.with_suffix(".partial")
    with temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    temporary.replace(path)


def scene_files(folder: Path) -> list[Path]:
    """The files of scenes in ``folder``, in order."""
    return sorted(folder.glob("scenes-[0-9]*.npz"))


def count_scenes(folder: Path) -> int:
    """How many scenes ``folder`` has, by the names in its files; none where there is no folder.

    Raises:
        SourceError: a file is damaged or of another kind.
    """
    count = 0
    for path in scene_files(folder):
        try:
            with zipfile.ZipFile(path) as names:
                count += sum(name.startswith("image_") for name in names.namelist())
        except (OSError, zipfile.BadZipFile) as error:
            raise SourceError(f"{path} is not a file of scenes: {error}") from error
    return count


def read_scenes(folder: Path) -> Iterator[Scene]:
    """Every scene in ``folder``, in the order in which they were written.

    Raises:
        SourceError: ``folder`` has no scenes, or a file cannot be read.
    """
    files = scene_files(folder)
    if not files:
        raise SourceError(f"{folder} has no files of scenes (scenes-00000.npz ...)")
    for path in files:
        yield from read_file(path)


def read_file(path: Path) -> list[Scene]:
    """The scenes of one file.

    Raises:
        SourceError: The file is missing, damaged or of another kind.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            count = sum(name.startswith("image_") for name in arrays.files)
            return [Scene(**{name: arrays[f"{name}_{index}"] for name in Scene.__slots__}) for index in range(count)]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path} is not a file of scenes: {error}") from error

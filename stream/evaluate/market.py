"""Folders like Market1501's: query and gallery, with person and camera in the names of pictures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engines.errors import SourceError, UsageError
from stream.evaluate.pictures import check_folder, list_pictures

#: Where the pictures of both are.
QUERY, GALLERY = "query", "bounding_box_test"
#: People who are nobody: boxes that show too little, which count neither way, and people of no query.
JUNK, DISTRACTOR = -1, 0
#: Such as 0002_c1s1_000451_03.jpg: person 2, camera 1.
_NAME: Final = re.compile(r"(-1|\d+)_c(\d+)(?:\D.*)?")


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture of a person.

    Attributes:
        name: its path below the folder of the set.
        person: whom it shows.
        camera: that took it.
    """

    name: str
    person: int
    camera: int


@dataclass(frozen=True, slots=True)
class Market:
    """A set for re-identification.

    Attributes:
        folder: of the whole set.
        queries: whom is looked for; nobody of them is junk or a distractor.
        gallery: where; distractors are in it, junk is not.
    """

    folder: Path
    queries: tuple[Shot, ...]
    gallery: tuple[Shot, ...]


def read_market(folder: Path) -> Market:
    """Lists a set's pictures.

    Raises:
        UsageError: there is no such folder, or nobody of the queries can be found in the gallery.
        SourceError: a picture's name does not say person and camera.
    """
    check_folder(folder)
    for part in (QUERY, GALLERY):
        if not (folder / part).is_dir():
            raise UsageError(f"{folder} has no folder {part!r}; a set like Market1501 has {QUERY} and {GALLERY}")
    queries, gallery = (_shots(folder, part) for part in (QUERY, GALLERY))
    market = Market(
        folder,
        tuple(shot for shot in queries if shot.person not in (JUNK, DISTRACTOR)),
        tuple(shot for shot in gallery if shot.person != JUNK),
    )
    cameras: dict[int, set[int]] = {}
    for shot in market.gallery:
        cameras.setdefault(shot.person, set()).add(shot.camera)
    if not any(cameras.get(shot.person, set()) - {shot.camera} for shot in market.queries):
        raise UsageError(f"nobody of the queries of {folder} is in its gallery, seen by another camera")
    return market


def _shots(folder: Path, part: str) -> list[Shot]:
    shots = []
    for name in list_pictures(folder / part):
        found = _NAME.fullmatch(Path(name).stem)
        if found is None:
            raise SourceError(
                f"{folder / part / name}: the name says no person and camera, like 0002_c1s1_000451_03.jpg"
            )
        shots.append(Shot(f"{part}/{name}", int(found[1]), int(found[2])))
    return shots

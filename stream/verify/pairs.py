"""Pairs: which file of a result belongs to which original, and which frame to which."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final

from engines.errors import SourceError, UsageError
from stream.sources.images import ENDINGS as IMAGES

VIDEOS: Final = frozenset(
    {
        ".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
        ".mxf", ".nut", ".ogv", ".ts", ".webm", ".wmv",
    }
)  # fmt: skip
#: Frames belong together if their times differ by less than this share of a frame's usual length.
_NEAR: Final = 0.45
#: Seconds by which times may differ without being called shifted: containers round, Matroska to milliseconds.
_ROUNDING: Final = 0.0015


@dataclass(frozen=True, slots=True)
class FilePair:
    """An original and its result.

    Attributes:
        name: how reports call it; the path below the folder, or the original's name.
        original: the file before.
        anonymized: the file after.
    """

    name: str
    original: Path
    anonymized: Path

    @property
    def still(self) -> bool:
        """Whether they are images."""
        return self.original.suffix.lower() in IMAGES


@dataclass(frozen=True, slots=True)
class FilePairs:
    """What two folders have in common, and what not.

    Attributes:
        pairs: files with a result, in order of their names.
        missing: originals without a result.
        extra: results without an original.
    """

    pairs: tuple[FilePair, ...]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FramePairs:
    """Which frames of two clips belong together.

    Attributes:
        pairs: places of original and output, both ascending.
        missing: places of originals without an output.
        extra: places of outputs without an original.
        shifted: places of pairs, in `pairs`, whose times differ, with the difference in seconds.
        offset: seconds that all of the output's times are later than the original's; these are in no difference.
    """

    pairs: tuple[tuple[int, int], ...]
    missing: tuple[int, ...] = ()
    extra: tuple[int, ...] = ()
    shifted: tuple[tuple[int, float], ...] = ()
    offset: float = 0.0


def pair_files(original: Path, anonymized: Path) -> FilePairs:
    """Finds what belongs together: two files, or the files of two folders by their paths below these.

    A result may have another ending than its original where no other original could be meant.

    Raises:
        UsageError: one is not there, a file is compared with a folder or itself, or no two files belong together.
        SourceError: a folder cannot be read.
    """
    for path in (original, anonymized):
        if not path.exists():
            raise UsageError(f"no such file or folder: {path}")
    if original.samefile(anonymized):
        raise UsageError(f"{original} and {anonymized} are the same; give the original and what was made of it")
    if original.is_dir() != anonymized.is_dir():
        folder, file = (original, anonymized) if original.is_dir() else (anonymized, original)
        raise UsageError(f"{folder} is a folder and {file} is not; give two files or two folders")
    if not original.is_dir():
        return FilePairs((FilePair(original.name, original, anonymized),))
    before, after = _media(original), _media(anonymized)
    partners = _partners(before, after)
    pairs = tuple(FilePair(name, original / name, anonymized / partners[name]) for name in before if name in partners)
    if not pairs:
        raise UsageError(f"{original} and {anonymized} have no video or image of the same path in common")
    taken = set(partners.values())
    return FilePairs(
        pairs,
        tuple(name for name in before if name not in partners),
        tuple(name for name in after if name not in taken),
    )


def _media(folder: Path) -> list[str]:
    """Paths of videos and images below a folder, sorted."""
    return sorted(
        str(path.relative_to(folder))
        for path in _files(folder)
        if path.suffix.lower() in VIDEOS | IMAGES and not path.name.startswith(".")
    )


def _files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise SourceError(f"cannot read {error.filename}: {error.strerror}") from error

    for place, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(place, name) for name in names)


def _partners(before: Sequence[str], after: Sequence[str]) -> dict[str, str]:
    """The result of every original that has one."""
    there = set(after)
    found = {name: name for name in before if name in there}
    left = [name for name in after if name not in found]
    open_ones = [name for name in before if name not in found]
    for name in open_ones:
        stem = str(Path(name).with_suffix(""))
        same = [other for other in left if str(Path(other).with_suffix("")) == stem and _alike(name, other)]
        rivals = [other for other in open_ones if str(Path(other).with_suffix("")) == stem and _alike(name, other)]
        if len(same) == 1 and len(rivals) == 1:
            found[name] = same[0]
    return found


def _alike(one: str, other: str) -> bool:
    return (Path(one).suffix.lower() in IMAGES) == (Path(other).suffix.lower() in IMAGES)


def pair_times(original: Sequence[float], output: Sequence[float]) -> FramePairs:
    """Finds which frames belong together, by their times.

    Where all times of the output are later or earlier by the same amount, that is its offset, and frames are compared
    without it. A frame that came so much too late or too early that it is nearer to where no frame should be is found
    as shifted all the same, if it lies between the frames that it should lie between.

    Args:
        original: seconds, ascending.
        output: seconds, ascending.
    """
    if not original or not output:
        return FramePairs((), tuple(range(len(original))), tuple(range(len(output))))
    usual = _usual_step(original)
    offset = _offset(original, output, usual)
    pairs, missing, extra = _merge([time + offset for time in original], output, _NEAR * usual)
    pairs, missing, extra = _between(pairs, missing, extra)
    shifted = []
    for place, (i, j) in enumerate(pairs):
        difference = output[j] - original[i] - offset
        if abs(difference) > _ROUNDING:
            shifted.append((place, difference))
    return FramePairs(tuple(pairs), tuple(missing), tuple(extra), tuple(shifted), offset)


def _usual_step(times: Sequence[float]) -> float:
    return median(b - a for a, b in pairwise(times)) if len(times) > 1 else 1.0


def _offset(original: Sequence[float], output: Sequence[float], usual: float) -> float:
    """What is to be added to the original's times so that most of them are met; 0 unless something else is better."""
    tight = min(_ROUNDING, usual / 4)
    candidates = (0.0, output[0] - original[0], output[-1] - original[-1])
    met = [len(_merge([time + offset for time in original], output, tight)[0]) for offset in candidates]
    best = max(range(len(candidates)), key=lambda index: (met[index], -index))
    # One frame can be met anywhere: that says nothing.
    if met[best] < max(2, min(len(original), len(output)) / 2):
        return 0.0
    return 0.0 if abs(candidates[best]) <= _ROUNDING else candidates[best]


_Merged = tuple[list[tuple[int, int]], list[int], list[int]]


def _merge(original: Sequence[float], output: Sequence[float], near: float) -> _Merged:
    pairs: list[tuple[int, int]] = []
    missing: list[int] = []
    extra: list[int] = []
    i = j = 0
    while i < len(original) and j < len(output):
        difference = output[j] - original[i]
        if abs(difference) <= near and not _next_is_nearer(output, j, original[i]):
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif difference > near:
            missing.append(i)
            i += 1
        else:
            extra.append(j)
            j += 1
    return pairs, missing + list(range(i, len(original))), extra + list(range(j, len(output)))


def _next_is_nearer(output: Sequence[float], j: int, wanted: float) -> bool:
    """Whether the frame after this one is at the very time, which this one only is near to."""
    return j + 1 < len(output) and abs(output[j + 1] - wanted) <= _ROUNDING < abs(output[j] - wanted)


def _between(pairs: list[tuple[int, int]], missing: list[int], extra: list[int]) -> _Merged:
    """Frames without a partner that lie, on both sides and in the same number, between the same two pairs."""
    lost, found = dict[int, list[int]](), dict[int, list[int]]()
    firsts, seconds = [i for i, _ in pairs], [j for _, j in pairs]
    for i in missing:
        lost.setdefault(bisect_left(firsts, i), []).append(i)
    for j in extra:
        found.setdefault(bisect_left(seconds, j), []).append(j)
    added: list[tuple[int, int]] = []
    for gap, places in lost.items():
        # At the ends there is no frame on the other side that says where they belong.
        if 0 < gap < len(pairs) and len(found.get(gap, ())) == len(places):
            added += zip(places, found[gap], strict=True)
    taken, used = {i for i, _ in added}, {j for _, j in added}
    return (
        sorted(pairs + added),
        [i for i in missing if i not in taken],
        [j for j in extra if j not in used],
    )

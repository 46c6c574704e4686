"""Inputs: which files a batch is about, and what each of them will be called below the output folder."""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Final

from engines.errors import SourceError, UsageError
from stream.batch import remote
from stream.run_checks import PLAYLIST
from stream.sources.images import ENDINGS as IMAGES
from stream.verify.pairs import VIDEOS

#: What is taken from folders, by ending.
MEDIA: Final = VIDEOS | IMAGES
#: An input that begins so is a file with inputs, one a line.
LIST: Final = "@"
#: In the output folder: manifest, lock, and what is not whole yet.
HIDDEN: Final = ".standin"
#: What ends the name of a result's report, which lies beside it.
REPORT: Final = ".report.json"
_PLAYLIST: Final = "it is a playlist, and its segments would get no final names: give the files that it names"
_LINKED: Final = "it leads to a folder elsewhere, which is not followed: give that folder as an input of its own"


@dataclass(frozen=True, slots=True)
class Found:
    """One input.

    Attributes:
        name: of its result, below the output folder, with `/` between folders.
        at: absolute path or URL.
        size: in bytes.
        mark: becomes another one when the content may have changed.
        error: why it cannot be read, None if it may be.
    """

    name: str
    at: str
    size: int
    mark: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """How results are called.

    Attributes:
        output: the folder for them.
        base: folder that names begin below; None for the folder that was given, or a list's common one.
        flat: all results lie in the output folder itself.
        ending: of videos' results, such as `.mp4`; None for that of the input.

    Raises:
        UsageError: the ending is none of videos.
    """

    output: Path
    base: Path | None = None
    flat: bool = False
    ending: str | None = None

    def __post_init__(self) -> None:
        """Look at the ending: a playlist's segments and an image's frames would be several files."""
        if self.ending is not None and self.ending.lower() not in VIDEOS:
            known = ", ".join(sorted(VIDEOS))
            raise UsageError(f"--ending {self.ending}: expected an ending like .mp4 (one of {known})")


class Inputs:
    """All inputs that were given, found when they are iterated: their number costs no memory.

    Args:
        texts: files, folders, patterns, URLs, and lists (`@FILE`).
        layout: how results are called.
        goes_along: whether a path is a sidecar, which is neither an input nor left out.

    Attributes:
        others: what was left out so far: files that are no video and no image, and what is hidden.
    """

    def __init__(
        self, texts: Sequence[str], layout: Layout, goes_along: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._texts = texts
        self._layout = layout
        self._goes_along = goes_along
        self._output = layout.output.resolve()
        self._folders_checked: set[str] = set()
        self.others = 0

    def __iter__(self) -> Iterator[Found]:
        """Every input.

        Raises:
            UsageError: there is nothing of a name, or it overlaps with the output folder.
            SourceError: a list or a store cannot be read, or there is nothing to do at all.
        """
        count = 0
        for text in self._texts:
            for found in self._listed(Path(text[len(LIST) :])) if text.startswith(LIST) else self._one(text, None):
                count += 1
                yield found
        if not count:
            given = ", ".join(self._texts)
            raise SourceError(f"{given}: there is no video and no image ({self.others} others left out)")

    def check(self) -> None:
        """What can be said before anything is written.

        Raises:
            UsageError: there is nothing of a name, or it overlaps with the output folder.
        """
        for text in self._texts:
            if text.startswith(LIST) or remote.is_remote(text):
                continue
            path = _local(text)
            if os.path.isdir(path):
                self._check_folder(path)
            elif os.path.lexists(path):
                self._check_apart(os.path.dirname(path))
            elif glob.has_magic(path):
                self._check_pattern(path)
            else:
                raise UsageError(f"no such file or folder: {text}")

    def _one(self, text: str, base: str | None) -> Iterator[Found]:
        if remote.is_remote(text):
            yield from self._stored(text)
            return
        path = _local(text)
        if os.path.isdir(path):
            yield from self._below(path, base or path)
        elif os.path.lexists(path):
            self._check_apart(os.path.dirname(path))
            yield self._file(path, base or os.path.dirname(path))
        elif glob.has_magic(path):
            yield from self._matching(path, base)
        else:
            raise UsageError(f"no such file or folder: {text}")

    def _listed(self, path: Path) -> Iterator[Found]:
        """What a list names; relative paths are relative to it."""
        base: str | None = None
        for line in _lines(path):
            if not remote.is_remote(line):
                folder = os.path.dirname(_fixed(_local(line, path.parent)))
                base = folder if base is None else os.path.commonpath([base, folder])
        for line in _lines(path):
            whole = line if remote.is_remote(line) else _local(line, path.parent)
            yield from self._one(whole, base)

    def _below(self, folder: str, base: str) -> Iterator[Found]:
        self._check_folder(folder)
        unreadable: list[OSError] = []
        for place, folders, files in os.walk(folder, onerror=unreadable.append):
            shown = sorted(name for name in folders if not name.startswith("."))
            # What is in them may be any number; nobody looks.
            self.others += len(folders) - len(shown)
            folders[:] = shown
            for name in folders:
                at = os.path.join(place, name)
                if os.path.islink(at) and not _leads_into(at, folder):
                    yield Found(self._name(at, base), _printable(at), 0, "", _LINKED)
            for name in files:
                at = os.path.join(place, name)
                if is_media(name) and not name.startswith("."):
                    yield self._file(at, base)
                else:
                    self._leave(at)
        for error in unreadable:
            at = str(error.filename)
            yield Found(self._name(at, base), at, 0, "", f"the folder cannot be read: {error.strerror}")

    def _matching(self, pattern: str, base: str | None) -> Iterator[Found]:
        self._check_pattern(pattern)
        base = base or os.path.dirname(_fixed(pattern))
        found = False
        for path in glob.iglob(pattern, recursive=True):
            found = True
            if os.path.isdir(path):
                # `**` gives folders and what is in them.
                if "**" not in pattern:
                    yield from self._below(path, base)
            elif is_media(path):
                self._check_apart(os.path.dirname(path))
                yield self._file(path, base)
            else:
                self._leave(path)
        if not found:
            raise UsageError(f"nothing matches {pattern}")

    def _stored(self, url: str) -> Iterator[Found]:
        for item in remote.find(url):
            if item.asked_for or is_media(item.below):
                name = self._named(str(PurePosixPath(item.below)))
                yield Found(name, item.url, item.size, item.mark, _PLAYLIST if _is_playlist(name) else None)
            else:
                self.others += 1

    def _leave(self, path: str) -> None:
        self.others += not self._goes_along(path)

    def _file(self, path: str, base: str) -> Found:
        name = self._name(path, base)
        try:
            facts = os.stat(path)
        except OSError as error:
            return Found(name, _printable(path), 0, "", f"it cannot be read: {error.strerror}")
        mark = mark_of(facts)
        if not stat.S_ISREG(facts.st_mode):
            return Found(name, _printable(path), 0, mark, "it is no file")
        if not path.isascii() and path != _printable(path):
            return Found(name, _printable(path), 0, mark, "its name is not UTF-8: rename it")
        return Found(name, path, facts.st_size, mark, _PLAYLIST if _is_playlist(name) else None)

    def _name(self, path: str, base: str) -> str:
        if self._layout.base is not None:
            base = os.path.abspath(self._layout.base)
            if os.path.commonpath([base, path]) != base:
                raise UsageError(f"{path} does not lie below --base {self._layout.base}")
        below = path[len(base) + 1 :] if path.startswith(f"{base}{os.sep}") else os.path.relpath(path, base)
        return self._named(below)

    def _named(self, below: str) -> str:
        """The result's name for a path below the base.

        Raises:
            UsageError: it would not lie in the output folder.
        """
        if not self._layout.flat and self._layout.ending is None:
            check_name(_printable(below))
            return _printable(below)
        name = PurePosixPath(_printable(below))
        if self._layout.flat:
            name = PurePosixPath(name.name)
        if self._layout.ending is not None and name.suffix.lower() in VIDEOS:
            name = name.with_suffix(self._layout.ending)
        check_name(str(name))
        return str(name)

    def _check_folder(self, folder: str) -> None:
        self._check_apart(folder)
        if self._output.is_relative_to(Path(folder).resolve()):
            raise UsageError(
                f"the output {self._layout.output} lies inside the input {folder}, where it would be an input the next "
                "time: give a folder outside of it"
            )

    def _check_pattern(self, pattern: str) -> None:
        """Whether a pattern leads to the output folder, as far as can be said before anything is there."""
        fixed = os.path.dirname(_fixed(pattern))
        self._check_apart(fixed)
        begins = Path(fixed).resolve().parts
        if self._output.parts[: len(begins)] != begins:
            return
        # What `**` stands for may be anything; beyond the pattern's end a folder that it matches is taken whole.
        parts = takewhile(lambda part: part != "**", Path(os.path.relpath(pattern, fixed)).parts)
        if all(map(fnmatch.fnmatchcase, self._output.parts[len(begins) :], parts)):
            raise UsageError(
                f"the output {self._layout.output} lies in what {pattern} stands for, where it would be an input the "
                "next time: give a folder outside of it"
            )

    def _check_apart(self, folder: str) -> None:
        """Nothing that is read lies where results are written."""
        if folder in self._folders_checked:
            return
        if Path(folder).resolve().is_relative_to(self._output):
            raise UsageError(f"the input {folder} lies in the output folder {self._layout.output}; give another one")
        self._folders_checked.add(folder)


def mark_of(facts: os.stat_result) -> str:
    """What becomes another one when a file's content may have changed."""
    return f"{facts.st_size}-{facts.st_mtime_ns}-{facts.st_ino}"


def check_name(name: str) -> None:
    """Refuse a result's name that leads out of the output folder, or to what the batch itself keeps there.

    Raises:
        UsageError: it does.
    """
    if name[:1] not in {"", "/", "."} and ".." not in name:
        # As nearly all are; there may be a hundred thousand of them.
        return
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or parts[0].lower() == HIDDEN:
        raise UsageError(f"a result would be called {name!r}, which is no name below the output folder: give --base")


def is_image(name: str) -> bool:
    """Whether it is called like an image."""
    return os.path.splitext(name)[1].lower() in IMAGES


def is_media(name: str) -> bool:
    """Whether it is called like a video or an image."""
    return os.path.splitext(name)[1].lower() in MEDIA


def _is_playlist(name: str) -> bool:
    return name.lower().endswith(PLAYLIST)


def _local(text: str, folder: Path = Path()) -> str:
    """The absolute path of an input that is relative to a folder."""
    return os.path.abspath(folder / remote.local_path(text))


def _fixed(path: str) -> str:
    """A pattern up to its first sign that stands for others; what exists under its own name is no pattern."""
    if os.path.lexists(path):
        return path
    return path[: next((index for index, sign in enumerate(path) if sign in "*?["), None)]


def _leads_into(link: str, folder: str) -> bool:
    """Whether a linked folder is one that is found below this folder anyway."""
    below = os.path.relpath(os.path.realpath(link), os.path.realpath(folder))
    return below == os.curdir or not any(part.startswith(".") for part in below.split(os.sep))


def _printable(text: str) -> str:
    """Without the bytes that are no UTF-8, which neither databases nor terminals take."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                if (text := line.strip()) and not text.startswith("#"):
                    yield text
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read the list {path}: {reason}") from error

"""Sidecars: texts beside an input that go along as they are. What is no text, whatever its name, may be raw video."""

from __future__ import annotations

import codecs
import contextlib
import filecmp
import fnmatch
import os
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from engines.errors import SourceError, UsageError
from stream.batch.inputs import REPORT, is_media

#: What is copied, by ending: nothing that is ever called so is a picture.
TEXTS: Final = frozenset(
    {
        ".ass", ".csv", ".geojson", ".gpx", ".ini", ".json", ".jsonl", ".kml", ".log", ".lrc", ".md", ".ndjson",
        ".nmea", ".sbv", ".srt", ".ssa", ".toml", ".tsv", ".txt", ".vtt", ".xml", ".xmp", ".yaml", ".yml",
    }
)  # fmt: skip
_BLOCK: Final = 2**20
#: Signs that no text has, and raw samples have soon.
_NO_TEXT: Final = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
#: A picture in letters (base64 or hexadecimal), as labelling tools and cameras put one into their files.
_LETTERS: Final = r"[A-Za-z0-9+/\\%&#;_=-]"
_PICTURE: Final = re.compile(rf"(?<!{_LETTERS})(?:{_LETTERS}{{600}}|(?:{_LETTERS}{{60,}}[ \t]*\r?\n[ \t]*){{10}})")
#: Letters that a match may begin in before the block that it ends in.
_LONGEST_MATCH: Final = 8192


def check_patterns(patterns: Sequence[str]) -> None:
    """Refuse patterns that name what is never copied.

    Raises:
        UsageError: one ends in an ending that is none of texts.
    """
    for pattern in patterns:
        ending = os.path.splitext(pattern)[1].lower()
        if ending and not set(ending) & set("*?[") and ending not in TEXTS:
            raise UsageError(f"--sidecar {pattern}: only texts are copied as they are ({', '.join(sorted(TEXTS))})")


class Sidecars:
    """Which files beside an input are to go along.

    Args:
        patterns: for their names, such as `*.srt`.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns = patterns
        self._folder: tuple[str, int] | None = None
        self._names: list[str] = []
        self._stems: frozenset[str] = frozenset()

    def goes_along(self, path: str) -> bool:
        """Whether it is called like a sidecar of a video or an image beside it."""
        folder, name = os.path.split(path)
        if not self._wanted(name):
            return False
        try:
            self._listed(Path(folder))
        except OSError:
            return False
        return any(name[:place] in self._stems for place, sign in enumerate(name) if sign == ".")

    def missing(self, source: Path, folder: Path, *, overwrite: bool) -> tuple[list[Path], list[str]]:
        """The sidecars of an input that are not in a folder yet, and why others cannot be there.

        Args:
            source: the input.
            folder: where they go.
            overwrite: whether they may replace other files.
        """
        wanted, troubles = [], []
        try:
            for sidecar in self._of(source):
                there = folder / sidecar.name
                if os.path.lexists(there):
                    if there.is_file() and filecmp.cmp(sidecar, there, shallow=False):
                        continue
                    if not overwrite or there.is_dir():
                        troubles.append(f"{there} exists and is not the sidecar: use --overwrite to replace it")
                        continue
                wanted.append(sidecar)
        except OSError as error:
            troubles.append(f"cannot read the sidecars of {source}: {error.strerror or error}")
        return wanted, troubles

    def _of(self, source: Path) -> Iterator[Path]:
        """Texts whose names begin with the input's, with or without its ending."""
        if not self.patterns:
            return
        names = self._listed(source.parent)
        begins = f"{source.stem}."
        for name in names[bisect_left(names, begins) :]:
            if not name.startswith(begins):
                break
            path = source.parent / name
            if name != source.name and self._wanted(name) and path.is_file() and not path.samefile(source):
                yield path

    def _wanted(self, name: str) -> bool:
        """Whether a name is a text's that a pattern names, and no report's."""
        return (
            os.path.splitext(name)[1].lower() in TEXTS
            and not name.endswith(REPORT)
            and any(fnmatch.fnmatch(name, one) for one in self.patterns)
        )

    def _listed(self, folder: Path) -> list[str]:
        """The names in a folder, in order; read once for all of its inputs."""
        facts = (str(folder), folder.stat().st_mtime_ns)
        if facts != self._folder:
            self._names, self._folder = sorted(os.listdir(folder)), facts
            media = (name for name in self._names if is_media(name) and not name.startswith("."))
            self._stems = frozenset(os.path.splitext(name)[0] for name in media)
        return self._names


def copy(sidecar: Path, to: Path) -> None:
    """Copy a text; what has been looked at is what is written.

    Raises:
        SourceError: it cannot be read, or is no text.
        OSError: the copy cannot be written.
    """
    decoder, before = codecs.getincrementaldecoder("utf-8")(), ""
    with contextlib.ExitStack() as stack:
        with _reading(sidecar):
            file = stack.enter_context(sidecar.open("rb"))
        copied = stack.enter_context(to.open("xb"))
        while True:
            with _reading(sidecar):
                block = file.read(_BLOCK)
                text = decoder.decode(block, final=not block)
            if _NO_TEXT.search(text):
                raise SourceError(f"{sidecar} is not copied: it is no text")
            if _PICTURE.search(before + text):
                raise SourceError(f"{sidecar} is not copied: it may hold a picture, written in letters")
            if not block:
                break
            before = (before + text)[-_LONGEST_MATCH:]
            copied.write(block)
        copied.flush()
        os.fsync(copied.fileno())


@contextlib.contextmanager
def _reading(sidecar: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise SourceError(f"{sidecar} is not copied: it is no text in UTF-8") from error
    except OSError as error:
        raise SourceError(f"cannot read the sidecar {sidecar}: {error.strerror or error}") from error

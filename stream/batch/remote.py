"""Object stores through fsspec: what is in them, and one file of them in memory, never on disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from engines.errors import SourceError, StandinError, UsageError
from stream.address import redacted
from stream.batch.memory import free_memory

#: Bytes that are fetched at a time.
_BLOCK: Final = 4 * 2**20
#: A file may take this share of the memory that is free: its frames need some, too.
_SHARE: Final = 0.5
#: What stores call that which changes with a file's content, the surest first.
_MARKS: Final = ("ETag", "etag", "checksum", "md5Hash", "content_md5", "CRC", "generation", "version_id")
_ON_DISK: Final = "{} would keep what is read on this machine's disk, where raw video must not be: leave out its cache"
#: What fsspec, too, takes for paths of this machine.
_LOCAL: Final = ("file://", "local://")
_TIMES: Final = ("LastModified", "last_modified", "updated", "mtime", "modified", "created", "date_time")


@dataclass(frozen=True, slots=True)
class Stored:
    """A file in a store.

    Attributes:
        url: of the file.
        below: its path below what was asked for.
        size: in bytes.
        mark: becomes another one when the content may have changed.
        asked_for: whether it was named itself, rather than found in a folder or by a pattern.
    """

    url: str
    below: str
    size: int
    mark: str
    asked_for: bool = False


def is_remote(text: str) -> bool:
    """Whether an input is a URL for fsspec, rather than a path."""
    return ("://" in text or "::" in text) and not text.startswith(_LOCAL) and not os.path.lexists(text)


def local_path(text: str) -> str:
    """The path of an input that is not remote."""
    return text[text.index("://") + 3 :] if text.startswith(_LOCAL) else text


def shown(url: str) -> str:
    """A URL without secrets; it may be a chain, like `zip://clip.mp4::s3://bucket/clips.zip`."""
    return "::".join(map(redacted, url.split("::")))


def find(url: str) -> Iterator[Stored]:
    """The files of a URL, which may name a file or a folder, or be a pattern.

    Raises:
        UsageError: no such store or file, its package is not installed, it would keep what is read on disk, or there
            are secrets in the URL.
        SourceError: the store answers with an error.
    """
    if shown(url) != url:
        raise UsageError(
            f"{shown(url)} holds a user, a password or a query, and inputs are written down: "
            "give credentials by the store's own configuration (fsspec: ~/.config/fsspec, or the environment)"
        )
    with _errors(url):
        store, path = _open_store(url)
        rest = "".join(f"::{part}" for part in url.split("::")[1:])
        protocol = url.partition("::")[0].partition("://")[0]

        def stored(at: str, facts: dict[str, Any], base: str) -> Stored:
            whole = f"{protocol}://{at}{rest}" if rest else str(store.unstrip_protocol(at))
            below = at.lstrip("/").removeprefix(base.strip("/")).lstrip("/") or PurePosixPath(at).name
            return Stored(whole, below, int(facts.get("size") or 0), _mark(facts), asked_for=at == path)

        if any(sign in path for sign in "*?["):
            fixed = path[: next(index for index, sign in enumerate(path) if sign in "*?[")].rpartition("/")[0]
            found = False
            for facts in _matching(store, path, fixed):
                found = True
                if facts["type"] != "directory":
                    yield stored(facts["name"], facts, fixed)
            if not found:
                raise UsageError(f"nothing matches {url}")
        elif (facts := store.info(path))["type"] == "file":
            yield stored(path, facts, path.rpartition("/")[0])
        else:
            for facts in _below(store, path):
                if facts["type"] != "directory":
                    yield stored(facts["name"], facts, path)


def _matching(store: Any, pattern: str, fixed: str) -> Iterator[dict[str, Any]]:
    """What a pattern stands for; folders without `**` are taken whole, as on this machine."""
    from fsspec.utils import glob_translate

    matches = re.compile(glob_translate(pattern)).match
    deep = "**" in pattern
    for facts in _below(store, fixed, depth=None if deep else pattern[len(fixed) :].lstrip("/").count("/") + 1):
        if matches(facts["name"]):
            yield facts
            if facts["type"] == "directory" and not deep:
                yield from _below(store, facts["name"])


def _below(store: Any, path: str, depth: int | None = None) -> Iterator[dict[str, Any]]:
    """All files and folders below a folder.

    A store's own walk leaves out folders that it cannot list, and files would be missing without a word.
    """
    folders, seen = [(path, 1)], {path.rstrip("/")}
    while folders:
        folder, level = folders.pop()
        for facts in store.ls(folder, detail=True):
            name = facts["name"].rstrip("/")
            if facts["type"] == "directory":
                if name in seen:
                    continue
                seen.add(name)
                if depth is None or level < depth:
                    folders.append((name, level + 1))
            yield facts | {"name": name}


@contextlib.contextmanager
def fetched(url: str, on_bytes: Callable[[int], None] = lambda _: None) -> Iterator[tuple[Path, str]]:
    """A file of a store, in memory, under its own name; with the sha256 of its content.

    Args:
        url: of the file.
        on_bytes: called with the number of each block that has come.

    Raises:
        SourceError: the store answers with an error, or the file is too large for the memory that is free.
    """
    name = PurePosixPath(url.partition("::")[0].partition("://")[2]).name
    with contextlib.ExitStack() as stack:
        memory = os.memfd_create("standin", os.MFD_CLOEXEC)
        stack.callback(os.close, memory)
        content = _fetch(url, memory, on_bytes)
        # Only the name is on disk: what it leads to exists in this process's memory alone.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="standin-"))
        link = Path(folder, name)
        link.symlink_to(f"/proc/self/fd/{memory}")
        yield link, content


def _fetch(url: str, memory: int, on_bytes: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    with _errors(url):
        store, path = _open_store(url)
        size = int(store.info(path).get("size") or 0)
        with store.open(path, "rb", block_size=_BLOCK) as file, os.fdopen(os.dup(memory), "wb") as copy:
            if getattr(getattr(file, "cache", None), "name", None) == "mmap":
                raise UsageError(_ON_DISK.format(shown(url)))
            come = 0
            while block := file.read(_BLOCK):
                # Asked for each block: other workers fetch at the same time.
                room = int(free_memory() * _SHARE)
                if max(size - come, len(block)) > room:
                    whole, most = max(size, come + len(block)), come + room
                    raise SourceError(
                        f"{shown(url)} has {whole / 2**30:.1f} GiB, is kept in memory while it is worked on, and "
                        f"{most / 2**30:.1f} GiB may be used: use fewer workers, or mount the store as a folder"
                    )
                come += len(block)
                digest.update(block)
                copy.write(block)
                on_bytes(len(block))
    return digest.hexdigest()


def _open_store(url: str) -> tuple[Any, str]:
    try:
        import fsspec.core
    except ImportError as error:
        raise UsageError("inputs in stores need fsspec: pip install 'standin[batch]'") from error
    _check_no_cache(url)
    store, path = fsspec.core.url_to_fs(url)
    return store, str(path)


def _check_no_cache(url: str) -> None:
    """Refuse chains with a store that copies others' files to disk, before there is a folder for them."""
    import fsspec
    from fsspec.implementations.cached import CachingFileSystem

    for part in url.split("::"):
        kind: Any = None
        # What is no store is the path at the chain's end.
        with contextlib.suppress(ValueError):
            kind = fsspec.get_filesystem_class(part.partition("://")[0])
        if isinstance(kind, type) and issubclass(kind, CachingFileSystem):
            raise UsageError(_ON_DISK.format(shown(url)))


@contextlib.contextmanager
def _errors(url: str) -> Iterator[None]:
    """Whatever a store raises, as one of our errors: its packages have classes of their own."""
    try:
        yield
    except StandinError:
        raise
    except FileNotFoundError as error:
        raise UsageError(f"no such file or folder: {shown(url)}") from error
    except ImportError as error:
        raise UsageError(f"{shown(url)} needs a package that is not installed: {redacted(str(error))}") from error
    except Exception as error:
        said = " ".join(redacted(str(error)).split()) or type(error).__name__
        raise SourceError(f"{shown(url)} cannot be read, the store says: {said}") from error


def _mark(facts: dict[str, Any]) -> str:
    surest = next((str(facts[key]) for key in _MARKS if facts.get(key)), None)
    time = next((str(facts[key]) for key in _TIMES if facts.get(key)), "")
    return f"{facts.get('size')}-{surest or time}"

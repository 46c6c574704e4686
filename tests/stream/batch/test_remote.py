"""Object stores: listed, fetched into memory alone, and their errors as one line."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engines.errors import SourceError, UsageError
from stream.batch.inputs import Inputs, Layout
from stream.batch.remote import fetched, find, is_remote, local_path
from stream.sources.video import VideoSource
from tests.fakes import noise, write_lossless

fsspec = pytest.importorskip("fsspec")
Store: Any = fsspec.AbstractFileSystem


class Partly(Store):  # type: ignore[misc]
    """A store of which one folder cannot be listed."""

    protocol = "partly"

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "type": "directory", "size": 0}

    def ls(self, path: str, **_: Any) -> list[dict[str, Any]]:
        if path.endswith("closed"):
            raise PermissionError(13, "Access Denied")
        entries = [("day/1.mkv", "file"), ("day/closed", "directory"), ("day", "directory")]
        return [{"name": name, "type": kind, "size": 1} for name, kind in entries]


class Mapped(Store):  # type: ignore[misc]
    """A store whose files are kept on disk while they are read."""

    protocol = "mapped"

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "type": "file", "size": 10}

    def _open(self, path: str, *_: Any, **__: Any) -> Any:
        file = BytesIO(b"raw")
        file.cache = SimpleNamespace(name="mmap")  # type: ignore[attr-defined]
        return file


class Broken(Store):  # type: ignore[misc]
    """A store that answers with errors."""

    protocol = "broken"

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        if "read" in path:
            return {"name": path, "type": "file", "size": 10}
        raise OSError("403 for https://user:secret@store.example/key?sig=abc: Forbidden\nand more")

    def _open(self, path: str, *_: Any, **__: Any) -> Any:
        raise RuntimeError("500 Internal Server Error")


@pytest.fixture(autouse=True)
def stores(tmp_path: Path) -> Iterator[None]:
    for kind in (Broken, Partly, Mapped):
        fsspec.register_implementation(kind.protocol, kind, clobber=True)
    memory = fsspec.filesystem("memory")
    clip = write_lossless(tmp_path / "clip.mkv", noise(4))
    for name in ("/bucket/day/a/1.mkv", "/bucket/day/2.mkv", "/bucket/day/notes.txt"):
        memory.pipe(name, clip.read_bytes())
    yield
    memory.store.clear()


def names(*urls: str) -> list[str]:
    return sorted(found.name for found in Inputs(urls, Layout(Path("out"))))


def test_folders_patterns_and_files_of_a_store() -> None:
    assert names("memory://bucket/day") == ["2.mkv", "a/1.mkv"]
    assert names("memory://bucket/day/**/*.mkv") == ["2.mkv", "a/1.mkv"]
    assert names("memory://bucket/day/notes.txt") == ["notes.txt"]


def test_folders_that_a_pattern_matches_are_taken_whole_as_on_this_machine() -> None:
    assert names("memory://bucket/d*") == ["day/2.mkv", "day/a/1.mkv"]
    assert names("memory://bucket/day/[1-3].mkv") == ["2.mkv"]
    assert names("memory://bucket/*/a/*") == ["day/a/1.mkv"]


@pytest.mark.parametrize("url", ["partly://day", "partly://day/**/*.mkv", "partly://day/*/*.mkv"])
def test_a_folder_that_cannot_be_listed_is_an_error_and_not_empty(url: str) -> None:
    with pytest.raises(SourceError, match="Access Denied"):
        names(url)


def test_an_archive_cannot_lead_out_of_the_output(tmp_path: Path) -> None:
    for member in ("../../x.mkv", "day/../../x.mkv", ".standin/x.mkv", "./.standin/x.mkv"):
        with zipfile.ZipFile(tmp_path / "day.zip", "w") as archive:
            archive.writestr(member, b"x")
        with pytest.raises(UsageError, match="no name below the output folder"):
            names(f"zip://::{tmp_path / 'day.zip'}")


@pytest.mark.parametrize("cache", ["simplecache", "filecache", "blockcache", "cached"])
def test_stores_that_keep_what_is_read_on_disk_are_refused(
    cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    for url in (f"{cache}::memory://bucket/day", f"zip://*.mkv::{cache}::memory://bucket/day.zip"):
        with pytest.raises(UsageError, match="on this machine's disk"):
            list(find(url))
        with pytest.raises(UsageError, match="on this machine's disk"), fetched(url):
            pass
    with pytest.raises(UsageError, match="on this machine's disk"), fetched("mapped://bucket/a.mkv"):
        pass
    assert not list((tmp_path / "temporary").rglob("*"))


def test_a_chain_of_stores(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "day.zip", "w") as archive:
        archive.write(tmp_path / "clip.mkv", "deep/clip.mkv")
    url = f"zip://::{tmp_path / 'day.zip'}"
    assert names(url) == ["deep/clip.mkv"]
    (stored,) = find(url)
    with fetched(stored.url) as (path, content):
        assert path.read_bytes() == (tmp_path / "clip.mkv").read_bytes()
        assert content == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_fetched_is_a_video_in_memory_and_nowhere_else(tmp_path: Path) -> None:
    with fetched("memory://bucket/day/2.mkv") as (path, _):
        assert path.name == "2.mkv"
        # On disk there is a name alone.
        assert path.is_symlink()
        assert path.lstat().st_size < 100
        source = VideoSource(path)
        assert len(list(source)) == 4
        source.close()
    assert not path.is_symlink()
    assert not path.parent.exists()


def test_what_does_not_fit_into_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.batch.remote.free_memory", lambda: 1000)
    with pytest.raises(SourceError, match="mount the store as a folder"), fetched("memory://bucket/day/2.mkv"):
        pass


def test_memory_that_others_take_meanwhile_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([10**9, 10**9, 0])
    monkeypatch.setattr("stream.batch.remote.free_memory", lambda: next(free))
    monkeypatch.setattr("stream.batch.remote._BLOCK", 1000)
    with pytest.raises(SourceError, match="use fewer workers"), fetched("memory://bucket/day/2.mkv"):
        pass


def test_errors_of_a_store_are_one_line_without_secrets() -> None:
    with pytest.raises(SourceError, match="the store says: 403") as caught:
        list(find("broken://bucket/day"))
    assert "secret" not in str(caught.value)
    assert "abc" not in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match="500 Internal Server Error"), fetched("broken://read"):
        pass


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://bucket/none.mkv", "no such file or folder"),
        ("memory://bucket/day/*.avi", "nothing matches"),
        ("nonsense://bucket", "cannot be read"),
    ],
)
def test_what_is_not_there_is_said(url: str, message: str) -> None:
    with pytest.raises((UsageError, SourceError), match=message):
        list(find(url))


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/day", "https://host/a.mp4?sig=secret"])
def test_secrets_are_refused_since_inputs_are_written_down(url: str) -> None:
    with pytest.raises(UsageError, match="holds a user, a password or a query") as caught:
        list(find(url))
    assert "secret" not in str(caught.value)


def test_paths_are_no_urls(tmp_path: Path) -> None:
    assert not is_remote("day/a.mp4")
    for store in ("", "file://", "local://"):
        assert not is_remote(f"{store}/day/a.mp4")
        assert local_path(f"{store}/day/a.mp4") == "/day/a.mp4"
    (tmp_path / "a::b.mp4").touch()
    assert not is_remote(str(tmp_path / "a::b.mp4"))
    assert is_remote("s3://bucket/a.mp4")

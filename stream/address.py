"""Addresses: what an input or output on the command line names, and how it is shown without its secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from engines.errors import UsageError

#: A scheme is followed by two slashes: `a:b.mp4` is a file, as is a drive's letter.
_URL: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_DEVICE: Final = re.compile(r"^/dev/video\d+$")
_PIPELINE: Final = "gst:"
#: Names of secrets in pipelines and URLs. A `pbkeylen` is none.
_NAME: Final = (
    r"(?!pbkeylen)[\w-]*(?:pass|pw|secret|token|auth|key|user|cookie|headers|session|credential|streamid|\bpin\b)[\w-]*"
)
#: Values of a pipeline's properties that are secrets: `user-pw=...`, `passphrase=...`, `auth-token=...`. Parts of a
#: value may stand in quotes, in which a backslash keeps the next sign from ending it.
_SECRET: Final = re.compile(
    rf"(?<![\w-])({_NAME}\s*=\s*)" + r"(?:\\.|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|\S)+", re.I
)
#: The same in the path of a URL, where many recorders want them: `/user=me&password=...&channel=1`, `/live;token=...`.
_IN_PATH: Final = re.compile(rf"(?<![a-z0-9-])({_NAME}=)[^&;/]+", re.I)
_SCHEME: Final = r"[A-Za-z][A-Za-z0-9+.-]{0,31}://"
#: URLs inside a longer text, such as a library's message. A password may hold any sign, so nothing but white space ends
#: one; where it stands in quotes, or what looks like `user:password` has no @ yet, white space is a part of it, too.
_ANYWHERE: Final = re.compile(
    rf"(?<=\"){_SCHEME}(?:[^\"\n]*(?=[\"@]))?\S*"
    rf"|(?<='){_SCHEME}(?:[^'\n]*(?=['@]))?\S*"
    rf"|{_SCHEME}[^\s/@:]+:(?:[^\s/@]*|(?!\d+/)[^\s@]*)[ \t](?:(?!://)[^\n@])*@\S*"
    rf"|{_SCHEME}\S*"
)
#: What ends a sentence or a quotation rather than a URL.
_TAIL: Final = re.compile(r"[\"'<>()\[\],;:.!]*$")
#: A host, and behind the colon what is no port: most likely a user and a password that lack their @.
_NO_PORT: Final = re.compile(r"\A([^/\[\]:]*:)(?!\d*(?:/|$)).*", re.DOTALL)
#: What stands for a secret in a configuration, and is none.
_PLACEHOLDER: Final = re.compile(r"\$\{[^{}]+\}")
_HIDDEN: Final = "***"

#: Network protocols that a stream comes from and goes to.
READABLE: Final = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "http", "https")
WRITABLE: Final = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "rtsp-server", "rtsps-server")
#: Protocols whose peer has a certificate.
SECURE: Final = ("rtsps", "rtmps", "https")


class Place(Enum):
    """What kind of thing an address names."""

    FILE = "file"
    """A file, an image or a folder."""
    NETWORK = "network"
    """A URL."""
    DEVICE = "device"
    """A camera of this machine, /dev/videoN."""
    PIPELINE = "pipeline"
    """A part of a GStreamer pipeline, `gst:...`."""
    PIPE = "pipe"
    """Standard input or output, `-`."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a stream comes from or goes to.

    Attributes:
        place: what kind of thing it is.
        text: as it was given; may hold credentials, so it goes to libraries only.
        scheme: of a URL, lower case, `gst` for a pipeline, else empty.
    """

    place: Place
    text: str
    scheme: str = ""

    @property
    def live(self) -> bool:
        """Whether what is there does not wait for us."""
        return self.place not in {Place.FILE, Place.PIPE}

    @property
    def path(self) -> Path:
        """Of a file or a device."""
        return Path(self.text)

    @property
    def secure(self) -> bool:
        """Whether its peer has to show a certificate."""
        return self.scheme in SECURE

    @property
    def description(self) -> str:
        """Of a pipeline, as GStreamer takes it."""
        return self.text.removeprefix(_PIPELINE)

    def __str__(self) -> str:
        """As it may be shown and logged: without user, password and query."""
        if self.place is Place.PIPE:
            return "the pipe"
        if self.place is Place.PIPELINE:
            return shown(self.text)
        return _without_secrets(self.text) if self.place is Place.NETWORK else self.text

    def __repr__(self) -> str:
        return f"Address({self.place.value}, {self})"


def input_address(text: str) -> Address:
    """What a stream is read from.

    Raises:
        UsageError: a scheme that cannot be read.
    """
    return _address(text, READABLE, "read")


def output_address(text: str) -> Address:
    """What a stream is written to.

    Raises:
        UsageError: a scheme that cannot be written, or a camera.
    """
    address = _address(text, WRITABLE, "written")
    if address.place is Place.DEVICE:
        raise UsageError(f"{address} is a camera; a stream cannot be written to it")
    return address


def redacted(text: str) -> str:
    """A text with every URL in it without user, password, stream key and the values of its query.

    Libraries put the URL into their messages, so this stands before every log and every error. It rather hides too
    much: all from `://` to the last @ before white space.
    """
    return _ANYWHERE.sub(_redacted_url, text)


def shown(text: str) -> str:
    """A pipeline's description, or a message of GStreamer's, without secrets: of URLs, passwords and the like."""
    return _SECRET.sub(rf"\1{_HIDDEN}", redacted(text))


def _address(text: str, schemes: tuple[str, ...], use: str) -> Address:
    if not text:
        raise UsageError("an address is empty; expected a file or a URL")
    if found := _URL.match(text):
        scheme = found.group(1).lower()
        if scheme == "file":
            return Address(Place.FILE, _local_path(text))
        if scheme not in schemes:
            known = ", ".join(f"{name}://" for name in schemes)
            raise UsageError(f"{_without_secrets(text)} cannot be {use}; expected a file or one of {known}")
        _check(text)
        return Address(Place.NETWORK, text, scheme)
    if text == "-":
        return Address(Place.PIPE, text)
    if text.startswith(_PIPELINE):
        if not text.removeprefix(_PIPELINE).strip():
            raise UsageError("gst: is followed by a part of a pipeline, such as gst:v4l2src ! image/jpeg ! jpegdec")
        return Address(Place.PIPELINE, text, "gst")
    if _DEVICE.match(text):
        return Address(Place.DEVICE, text)
    return Address(Place.FILE, text)


def _local_path(text: str) -> str:
    """Of a file's URL, which has three slashes: behind two stands a host."""
    expected = "expected something like file:///recordings/clip.mp4"
    try:
        parts = urlsplit(text)
    except ValueError:
        raise UsageError(f"{_without_secrets(text)} is no URL: its host cannot be read; {expected}") from None
    if parts.netloc not in ("", "localhost"):
        raise UsageError(f"{_without_secrets(text)} names a host, and no file of this machine; {expected}")
    return parts.path


def _check(text: str) -> None:
    shown = _without_secrets(text)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        # Python's message quotes what may be a password.
        raise UsageError(
            f"{shown} is no URL: its host or its port cannot be read; "
            "signs like / ? # @ in a user or a password are written %2F %3F %23 %40"
        ) from None
    # udp://@:5000 listens on all of this machine's addresses.
    if not (parts.hostname or port) or port == 0:
        raise UsageError(f"{shown} names no host; expected something like rtsp://camera.local:554/stream")


def _redacted_url(found: re.Match[str]) -> str:
    text = found.group()
    # Not before the last @: what looks like an end there is a part of the password.
    end = max(_TAIL.search(text, text.rfind("@") + 1).start(), text.index("://") + 3)  # type: ignore[union-attr]
    return _without_secrets(text[:end]) + text[end:]


def _without_secrets(url: str) -> str:
    scheme, rest = url.split("://", 1)
    # A password may hold any sign, also those that end a host: all before the last @ is hidden.
    user, at, rest = rest.rpartition("@")
    place, query, _ = rest.partition("?")
    place, fragment, _ = place.partition("#")
    place = _NO_PORT.sub(rf"\1{_HIDDEN}", place, count=1) if not at else place
    if scheme.lower().startswith("rtmp"):
        place = _without_key(place)
    place = _IN_PATH.sub(rf"\1{_HIDDEN}", place)
    more = f"{query or fragment}{_HIDDEN}" if query or fragment else ""
    return f"{scheme}://{_HIDDEN if user else ''}{at}{place}{more}"


def _without_key(place: str) -> str:
    """Host and application of an RTMP server; whoever knows what stands behind them can send in somebody's name."""
    host, _, path = place.partition("/")
    application, _, key = path.partition("/")
    return f"{host}/{application}/{_HIDDEN}" if key and not _PLACEHOLDER.fullmatch(key) else place

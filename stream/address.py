"""Addresses: what an input or output on the command line names, and how it is shown without its secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from engines.errors import UsageError
from stream.presets import did_you_mean

#: A scheme is followed by two slashes: `a:b.mp4` is a file, as is a drive's letter.
_URL: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_DEVICE: Final = re.compile(r"^/dev/video\d+$")
#: Inside a longer text, such as a library's message. Up to a quote, white space or bracket.
_ANYWHERE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>\[\]()]+(?:\[[0-9A-Fa-f:.]+\][^\s'\"<>()]*)?")
_HIDDEN: Final = "***"

#: Network protocols that a stream comes from and goes to.
READABLE: Final = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "http", "https")
WRITABLE: Final = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp")
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


@dataclass(frozen=True, slots=True)
class Address:
    """Where a stream comes from or goes to.

    Attributes:
        place: what kind of thing it is.
        text: as it was given; may hold credentials, so it goes to libraries only.
        scheme: of a URL, lower case, else empty.
    """

    place: Place
    text: str
    scheme: str = ""

    @property
    def live(self) -> bool:
        """Whether what is there does not wait for us."""
        return self.place is not Place.FILE

    @property
    def path(self) -> Path:
        """Of a file or a device."""
        return Path(self.text)

    @property
    def secure(self) -> bool:
        """Whether its peer has to show a certificate."""
        return self.scheme in SECURE

    def __str__(self) -> str:
        """As it may be shown and logged: without user, password and query."""
        return redacted(self.text)

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
    """A text with every URL in it without user, password and the values of its query.

    Libraries put the URL into their messages, so this stands before every log and every error.
    """
    return _ANYWHERE.sub(lambda match: _without_secrets(match.group()), text)


def _address(text: str, schemes: tuple[str, ...], use: str) -> Address:
    if not text:
        raise UsageError("an address is empty; expected a file or a URL")
    if found := _URL.match(text):
        scheme = found.group(1).lower()
        if scheme == "file":
            return Address(Place.FILE, urlsplit(text).path)
        if scheme not in schemes:
            raise UsageError(f"{redacted(text)} cannot be {use}: {did_you_mean(scheme, schemes)}")
        _check(text)
        return Address(Place.NETWORK, text, scheme)
    if _DEVICE.match(text):
        return Address(Place.DEVICE, text)
    return Address(Place.FILE, text)


def _check(text: str) -> None:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{redacted(text)} is no URL: {error}") from error
    # udp://@:5000 listens on all of this machine's addresses.
    if not (parts.hostname or port) or port == 0:
        raise UsageError(f"{redacted(text)} names no host; expected something like rtsp://camera.local:554/stream")


def _without_secrets(url: str) -> str:
    scheme, rest = url.split("://", 1)
    # A password may hold any sign, also those that end a host: all before the last @ is hidden.
    _, at, rest = rest.rpartition("@")
    place, query, _ = rest.partition("?")
    place, fragment, _ = place.partition("#")
    return f"{scheme}://{_HIDDEN + at if at else ''}{place}{query or fragment}{_HIDDEN if query or fragment else ''}"

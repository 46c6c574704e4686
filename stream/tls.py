"""TLS: how FFmpeg is told to look at a peer's certificate, and what is refused where it would not."""

from __future__ import annotations

import ssl
from typing import Final
from urllib.parse import urlsplit

from engines.errors import UsageError
from stream.address import Address

#: Names of playlists: what they name is fetched without our options, so without a look at any certificate.
_PLAYLISTS: Final = (".m3u8", ".m3u", ".ffconcat", ".mpd", ".sdp")
_ADVICE: Final = "use --backend gst, which does, or --insecure to take any certificate"
#: Why playlists behind TLS are not read.
REFUSED_PLAYLIST: Final = (
    "FFmpeg does not verify the certificates of the servers that send a playlist's segments; " + _ADVICE
)


def tls_options(address: Address, insecure: bool) -> dict[str, str]:
    """Options of FFmpeg's for an address whose peer has a certificate; none for others.

    Args:
        address: of a source or a server.
        insecure: take any certificate.
    """
    if not address.secure:
        return {}
    # FFmpeg takes any certificate unless it is told otherwise, and knows no authorities of its own.
    options = {"tls_verify": "0" if insecure else "1"}
    if authorities := ssl.get_default_verify_paths().cafile:
        options["ca_file"] = authorities
    return options


def check_sink(address: Address, insecure: bool) -> None:
    """Refuses servers whose certificate FFmpeg would not look at, whatever it is told.

    PyAV opens RTMP for writing without any options, so `tls_verify` never gets there.

    Args:
        address: that FFmpeg is to write to.
        insecure: take any certificate.

    Raises:
        UsageError: it is one of them, and nobody said that any certificate will do.
    """
    if address.scheme == "rtmps" and not insecure:
        raise UsageError(
            f"{address}: FFmpeg does not verify the certificate of a server that it writes RTMP to; {_ADVICE}"
        )


def check_source(address: Address, insecure: bool) -> None:
    """Refuses playlists behind TLS that FFmpeg is to read.

    Args:
        address: that FFmpeg is to read.
        insecure: take any certificate.

    Raises:
        UsageError: it is one, and nobody said that any certificate will do.
    """
    if may_be_playlist(address, insecure) and urlsplit(address.text).path.lower().endswith(_PLAYLISTS):
        raise UsageError(f"{address}: {REFUSED_PLAYLIST}")


def may_be_playlist(address: Address, insecure: bool) -> bool:
    """Whether FFmpeg would have to be kept from reading a playlist there."""
    return address.scheme == "https" and not insecure

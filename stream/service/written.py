"""What the streams of a service write: it must outlast a restart, and be theirs alone."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from engines.errors import UsageError
from stream.address import Address, Place
from stream.config import RunSettings
from stream.run_checks import LINES, PLAYLIST, is_recording
from stream.sinks.rtsp_server import RTSP_SERVER_SCHEMES

#: That servers listen on where an address names none.
_PORTS: Final[Mapping[str, int]] = {
    "rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443, **dict.fromkeys(RTSP_SERVER_SCHEMES, 8554),
}  # fmt: skip
_COMMENT: Final = "#"


def check_lasting(outputs: Sequence[Address], settings: RunSettings) -> None:
    """A worker that is started again must be able to go on where another one has ended.

    Args:
        outputs: of a stream.
        settings: of its run.

    Raises:
        UsageError: it would find a file that it may not replace.
    """
    if settings.overwrite:
        return
    for output in outputs:
        if output.place is Place.FILE and not is_recording(output, settings) and not _is_playlist(output):
            raise UsageError(
                f"{output} is a single file, which a worker that is started again would find finished; write to a "
                f"folder ({output.path.stem}/), a playlist ({output.path.stem}{PLAYLIST}) or a server, or set "
                "overwrite = true and lose at a restart what was there"
            )
    if settings.report is not None and settings.report.suffix.lower() != LINES:
        raise UsageError(
            f"the report {settings.report} is written once; a service's must survive a restart: name it "
            f"{settings.report.stem}{LINES}, which goes on where it ended, or set overwrite = true"
        )
    if settings.contact_sheet is not None:
        raise UsageError(
            f"the contact sheet {settings.contact_sheet} is written once, when a stream ends; leave it out, or set "
            "overwrite = true"
        )


def going_on(outputs: Sequence[Address], settings: RunSettings) -> RunSettings:
    """Settings with which a worker replaces what an earlier one has left: playlists of ours, and no others.

    Args:
        outputs: of a stream, as `check_lasting` has let them pass.
        settings: of its run.
    """
    playlists = [output.path for output in outputs if _is_playlist(output)]
    if settings.overwrite or not playlists or not all(map(_replaceable, playlists)):
        return settings
    return settings.model_copy(update={"overwrite": True})


def places(outputs: Sequence[Address], settings: RunSettings) -> tuple[str, ...]:
    """What nobody else may write to or listen on: the outputs' in their order, then report's and contact sheet's.

    Users and passwords make no other place, and a port that is left out is the usual one.
    """
    files = (settings.report, settings.contact_sheet)
    return (*map(_place, outputs), *(os.path.normpath(path) for path in files if path is not None))


def _place(output: Address) -> str:
    if output.place is Place.FILE:
        return os.path.normpath(output.text)
    if output.place is not Place.NETWORK:
        return output.text
    parts = urlsplit(output.text)
    port = parts.port or _PORTS.get(output.scheme)
    if output.scheme in RTSP_SERVER_SCHEMES:
        # Whatever the host: one that stands for all of them takes the port from the others.
        return f"port {port}"
    # How datagrams are sent is in the query of udp://; which stream is meant is in that of the others.
    query = "" if output.scheme == "udp" else parts.query
    return f"{output.scheme}://{parts.hostname or ''}:{port}/{parts.path.strip('/')}?{query}"


def _is_playlist(output: Address) -> bool:
    return output.place is Place.FILE and output.path.suffix.lower() == PLAYLIST


def _replaceable(playlist: Path) -> bool:
    """Whether there is none, or one that lists segments of ours alone; a loss of power can leave an empty one."""
    ours = re.compile(rf"{re.escape(playlist.stem)}-\d{{8}}T\d{{12}}Z-\d{{5,}}\.(?:ts|m4s)")
    try:
        lines = playlist.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return True
    except (OSError, UnicodeDecodeError):
        return False
    return all(ours.fullmatch(line) for line in lines if line.strip() and not line.startswith(_COMMENT))

"""What live streams may need beside the default run: GStreamer with its parts."""

from __future__ import annotations

import os
import sys
from typing import Final

from engines.errors import RuntimeUnavailableError
from stream.check import Check, last_line, run_probe
from stream.gst_path import check_tools, variables

#: By what it is for: an element, or a module of the bindings, and the Debian package that has it.
_ELEMENTS: Final = {
    "srt://": ("srtsrc", "gstreamer1.0-plugins-bad"),
    "rtsp:// through GStreamer": ("rtspsrc", "gstreamer1.0-plugins-good"),
    "servers over rtsp:// through GStreamer": ("rtspclientsink", "gstreamer1.0-rtsp"),
}
_SERVER: Final = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


def check_gstreamer() -> list[Check]:
    """Whether GStreamer finds our element."""
    try:
        check_tools()
        environment = {**os.environ, **variables()}
    except RuntimeUnavailableError as error:
        what, _, todo = str(error).partition("; ")
        return [Check("GStreamer", "missing", what, f"only needed for the GStreamer element: {todo}")]
    status, out, err = run_probe(["gst-inspect-1.0", "--version"])
    version = out.splitlines()[0] if status == 0 and out else "unknown version"
    status, _, err = run_probe(["gst-inspect-1.0", "standin"], environment)
    if status == 0:
        there = Check("GStreamer", "ok", f'{version}; eval "$(standin gst-path --shell)" for the element')
        return [there, *check_gstreamer_parts()]
    todo = "install gstreamer1.0-python3-plugin-loader, and remove ~/.cache/gstreamer-1.0"
    return [Check("GStreamer", "warn", f"{version}, which does not load our element", last_line(err, todo))]


def check_gstreamer_parts() -> list[Check]:
    """What of GStreamer is missing for addresses that need it."""
    checks = []
    for purpose, (element, package) in _ELEMENTS.items():
        status, _, _ = run_probe(["gst-inspect-1.0", "--exists", element])
        checks.append(_part(purpose, element, package, there=status == 0))
    try:
        environment = {**os.environ, **variables()}
        status, _, _ = run_probe([sys.executable, "-c", _SERVER], environment)
    except RuntimeUnavailableError:
        status = -1
    return [*checks, _part("rtsp-server://", "GstRtspServer", "gir1.2-gst-rtsp-server-1.0", there=status == 0)]


def _part(purpose: str, what: str, package: str, *, there: bool) -> Check:
    if there:
        return Check(f"GStreamer {what}", "ok", f"for {purpose}")
    return Check(f"GStreamer {what}", "missing", "not installed", f"only for {purpose}: apt install {package}")

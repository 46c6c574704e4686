"""GStreamer from Python: its bindings, descriptions of pipelines, what their buses say, and ends that nobody waits for.

Nothing of GStreamer is imported before it is needed, so that everything else works without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import logging
import os
import sys
import threading
import warnings
from dataclasses import dataclass
from typing import Any, Final

from engines.errors import RuntimeUnavailableError, UsageError
from stream.address import shown
from stream.gst_path import bindings_folder

_log = logging.getLogger(__name__)

NANOSECONDS: Final = 10**9
#: Which Debian package holds an element that pipelines are likely to name.
_PACKAGES: Final = {
    "gstreamer1.0-plugins-base": "appsink appsrc decodebin uridecodebin videoconvert videotestsrc videorate videoscale",
    "gstreamer1.0-plugins-good": "rtspsrc udpsrc udpsink souphttpsrc v4l2src v4l2sink flvmux matroskamux matroskademux "
    "mp4mux qtdemux jpegdec jpegenc multipartdemux multipartmux rtph264pay rtph264depay vp8enc vp8dec vp9dec "
    "splitmuxsink videoflip videocrop autovideosink",
    "gstreamer1.0-plugins-bad": "srtsrc srtsink rtmp2src rtmp2sink tsdemux tsparse mpegtsmux h264parse h265parse "
    "hlsdemux hlssink hlssink2 openh264dec openh264enc nvh264dec nvh264enc watchdog curlhttpsink",
    "gstreamer1.0-plugins-ugly": "x264enc",
    "gstreamer1.0-libav": "avdec_h264 avdec_h265 avdec_mpeg2video avdec_mpeg4 avdec_mjpeg",
    "gstreamer1.0-rtsp": "rtspclientsink",
    "gstreamer1.0-nice": "nicesrc nicesink",
    "gstreamer1.0-python3-plugin-loader": "standin",
}
#: Pipelines that were told to end and did not; with so many of them no further one is made.
_MOST_HANGING: Final = 4
_HANGING: Final = "standin-gst-hangs"
#: Bindings cannot be imported by two threads at once.
_IMPORTING: Final = threading.RLock()
#: What `trouble` says where a pipeline has come to its own end.
ENDED: Final = "it has ended"


@dataclass(frozen=True, slots=True)
class Bindings:
    """The parts of GStreamer's Python bindings that are used here."""

    gst: Any
    app: Any
    video: Any
    glib: Any
    gio: Any


def bindings() -> Bindings:
    """GStreamer, initialised.

    Raises:
        RuntimeUnavailableError: it or its bindings are not here, or are for another Python.
    """
    with _IMPORTING:
        return _bindings()


@functools.cache
def _bindings() -> Bindings:
    with contextlib.suppress(OSError):
        # GStreamer brings libunwind, whose exceptions are not those of the C++ library that others here have loaded
        # with libgcc; libsrt throws, and would crash. Made global, libgcc comes first for everything.
        ctypes.CDLL("libgcc_s.so.1", mode=ctypes.RTLD_GLOBAL)
    gi = _import_gi()
    with warnings.catch_warnings():
        # PyGObject's importer speaks an older protocol than Python's.
        warnings.simplefilter("ignore", ImportWarning)
        _require(gi, "Gst", "gir1.2-gstreamer-1.0")
        for name in ("GstApp", "GstVideo"):
            _require(gi, name, "gir1.2-gst-plugins-base-1.0")
        from gi.repository import Gio, GLib, Gst

        # Debian's overrides want this before anything else is touched.
        Gst.init(None)
        from gi.repository import GstApp, GstVideo
    return Bindings(Gst, GstApp, GstVideo, GLib, Gio)


def rtsp_bindings() -> tuple[Any, Any]:
    """GStreamer's RTSP server, and its library for the protocol.

    Raises:
        RuntimeUnavailableError: it is not here.
    """
    with _IMPORTING, warnings.catch_warnings():
        bindings()
        warnings.simplefilter("ignore", ImportWarning)
        _require(_import_gi(), "GstRtsp", "gir1.2-gst-plugins-base-1.0")
        _require(_import_gi(), "GstRtspServer", "gir1.2-gst-rtsp-server-1.0")
        from gi.repository import GstRtsp, GstRtspServer
    return GstRtspServer, GstRtsp


def _import_gi() -> Any:
    if "gi" in sys.modules or importlib.util.find_spec("gi") is not None:
        return importlib.import_module("gi")
    # Only this package: its folder holds many others of Debian's, which are none of ours.
    folder = bindings_folder() / "gi"
    spec = importlib.util.spec_from_file_location(
        "gi", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise RuntimeUnavailableError(f"GStreamer's Python bindings in {folder} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules["gi"] = module
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        del sys.modules["gi"]
        raise RuntimeUnavailableError(f"GStreamer's Python bindings cannot be loaded: {error}") from error
    return module


def _require(gi: Any, namespace: str, package: str) -> None:
    try:
        gi.require_version(namespace, "1.0")
    except ValueError as error:
        raise RuntimeUnavailableError(
            f"GStreamer's {namespace} is not here; on Debian: apt install {package}"
        ) from error


def require(*elements: str) -> None:
    """Whether these elements are here.

    Raises:
        RuntimeUnavailableError: one is not; names it and, where known, its package.
    """
    gst = bindings().gst
    missing = [name for name in elements if gst.ElementFactory.find(name) is None]
    if missing:
        raise RuntimeUnavailableError(_missing(missing))


def parse(description: str, *, name: str = "") -> Any:
    """A pipeline from its description.

    Args:
        description: as `gst-launch-1.0` takes it, what we add included.
        name: what it is called in messages, where that is not the description.

    Raises:
        UsageError: it cannot be meant.
        RuntimeUnavailableError: an element is missing, or GStreamer is.
    """
    found = bindings()
    gst = found.gst
    hanging = sum(thread.name == _HANGING for thread in threading.enumerate())
    if hanging >= _MOST_HANGING:
        raise RuntimeUnavailableError(f"{hanging} pipelines of GStreamer hang and cannot be ended; start again")
    context = gst.ParseContext.new()
    try:
        made = gst.parse_launch_full(description, context, gst.ParseFlags.FATAL_ERRORS)
    except found.glib.Error as error:
        if error.matches(gst.parse_error_quark(), gst.ParseError.NO_SUCH_ELEMENT):
            raise RuntimeUnavailableError(_missing(context.get_missing_elements())) from error
        raise UsageError(
            f"{name or shown(description)!r} is no pipeline: {shown(error.message)}; try it with gst-launch-1.0"
        ) from error
    if not isinstance(made, gst.Pipeline):
        # A single element is none yet.
        pipeline = gst.Pipeline.new(None)
        pipeline.add(made)
        made = pipeline
    return made


def _missing(names: list[str]) -> str:
    name = names[0] if names else "an element"
    package = next((package for package, held in _PACKAGES.items() if name in held.split()), None)
    hint = f"on Debian: apt install {package}" if package else f"gst-inspect-1.0 {name} says whether it is installed"
    return f"GStreamer has no element {name}; {hint}"


def verify_peer(element: Any, *, insecure: bool) -> None:
    """Let an element look at its peer's certificate, or take any.

    Raises:
        UsageError: `SSL_CERT_FILE` names no certificates.
    """
    flags = bindings().gio.TlsCertificateFlags
    if not insecure:
        _trust()
    if element.find_property("tls-validation-flags") is not None:
        element.set_property("tls-validation-flags", flags.NO_FLAGS if insecure else flags.VALIDATE_ALL)
    if element.find_property("ssl-strict") is not None:
        element.set_property("ssl-strict", not insecure)


def _trust() -> None:
    """Trust whom FFmpeg trusts for us: GIO by itself knows the system's authorities, but no `SSL_CERT_FILE`."""
    found = bindings()
    backend, file = found.gio.TlsBackend.get_default(), os.environ.get("SSL_CERT_FILE")
    try:
        backend.set_default_database(found.gio.TlsFileDatabase.new(file) if file else None)
    except found.glib.Error as error:
        raise UsageError(f"SSL_CERT_FILE={file} names no file of certificates: {error.message}") from None


def trouble(bus: Any) -> str | None:
    """Why a pipeline cannot go on, by what is on its bus, None if it can; `ENDED` where nothing is wrong with that.

    Args:
        bus: of the pipeline.

    Raises:
        RuntimeUnavailableError: it lacks a decoder or the like.
    """
    gst = bindings().gst
    kinds = gst.MessageType
    wanted = kinds.ERROR | kinds.EOS | kinds.ELEMENT | kinds.LATENCY
    lacking = ""
    while (message := bus.pop_filtered(wanted)) is not None:
        if message.type == kinds.ERROR:
            if lacking:
                raise RuntimeUnavailableError(lacking)
            return _said(message)
        if message.type == kinds.EOS:
            return ENDED
        if message.type == kinds.LATENCY:
            if isinstance(message.src, gst.Bin):
                message.src.recalculate_latency()
        elif (about := message.get_structure()) is not None and about.get_name() == "missing-plugin":
            lacking = f"GStreamer has no {about.get_string('name')}; on Debian: apt install gstreamer1.0-libav"
    return None


def _said(message: Any) -> str:
    error, debug = message.parse_error()
    # The last line of the debug text says what "internal data stream error" was.
    detail = (debug or "").rpartition("\n")[2] if "\n" in (debug or "") else ""
    text = f"{message.src.get_name()}: {error.message}" if message.src is not None else error.message
    return shown(" ".join(f"{text} {f'({detail})' if detail else ''}".split()))


class Running:
    """A pipeline on its way to PLAYING and back. Both may hang in a library, so a thread of its own takes it there.

    Args:
        pipeline: of GStreamer, not begun.
    """

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.bus = pipeline.get_bus()
        #: Set when GStreamer has begun, or failed to, and answers for its elements.
        self.begun = threading.Event()
        self.failed = False
        self._told = threading.Event()
        self._thread = threading.Thread(target=self._run, name="standin-gst", daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """Bring it to its end; whether it was there in time. What it holds is free then, or when it lets go of it.

        Args:
            seconds: to wait.
        """
        self._told.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._thread.name = _HANGING
            _log.warning("a pipeline of GStreamer does not end; it is left behind")
            return False
        return True

    def _run(self) -> None:
        gst = bindings().gst
        self.failed = self.pipeline.set_state(gst.State.PLAYING) == gst.StateChangeReturn.FAILURE
        self.begun.set()
        self._told.wait()
        self.pipeline.set_state(gst.State.NULL)

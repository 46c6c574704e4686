"""Our own RTSP server: anonymized frames, encoded once, for as many as come to see them."""

from __future__ import annotations

import ipaddress
import logging
import math
import threading
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from engines.errors import RuntimeUnavailableError, SinkError, UsageError
from stream.address import Address
from stream.anonymizer import Anonymized
from stream.gst import bindings, require, rtsp_bindings
from stream.sinks.gst import EncodedPieces
from stream.sinks.gst_line import HEAD, IN, Feed
from stream.sources.base import StreamInfo

_log = logging.getLogger(__name__)

#: Schemes of the server's own address, without and with TLS.
RTSP_SERVER_SCHEMES: Final = ("rtsp-server", "rtsps-server")
_PORT: Final = 8554
_LOOPBACK: Final = "127.0.0.1"
_ROLE: Final = "viewer"
#: By the parser: what makes packets of a stream.
_PAYLOADERS: Final = {
    "h264parse": "rtph264pay name=pay0 pt=96 aggregate-mode=zero-latency",
    "h265parse": "rtph265pay name=pay0 pt=96 aggregate-mode=zero-latency",
}
#: Seconds of encoded frames that may wait to be made into packets.
_MOST_SECONDS: Final = 2
#: Seconds without anything taken after which whoever watches is sent away. One who never reads blocks the packets of
#: those who come later, too.
_LONGEST_SILENCE: Final = 1.0
#: Seconds between two looks for clients that went without a word.
_CLEAN_EVERY: Final = 2
_SECONDS_TO_END: Final = 1.0
#: A certificate, and its private key.
_Files = tuple[Path | None, Path | None]


class RtspServerSink:
    """Serves anonymized frames. Nobody who watches holds up the stream or anybody else.

    Args:
        address: `rtsp-server://[user:password@]host:port/path`; without a host, on this machine only.
        info: of the frames.
        certificate: PEM file, for `rtsps-server`.
        private_key: PEM file of its key, for `rtsps-server`.
        codec: encoder by name, None for H.264.
        crf: quality, None for our default.
        speed: the encoder's preset, None for our default.

    Raises:
        UsageError: the address cannot be meant, or the certificate cannot be used.
        RuntimeUnavailableError: GStreamer, its RTSP server or an element is missing.
        SinkError: the port is taken, or the encoder takes no such pictures.
    """

    def __init__(
        self,
        address: Address,
        info: StreamInfo,
        *,
        certificate: Path | None = None,
        private_key: Path | None = None,
        codec: str | None = None,
        crf: float | None = None,
        speed: str | None = None,
    ) -> None:
        self._encoded = EncodedPieces(info, codec=codec, crf=crf, speed=speed)
        self._room = max(2, math.ceil(_MOST_SECONDS * (info.rate or 25)))
        self._lock = threading.Lock()
        self._feed: Feed | None = None
        self._wants_key = threading.Event()
        self._watching: set[int] = set()
        self._lost = 0
        self._taken = 0
        self._moved = time.monotonic()
        self._server = _Server(address, (certificate, private_key), self._launch(), self)

    @property
    def clients(self) -> int:
        """How many are watching."""
        return len(self._watching)

    @property
    def port(self) -> int:
        """On which it listens."""
        return self._server.port

    @property
    def there(self) -> bool:
        """Whether it can be watched, be there anybody who does or not."""
        return self._server.serves

    @property
    def dropped(self) -> int:
        """Frames that could not be made into packets in time, while somebody was watching."""
        return self._lost

    def write(self, item: Anonymized) -> None:
        """Encode the next frame, if anybody is watching.

        Raises:
            SinkError: the server has stopped, or the encoder refuses the frame.
        """
        self._server.check()
        with self._lock:
            feed = self._feed
        if feed is None:
            return
        if self._wants_key.is_set() or not feed.begun:
            self._wants_key.clear()
            self._encoded.want_key()
        self._mind(feed)
        for piece in self._encoded.encode(item):
            if not feed.push(piece, self._room) and self._watching:
                self._lost += 1

    def close(self) -> None:
        """Send everybody away."""
        self._server.close()

    def hurry(self, seconds: float) -> None:
        """From now on, wait so many seconds altogether. May be called from a signal handler."""
        self._server.hurry(seconds)

    def abort(self) -> None:
        """Send everybody away."""
        self._server.close()

    def configured(self, source: Any) -> None:
        """The first client has come, and this is what its stream is made from."""
        with self._lock:
            self._feed = Feed(source)

    def unprepared(self, source: Any) -> None:
        """The last client has gone, and nobody asks this one for anything any more."""
        with self._lock:
            if self._feed is not None and self._feed.source == source:
                self._feed = None

    def came(self, client: Any) -> None:
        """Somebody watches, and needs a key frame."""
        self._watching.add(hash(client))
        self._wants_key.set()

    def went(self, client: Any) -> None:
        """Somebody watches no more."""
        self._watching.discard(hash(client))

    def _mind(self, feed: Feed) -> None:
        """Where nobody takes anything, everybody is sent away: those who do are back at once."""
        now = time.monotonic()
        if feed.taken != self._taken or not feed.waiting:
            self._taken, self._moved = feed.taken, now
        elif now - self._moved > _LONGEST_SILENCE:
            self._moved = now
            self._server.send_away()

    def _launch(self) -> str:
        parser = self._encoded.parser
        payloader = _PAYLOADERS[parser.split()[0]]
        require("appsrc", parser.split()[0], payloader.split()[0])
        return f"( {HEAD} ! {parser} ! {payloader} )"


class _Server:
    """The server in a thread of its own. It tells its sink who comes and goes."""

    def __init__(self, address: Address, files: _Files, launch: str, sink: RtspServerSink) -> None:
        self._rtsp, self._protocol = rtsp_bindings()
        self._sink = sink
        self._name = str(address)
        parts = urlsplit(address.text)
        host = parts.hostname or _LOOPBACK
        self._server = self._rtsp.RTSPServer()
        self._server.set_address(host)
        self._server.set_service(str(_PORT if parts.port is None else parts.port))
        factory = self._factory(launch)
        if (auth := self._auth(parts, files, factory)) is not None:
            self._server.set_auth(auth)
        elif not _is_loopback(host):
            _log.warning("%s can be watched by everybody who reaches this machine: it has no password", self._name)
        mounts = self._server.get_mount_points()
        mounts.add_factory(parts.path or "/", factory)
        self._server.set_mount_points(mounts)
        self._server.connect("client-connected", self._connected)
        self._latest = math.inf
        self._begin()

    @property
    def serves(self) -> bool:
        """Whether whoever comes is answered."""
        return self._thread.is_alive()

    def check(self) -> None:
        """Whether it still serves.

        Raises:
            SinkError: it does not.
        """
        if not self.serves:
            raise SinkError(f"{self._name}: the server has stopped")

    def hurry(self, seconds: float) -> None:
        """From now on, wait so many seconds altogether. Takes no lock."""
        self._latest = min(self._latest, time.monotonic() + seconds)

    def close(self) -> None:
        """Send everybody away; harmless when done before."""
        if not self.serves:
            return
        self._call(self._leave)
        self._thread.join(max(0.0, min(_SECONDS_TO_END, self._latest - time.monotonic())))

    def send_away(self) -> None:
        """Everybody who watches now; they may come again."""
        _log.warning("%s: nobody who watches takes anything; they are sent away", self._name)
        self._call(self._remove)

    def _begin(self) -> None:
        glib = bindings().glib
        self._context = glib.MainContext.new()
        if not self._server.attach(self._context):
            raise SinkError(f"{self._name}: the server cannot listen there; is the port taken?")
        self.port = int(self._server.get_bound_port())
        cleaner = glib.timeout_source_new_seconds(_CLEAN_EVERY)
        cleaner.set_callback(self._clean)
        cleaner.attach(self._context)
        self._loop = glib.MainLoop.new(self._context, False)
        self._thread = threading.Thread(target=self._loop.run, name="standin-rtsp", daemon=True)
        self._thread.start()

    def _call(self, function: Any) -> None:
        """Have something done in the server's thread."""
        source = bindings().glib.idle_source_new()
        source.set_callback(function)
        source.attach(self._context)

    def _remove(self, *_: Any) -> bool:
        self._server.client_filter(lambda *_: self._rtsp.RTSPFilterResult.REMOVE)
        return False

    def _leave(self, *_: Any) -> bool:
        self._remove()
        self._loop.quit()
        return False

    def _clean(self, *_: Any) -> bool:
        self._server.get_session_pool().cleanup()
        return True

    def _factory(self, launch: str) -> Any:
        factory = self._rtsp.RTSPMediaFactory()
        factory.set_launch(launch)
        # One stream for all: it is encoded once.
        factory.set_shared(True)
        factory.connect("media-configure", self._configured)
        return factory

    def _configured(self, _factory: Any, media: Any) -> None:
        source = media.get_element().get_by_name(IN)
        media.connect("unprepared", lambda _media: self._sink.unprepared(source))
        self._sink.configured(source)

    def _connected(self, _server: Any, client: Any) -> None:
        client.connect("play-request", lambda its, _context: self._sink.came(its))
        client.connect("teardown-request", lambda its, _context: self._sink.went(its))
        client.connect("closed", self._sink.went)

    def _auth(self, parts: SplitResult, files: _Files, factory: Any) -> Any:
        """Who may watch, and the certificate; None where anybody may and nothing is encrypted."""
        secure = parts.scheme == RTSP_SERVER_SCHEMES[1]
        if not (parts.username or secure):
            return None
        auth, token = self._rtsp.RTSPAuth(), self._rtsp.RTSPToken.new()
        if secure:
            auth.set_tls_certificate(_certificate(self._name, files))
        permissions = self._rtsp.RTSPPermissions.new()
        for permission in ("media.factory.access", "media.factory.construct"):
            permissions.add_permission_for_role(_ROLE, permission, True)
        factory.set_permissions(permissions)
        token.set_string("media.factory.role", _ROLE)
        if parts.username:
            user, password = unquote(parts.username), unquote(parts.password or "")
            # The password itself never travels.
            auth.set_supported_methods(self._protocol.RTSPAuthMethod.DIGEST)
            auth.add_digest(user, password, token)
        else:
            auth.set_default_token(token)
        return auth


def _certificate(name: str, files: _Files) -> Any:
    found, (certificate, private_key) = bindings(), files
    if certificate is None or private_key is None:
        raise UsageError(f"{name} needs --certificate and --private-key, two PEM files")
    if not found.gio.TlsBackend.get_default().supports_tls():
        raise RuntimeUnavailableError("GLib has no TLS here; on Debian: apt install glib-networking")
    try:
        return found.gio.TlsCertificate.new_from_files(str(certificate), str(private_key))
    except found.glib.Error as error:
        raise UsageError(f"{certificate} and {private_key} are no certificate and key: {error.message}") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

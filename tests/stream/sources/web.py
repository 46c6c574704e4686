"""A web server on loopback: files of a folder, and a camera that sends motion JPEG."""

from __future__ import annotations

import contextlib
import http.server
import io
import threading
import time
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import av
import numpy as np

from stream.address import Address, Place

RATE = 20


def jpeg(level: int) -> bytes:
    """A grey picture of 64x48."""
    target = io.BytesIO()
    with av.open(target, "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        image = np.full((48, 64, 3), level, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return target.getvalue()


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path != "/mjpeg":
            super().do_GET()
            return
        rate = int(parts.query or RATE)
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=part")
        self.end_headers()
        with contextlib.suppress(OSError):
            for number in range(rate * 30):
                content = jpeg(20 + number * 8 % 200)
                head = f"--part\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
                self.wfile.write(head.encode() + content + b"\r\n")
                time.sleep(1 / rate)

    def guess_type(self, path: Any) -> str:
        """Playlists may have any name."""
        return "application/vnd.apple.mpegurl" if str(path).endswith(".list") else super().guess_type(path)

    def log_message(self, *_: Any) -> None:
        """Nothing of interest."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none."""


class Web:
    """Serves a folder, and a camera under /mjpeg; what stands behind a question mark is its rate.

    Args:
        folder: of the files.
    """

    def __init__(self, folder: Path) -> None:
        self._server = _Server(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def address(self, path: str) -> Address:
        """Of a file, with credentials that nobody needs."""
        return Address(Place.NETWORK, f"http://user:s3cret@127.0.0.1:{self._server.server_port}{path}", "http")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()

"""Servers on loopback that take a stream, and some that do not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self

import av
import av.error
import numpy as np
from numpy.typing import NDArray

#: What makes FFmpeg a server, by scheme.
_LISTEN = {"rtmp": {"listen": "1"}, "rtsp": {"rtsp_flags": "listen", "listen_timeout": "30"}, "udp": {}}


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of loopback that nobody uses at this moment."""
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Server:
    """Takes one stream and decodes it.

    Args:
        url: where it listens.
        most: pictures after which it hangs up.
    """

    def __init__(self, url: str, *, most: int = 10**9) -> None:
        self.url = url
        self.pictures: list[NDArray[np.uint8]] = []
        self.times: list[float] = []
        self._most = most
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def wait(self, count: int, seconds: float = 20.0) -> None:
        """Until so many pictures have come."""
        end = time.monotonic() + seconds
        while len(self.pictures) < count:
            assert time.monotonic() < end, f"{len(self.pictures)} of {count} pictures came"
            time.sleep(0.02)

    def ended(self, seconds: float = 20.0) -> bool:
        """Whether it has hung up by then."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        options = _LISTEN[self.url.split("://")[0]] | {"analyzeduration": "100000"}
        with (
            contextlib.suppress(av.error.FFmpegError),
            av.open(self.url, options=options, timeout=(30, 5)) as container,
        ):
            for frame in container.decode(video=0):
                self.pictures.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
                self.times.append(float(frame.time or 0))
                if len(self.pictures) >= self._most:
                    return


class Deaf:
    """Accepts connections and never reads."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port = int(self._listener.getsockname()[1])
        self._clients: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    @property
    def clients(self) -> int:
        """How many have come."""
        return len(self._clients)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._clients.append(self._listener.accept()[0])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for client in self._clients:
            client.close()

"""Certificates of an authority that nobody knows, and servers on loopback that show them."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest


class Authority:
    """Signs certificates. Its own is `file`.

    Args:
        folder: of all files.
    """

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        self._folder = folder
        self.file, self._key = folder / "authority.pem", folder / "authority.key"
        self._make(self.file, self._key, "/CN=Nobody", "basicConstraints=critical,CA:TRUE")

    def signed(self, name: str) -> tuple[Path, Path]:
        """Certificate and key for a name, such as `IP:127.0.0.1`."""
        return self._named(name, "-CA", str(self.file), "-CAkey", str(self._key))

    def self_signed(self, name: str) -> tuple[Path, Path]:
        """Certificate and key for a name that nobody vouches for."""
        return self._named(name)

    def _named(self, name: str, *more: str) -> tuple[Path, Path]:
        stem = f"{name.replace(':', '-')}-{len(more)}"
        files = self._folder / f"{stem}.pem", self._folder / f"{stem}.key"
        self._make(*files, "/CN=server", f"subjectAltName={name}", *more)
        return files

    def _make(self, certificate: Path, key: Path, subject: str, extension: str, *more: str) -> None:
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-days", "2", "-subj", subject, "-addext", extension, "-keyout", str(key), "-out", str(certificate)),
                *more,
            ],
            check=True,
            capture_output=True,
        )


class Secret:
    """A server behind TLS that answers HTTP requests for what it has, and hangs up on everybody else.

    Args:
        files: its certificate and its key.
        content: by path.
    """

    def __init__(self, files: tuple[Path, Path], content: Mapping[str, bytes] | None = None) -> None:
        self._content = content or {}
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*files)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        #: First bytes of what clients said who took the certificate.
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            with plain:
                plain.settimeout(5)
                self._answer(plain)

    def _answer(self, plain: socket.socket) -> None:
        try:
            with self._context.wrap_socket(plain, server_side=True) as talk:
                said = talk.recv(65536)
                if not said:
                    return
                self.heard.append(said)
                path = said.split(b" ")[1].decode() if said.startswith(b"GET ") else ""
                content = self._content.get(path)
                head = "404 Not Found" if content is None else "200 OK"
                length = len(content or b"")
                kind = "application/vnd.apple.mpegurl" if (content or b"").startswith(b"#EXTM3U") else "video/mp2t"
                talk.sendall(f"HTTP/1.1 {head}\r\nContent-Type: {kind}\r\n".encode())
                talk.sendall(f"Content-Length: {length}\r\nConnection: close\r\n\r\n".encode())
                talk.sendall(content or b"")
        except OSError:
            return  # somebody who does not take the certificate hangs up

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()

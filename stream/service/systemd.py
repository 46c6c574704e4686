"""What systemd is told of a service of `Type=notify`: that it is ready, that it lives, that it ends.

Plain datagrams to the socket in $NOTIFY_SOCKET; where there is none, nothing is sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Talks to systemd, if that is who started this process.

    Args:
        environment: with the variables that systemd sets.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        # A name that begins with @ is one that no file has.
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        limit = environment.get("WATCHDOG_USEC", "") if mine and path else ""
        #: Seconds between two signs of life, None if nobody waits for them: half of the time after which systemd acts.
        self.interval = int(limit) / 2e6 if limit.isdecimal() and int(limit) else None
        self._alive_at = float("-inf")
        self._status = ""

    def ready(self) -> None:
        """The service works: after its start, and after the config was read again."""
        self._send("READY=1")

    def reloading(self) -> None:
        """The config is read again; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The service ends."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """What `systemctl status` shows; sent when it changes."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={' '.join(text.splitlines())}")

    def alive(self) -> None:
        """A sign of life, to be called by the loop whose turning it proves; sent no more often than needed."""
        now = time.monotonic()
        if self.interval is not None and now - self._alive_at >= self.interval:
            self._alive_at = now
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # Whoever does not listen any more is not waited for: the service is what matters.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            out.sendto(message.encode(), self._address)

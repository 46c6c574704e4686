"""One life of a stream's worker process, seen from its parent: started, told, listened to, ended."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, BinaryIO, Final, cast

from stream.service.placeholders import Secrets
from stream.service.worker_messages import LOG_LINE, PREVIEW, REPORT, LogLine, Order, Report, receive

_log = logging.getLogger(__name__)

#: Lines of a worker's standard output and error that are logged, and how much of each: native libraries may chatter.
_MOST_LINES: Final = 200
_LONGEST_LINE: Final = 400
#: Seconds that are waited for a pipe of a process that has ended.
_SECONDS_TO_READ: Final = 1.0


class Worker:
    """One life of a worker process.

    Args:
        order: what it is to do.
        secrets: taken out of what it says.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, order: Order, secrets: Secrets) -> None:
        self._name = order.name
        self._secrets = secrets
        read_end, write_end = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stream.service.stream_worker", order.name, str(write_end)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(write_end,),
                env=_environment(os.environ),
                # Its own group, so that it can be ended with all that it has started.
                start_new_session=True,
            )
        except OSError:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self._messages = os.fdopen(read_end, "rb")
        self._lines = cast("IO[bytes]", self._process.stdout)
        self.begun = self.beaten = time.monotonic()
        self.report: Report | None = None
        self.preview: bytes | None = None
        #: When it was asked to end.
        self.asked: float | None = None
        #: Why it was killed.
        self.killed: str | None = None
        self._readers = [
            threading.Thread(target=reader, name=f"standin-{order.name}", daemon=True)
            for reader in (self._read_messages, self._read_lines)
        ]
        for reader in self._readers:
            reader.start()
        with contextlib.suppress(OSError), cast("IO[bytes]", self._process.stdin) as order_pipe:
            order_pipe.write(order.model_dump_json().encode())

    @property
    def pid(self) -> int:
        """Of the process, which is also its group's."""
        return self._process.pid

    def stop(self) -> None:
        """Ask it to finish what is under way."""
        if self.asked is None:
            self.asked = time.monotonic()
            # Not by `terminate`, which could find it dead and give its number back before its group has ended.
            self._signal(os.kill, signal.SIGTERM)

    def kill(self, reason: str) -> None:
        """End it and all that it has started, whatever they do."""
        self.killed = self.killed or reason
        self._signal(os.killpg, signal.SIGKILL)

    def ended(self) -> int | None:
        """Its exit code once it has ended, with all that it started; None before."""
        if self._process.returncode is None:
            # Nobody else can have its number yet: it is given back below.
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            self._signal(os.killpg, signal.SIGKILL)
            self._process.wait()
            for reader in self._readers:
                reader.join(_SECONDS_TO_READ)
        return self._process.returncode

    def _signal(self, send: Callable[[int, int], None], number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                send(self.pid, number)

    def _read_messages(self) -> None:
        with self._messages as pipe:
            try:
                for letter, content in receive(cast("BinaryIO", pipe)):
                    self._take(letter, content)
            except ValueError as error:
                # Pydantic's errors are of this kind, too. They would show what came.
                self.kill(f"its report made no sense ({type(error).__name__})")

    def _take(self, letter: bytes, content: bytes) -> None:
        if letter == REPORT:
            report = Report.model_validate_json(content)
            if self.report is None or report.beats != self.report.beats:
                self.beaten = time.monotonic()
            self.report = report
        elif letter == PREVIEW:
            self.preview = content
        elif letter == LOG_LINE:
            line = LogLine.model_validate_json(content)
            self._say(line.level, line.message, logging.getLogger(line.logger), line.error)

    def _read_lines(self) -> None:
        with self._lines as pipe:
            # In pieces: nobody says that a library ends its lines.
            for number, line in enumerate(iter(lambda: pipe.readline(_LONGEST_LINE), b"")):
                text = line.decode("utf-8", "replace").rstrip()
                if number < _MOST_LINES and text:
                    self._say(logging.WARNING, text, _log)
                elif number == _MOST_LINES:
                    self._say(logging.WARNING, "it says more, which is left out", _log)

    def _say(self, level: int, message: str, logger: logging.Logger, error: str | None = None) -> None:
        record = logger.makeRecord(
            logger.name, level, __file__, 0, self._secrets.hide(message), (), None, extra={"stream": self._name}
        )
        record.exc_text = error and self._secrets.hide(error)
        if logger.isEnabledFor(level):
            logger.handle(record)


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """A worker's: what systemd listens to is the service's."""
    service = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
    kept = {name: value for name, value in environment.items() if name not in service}
    # Read once, when numpy is imported (see `stream.__main__`).
    return {"OPENBLAS_NUM_THREADS": "1", **kept}

"""The process of one stream of `standin serve`: `python -m stream.service.stream_worker NAME DESCRIPTOR`.

The order comes on standard input, reports go to the pipe of that descriptor (see `stream.service.worker_messages`).
It ends when its parent does, and dumps no core.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import BinaryIO, Final

from engines.errors import StandinError, UsageError
from engines.own_process import dump_no_core, end_with_parent
from stream.address import input_address, output_address, redacted
from stream.anonymizer import Anonymized
from stream.config import RunSettings
from stream.pulse import SILENT
from stream.report import summary_line
from stream.run import RunResult, run
from stream.service.awaited import awaited
from stream.service.preview import preview
from stream.service.worker_messages import LOG_LINE, PREVIEW, REPORT, LogLine, Order, Report, send
from stream.service.written import going_on
from stream.sources.live import AWAY
from stream.terminal import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_WITHHELD
from stream.watch import Watch

#: Not by this module's name, which is `__main__` here.
_log = logging.getLogger("stream.service.stream_worker")

#: Lines that may wait until they are reported; more, and the oldest are lost.
_MOST_LINES: Final = 200
#: Seconds in which the last report must get through.
_SECONDS_TO_END: Final = 1.0
#: So many withheld frames in a row, and so many seconds of nothing else, are no hiccup any more.
_FRAMES_IN_A_ROW: Final = 3
_SECONDS_IN_A_ROW: Final = 2.0
#: Sent to the main thread by the reporter, to see whether it still gets to it.
_PING: Final = signal.SIGUSR1


def main() -> int:
    """Work on one stream until it ends or is stopped; the process's exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = Order.model_validate_json(sys.stdin.buffer.read())
    dump_no_core()
    end_with_parent(order.parent)
    # Never closed: where the parent does not read, that would wait for it.
    reporter = Reporter(os.fdopen(int(sys.argv[2]), "wb"), order.interval, _ping_main_thread)
    logging.basicConfig(level=logging.INFO, handlers=[_Forward(reporter)], force=True)
    logging.captureWarnings(True)
    signal.signal(signal.SIGTERM, reporter.stop)
    signal.signal(_PING, reporter.pong)
    # System calls go on after a ping as if nothing had been.
    signal.siginterrupt(_PING, False)
    reporter.start()
    code = EXIT_FAILED
    try:
        code = work(order, reporter)
    finally:
        reporter.close()
    return code


def work(order: Order, reporter: Reporter) -> int:
    """Run the stream; the exit code, and in the last report the reason."""
    try:
        return _exit_code(_run(order, reporter), reporter)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except StandinError as error:
        reporter.error = redacted(str(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001  the parent is told, whatever it is
        _log.exception("the stream ended by an error that nobody expected")
        reporter.error = redacted(f"{type(error).__name__}: {error}")
        return EXIT_FAILED


def _run(order: Order, reporter: Reporter) -> RunResult:
    source, sinks = input_address(order.source), [output_address(sink) for sink in order.sinks]
    settings = RunSettings.model_validate(order.settings)
    if (missing := awaited(source, sinks, settings)) is not None:
        # Said before engines are loaded: it may be looked for during days.
        raise StandinError(f"{missing} is not there; it is looked for again")
    try:
        return run(
            source,
            sinks,
            going_on(sinks, settings),
            on_watch=reporter.begin,
            on_frame=reporter.frame,
            on_source=reporter.source,
        )
    except UsageError as error:
        if awaited(source, sinks, settings) is None:
            raise
        # It has gone in the meantime: what is wrong because of that need not be wrong the next time.
        raise StandinError(str(error)) from error


def _exit_code(result: RunResult, reporter: Reporter) -> int:
    summary = result.summary
    for note in (*result.problems, *result.notes):
        _log.info("%s", note)
    _log.info("it has ended: %s", summary_line(summary, result.snapshot))
    if summary.stopped is not None:
        reporter.error = redacted(summary.stopped)
        return EXIT_FAILED
    if summary.interrupted:
        return EXIT_INTERRUPTED
    if result.problems:
        # The input would be no better if it were read once more.
        reporter.error = redacted(result.problems[0])
        return EXIT_WITHHELD
    return EXIT_WITHHELD if summary.withheld else 0


class Reporter:
    """Tells the parent how this process fares, from a thread of its own: the stream never waits for the parent.

    What counts as a sign of life is the main thread's: frames that it wrote, and until the first one, that it could be
    interrupted. Frames that it filled in because none came are no such sign, nor are those of a source that hangs.

    Args:
        pipe: to the parent.
        interval: seconds between two reports.
        ping: called before each report until the first frame; makes the main thread call `pong`, if it can.
    """

    def __init__(self, pipe: BinaryIO, interval: float, ping: Callable[[], None]) -> None:
        self._pipe = pipe
        self._interval = interval
        self._ping = ping
        self._watch: Watch | None = None
        self._last: Anonymized | None = None
        self._shown: Anonymized | None = None
        self._state: str = "starting"
        self._changed = False
        self._beats = 0
        self._source_error: str | None = None
        #: When a frame went out last that was looked at or that no picture came for, and how many others since.
        self._looked = time.monotonic()
        self._in_a_row = 0
        self._lines: deque[LogLine] = deque(maxlen=_MOST_LINES)
        self._wake = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="standin-report", daemon=True)
        #: Why the process ends, for the last report.
        self.error: str | None = None

    def start(self) -> None:
        """Begin to report."""
        self._thread.start()

    def begin(self, watch: Watch) -> None:
        """The stream begins: from now on it can be stopped."""
        self._watch = watch

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """Handler of SIGTERM: finish what is under way, or give up if nothing is."""
        if self._watch is None:
            raise KeyboardInterrupt
        self._watch.pipeline.stop()

    def pong(self, _number: int, _frame: FrameType | None) -> None:
        """Handler of pings: the main thread is not stuck in a call."""
        self._beats += self._state == "starting"

    def frame(self, item: Anonymized) -> None:
        """Observer of the pipeline: one more frame was written."""
        self._last = item
        self._beats += self._lives(item.withheld)
        if item.withheld is None or item.withheld == AWAY or self._state == "starting":
            self._looked, self._in_a_row = time.monotonic(), 0
        else:
            self._in_a_row += 1
        state = "away" if item.withheld == AWAY else "running"
        if state != self._state:
            # That is worth a report of its own.
            self._state, self._changed = state, True
            self._wake.set()

    def source(self, error: str | None) -> None:
        """Why the source is away, or None: it is there."""
        self._source_error, self._changed = error and redacted(error), True
        self._wake.set()

    def line(self, line: LogLine) -> None:
        """Something was logged."""
        self._lines.append(line)
        self._wake.set()

    def close(self) -> None:
        """Send the last report."""
        self._ended = True
        self._wake.set()
        self._thread.join(_SECONDS_TO_END)

    def _run(self) -> None:
        due = time.monotonic()
        # Where the parent has closed its end, it is about to end this process, or has ended itself.
        with contextlib.suppress(OSError):
            while not self._ended:
                self._wake.wait(max(0.0, due - time.monotonic()))
                self._wake.clear()
                self._send_lines()
                if self._changed or time.monotonic() >= due:
                    self._changed = False
                    due = time.monotonic() + self._interval
                    if self._state == "starting":
                        self._ping()
                    self._report()
            self._send_lines()
            self._report()

    def _lives(self, withheld: str | None) -> bool:
        """Whether a frame is a sign of life. For a source that is away, whoever reads it has to show one, too."""
        return withheld != SILENT and not (withheld == AWAY and self._watch is not None and self._watch.hangs)

    def _send_lines(self) -> None:
        while self._lines:
            send(self._pipe, LOG_LINE, self._lines.popleft().model_dump_json().encode())

    def _report(self) -> None:
        watch, last = self._watch, self._last
        snapshot = watch.snapshot() if watch is not None and last is not None else None
        silent = snapshot.source.error if snapshot is not None and snapshot.source is not None else None
        withheld_for = time.monotonic() - self._looked
        report = Report.model_validate(
            {
                "beats": self._beats,
                "state": self._state,
                "snapshot": snapshot,
                "source_error": self._source_error or silent,
                "withheld_for": withheld_for if self._withholds(withheld_for) else None,
                "error": self.error,
            }
        )
        # The picture first: whoever reads that frames go out may ask for one, even if this process ends right here.
        if last is not None and last is not self._shown:
            send(self._pipe, PREVIEW, preview(last))
            self._shown = last
        send(self._pipe, REPORT, report.model_dump_json().encode())

    def _withholds(self, seconds: float) -> bool:
        """Whether nothing else goes out: single frames are withheld now and then."""
        return self._in_a_row >= _FRAMES_IN_A_ROW and seconds >= _SECONDS_IN_A_ROW


class _Forward(logging.Handler):
    """Hands what is logged to the parent, which knows where it goes."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        """Let a record wait for the reporter."""
        error = "".join(traceback.format_exception(*record.exc_info)).rstrip() if record.exc_info else None
        self._reporter.line(
            LogLine(
                level=record.levelno,
                logger=record.name,
                message=redacted(record.getMessage()),
                error=error and redacted(error),
            )
        )


def _ping_main_thread() -> None:
    # To this thread alone: others may be in a library's call that takes an interruption for an error.
    if (main_thread := threading.main_thread().ident) is not None:
        signal.pthread_kill(main_thread, _PING)


if __name__ == "__main__":
    ended = main()
    # Nothing is taken apart: a call that hangs must not hold the process.
    os._exit(ended)

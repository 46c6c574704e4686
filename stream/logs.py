"""Logs of a process that nobody watches: a line for every change of state, as text or as JSON, without secrets."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from stream.address import redacted

LogFormat = Literal["text", "json"]


def configure(
    log_format: LogFormat = "text",
    *,
    level: int = logging.INFO,
    target: TextIO | None = None,
    hide: Callable[[str], str] = redacted,
) -> None:
    """Send everything that is logged in this process to one place, in one form, without secrets.

    Args:
        log_format: `text` for people, `json` for programs: an object a line.
        level: what matters less is left out.
        target: where to, None for standard error.
        hide: takes secrets out of a text.
    """
    handler = logging.StreamHandler(target or sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else Lines())
    handler.addFilter(Redaction(hide))
    # Libraries warn by Python's own means, too.
    logging.captureWarnings(True)
    logging.basicConfig(level=level, handlers=[handler], force=True)


class Redaction(logging.Filter):
    """Lets every record through, without the secrets in its message and in its traceback.

    Args:
        hide: takes secrets out of a text.
    """

    def __init__(self, hide: Callable[[str], str] = redacted) -> None:
        super().__init__()
        self._hide = hide

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean a record; it is never left out."""
        record.msg, record.args = self._hide(record.getMessage()), ()
        if record.exc_info:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip()
            record.exc_info = None
        if record.exc_text:
            record.exc_text = self._hide(record.exc_text)
        if record.stack_info:
            record.stack_info = self._hide(record.stack_info)
        return True


class Lines(logging.Formatter):
    """Time, level, stream or logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        """A line, and below it the traceback if there is one."""
        where = getattr(record, "stream", None) or record.name
        line = f"{_time(record)} {record.levelname.lower():7} {where}: {_one_line(record.getMessage())}"
        return f"{line}\n{record.exc_text}" if record.exc_text else line


class JsonLines(logging.Formatter):
    """An object a line: `time` (UTC, ISO 8601), `level`, `logger`, `message`, and where known `stream` and `error`."""

    def format(self, record: logging.LogRecord) -> str:
        """A line without line breaks in it, whatever the message holds."""
        values: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if stream := getattr(record, "stream", None):
            values["stream"] = stream
        if record.exc_text:
            values["error"] = record.exc_text
        return json.dumps(values)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _one_line(text: str) -> str:
    """Nobody can forge a line of the log by a name with a line break in it."""
    return " ".join(text.splitlines())

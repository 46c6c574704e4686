from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from datetime import datetime

import pytest

from stream.logs import LogFormat, configure

URL = "rtsp://user:geheim@10.0.0.1/stream?key=geheim"


@pytest.fixture(autouse=True)
def _root() -> Iterator[None]:
    """Everything as it was, since logging is one for the whole process."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    for handler in before:
        root.removeHandler(handler)
    yield
    logging.captureWarnings(False)
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    for handler in before:
        root.addHandler(handler)
    root.setLevel(level)


def logged(log_format: LogFormat = "json", **kwargs: object) -> io.StringIO:
    target = io.StringIO()
    configure(log_format, target=target, **kwargs)  # type: ignore[arg-type]
    return target


def test_a_json_line_has_time_level_logger_stream_and_message() -> None:
    target = logged()
    logging.getLogger("stream.x").warning("%s is away", "front", extra={"stream": "front"})
    line = json.loads(target.getvalue())
    moment = datetime.fromisoformat(line.pop("time"))
    assert moment.utcoffset() is not None
    assert line == {"level": "warning", "logger": "stream.x", "stream": "front", "message": "front is away"}


def test_text_lines_name_the_stream_or_else_the_logger() -> None:
    target = logged("text")
    logging.getLogger("stream.x").info("running", extra={"stream": "front"})
    logging.getLogger("stream.x").info("ready")
    first, second = target.getvalue().splitlines()
    assert first.endswith("Z info    front: running")
    assert second.endswith("Z info    stream.x: ready")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_is_logged_whoever_logs_it_and_how(log_format: LogFormat) -> None:
    target = logged(log_format)
    log = logging.getLogger("somebody.else")
    log.warning("lost " + URL)
    log.warning("lost %s", URL)
    log.warning("lost %s", {"url": URL})
    try:
        raise ConnectionError(URL)
    except ConnectionError:
        log.exception("failed")
    log.warning("where?", stack_info=True)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(URL, stacklevel=1)
    text = target.getvalue()
    assert text.count("10.0.0.1") >= 5
    assert "ConnectionError" in text
    assert "geheim" not in text
    # The control: without the filter it would be there.
    logging.getLogger().handlers[0].filters.clear()
    log.warning("lost %s", URL)
    assert "geheim" in target.getvalue()


def test_secrets_that_are_no_urls_are_taken_out_by_who_knows_them() -> None:
    target = logged(hide=lambda text: text.replace("geheim", "${PASSWORD}"))
    logging.getLogger("stream.x").warning("user-pw=geheim is wrong")
    assert json.loads(target.getvalue())["message"] == "user-pw=${PASSWORD} is wrong"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_message_stays_one_line_whatever_is_in_it(log_format: LogFormat) -> None:
    target = logged(log_format)
    logging.getLogger("stream.x").warning("a\n2026-01-01T00:00:00Z error forged\r\nb\u2028c")
    assert target.getvalue().count("\n") == 1
    assert len(target.getvalue().splitlines()) == 1


def test_what_matters_less_is_left_out() -> None:
    target = logged(level=logging.WARNING)
    logging.getLogger("stream.x").info("a detail")
    assert target.getvalue() == ""

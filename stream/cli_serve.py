"""`standin serve`: several streams as a service."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from stream import logs
from stream.service.serve import Service
from stream.terminal import EXIT_INTERRUPTED


def serve_command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="The streams, and how they are covered.")],
    check: Annotated[bool, typer.Option("--check", help="Only say whether the config can be meant.")] = False,
    log_format: Annotated[logs.LogFormat, typer.Option(help="Lines for people, or a JSON object a line.")] = "text",
) -> None:
    """Anonymize several streams until stopped, a process each. SIGHUP, or a change of CONFIG, changes them."""
    service = Service(config)
    if check:
        if service.warning:
            typer.echo(service.warning, err=True)
        typer.echo(f"{config} is in order: {', '.join(service.names) or 'no streams'}")
        return
    logs.configure(log_format, hide=service.hide)
    _leave(_run(service))


def _leave(code: int) -> NoReturn:
    """End the process. Taking it apart would cost half of a second of the three that a service may take to end."""
    logging.shutdown()
    os._exit(code)


def _run(service: Service) -> int:
    """Run until a signal ends it; the exit code."""
    code = 0

    def end(number: int, _frame: FrameType | None) -> None:
        nonlocal code
        code = EXIT_INTERRUPTED if number == signal.SIGINT else 0
        service.stop()

    def read_again(_number: int, _frame: FrameType | None) -> None:
        service.reload()

    handlers = {signal.SIGTERM: end, signal.SIGINT: end, signal.SIGHUP: read_again}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        service.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code

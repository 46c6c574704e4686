"""One thing that `standin doctor` looks at, and how it asks other programs."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

Status = Literal["ok", "warn", "missing"]

_PROBE_SECONDS = 30


@dataclass(frozen=True)
class Check:
    """What was found about one thing.

    Attributes:
        name: Of the thing.
        status: `ok`, `warn` (there, but with a problem) or `missing`.
        detail: Version, path, or why not.
        todo: What to do; empty when nothing.
        needed: Whether the default run cannot do without it.
    """

    name: str
    status: Status
    detail: str
    todo: str = ""
    needed: bool = False


def run_probe(command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Runs a short command: a broken library crashes or hangs there and not here.

    Args:
        command: with its arguments.
        environment: all variables, None for our own.

    Returns:
        Exit status (-1 if it did not start or finish), standard output, standard error.
    """
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_SECONDS,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        partial = error.stdout or b""
        text = partial if isinstance(partial, str) else partial.decode(errors="replace")
        return -1, text, f"did not finish in {_PROBE_SECONDS} s"
    except OSError as error:
        return -1, "", error.strerror or str(error)
    return result.returncode, result.stdout, result.stderr


def last_line(text: str, otherwise: str) -> str:
    """The last line of a program's complaint that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else otherwise


def version_of(distribution: str) -> str | None:
    """Of an installed package, None where it is not."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None

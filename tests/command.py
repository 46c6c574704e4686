"""The command as its user starts it, and what he gets back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fakes import Box

FACE: Box = (20, 10, 40, 34)
ROOT = Path(__file__).parents[1]
#: With the preset whose one engine the tests install, whatever the default is.
RUN = ("run", "--preset", "faces")
FLAT = ("--face", "mask", "--margin", 0, "--codec", "ffv1")


@dataclass
class Ended:
    code: int
    out: str
    err: str

    def __post_init__(self) -> None:
        # ONNX Runtime writes to standard error by itself where the user's home cannot be written.
        self.err = "".join(line for line in self.err.splitlines(keepends=True) if "onnxruntime:Default" not in line)

    def line(self) -> str:
        """The one line on standard error."""
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("standin: ")
        assert "Traceback" not in self.err
        return self.err.removeprefix("standin: ").strip()


Standin = Callable[..., Ended]


def child(script: str, *arguments: object) -> Ended:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    return Ended(ended.returncode, ended.stdout, ended.stderr)

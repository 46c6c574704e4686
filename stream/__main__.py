"""Entry point of `standin` and of `python -m stream`.

Kept apart from the command line, which takes a second to import: signals have to be in hand before that, and what
concerns the whole process belongs to the process that is ours alone.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from types import FrameType

_EXIT_INTERRUPTED = 130
_PR_SET_DUMPABLE = 4
#: What threads get to end by themselves before the process ends without them.
_SECONDS_TO_END = 0.5


def main() -> None:
    """Run the command line in a process that dumps no core and ends with the right exit code."""
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, _interrupted)
    _forbid_core_dumps()
    # Read once, when numpy is imported. Our products are small, and several stages want the cores at a time: threads
    # that share such a product mostly wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from stream import cli

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        cli.main()
    except SystemExit as end:
        _leave(end.code if isinstance(end.code, int) else int(end.code is not None))
    except KeyboardInterrupt:
        _leave(_EXIT_INTERRUPTED)


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    """Before anything has begun there is nothing to clean up."""
    os._exit(_EXIT_INTERRUPTED)


def _forbid_core_dumps() -> None:
    """A dump would hold raw frames. The limit stops files, the flag stops handlers that dumps are piped to."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _leave(code: int) -> None:
    """End the process.

    A call into an engine or a codec that hung (see `stream.deadline`) may come back while the interpreter takes itself
    apart, and would abort the process with another exit code: with such a thread around, nothing is taken apart.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    limit = time.monotonic() + _SECONDS_TO_END
    while _left_behind():
        if time.monotonic() > limit:
            os._exit(code)
        time.sleep(0.01)
    sys.exit(code)


def _left_behind() -> bool:
    return any(thread.name.startswith("standin-") for thread in threading.enumerate())


if __name__ == "__main__":
    main()

"""Entry point of `standin` and of `python -m stream`.

Kept apart from the command line, which takes a second to import: signals have to be in hand before that, and what
concerns the whole process belongs to the process that is ours alone.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from typing import NoReturn

from engines.own_process import EXIT_INTERRUPTED, dump_no_core, end_on_signals

#: What threads get to end by themselves before the process ends without them.
_SECONDS_TO_END = 0.5


def main() -> None:
    """Run the command line in a process that dumps no core and ends with the right exit code."""
    # Until a command has been imported (`stream.cli`): before anything has begun there is nothing to clean up.
    end_on_signals()
    dump_no_core()
    from stream.process_title import hide_secrets

    hide_secrets(["standin", *sys.argv[1:]])
    # Read once, when numpy is imported. Our products are small, and several stages want the cores at a time: threads
    # that share such a product mostly wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from stream import cli

    try:
        cli.main()
    except SystemExit as end:
        _leave(end.code if isinstance(end.code, int) else int(end.code is not None))
    except KeyboardInterrupt:
        _leave(EXIT_INTERRUPTED)


def _leave(code: int) -> NoReturn:
    """End the process, without the interpreter taking itself apart.

    That takes half a second of work, and on a busy machine many times that, which whoever supervises a run may not
    wait. And a call into an engine or a codec that hung (see `stream.deadline`) may come back meanwhile and abort the
    process with another exit code. What is to be done at the end is done, unless such a call is still under way.
    """
    end_on_signals()
    _flush()
    limit = time.monotonic() + _SECONDS_TO_END
    while _left_behind():
        if time.monotonic() > limit:
            os._exit(code)
        time.sleep(0.01)
    # Temporary folders, and processes of ours: what libraries want to be done.
    atexit._run_exitfuncs()
    _flush()
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # Whoever read it may have gone.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _left_behind() -> bool:
    return any(thread.name.startswith("standin-") for thread in threading.enumerate())


if __name__ == "__main__":
    main()

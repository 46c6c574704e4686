"""What a process asks for itself: to dump no core, to end with the process that started it, or at once on signals.

For processes that are ours alone; a program that embeds us decides both for itself. Imports nothing that takes time.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130


def dump_no_core() -> None:
    """Leave no core dump: it would hold raw pixels. The limit stops files, the flag handlers that one is piped to."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    _ask_kernel(_PR_SET_DUMPABLE, 0)


def end_with_parent(parent: int | None = None) -> None:
    """Be killed by the kernel when the parent's thread that started this process ends, whatever this one does then.

    Args:
        parent: Its process id. If it had gone before the kernel was asked, this process ends at once. None where that
            shows in another way, such as the end of standard input.
    """
    _ask_kernel(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(_EXIT_FAILED)


def end_on_signals() -> None:
    """End at once on Ctrl-C and SIGTERM: while there is nothing to clean up.

    Python's own way is an exception wherever it happens to be, and imports swallow that, or make other errors of it.
    """
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, _end)


def be_interrupted() -> None:
    """From now on Ctrl-C is an exception again, where `end_on_signals` has been called."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(_number: int, _frame: FrameType | None) -> None:
    os._exit(EXIT_INTERRUPTED)


def _ask_kernel(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)

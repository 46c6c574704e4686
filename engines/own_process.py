"""What a process asks of the kernel for itself: to dump no core, and to end with the process that started it.

For processes that are ours alone; a program that embeds us decides both for itself. Imports nothing that takes time.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_EXIT_FAILED: Final = 1


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


def _ask_kernel(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)

"""The address of an engine process: a Unix socket in a folder that is ours alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engines.engine_messages import make_socket
from engines.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Bytes that the system takes for the path of a socket.
_LONGEST_PATH: Final = 107
_BACKLOG: Final = 64
#: Seconds that a process which was killed may take to let go of the address.
_HAND_OVER: Final = 2.0


@contextlib.contextmanager
def listen(path: Path) -> Iterator[socket.socket]:
    """Listens at a path for as long as the context lasts.

    The file of a process that died is replaced in one step: there is always one that leads to somebody or to an error,
    never to the wrong one. A lock, which the system drops with its holder, keeps two processes from one address.

    Args:
        path: Of the socket; its folder is made if missing, readable by nobody else.

    Raises:
        UsageError: The path is too long, its folder is open to others, or another process listens there.
        OSError: The folder or the socket cannot be made.
    """
    check_path(path)
    _make_private(path.parent)
    with _lock(path), make_socket() as listener:
        fresh = path.with_name(f"{path.name}.new")
        fresh.unlink(missing_ok=True)
        listener.bind(str(fresh))
        listener.listen(_BACKLOG)
        fresh.replace(path)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def check_path(path: Path) -> None:
    """Refuses what cannot be a socket's path.

    Raises:
        UsageError: It is too long, or not absolute.
    """
    # While it is made, its name has four letters more.
    if not path.is_absolute() or len(os.fsencode(path)) + 4 > _LONGEST_PATH:
        raise UsageError(
            f"{path} cannot be the address of an engine process; expected an absolute path of at most "
            f"{_LONGEST_PATH - 4} bytes; choose a folder with a shorter name, such as one in /run or /tmp"
        )


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o077:
        raise UsageError(
            f"{folder} is open to others, and raw pixels pass through the socket in it; expected a folder of your own "
            "with the mode 0700; choose another, or chmod 700 it"
        )


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + _HAND_OVER
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise UsageError(
                        f"another engine process listens at {path}; end it, or choose another path"
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)

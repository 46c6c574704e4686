"""Memory that is free: of the machine, and of the container that this process may be in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/")
#: Of control groups, by version: names of the limit, of what is used, and of what of it can be given up at once.
_LIMITS: Final = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory(root: Path = _ROOT) -> int:
    """Bytes that new work can have.

    Args:
        root: that `proc` and `sys` are below.
    """
    with (root / "proc/meminfo").open(encoding="ascii") as file:
        kilobytes = next(line.split()[1] for line in file if line.startswith("MemAvailable:"))
    return max(0, min([int(kilobytes) * 1024, *_rooms(root)]))


def _rooms(root: Path) -> Iterator[int]:
    """What is left in each control group that this process is in, as far as it has a limit."""
    for folder in _groups(root):
        for limit, used, reclaimable in _LIMITS:
            # There is no limit, or none that can be read: "max" is no number either.
            with contextlib.suppress(OSError, ValueError):
                room = int((folder / limit).read_text()) - int((folder / used).read_text())
                yield room + _fact(folder / "memory.stat", reclaimable)


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the control groups that limit memory, and of those that they are in."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        # In a container, the path may be that outside of it, and its own group the one at the top.
        below = Path(path.lstrip("/"))
        yield from (base / one for one in (below, *below.parents))


def _fact(path: Path, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1])
    return 0

"""How much memory is free, in a container that may have less than its machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.batch.memory import free_memory

MACHINE = 8 * 2**30
ROOM = 300
USED = {"usage": 1000, "cache": 200}


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "proc/meminfo", f"MemTotal: 99999999 kB\nMemAvailable: {MACHINE // 1024} kB")
    return tmp_path


def test_without_limits_it_is_what_the_machine_has(root: Path) -> None:
    assert free_memory(root) == MACHINE
    write(root / "proc/self/cgroup", "0::/")
    write(root / "sys/fs/cgroup/memory.max", "max")
    write(root / "sys/fs/cgroup/memory.current", USED["usage"])
    assert free_memory(root) == MACHINE


@pytest.mark.parametrize(
    ("line", "folder", "names"),
    [
        ("0::/", "", ("memory.max", "memory.current", "inactive_file")),
        ("0::/pod/box", "pod/box", ("memory.max", "memory.current", "inactive_file")),
        # Of a group that this one is in.
        ("0::/pod/box", "pod", ("memory.max", "memory.current", "inactive_file")),
        # As a container shows it that was not told its own name.
        ("0::/outside/box", "", ("memory.max", "memory.current", "inactive_file")),
        ("4:cpu:/\n3:memory:/box", "memory/box", (
            "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file",
        )),
    ],
)  # fmt: skip
def test_a_limit_counts_and_what_can_be_given_up_does_not(
    root: Path, line: str, folder: str, names: tuple[str, str, str]
) -> None:
    limit, used, reclaimable = names
    write(root / "proc/self/cgroup", line)
    below = root / "sys/fs/cgroup" / folder
    write(below / limit, USED["usage"] + ROOM)
    write(below / used, USED["usage"])
    assert free_memory(root) == ROOM
    write(below / "memory.stat", f"anon 5\n{reclaimable} {USED['cache']}")
    assert free_memory(root) == ROOM + USED["cache"]


def test_it_is_never_less_than_nothing(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/")
    write(root / "sys/fs/cgroup/memory.max", 10)
    write(root / "sys/fs/cgroup/memory.current", 20)
    assert free_memory(root) == 0


def test_here_it_is_a_number() -> None:
    assert free_memory() > 0

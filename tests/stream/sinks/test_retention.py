"""The oldest segments go, by size and by age, and nothing else ever does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stream.quantities import Extent
from stream.sinks.retention import Retention
from stream.sinks.segments import segment_name

NOW = datetime(2026, 11, 21, 20, 0, 0, tzinfo=UTC)


class Clocks:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.wrong = 0.0

    def monotonic(self) -> float:
        return 1000 + self.passed

    def wall(self) -> float:
        return NOW.timestamp() + self.passed + self.wrong


def made(folder: Path, hours: int, size: int = 10) -> str:
    """A segment that began so many hours ago."""
    name = segment_name(NOW - timedelta(hours=hours), ".mp4")
    (folder / name).write_bytes(bytes(size))
    return name


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def retention(folder: Path, clocks: Clocks | None = None, **limit: float) -> Retention:
    clocks = clocks or Clocks()
    size = limit.get("size")
    extent = Extent(limit.get("seconds"), None if size is None else int(size))
    found = Retention(folder, extent, monotonic=clocks.monotonic, wall=clocks.wall)
    found.look()
    return found


def test_the_oldest_go_until_the_rest_fits(tmp_path: Path) -> None:
    kept = [made(tmp_path, hours) for hours in (5, 3, 1, 2, 4)]
    keep = retention(tmp_path, size=35)
    keep.apply()
    assert names(tmp_path) == sorted(kept[1:4])
    assert keep.deleted == 2
    keep.apply(writing=20)
    assert names(tmp_path) == [kept[2]]
    keep.apply(writing=1000)
    assert names(tmp_path) == []


def test_the_too_old_go(tmp_path: Path) -> None:
    old, young = made(tmp_path, 30), made(tmp_path, 10)
    clocks = Clocks()
    keep = retention(tmp_path, clocks, seconds=24 * 3600)
    keep.apply()
    assert names(tmp_path) == [young] != [old]
    clocks.passed += 13 * 3600
    keep.apply()
    assert names(tmp_path) == [young]
    clocks.passed += 3600 + 1
    keep.apply()
    assert names(tmp_path) == []


@pytest.mark.parametrize("step", [-10 * 365 * 86_400.0, 10 * 365 * 86_400.0])
def test_a_step_of_the_wall_clock_deletes_nothing(tmp_path: Path, step: float) -> None:
    kept = [made(tmp_path, hours) for hours in (1, 2)]
    clocks = Clocks()
    keep = retention(tmp_path, clocks, seconds=24 * 3600)
    clocks.wrong += step
    keep.look()
    keep.apply()
    assert names(tmp_path) == sorted(kept)
    # The control: whoever looks for the first time has nothing but the wall clock.
    retention(tmp_path, clocks, seconds=24 * 3600).apply()
    assert names(tmp_path) == (sorted(kept) if step < 0 else [])


def test_without_a_limit_all_stay(tmp_path: Path) -> None:
    kept = made(tmp_path, 1000)
    retention(tmp_path).apply(10**15)
    assert names(tmp_path) == [kept]


def test_other_files_neither_go_nor_count(tmp_path: Path) -> None:
    other = tmp_path / "holiday.mp4"
    other.write_bytes(bytes(1000))
    (tmp_path / segment_name(NOW - timedelta(hours=9), ".mp4")).mkdir()
    (tmp_path / segment_name(NOW - timedelta(hours=8), ".mp4")).symlink_to(other)
    before = names(tmp_path)
    kept = made(tmp_path, 1)
    retention(tmp_path, size=10, seconds=7200).apply()
    assert names(tmp_path) == sorted([*before, kept])


def test_what_somebody_else_deleted_is_no_trouble(tmp_path: Path) -> None:
    name = made(tmp_path, 3)
    keep = retention(tmp_path, size=1)
    (tmp_path / name).unlink()
    keep.apply()
    assert names(tmp_path) == []

"""A spool gives back what it was given, in order, and drops the oldest groups when it is full."""

from __future__ import annotations

import gc
import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import pytest
from av.video.codeccontext import VideoCodecContext

from stream.sinks.spool import Backlog, Recent, Spool

if TYPE_CHECKING:
    from stream.sinks.delivery import VideoPacket

CLOCK = Fraction(1, 90_000)
GROUP = 10
SIZE = 1000
#: What a group of these takes in a file.
IN_FILE = GROUP * (SIZE + 21)


def stream() -> VideoCodecContext:
    context = av.CodecContext.create("libx264", "w")
    context.time_base = CLOCK
    return context


def packet(number: int) -> VideoPacket:
    """Every tenth one is a key frame, 0.1 s after the one before."""
    made = cast("VideoPacket", av.Packet(number.to_bytes(4, "big") * (SIZE // 4)))
    made.pts = made.dts = number * 9000
    made.time_base, made.is_keyframe = CLOCK, number % GROUP == 0
    return made


def number_of(taken: VideoPacket) -> int:
    content = bytes(taken)
    assert len(content) == SIZE
    number = int.from_bytes(content[:4], "big")
    assert (taken.pts, taken.dts, taken.is_keyframe) == (number * 9000, number * 9000, number % GROUP == 0)
    assert taken.time_base == CLOCK
    return number


def fill(backlog: Backlog, numbers: range, context: VideoCodecContext | None = None) -> None:
    context = context or stream()
    for number in numbers:
        backlog.put(packet(number), context)


def drain(backlog: Backlog, most: int = 10**6) -> list[int]:
    taken: list[int] = []
    while len(taken) < most and (one := backlog.take()) is not None:
        taken.append(number_of(one))
    return taken


def open_files(folder: Path) -> int:
    """Nameless files of a folder that this process holds open."""
    links = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)]
    return sum(link.startswith(str(folder)) for link in links)


@pytest.mark.parametrize("in_memory", [10**9, 25_000, 0])
def test_what_went_in_comes_out_in_order(tmp_path: Path, in_memory: int) -> None:
    spool = Spool(10**9, in_memory=in_memory, folder=tmp_path)
    fill(spool, range(205))
    assert spool.waiting == 205
    assert open_files(tmp_path) == (in_memory < 10**9)
    assert list(tmp_path.iterdir()) == []
    assert drain(spool) == list(range(205))
    assert spool.waiting == 205
    spool.settle(205)
    assert (spool.waiting, spool.dropped) == (0, 0)
    assert open_files(tmp_path) == 0


def test_the_oldest_groups_are_dropped_when_it_is_full(tmp_path: Path) -> None:
    spool = Spool(5 * IN_FILE + 100, in_memory=0, folder=tmp_path)
    fill(spool, range(205))
    taken = drain(spool)
    assert taken == list(range(taken[0], 205))
    assert taken[0] % GROUP == 0
    assert len(taken) * SIZE <= 5 * IN_FILE + 100 < (len(taken) + 2 * GROUP) * SIZE
    assert spool.dropped == taken[0]


def test_files_are_let_go_when_they_are_not_needed(tmp_path: Path) -> None:
    limit = 2 * 2**20
    spool = Spool(limit, in_memory=0, folder=tmp_path)
    fill(spool, range(12_000))
    assert open_files(tmp_path) <= 4
    assert spool.dropped >= 12_000 - limit // SIZE
    assert drain(spool)[-1] == 11_999
    fill(spool, range(12_000, 12_040))
    assert drain(spool) == list(range(12_000, 12_040))
    spool.clear()
    gc.collect()
    assert open_files(tmp_path) == 0


def test_the_next_courier_gets_what_the_last_one_did_not_deliver(tmp_path: Path) -> None:
    spool = Spool(10**9, in_memory=0, folder=tmp_path)
    fill(spool, range(35))
    assert drain(spool, 33) == list(range(33))
    spool.settle(17)
    assert spool.waiting == 18
    spool.restart()
    # From the key frame on.
    assert drain(spool) == list(range(10, 35))
    spool.settle(25)
    # The group that is still being filled, too.
    spool.restart()
    fill(spool, range(35, 43))
    assert drain(spool) == list(range(30, 43))
    spool.settle(13)
    assert (spool.waiting, spool.dropped) == (0, 0)


def test_what_is_under_way_may_still_arrive_when_it_is_full() -> None:
    spool = Spool(35 * SIZE)
    fill(spool, range(30))
    assert drain(spool, 25) == list(range(25))
    spool.settle(4)
    fill(spool, range(30, 50))
    assert drain(spool) == list(range(25, 50))
    spool.settle(26)
    assert (spool.waiting, spool.dropped) == (24, 0)
    spool.settle(50)
    assert (spool.waiting, spool.dropped) == (0, 0)


def test_what_was_under_way_and_is_not_there_any_more_is_lost_with_its_courier() -> None:
    spool = Spool(35 * SIZE)
    fill(spool, range(30))
    assert drain(spool, 25) == list(range(25))
    spool.settle(4)
    fill(spool, range(30, 50))
    spool.restart()
    assert spool.dropped == 16
    assert drain(spool) == list(range(20, 50))
    spool.settle(20)
    spool.clear()
    assert (spool.waiting, spool.dropped) == (0, 26)


def test_what_depends_on_a_dropped_key_frame_is_dropped() -> None:
    spool = Spool(5 * SIZE)
    fill(spool, range(18))
    assert spool.wants_key()
    assert spool.following() is None
    assert drain(spool) == []
    fill(spool, range(20, 23))
    assert not spool.wants_key()
    assert drain(spool) == [20, 21, 22]
    assert spool.dropped == 18


def test_the_group_under_way_may_be_dropped_and_the_next_begins_with_a_key_frame() -> None:
    spool = Spool(25 * SIZE)
    fill(spool, range(20))
    assert drain(spool, 4) == [0, 1, 2, 3]
    spool.settle(4)
    fill(spool, range(20, 30))
    assert drain(spool) == list(range(10, 30))
    assert spool.dropped == 6


@pytest.mark.parametrize("kind", ["spool", "recent"])
def test_it_knows_which_stream_comes_next(kind: str) -> None:
    first, second = stream(), stream()
    backlog: Backlog = Spool(10**9) if kind == "spool" else Recent()
    assert backlog.wants_key()
    fill(backlog, range(5), first)
    fill(backlog, range(10, 15), second)
    assert backlog.following() is first
    assert drain(backlog, 5) == [0, 1, 2, 3, 4]
    assert backlog.following() is second
    backlog.settle(5)
    backlog.restart()
    assert backlog.following() is second
    assert drain(backlog) == [10, 11, 12, 13, 14]
    assert backlog.following() is None


def test_a_full_disk_costs_the_oldest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(10**9, in_memory=5 * GROUP * SIZE, folder=tmp_path / "none")
    fill(spool, range(305))
    taken = drain(spool)
    assert taken == list(range(taken[0], 305))
    assert 4 * GROUP <= len(taken) <= 7 * GROUP
    assert spool.dropped == taken[0]
    assert len([text for text in caplog.messages if "cannot spool to a file: No such file" in text]) == 1


def test_without_a_spool_only_the_last_seconds_are_kept() -> None:
    recent = Recent()
    fill(recent, range(45))
    assert recent.waiting == 45
    recent.restart()
    assert drain(recent, 15) == list(range(15))
    recent.restart()
    assert drain(recent) == list(range(20, 45))
    assert recent.dropped == 5
    fill(recent, range(100, 152))
    assert recent.wants_key()
    assert recent.dropped == 57
    fill(recent, range(152, 165))
    assert drain(recent) == [160, 161, 162, 163, 164]

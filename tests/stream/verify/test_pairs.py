from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import UsageError
from stream.verify.pairs import pair_files, pair_times


def times(count: int, step: float = 0.04, begin: float = 0.0) -> list[float]:
    return [begin + step * index for index in range(count)]


def test_the_same_times_belong_together() -> None:
    found = pair_times(times(50), times(50))
    assert found.pairs == tuple((i, i) for i in range(50))
    assert (found.missing, found.extra, found.shifted, found.offset) == ((), (), (), 0)


def test_rounding_of_containers_is_no_shift() -> None:
    found = pair_times([i / 30 for i in range(30)], [round(i / 30, 3) for i in range(30)])
    assert found.shifted == ()


@pytest.mark.parametrize("seconds", [0.01, 0.03, -0.015])
def test_a_shifted_frame_is_found(seconds: float) -> None:
    output = times(20)
    output[7] += seconds
    found = pair_times(times(20), sorted(output))
    assert len(found.pairs) == 20
    assert [(place, round(value, 3)) for place, value in found.shifted] == [(7, seconds)]
    assert found.missing == found.extra == ()


def test_missing_frames_are_found_wherever_they_are() -> None:
    output = [time for index, time in enumerate(times(20)) if index not in (0, 9, 10, 19)]
    found = pair_times(times(20), output)
    assert found.missing == (0, 9, 10, 19)
    assert (found.extra, found.shifted, found.offset) == ((), (), 0)


def test_frames_too_many_are_found() -> None:
    output = sorted([*times(20), 0.38])
    found = pair_times(times(20), output)
    assert found.extra == (10,)
    assert not found.missing
    assert not found.shifted


def test_a_common_offset_is_one_finding() -> None:
    found = pair_times(times(20), times(20, begin=1.4))
    assert found.offset == pytest.approx(1.4)
    assert len(found.pairs) == 20
    assert found.shifted == ()


def test_times_that_have_nothing_in_common_give_no_pairs() -> None:
    assert pair_times(times(4), [5.0, 9.0]).pairs == ()
    assert pair_times([], times(3)).extra == (0, 1, 2)
    assert pair_times(times(3), []).missing == (0, 1, 2)


@given(st.lists(st.floats(0, 100), max_size=30), st.lists(st.floats(0, 100), max_size=30))
def test_every_frame_is_paired_missing_or_too_many(one: list[float], other: list[float]) -> None:
    one, other = sorted(one), sorted(other)
    found = pair_times(one, other)
    assert sorted([i for i, _ in found.pairs] + list(found.missing)) == list(range(len(one)))
    assert sorted([j for _, j in found.pairs] + list(found.extra)) == list(range(len(other)))
    assert [j for _, j in found.pairs] == sorted(j for _, j in found.pairs)


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_files_of_folders_belong_together_by_their_paths(tmp_path: Path) -> None:
    before = files(tmp_path / "a", "x.mp4", "deep/y.MOV", "z.jpg", "only.mp4", "notes.txt", ".hidden.mp4")
    after = files(tmp_path / "b", "x.mp4", "deep/y.mp4", "z.png", "new.mkv", "z.png.report.json")
    found = pair_files(before, after)
    assert [(pair.name, pair.anonymized.name) for pair in found.pairs] == [
        ("deep/y.MOV", "y.mp4"),
        ("x.mp4", "x.mp4"),
        ("z.jpg", "z.png"),
    ]
    assert [pair.still for pair in found.pairs] == [False, False, True]
    assert found.missing == ("only.mp4",)
    assert found.extra == ("new.mkv",)


def test_another_ending_is_taken_only_where_one_original_can_be_meant(tmp_path: Path) -> None:
    before = files(tmp_path / "a", "x.avi", "x.mov", "y.mp4")
    after = files(tmp_path / "b", "x.mp4", "y.mp4")
    found = pair_files(before, after)
    assert [pair.name for pair in found.pairs] == ["y.mp4"]
    assert found.missing == ("x.avi", "x.mov")
    assert found.extra == ("x.mp4",)


def test_folders_without_a_common_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no video or image of the same path in common"):
        pair_files(files(tmp_path / "a", "x.mp4"), files(tmp_path / "b", "y.mp4"))

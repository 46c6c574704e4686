"""What a batch knows of what is done, whatever happens in between."""

from __future__ import annotations

import sqlite3
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from engines.errors import SinkError, UsageError
from stream.batch.inputs import Found
from stream.batch.manifest import Made, Manifest

KEY = "settings"


def found(name: str, mark: str = "m", *, size: int = 10, at: str | None = None, error: str | None = None) -> Found:
    return Found(name, at or f"/in/{name}", size, mark, error)


def begin(output: Path, *items: Found, key: str = KEY, overwrite: bool = False, reports: bool = False) -> Manifest:
    manifest = Manifest(output / "m.sqlite", output)
    manifest.begin(items, key, overwrite=overwrite, reports=reports)
    manifest.line_up({})
    return manifest


def taken(manifest: Manifest) -> list[str]:
    """All that waits, in order."""
    names = []
    while (entry := manifest.take()) is not None:
        names.append(entry.name)
    return names


def do(
    manifest: Manifest, output: Path, name: str, *, content: str = "c", error: str | None = None, withheld: int = 0
) -> None:
    """What a worker and the output folder do."""
    staged, final = output / "staged", output / name
    staged.write_text(name)
    manifest.placing(name, Made(content, 5, withheld, 1.0, error), {staged: final})
    staged.replace(final)
    manifest.placed(name)


def test_the_longest_come_first(tmp_path: Path) -> None:
    with closing(Manifest(tmp_path / "m", tmp_path)) as manifest:
        items = [
            found("short.mp4", size=9),
            found("long.mp4", size=5),
            found("other.mp4", size=7),
            found("a.png", size=99),
        ]
        manifest.begin(items, KEY, overwrite=False)
        assert [name for name, _ in manifest.unknown()] == ["a.png", "short.mp4", "other.mp4", "long.mp4"]
        manifest.line_up({"short.mp4": 10.0, "long.mp4": 100.0})
        # One frame for the image; the other's by its size, as of those that are known.
        assert manifest.left() == pytest.approx(10 + 100 + 1 + 7 * 110 / 14)
        assert taken(manifest) == ["long.mp4", "other.mp4", "short.mp4", "a.png"]


def test_a_second_call_does_only_what_is_missing_or_changed(tmp_path: Path) -> None:
    items = [found("same.mp4"), found("touched.mp4"), found("gone.mp4")]
    with closing(begin(tmp_path, *items)) as manifest:
        for item in items:
            do(manifest, tmp_path, item.name, content=f"content of {item.name}")
        assert (manifest.counts().done, manifest.counts().waiting) == (3, 0)
    (tmp_path / "gone.mp4").unlink()
    with closing(begin(tmp_path, items[0], found("touched.mp4", "new mark"), items[2], found("new.mp4"))) as manifest:
        assert manifest.counts().kept == 1
        entries = {entry.name: entry for entry in iter(manifest.take, None)}
        assert sorted(entries) == ["gone.mp4", "new.mp4", "touched.mp4"]
        # If nothing but the time has changed, there is nothing to do; where the result is gone, there is.
        assert entries["touched.mp4"].content == "content of touched.mp4"
        assert entries["gone.mp4"].content is None
        manifest.same("touched.mp4")
        assert manifest.counts().kept == 2


def test_other_settings_do_all_again(tmp_path: Path) -> None:
    with closing(begin(tmp_path, found("a.mp4"))) as manifest:
        do(manifest, tmp_path, "a.mp4")
    with closing(begin(tmp_path, found("a.mp4"), key="others")) as manifest:
        entry = manifest.take()
        assert entry is not None
        assert entry.content is None


def test_files_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "theirs.mp4").write_text("theirs")
    with closing(begin(tmp_path, found("theirs.mp4"), found("ours.mp4"))) as manifest:
        assert taken(manifest) == ["ours.mp4"]
        do(manifest, tmp_path, "ours.mp4")
    (tmp_path / "ours.mp4").write_text("changed by hand")
    with closing(begin(tmp_path, found("theirs.mp4"), found("ours.mp4"))) as manifest:
        assert taken(manifest) == []
        errors = dict(manifest.troubles())
        assert "is not of this batch" in errors["theirs.mp4"]
        assert "was changed after it was written" in errors["ours.mp4"]
    with closing(begin(tmp_path, found("theirs.mp4"), found("ours.mp4"), overwrite=True)) as manifest:
        entries = list(iter(manifest.take, None))
        assert sorted(entry.name for entry in entries if entry) == ["ours.mp4", "theirs.mp4"]
        # Whose content is known: what is there is not what was made of it.
        assert [entry.content for entry in entries if entry] == [None, None]


def test_the_result_of_another_place_is_replaced_only_by_the_same_content(tmp_path: Path) -> None:
    monday, tuesday = found("a.mp4", at="/monday/a.mp4"), found("a.mp4", "other mark", at="/tuesday/a.mp4")
    with closing(begin(tmp_path, monday)) as manifest:
        do(manifest, tmp_path, "a.mp4", content="monday's")
    # Also where the first call was interrupted, or the settings are others.
    for key in (KEY, KEY, "others"):
        with closing(begin(tmp_path, tuesday, key=key)) as manifest:
            entry = manifest.take()
            assert entry is not None
            assert entry.made_of == ("/monday/a.mp4", "monday's")
            assert entry.content == (None if key == "others" else "monday's")
    with closing(begin(tmp_path, tuesday, overwrite=True)) as manifest:
        entry = manifest.take()
        assert entry is not None
        assert entry.made_of is None
    with closing(begin(tmp_path, tuesday)) as manifest:
        manifest.same("a.mp4")
    with closing(begin(tmp_path, tuesday)) as manifest:
        assert manifest.counts().kept == 1
    with closing(begin(tmp_path, found("a.mp4", "a third mark", at="/tuesday/a.mp4"))) as manifest:
        entry = manifest.take()
        assert entry is not None
        # What has changed in its place is done again, as ever.
        assert entry.made_of is None


def test_a_result_without_its_report_is_done_again_where_reports_are_wanted(tmp_path: Path) -> None:
    with closing(begin(tmp_path, found("a.mp4"), reports=True)) as manifest:
        do(manifest, tmp_path, "a.mp4")
    with closing(begin(tmp_path, found("a.mp4"), reports=False)) as manifest:
        assert manifest.counts().kept == 1
    for _ in range(2):
        with closing(begin(tmp_path, found("a.mp4"), reports=True)) as manifest:
            entry = manifest.take()
            assert entry is not None
            # Nobody may say that there is nothing to do.
            assert entry.content is None
    (tmp_path / "a.mp4.report.json").write_text("{}")
    with closing(begin(tmp_path, found("a.mp4"), reports=True)) as manifest:
        do(manifest, tmp_path, "a.mp4")
    with closing(begin(tmp_path, found("a.mp4"), reports=True)) as manifest:
        assert manifest.counts().kept == 1


def test_reports_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.mp4.report.json").write_text("theirs")
    for _ in range(2):
        with closing(begin(tmp_path, found("a.mp4"), reports=True)) as manifest:
            assert taken(manifest) == []
            assert "report's name is taken by a file that is not of this batch" in manifest.troubles()[0][1]
    with closing(begin(tmp_path, found("a.mp4"), reports=True, overwrite=True)) as manifest:
        assert taken(manifest) == ["a.mp4"]
    with closing(begin(tmp_path, found("a.mp4"))) as manifest:
        assert taken(manifest) == ["a.mp4"]


def test_what_is_missing_beside_a_result_is_a_trouble_and_no_reason_to_do_it_again(tmp_path: Path) -> None:
    with closing(begin(tmp_path, found("a.mp4"), found("b.mp4"))) as manifest:
        do(manifest, tmp_path, "a.mp4")
        do(manifest, tmp_path, "b.mp4", error="it ends in the middle")
        assert [entry.name for entry in manifest.kept()] == ["a.mp4", "b.mp4"]
        manifest.lacks("a.mp4", "no sidecar")
        manifest.lacks("b.mp4", "no sidecar")
        assert manifest.troubles() == [("a.mp4", "no sidecar"), ("b.mp4", "it ends in the middle")]
    with closing(begin(tmp_path, found("a.mp4"), found("b.mp4"))) as manifest:
        entry = manifest.take()
        assert entry is not None
        assert (entry.name, entry.content) == ("a.mp4", "c")
        manifest.same("a.mp4")
        assert manifest.counts().kept == 1
        assert manifest.counts().incomplete == 1


def test_a_manifest_of_the_version_before_is_read_and_a_newer_one_refused(tmp_path: Path) -> None:
    (tmp_path / ".standin").mkdir()
    path = tmp_path / ".standin/manifest.sqlite"
    with closing(Manifest(path, tmp_path)) as manifest:
        manifest.begin([found("a.mp4", at="/monday/a.mp4")], KEY, overwrite=False)
        do(manifest, tmp_path, "a.mp4")
    with closing(sqlite3.connect(path)) as database:
        database.executescript("ALTER TABLE files DROP COLUMN source; PRAGMA user_version = 1;")
    for opened in (Manifest.copy(tmp_path), Manifest(path, tmp_path)):
        with closing(opened) as manifest:
            manifest.begin([found("a.mp4", at="/tuesday/a.mp4")], KEY, overwrite=False)
            manifest.line_up({})
            entry = manifest.take()
            assert entry is not None
            assert entry.made_of == ("/monday/a.mp4", "c")
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(UsageError, match="is of version 99"):
        Manifest.copy(tmp_path)
    with pytest.raises(UsageError, match="is of version 99"):
        Manifest(path, tmp_path)


def test_what_failed_is_tried_by_the_next_call(tmp_path: Path) -> None:
    with closing(begin(tmp_path, found("a.mp4"), found("b.mp4", error="it cannot be read"))) as manifest:
        assert taken(manifest) == ["a.mp4"]
        manifest.failed("a.mp4", "poison", 3)
        assert manifest.troubles() == [("a.mp4", "poison"), ("b.mp4", "it cannot be read")]
        assert manifest.counts().failed == 2
    with closing(begin(tmp_path, found("a.mp4"), found("b.mp4"))) as manifest:
        assert taken(manifest) == ["a.mp4", "b.mp4"]


def test_an_incomplete_input_stays_so_and_is_not_done_again(tmp_path: Path) -> None:
    with closing(begin(tmp_path, found("a.mp4"))) as manifest:
        do(manifest, tmp_path, "a.mp4", error="it ends in the middle")
    with closing(begin(tmp_path, found("a.mp4"))) as manifest:
        assert taken(manifest) == []
        assert manifest.counts().incomplete == 1
        assert manifest.troubles() == [("a.mp4", "it ends in the middle")]


@pytest.mark.parametrize("moved", ["nothing", "report", "all"])
def test_after_a_crash_while_names_are_given_all_is_there_or_waits(tmp_path: Path, moved: str) -> None:
    staging = tmp_path / "staging"
    staging.mkdir()
    staged = [staging / "a.report.json", staging / "a.mp4"]
    final = [tmp_path / path.name for path in staged]
    (tmp_path / "a.mp4").write_text("an older one")
    with closing(begin(tmp_path, found("a.mp4"), overwrite=True)) as manifest:
        for path in staged:
            path.write_text("whole")
        manifest.placing("a.mp4", Made("c", 5, 0, 1.0), dict(zip(staged, final, strict=True)))
        for old, new in list(zip(staged, final, strict=True))[: ["nothing", "report", "all"].index(moved)]:
            old.replace(new)
    with closing(begin(tmp_path, found("a.mp4"))) as manifest:
        assert taken(manifest) == []
        assert manifest.counts().kept == 1
    assert [path.read_text() for path in final] == ["whole", "whole"]
    assert not any(path.exists() for path in staged)


def test_a_staged_file_that_is_lost_is_done_again_even_if_an_older_one_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("an older one")
    with closing(begin(tmp_path, found("a.mp4"), overwrite=True)) as manifest:
        staged = tmp_path / "staged.mp4"
        staged.write_text("whole")
        manifest.placing("a.mp4", Made("c", 5, 0, 1.0), {staged: tmp_path / "a.mp4"})
        staged.unlink()
    with closing(begin(tmp_path, found("a.mp4"), overwrite=True)) as manifest:
        assert taken(manifest) == ["a.mp4"]


def test_what_is_under_way_when_the_process_is_killed_waits(tmp_path: Path) -> None:
    manifest = begin(tmp_path, found("a.mp4"), found("b.mp4"))
    manifest.take()
    # Not closed.
    with closing(begin(tmp_path, found("a.mp4"), found("b.mp4"))) as again:
        assert taken(again) == ["a.mp4", "b.mp4"]
    manifest.close()


def test_two_inputs_with_one_result_are_refused_and_one_given_twice_is_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"/x/a\.mp4 and /y/a\.mp4 would both become a\.mp4"):
        begin(tmp_path, found("a.mp4", at="/x/a.mp4"), found("b.mp4"), found("a.mp4", at="/y/a.mp4"))
    with closing(begin(tmp_path, found("a.mp4"), found("a.mp4"))) as manifest:
        assert manifest.counts().total == 1


def test_one_input_with_two_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"/x/a\.mp4 is given twice, and would become both a\.mp4 and x/a\.mp4: .*--base"
    ):
        begin(tmp_path, found("x/a.mp4", at="/x/a.mp4"), found("b.mp4"), found("a.mp4", at="/x/a.mp4"))


def test_files_with_withheld_frames_are_known_also_in_later_calls(tmp_path: Path) -> None:
    items = [found(name) for name in ("a.mp4", "b.mp4", "c.mp4", "d.mp4")]
    with closing(begin(tmp_path, *items)) as manifest:
        for item, withheld in zip(items, (1, 3, 0, 3), strict=True):
            do(manifest, tmp_path, item.name, withheld=withheld)
    with closing(begin(tmp_path, *items)) as manifest:
        assert (manifest.counts().withheld, manifest.counts().grey) == (7, 3)
        assert manifest.withheld() == [("b.mp4", 3), ("d.mp4", 3), ("a.mp4", 1)]
        assert manifest.withheld(1) == [("b.mp4", 3)]
    with closing(begin(tmp_path, items[0])) as manifest:
        assert manifest.withheld() == [("a.mp4", 1)]


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "m.sqlite")) as theirs:
        theirs.execute("CREATE TABLE t (x)")
    before = (tmp_path / "m.sqlite").read_bytes()
    with pytest.raises(UsageError, match="is not the manifest of a batch"):
        begin(tmp_path)
    assert (tmp_path / "m.sqlite").read_bytes() == before
    (tmp_path / "m.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(SinkError, match="cannot be used"):
        begin(tmp_path)


def test_a_copy_in_memory_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / ".standin").mkdir()
    with closing(Manifest(tmp_path / ".standin/manifest.sqlite", tmp_path)) as manifest:
        manifest.begin([found("a.mp4")], KEY, overwrite=False)
        do(manifest, tmp_path, "a.mp4")
    before = (tmp_path / ".standin/manifest.sqlite").read_bytes()
    with closing(Manifest.copy(tmp_path)) as copy:
        copy.begin([found("a.mp4"), found("b.mp4")], KEY, overwrite=False)
        copy.line_up({})
        assert (copy.counts().kept, copy.counts().waiting) == (1, 1)
        assert copy.speed() == pytest.approx(5.0)
    assert (tmp_path / ".standin/manifest.sqlite").read_bytes() == before
    assert not list((tmp_path / ".standin").glob("*-journal"))


def many(count: int) -> Iterator[Found]:
    return (found(f"{number % 97}/{number:06d}.mp4", size=number) for number in range(count))


def processor_seconds(output: Path, items: Sequence[Found] | Iterator[Found]) -> float:
    output.mkdir(exist_ok=True)
    began = time.process_time()
    manifest = Manifest(output / "m.sqlite", output)
    manifest.begin(items, KEY, overwrite=False)
    manifest.line_up({})
    assert manifest.take() is not None
    ended = time.process_time()
    manifest.close()
    return ended - began


def test_starting_takes_as_long_as_there_are_entries_and_no_longer(tmp_path: Path) -> None:
    few, often = 5_000, range(3)
    for known in (False, True):
        # Whatever else the processor does makes it longer, and nothing shorter: the best of a few is nearest to it.
        seconds = {
            count: min(processor_seconds(tmp_path / f"{count}-{turn}", many(count)) for turn in often)
            for count in (few, 6 * few)
        }
        assert seconds[6 * few] < 9 * seconds[few], f"known: {known}"


def test_memory_does_not_grow_with_the_number_of_entries(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        folder = tmp_path / str(count)
        folder.mkdir()
        tracemalloc.start()
        try:
            processor_seconds(folder, many(count))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few = peak(2_000)
    assert peak(20_000) < 1.5 * few

"""Which files a batch is about, and what their results are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engines.errors import SourceError, StandinError, UsageError
from stream.batch.inputs import Found, Inputs, Layout, check_name


@pytest.fixture
def day(tmp_path: Path) -> Path:
    """Recordings of a day, and what else lies there."""
    for name in ("day/a/1.mp4", "day/a/2.MKV", "day/b/1.mp4", "day/still.jpg", "day/notes.txt", "day/a/.hidden.mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10)
    return tmp_path / "day"


def names(texts: list[str], output: Path, **layout: object) -> list[str]:
    return sorted(found.name for found in Inputs(texts, Layout(output, **layout)))  # type: ignore[arg-type]


def test_a_folder_keeps_its_structure_and_counts_what_is_left_out(day: Path, tmp_path: Path) -> None:
    inputs = Inputs([str(day)], Layout(tmp_path / "out"))
    found = {item.name: item for item in inputs}
    assert sorted(found) == ["a/1.mp4", "a/2.MKV", "b/1.mp4", "still.jpg"]
    assert found["a/1.mp4"].at == str(day / "a/1.mp4")
    assert found["a/1.mp4"].size == 10
    assert inputs.others == 2


def test_a_hidden_folder_is_one_of_what_is_left_out(day: Path, tmp_path: Path) -> None:
    for name in ("1.mp4", "2.mp4"):
        (day / "b/.trash").mkdir(exist_ok=True)
        (day / "b/.trash" / name).write_bytes(b"x")
    inputs = Inputs([str(day)], Layout(tmp_path / "out"))
    assert len(list(inputs)) == 4
    assert inputs.others == 3


def test_what_goes_along_is_not_left_out(day: Path, tmp_path: Path) -> None:
    (day / "a/1.srt").write_text("words")
    for text in (day, day / "**/*"):
        inputs = Inputs([str(text)], Layout(tmp_path / "out"), lambda path: path == str(day / "a/1.srt"))
        assert len(list(inputs)) == 4
        # Patterns do not see what is hidden.
        assert inputs.others == (2 if text == day else 1)


def test_a_file_has_its_own_name_and_is_taken_whatever_its_ending(day: Path, tmp_path: Path) -> None:
    (day / "camera.bin").write_bytes(b"x")
    assert names([str(day / "a/1.mp4"), str(day / "camera.bin")], tmp_path / "out") == ["1.mp4", "camera.bin"]


def test_patterns_keep_what_is_below_their_fixed_part(day: Path, tmp_path: Path) -> None:
    assert names([str(day / "**" / "*.mp4")], tmp_path / "out") == ["a/1.mp4", "b/1.mp4"]
    assert names([str(day / "?")], tmp_path / "out") == ["a/1.mp4", "a/2.MKV", "b/1.mp4"]


def test_a_list_keeps_what_is_below_its_common_folder(day: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# a day\nday/a/1.mp4\n\nday/b/1.mp4\n")
    assert names([f"@{tmp_path / 'list.txt'}"], tmp_path / "out") == ["a/1.mp4", "b/1.mp4"]


def test_a_base_decides_where_names_begin(day: Path, tmp_path: Path) -> None:
    assert names([str(day / "a/1.mp4")], tmp_path / "out", base=tmp_path) == ["day/a/1.mp4"]
    with pytest.raises(UsageError, match="does not lie below --base"):
        names([str(day / "a/1.mp4")], tmp_path / "out", base=day / "b")


def test_a_list_may_hold_patterns_and_urls_of_files(day: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"day/?/1.mp4\nfile://{day}/a/2.MKV\nlocal://{day}/a/1.mp4\n")
    assert sorted(set(names([f"@{tmp_path / 'list.txt'}"], tmp_path / "out"))) == ["a/1.mp4", "a/2.MKV", "b/1.mp4"]
    (tmp_path / "list.txt").write_text(f"day/?/1.mp4\nfile://{day}/a/2.MKV\n")
    assert names([f"@{tmp_path / 'list.txt'}"], tmp_path / "out") == ["a/1.mp4", "a/2.MKV", "b/1.mp4"]
    (tmp_path / "list.txt").write_text("d*/a/1.mp4\n")
    assert names([f"@{tmp_path / 'list.txt'}"], tmp_path / "out") == ["day/a/1.mp4"]


@pytest.mark.parametrize("name", ["../a.mp4", "day/../../a.mp4", "/a.mp4", ".standin/a.mp4", ".STANDIN/a.mp4", "", "."])
def test_a_name_that_leads_out_of_the_output_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no name below the output folder"):
        check_name(name)


def test_what_the_batch_keeps_for_itself_is_nobody_elses_name(day: Path, tmp_path: Path) -> None:
    (day / ".standin").mkdir()
    (day / ".standin/a.mp4").write_bytes(b"x")
    assert ".standin/a.mp4" not in names([str(day)], tmp_path / "out")
    with pytest.raises(UsageError, match="no name below the output folder"):
        names([str(day / ".standin/a.mp4")], tmp_path / "out", base=day)
    check_name("day/.standin.mp4")


@pytest.mark.parametrize("ending", [".m3u8", ".jpg", ".", "mp4", ".mp4/x", "/mp4", ".x y", ""])
def test_only_videos_endings_are_taken(ending: str) -> None:
    with pytest.raises(UsageError, match="expected an ending like"):
        Layout(Path("out"), ending=ending)


def test_flat_and_ending(day: Path, tmp_path: Path) -> None:
    assert names([str(day / "a"), str(day / "still.jpg")], tmp_path / "out", flat=True, ending=".mp4") == [
        "1.mp4", "2.mp4", "still.jpg",
    ]  # fmt: skip


@pytest.mark.parametrize("store", ["", "file://", "local://"])
@pytest.mark.parametrize("output", ["day", "day/out", "day/a/deeper/out"])
def test_an_output_inside_the_input_is_refused(day: Path, tmp_path: Path, output: str, store: str) -> None:
    with pytest.raises(UsageError, match="lies in"):
        Inputs([f"{store}{day}"], Layout(tmp_path / output)).check()
    with pytest.raises(UsageError, match="lies in"):
        names([f"{store}{day}"], tmp_path / output)


@pytest.mark.parametrize("pattern", ["day/**/*.mp4", "day/*", "d*/*/*.mp4", "**/*.mp4", "day/[a-o]*"])
def test_an_output_that_a_pattern_would_match_the_next_time_is_refused(day: Path, tmp_path: Path, pattern: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for at in (tmp_path / pattern, tmp_path / "link" / pattern):
        with pytest.raises(UsageError, match="lies in what"):
            Inputs([str(at)], Layout(day / "out")).check()
        with pytest.raises(UsageError, match="lies in what"):
            names([str(at)], day / "out")


def test_an_output_that_a_pattern_never_matches_may_lie_beside_what_it_does(day: Path) -> None:
    (day / "1.mp4").write_bytes(b"x")
    for pattern in ("*.mp4", "[a-b]/*.mp4", "a/**/*.mp4"):
        Inputs([str(day / pattern)], Layout(day / "out")).check()
        assert names([str(day / pattern)], day / "out")


def test_an_input_inside_the_output_is_refused_through_links_and_lists_too(day: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(day)
    (tmp_path / "list.txt").write_text("link/a/1.mp4\n")
    for text in (str(tmp_path / "link/a/1.mp4"), f"@{tmp_path / 'list.txt'}", str(tmp_path / "link/*/1.mp4")):
        with pytest.raises(UsageError, match="lies in the output folder"):
            names([text], day)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("missing.mp4", UsageError, "no such file or folder"),
        ("none/*.mp4", UsageError, "nothing matches"),
        ("@missing.txt", UsageError, "cannot read the list"),
        ("empty", SourceError, "there is no video and no image"),
    ],
)
def test_what_is_not_there_is_said(tmp_path: Path, text: str, kind: type[StandinError], message: str) -> None:
    (tmp_path / "empty").mkdir()
    at = f"@{tmp_path / text[1:]}" if text.startswith("@") else str(tmp_path / text)
    with pytest.raises(kind, match=message):
        names([at], tmp_path / "out")


def errors(texts: list[str], output: Path) -> list[Found]:
    return [found for found in Inputs(texts, Layout(output)) if found.error is not None]


def test_what_cannot_be_read_is_an_input_with_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "gone.mp4").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe.mp4")
    (folder / os.fsdecode(b"bad-\xff.mp4")).write_bytes(b"x")
    found = errors([str(folder)], tmp_path / "out")
    assert sorted(str(item.error) for item in found) == [
        "it cannot be read: No such file or directory", "it is no file", "its name is not UTF-8: rename it",
    ]  # fmt: skip
    for item in found:
        item.name.encode()


def test_linked_folders_are_named_unless_what_they_hold_is_found_anyway(day: Path, tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    (tmp_path / "else/3.mp4").write_bytes(b"x")
    (day / ".cache").mkdir()
    (day / "other").symlink_to(tmp_path / "else")
    (day / "kept").symlink_to(day / ".cache")
    (day / "latest").symlink_to("b")
    (day / "b/whole").symlink_to(day)
    found = errors([str(day)], tmp_path / "out")
    assert sorted(item.name for item in found) == ["kept", "other"]
    assert "is not followed: give that folder" in str(found[0].error)


def test_a_playlist_is_no_input(day: Path, tmp_path: Path) -> None:
    (day / "live.M3U8").write_text("#EXTM3U\n")
    ((_, error),) = [(item.name, item.error) for item in Inputs([str(day / "live.M3U8")], Layout(tmp_path / "out"))]
    assert "it is a playlist" in str(error)


def test_a_mark_changes_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"

    def mark() -> str:
        (found,) = Inputs([str(path)], Layout(tmp_path / "out"))
        return found.mark

    path.write_bytes(b"first")
    before = mark()
    assert mark() == before
    os.utime(path, ns=(1, 1))
    assert mark() != before

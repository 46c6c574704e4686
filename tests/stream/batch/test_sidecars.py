"""Which files beside an input go along, and that none of them is a picture, whatever its name."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from engines.errors import SourceError, UsageError
from stream.batch.sidecars import TEXTS, Sidecars, check_patterns, copy

RAW = bytes(range(256)) * 40


def missing(source: Path, *patterns: str, overwrite: bool = False) -> tuple[list[str], list[str]]:
    folder = source.parent / "out"
    folder.mkdir(exist_ok=True)
    wanted, troubles = Sidecars(patterns).missing(source, folder, overwrite=overwrite)
    return [path.name for path in wanted], troubles


def test_only_what_is_called_like_a_text_goes_along(tmp_path: Path) -> None:
    source = tmp_path / "front.asf"
    source.write_bytes(RAW)
    others = (
        "front.asf_original", "front.asf.bak", "front.asf.part", "front.h264", "front.vob", "front.y4m", "front.cr2",
        "front.zip", "front.mp4", "front.jpg", "front.LRV", "front.html", "front.svg", "front.asf.report.json",
        "frontal.srt",
    )  # fmt: skip
    for name in (*others, "front.srt", "front.asf.json", "front.GPX"):
        (tmp_path / name).write_text("words")
    assert missing(source, "*") == (["front.GPX", "front.asf.json", "front.srt"], [])
    assert missing(source, "front.*") == (["front.GPX", "front.asf.json", "front.srt"], [])
    assert missing(source, "*.srt") == (["front.srt"], [])
    assert missing(source) == ([], [])


def test_what_goes_along_is_known_by_its_name(tmp_path: Path) -> None:
    for name in ("front.mp4", "front.1.mp4", ".rear.mp4", "front.mp4.srt", "alone.srt"):
        (tmp_path / name).write_text("words")
    sidecars = Sidecars(("*.srt", "*.json"))
    for name in ("front.srt", "front.mp4.srt", "front.1.json", "front.mp4.en.srt"):
        assert sidecars.goes_along(str(tmp_path / name))
    for name in ("alone.srt", "frontal.srt", "front.txt", ".rear.srt", "front.mp4.report.json", "front.mp4"):
        assert not sidecars.goes_along(str(tmp_path / name))
    assert not sidecars.goes_along(str(tmp_path / "gone/front.srt"))
    assert not Sidecars(()).goes_along(str(tmp_path / "front.srt"))


def test_the_input_itself_is_no_sidecar(tmp_path: Path) -> None:
    (tmp_path / "front.txt").write_text("an input, whatever it is called")
    (tmp_path / "front.srt").symlink_to(tmp_path / "front.txt")
    assert missing(tmp_path / "front.txt", "*") == ([], [])


def test_what_is_no_text_is_not_copied_whatever_its_name(tmp_path: Path) -> None:
    for content in (RAW, b"a text until\0here", b"YUV4MPEG2 W64 H48 Cmono\nFRAME\n" + bytes([16, 17, 90]) * 999):
        (tmp_path / "front.srt").write_bytes(content)
        with pytest.raises(SourceError, match=r"front\.srt is not copied: it is no text"):
            copy(tmp_path / "front.srt", tmp_path / "copy")
        (tmp_path / "copy").unlink()
    # Also far behind the beginning, and between two blocks.
    (tmp_path / "front.srt").write_bytes(b"words " * 400_000 + RAW)
    with pytest.raises(SourceError, match="it is no text"):
        copy(tmp_path / "front.srt", tmp_path / "copy")


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("before", [0, 2**20 - 300])
def test_a_picture_in_letters_is_not_copied(tmp_path: Path, before: int, wrapped: bool) -> None:
    letters = (base64.encodebytes(RAW) if wrapped else base64.b64encode(RAW)).decode()
    (tmp_path / "front.json").write_text('{"shapes": []' + " " * before + f', "imageData": "{letters}"}}')
    with pytest.raises(SourceError, match="it may hold a picture, written in letters"):
        copy(tmp_path / "front.json", tmp_path / "copy")


def test_texts_are_copied_as_they_are(tmp_path: Path) -> None:
    texts = {
        "words": "1\r\n00:00:01,000 --> 00:00:02,000\r\nGrüße, 字幕\r\n" * 9999,
        "numbers": "[" + ", ".join(map(str, range(9999))) + "]",
        "times": "\n".join(map(str, range(1_700_000_000, 1_700_000_999))),
        "sums": "\n".join(f"{hashlib.sha256(bytes([n])).hexdigest()}  {n}.mp4" for n in range(99)),
        "nothing": "",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
        copy(tmp_path / name, tmp_path / f"{name}-copy")
        assert (tmp_path / f"{name}-copy").read_bytes() == text.encode()


def test_other_files_are_replaced_only_if_that_is_said(tmp_path: Path) -> None:
    for name in ("front.mp4", "front.srt", "front.gpx"):
        (tmp_path / name).write_text(name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/front.srt").write_text("somebody's own")
    (tmp_path / "out/front.gpx").write_text("front.gpx")
    wanted, (trouble,) = missing(tmp_path / "front.mp4", "*")
    assert wanted == []
    assert trouble == f"{tmp_path / 'out/front.srt'} exists and is not the sidecar: use --overwrite to replace it"
    assert missing(tmp_path / "front.mp4", "*", overwrite=True) == (["front.srt"], [])


def test_a_folder_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    wanted, troubles = Sidecars(("*",)).missing(tmp_path / "gone/a.mp4", tmp_path, overwrite=False)
    assert wanted == []
    assert troubles == [f"cannot read the sidecars of {tmp_path / 'gone/a.mp4'}: No such file or directory"]


def test_patterns_for_what_is_never_copied_are_refused() -> None:
    check_patterns(("*", "front.*", "*.SRT", "*.[gk]px", "*_times"))
    for pattern in ("*.jpg", "*.mp4", "*.h264"):
        with pytest.raises(UsageError, match="only texts are copied as they are"):
            check_patterns(("*.srt", pattern))
    assert ".srt" in TEXTS

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from engines.errors import SourceError, UsageError
from stream.evaluate.pictures import check_folder, list_pictures, partners, read_pairs, read_picture


def save(path: Path, level: int = 0, size: tuple[int, int] = (8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(np.full((size[1], size[0], 3), level, np.uint8)).save(path)


def test_pictures_are_listed_below_a_folder_and_read_one_by_one(tmp_path: Path) -> None:
    save(tmp_path / "b.png", 7)
    save(tmp_path / "deep" / "a.png", 9)
    (tmp_path / "notes.txt").write_text("x")
    assert list_pictures(tmp_path) == ["b.png", "deep/a.png"]
    assert read_picture(tmp_path, "deep/a.png").max() == 9


def test_folders_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="no such folder"):
        check_folder(tmp_path / "nothing")
    with pytest.raises(UsageError, match="is a file"):
        check_folder(tmp_path / "file")
    with pytest.raises(UsageError, match="holds no picture"):
        list_pictures(tmp_path)


def test_results_must_have_the_names_and_the_sizes_of_their_originals(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        save(tmp_path / "before" / name)
    save(tmp_path / "after" / "1.png", size=(4, 4))
    with pytest.raises(UsageError, match=r"lacks 1 of the 2 pictures .* such as 2\.png"):
        partners(tmp_path / "before", tmp_path / "after")
    with pytest.raises(SourceError, match=r"1\.png is 8x6 in .* and 4x4 in"):
        list(read_pairs(tmp_path / "before", tmp_path / "after", ["1.png"]))


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"x\.png cannot be read"):
        read_picture(tmp_path, "x.png")

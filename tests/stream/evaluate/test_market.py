from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from engines.errors import SourceError, UsageError
from stream.evaluate.market import Shot, read_market


def save(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(np.zeros((8, 4, 3), np.uint8)).save(folder / name)


def test_junk_is_nowhere_and_distractors_are_in_the_gallery(tmp_path: Path) -> None:
    save(
        tmp_path, "query/0002_c1s1_000451_00.png", "query/0000_c1s1_000001_00.png", "query/-1_c1s1_000001_00.png",
        "bounding_box_test/0002_c3s2_000451_03.png", "bounding_box_test/0000_c6s1_000007_01.png",
        "bounding_box_test/-1_c2s1_000009_05.png",
    )  # fmt: skip
    (tmp_path / "bounding_box_test" / "Thumbs.db").write_bytes(b"x")
    market = read_market(tmp_path)
    assert market.queries == (Shot("query/0002_c1s1_000451_00.png", 2, 1),)
    assert market.gallery == (
        Shot("bounding_box_test/0000_c6s1_000007_01.png", 0, 6),
        Shot("bounding_box_test/0002_c3s2_000451_03.png", 2, 3),
    )


def test_folders_and_names_that_are_none_of_such_a_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        read_market(tmp_path / "nothing")
    save(tmp_path, "query/0002_c1s1_1_00.png")
    with pytest.raises(UsageError, match="no folder 'bounding_box_test'"):
        read_market(tmp_path)
    save(tmp_path, "bounding_box_test/somebody.png")
    with pytest.raises(SourceError, match=r"somebody\.png: the name says no person and camera"):
        read_market(tmp_path)


def test_queries_that_no_other_camera_saw_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "query/0002_c1s1_1_00.png", "bounding_box_test/0002_c1s1_2_00.png")
    with pytest.raises(UsageError, match="another camera"):
        read_market(tmp_path)

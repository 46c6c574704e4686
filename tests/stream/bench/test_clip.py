from __future__ import annotations

from pathlib import Path

import pytest

from engines.errors import SourceError
from stream.bench.clip import made_clip
from stream.bench.frames import clip_info
from tests.fakes import read_pictures


def test_the_projects_clip_is_taken_as_it_is(tmp_path: Path) -> None:
    path, about = made_clip(tmp_path, None)
    assert "synthetic" in about
    assert clip_info(path).width == 640
    assert list(tmp_path.iterdir()) == []


def test_it_can_be_brought_to_another_size(tmp_path: Path) -> None:
    path, about = made_clip(tmp_path, (160, 96))
    info = clip_info(path)
    assert (info.width, info.height) == (160, 96)
    assert info.rate == 25
    assert "brought to this size" in about
    shown = read_pictures(path)
    assert len(shown) == 50
    assert shown[0].std() > 10


def test_a_clip_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        made_clip(tmp_path, (160, 96), tmp_path / "none.mp4")

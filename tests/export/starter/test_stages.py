from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from engines.errors import SourceError, UsageError
from export.starter.body import Part, load_body, save_body
from export.starter.samples import count_scenes, write_scenes
from export.starter.stages import Drawing, draw_clip, draw_scenes, get_body, make_body_file, until
from tests.export.starter.bodies import tiny_body
from tests.export.starter.tiny_people import make_scenes


def test_time_ends_what_has_no_end() -> None:
    assert list(until(itertools.count(), 0.0)) == [0]
    assert len(list(until(itertools.count(), 0.001))) > 1
    assert list(until(range(5), None)) == [0, 1, 2, 3, 4]
    assert list(until([], 0.0)) == []


def test_the_body_is_the_one_that_is_given_or_the_project_s(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        get_body(tmp_path / "none.npz")
    save_body(tmp_path / "body.npz", tiny_body())
    assert get_body(tmp_path / "body.npz") == tmp_path / "body.npz"
    body = load_body(get_body(None))
    assert body.vertices > 10_000
    # A grown person at rest.
    assert 1.4 < float(np.ptp(body.canonical[:, 2])) < 1.9
    assert set(body.parts.tolist()) == {int(part) for part in Part}


def test_a_body_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    save_body(tmp_path / "body.npz", tiny_body())
    before = (tmp_path / "body.npz").read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        make_body_file(tmp_path / "body.npz")
    make_body_file(tmp_path / "body.npz", resume=True)
    assert (tmp_path / "body.npz").read_bytes() == before


def test_drawing_has_an_end(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no end"):
        draw_scenes(tmp_path / "scenes", Drawing(body=tmp_path / "body.npz"), count=None)


def test_a_clip_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"a clip")
    given = {"seconds": 1.0, "people": 1, "seed": 0}
    with pytest.raises(UsageError, match="exists already"):
        draw_clip(tmp_path / "clip.mp4", tmp_path / "body.npz", size=(64, 36), **given)  # type: ignore[arg-type]
    draw_clip(tmp_path / "clip.mp4", tmp_path / "body.npz", size=(64, 36), resume=True, **given)  # type: ignore[arg-type]
    assert (tmp_path / "clip.mp4").read_bytes() == b"a clip"


def test_scenes_are_counted_in_all_files(tmp_path: Path) -> None:
    assert count_scenes(tmp_path / "none") == 0
    write_scenes(tmp_path, make_scenes(3), in_file=2)
    write_scenes(tmp_path, make_scenes(1), in_file=2)
    assert count_scenes(tmp_path) == 4
    (tmp_path / "scenes-00009.npz").write_bytes(b"nothing")
    with pytest.raises(SourceError, match="is not a file of scenes"):
        count_scenes(tmp_path)

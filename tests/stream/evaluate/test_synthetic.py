from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engines.errors import SinkError, UsageError
from stream.evaluate.coco import read_coco
from stream.evaluate.market import read_market
from stream.evaluate.pictures import list_pictures, read_picture
from stream.evaluate.synthetic import ANNOTATIONS, IMAGES, MARKET, draw_look, paint, write_synthetic


def test_the_set_is_what_measures_read(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "set", pictures=4, people=3)
    coco = read_coco(tmp_path / "set" / ANNOTATIONS, tmp_path / "set" / IMAGES)
    assert len(coco.names) == 4
    for number in coco.names:
        boxes = coco.boxes(number)
        assert 1 <= len(boxes) <= 3
        assert (boxes >= 0).all()
        assert (boxes[:, 2] <= 320).all()
        assert (boxes[:, 3] <= 240).all()
    market = read_market(tmp_path / "set" / MARKET)
    assert (len(market.queries), len(market.gallery)) == (9, 18 + 3)


def test_the_same_seed_gives_the_same_set(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_synthetic(tmp_path / name, pictures=2, people=1, seed=seed)
    names = list_pictures(tmp_path / "a")
    assert names == list_pictures(tmp_path / "b")
    first, same, other = ([read_picture(tmp_path / name, one) for one in names] for name in "abc")
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_the_box_of_a_person_holds_what_was_drawn_and_no_more() -> None:
    image = np.zeros((200, 100, 3), np.uint8)
    x0, y0, x1, y1 = paint(image, draw_look(np.random.default_rng(0)), 50, 20, 150)
    drawn = np.asarray(image.any(axis=2))
    assert drawn.sum() == drawn[y0:y1, x0:x1].sum()
    assert drawn[y0].any()
    assert drawn[:, x1 - 1].any()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="give a new folder"):
        write_synthetic(tmp_path)
    with pytest.raises(UsageError, match="give a new folder"):
        write_synthetic(tmp_path / "mine.txt")
    with pytest.raises(SinkError, match="cannot write"):
        write_synthetic(tmp_path / "mine.txt" / "set")

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.errors import SinkError
from stream.anonymizer import Anonymized, Anonymizer
from stream.contact_sheet import ContactSheet
from stream.frame import Frame
from stream.pipeline import Pipeline
from stream.regions import Regions
from tests.fakes import FILLS, FixedDetector, MemorySink, MemorySource, finishes_within, flat_settings, frames


def item(index: int, width: int = 64, height: int = 48, level: int = 0) -> Anonymized:
    return Anonymized(Frame(np.full((height, width, 3), level, np.uint8), pts=index * 1000), Regions.empty())


def levels(sheet: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> list[int]:
    """The grey levels of the thumbnails, in order of size on the sheet."""
    values, counts = np.unique(sheet[..., 0], return_counts=True)
    return [int(v) for v, c in zip(values, counts, strict=True) if c > 20_000 and v != 245]


def test_a_sheet_without_frames_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="needs at least one frame"):
        ContactSheet().write(tmp_path / "sheet.png", overwrite=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [1, 2, 5, 12, 13, 100, 1000])
def test_a_sheet_shows_frames_from_all_over_the_stream(count: int) -> None:
    sheet = ContactSheet(count=12)
    for index in range(count):
        sheet.add(item(index, level=round(200 * index / max(1, count - 1))))
    shown = levels(sheet.render())
    assert min(count, 11) <= len(shown) <= 12
    assert shown[0] <= 20
    if count > 1:
        assert shown[-1] >= 170


def test_memory_does_not_grow_with_the_stream() -> None:
    sheet = ContactSheet(count=12)
    for index in range(5000):
        sheet.add(item(index, 8, 8))
        assert len(sheet._thumbs) < 24


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 500), (500, 1), (4000, 30), (30, 4000)])
def test_pictures_of_any_shape_fit(width: int, height: int) -> None:
    sheet = ContactSheet()
    for index in range(3):
        sheet.add(item(index, width, height, 40))
    assert (sheet.render() == 40).any()


def test_non_square_pixels_are_shown_as_a_player_would() -> None:
    sheet = ContactSheet()
    plain = item(0, 100, 100, 40)
    sheet.add(replace(plain, frame=replace(plain.frame, pixel_aspect=Fraction(2))))
    rows, columns = np.nonzero((sheet.render() == 40).all(axis=2))
    assert (np.ptp(columns) + 1) / (np.ptp(rows) + 1) == pytest.approx(2, rel=0.02)


def test_it_is_written_as_png_and_all_at_once(tmp_path: Path) -> None:
    sheet = ContactSheet()
    sheet.add(item(0, level=40))
    sheet.write(tmp_path / "sheet.png", overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    loaded = cv2.imread(str(tmp_path / "sheet.png"))
    assert loaded is not None
    assert np.array_equal(loaded[..., ::-1], sheet.render())
    with pytest.raises(SinkError):
        sheet.write(tmp_path / "sheet.png", overwrite=False)
    sheet.write(tmp_path / "sheet.png", overwrite=True)


def test_it_only_ever_sees_anonymized_frames() -> None:
    raw = [np.full((48, 64, 3), 90, np.uint8) for _ in range(20)]
    for image in raw:
        image[10:30, 10:30] = (255, 0, 0)
    sheet = ContactSheet()
    anonymizer = Anonymizer([FixedDetector((10, 10, 30, 30))], FILLS, flat_settings())
    finishes_within(20, Pipeline(MemorySource(frames(raw)), anonymizer, MemorySink(), observers=[sheet.add]).run)
    picture = sheet.render().astype(int)
    assert (picture == 0).all(axis=2).sum() > 1000
    assert not (picture[..., 0] > picture[..., 1] + 30).any()
    # The comparison can tell.
    control = ContactSheet()
    for frame in frames(raw):
        control.add(Anonymized(frame, Regions.empty()))
    shown = control.render().astype(int)
    assert (shown[..., 0] > shown[..., 1] + 30).any()

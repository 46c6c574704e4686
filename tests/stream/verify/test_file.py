from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engines.store import Store
from stream.verify.file import FileTools, is_flat, look_at, matched
from stream.verify.pairs import FilePair, FramePairs
from stream.verify.people import Lookout, LookSettings, choose_detectors
from tests.fakes import number
from tests.media import pictures, read_clip, write_clip
from tests.stream.verify.clips import FIRST, SECOND, following, write_scenes

pytest.importorskip("onnxruntime", reason="detectors run in ONNX Runtime")


def test_flat_is_flat_also_after_an_encoder(tmp_path: Path) -> None:
    grey = np.full((48, 64, 3), 128, np.uint8)
    coded = read_clip(write_clip(tmp_path / "x.mp4", [*pictures(2), grey, grey], options={"crf": "35"})).images
    assert [is_flat(image) for image in coded] == [False, False, True, True]


def test_frames_come_in_pairs_and_one_of_so_many(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "x.mp4", pictures(10))
    pair = FilePair("x", clip, clip)
    pairing = FramePairs(((0, 1), (1, 2), (2, 4), (4, 5), (6, 9)))
    found = [(i, number(before), number(after)) for i, before, after in matched(pair, pairing, 2)]
    assert found == [(0, 0, 1), (2, 2, 4), (4, 4, 5), (6, 6, 9)]
    # A sample that no frame is in begins with the first.
    assert [i for i, _, _ in matched(pair, FramePairs(((1, 1), (3, 3))), 10)] == [1]


@pytest.fixture
def tools(tmp_path: Path) -> Iterator[FileTools]:
    store = Store(tmp_path / "home", known={}, built_in=tmp_path / "none")
    following(store.path("other"), "other", (FIRST, SECOND))
    settings = LookSettings()
    lookout = Lookout(choose_detectors(settings, store), settings)
    yield FileTools(lookout)
    lookout.close()


def test_a_record_holds_every_face_with_its_track_and_the_worst_cases(tools: FileTools, tmp_path: Path) -> None:
    original, raw = write_scenes(tmp_path / "a.mp4", 6), write_scenes(tmp_path / "b.mkv", 6)
    record = look_at(FilePair("a.mp4", original, raw), tools)
    assert record.times == (6, 6)
    assert record.step == pytest.approx(0.04, abs=0.001)
    assert [[region.track for region in frame.regions] for frame in record.frames] == [[0, 1]] * 6
    assert all(region.is_raw and region.again for _, region in record.regions)
    assert len(record.cases) == 2, "one for each time that somebody was left raw"
    case = record.cases[0]
    assert case.before.shape == case.after.shape == (*case.raw.shape, 3)
    assert case.raw.any()
    x0, y0, x1, y1 = case.box
    inside = case.raw[y0:y1, x0:x1].sum()
    assert inside == case.raw.sum(), "nothing outside of the region is marked"


def test_progress_is_told(tools: FileTools, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    clip = write_scenes(tmp_path / "a.mp4", 5)
    again = write_scenes(tmp_path / "b.mp4", 5)
    watched = FileTools(tools.lookout, every=2, progress=lambda *values: told.append(values))
    look_at(FilePair("a.mp4", clip, again), watched)
    assert told == [("a.mp4", 1, 3), ("a.mp4", 2, 3), ("a.mp4", 3, 3)]

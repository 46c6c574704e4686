from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from engines.store import Store
from stream.frame import Frame
from stream.regions import Regions
from stream.verify.file import FileTools, is_flat, look_at, matched
from stream.verify.findings import measure
from stream.verify.pairs import FilePair, FramePairs
from stream.verify.people import Lookout, LookSettings, choose_detectors
from stream.verify.tracks import flicker
from tests.fakes import number
from tests.media import pictures, read_clip, write_clip
from tests.stream.verify.clips import FIRST, SECOND, face_regions, following, write_scenes

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
    settings = LookSettings(("other",))
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


class Missing:
    """Detectors that miss everybody in originals."""

    def __init__(self) -> None:
        self._asked = 0

    def look(self, _: Frame) -> Regions:
        self._asked += 1
        return face_regions() if self._asked % 2 else face_regions(FIRST)

    def reset(self) -> None:
        """The next frame belongs to another clip."""


def test_who_is_found_in_the_output_alone_is_judged_as_well(tmp_path: Path) -> None:
    tools = FileTools(cast("Lookout", Missing()))
    original, raw = write_scenes(tmp_path / "a.mp4", 3), write_scenes(tmp_path / "b.mkv", 3)
    record = look_at(FilePair("a.mp4", original, raw), tools)
    regions = [region for _, region in record.regions]
    assert len(regions) == 3
    assert all(region.only_after and region.is_raw for region in regions)
    assert flicker(record).pairs == 0
    values = measure([record])
    assert (values["raw_frames"], values["found_again"]) == (3, 0)


class Blind:
    """Detectors whose answer for outputs cannot be trusted."""

    def __init__(self) -> None:
        self._asked = 0

    def look(self, _: Frame) -> Regions | None:
        self._asked += 1
        return face_regions() if self._asked % 2 else None

    def reset(self) -> None:
        """The next frame belongs to another clip."""


def test_an_output_that_nobody_could_look_at_is_no_clean_frame(tmp_path: Path) -> None:
    clip = write_scenes(tmp_path / "a.mp4", 2)
    other = write_scenes(tmp_path / "b.mkv", 2)
    record = look_at(FilePair("a.mp4", clip, other), FileTools(cast("Lookout", Blind())))
    assert measure([record])["unseen_frames"] == 2

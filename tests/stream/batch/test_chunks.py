"""Long files in pieces: cut at key frames, every frame in one of them, and what was found is found again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engines.errors import SourceError
from engines.store import Store
from stream.anonymizer import Anonymizer
from stream.assemble import Bundles, detectors_of, find_bundles
from stream.batch import chunks
from stream.batch.chunks import Piece, look, merge, split
from stream.config import RunSettings, make_settings
from stream.detections import DetectionsFile, Place
from stream.sources.video import VideoSource
from tests.command import FACE
from tests.fakes import install_bundle
from tests.media import busy_pictures, write_clip
from tests.stream.batch.clips import blinking, write_groups

COUNT = 75


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    home = tmp_path_factory.mktemp("home")
    install_bundle(home, FACE, brighter_than=60.0)
    return Store(home)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_groups(tmp_path_factory.mktemp("clip") / "in.mp4", blinking(COUNT))


@pytest.fixture(scope="module")
def settings() -> RunSettings:
    return make_settings(RunSettings, {"preset": "faces", "threads": 2})


@pytest.fixture(scope="module")
def bundles(store: Store, settings: RunSettings) -> Bundles:
    return find_bundles(settings, store)


@pytest.fixture
def anonymizer(store: Store, settings: RunSettings) -> Iterator[Anonymizer]:
    with Anonymizer.from_settings(settings, store=store, offline=True) as opened:
        yield opened


def test_pieces_begin_at_key_frames_and_hold_everything(clip: Path, settings: RunSettings) -> None:
    pieces = split(clip, 1.0, settings)
    assert pieces == (Piece(None, 0.8), Piece(0.8, 1.6), Piece(1.6, None))
    seen = [frame.pts for piece in pieces for frame in VideoSource(clip, start=piece.start, end=piece.end)]
    assert seen == [frame.pts for frame in VideoSource(clip)]


def test_pieces_stay_between_start_and_end(clip: Path, settings: RunSettings) -> None:
    inside = settings.model_copy(update={"start": 0.5, "end": 2.5})
    assert split(clip, 1.0, inside) == (Piece(0.5, 1.2), Piece(1.2, 2.5))


def test_what_is_short_stays_whole(clip: Path, settings: RunSettings) -> None:
    assert split(clip, 5.0, settings) == (Piece(None, None),)


def test_where_key_frames_are_far_apart_pieces_are_longer(tmp_path: Path, settings: RunSettings) -> None:
    assert split(write_groups(tmp_path / "a.mkv", blinking(30)), 0.1, settings) == (
        Piece(None, 0.4), Piece(0.4, 0.8), Piece(0.8, None),
    )  # fmt: skip


def test_what_is_no_video_is_said(tmp_path: Path, settings: RunSettings) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(SourceError, match="cannot be opened as video"):
        split(tmp_path / "a.mp4", 1.0, settings)


def test_merged_pieces_know_every_frame(
    clip: Path, tmp_path: Path, anonymizer: Anonymizer, bundles: Bundles, settings: RunSettings
) -> None:
    made_by = detectors_of(bundles, settings)
    # Pieces overlap, and one is missing.
    pieces = [Piece(None, 1.0), Piece(0.5, 2.0), Piece(2.0, None)]
    parts = [tmp_path / str(number) for number in range(4)]
    counts = [
        look(clip, piece, anonymizer, part, made_by, settings=settings)
        for piece, part in zip(pieces, parts, strict=False)
    ]
    merge([parts[3], *parts[:3]], tmp_path / "whole")
    assert sum(counts) > COUNT
    with closing(sqlite3.connect(tmp_path / "whole")) as database:
        assert database.execute("SELECT count(*) FROM frames").fetchone() == (COUNT,)
    found = 0
    with closing(DetectionsFile(tmp_path / "whole", made_by)) as file, closing(VideoSource(clip)) as source:
        for frame in source:
            rows = file.find(Place.of(frame))
            assert rows is not None
            assert len(rows) == len(anonymizer.look(frame).detections)
            found += len(rows)
    assert 0 < found < COUNT


def test_pieces_are_decoded_where_it_was_asked_for(
    tmp_path: Path, anonymizer: Anonymizer, bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No card decodes FFV1."""
    checked: list[str] = []
    monkeypatch.setattr(chunks, "check_decoder", checked.append)
    clip = write_clip(tmp_path / "clip.mkv", busy_pictures(3, 64, 48), codec="ffv1")
    asked = make_settings(RunSettings, {"preset": "faces", "decoder": "cuda", "decoding": "lenient"})
    made_by = detectors_of(bundles, asked)
    with pytest.raises(SourceError, match="try --decoder cpu"):
        look(clip, Piece(None, None), anonymizer, tmp_path / "found", made_by, settings=asked)
    assert checked == ["cuda"]


def test_without_any_piece_there_is_no_file(tmp_path: Path) -> None:
    merge([tmp_path / "none"], tmp_path / "whole")
    assert not (tmp_path / "whole").exists()

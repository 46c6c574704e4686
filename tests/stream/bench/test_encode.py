from __future__ import annotations

from pathlib import Path

import pytest

from stream.anonymizer import Anonymized
from stream.bench.encode import EncodedAway, FileEncoder
from stream.regions import Regions
from stream.sources.base import StreamInfo
from tests.fakes import MemorySource, frames
from tests.media import busy_pictures


def stream(count: int) -> tuple[StreamInfo, list[Anonymized]]:
    shown = frames(busy_pictures(count))
    return MemorySource(shown).info, [Anonymized(frame, Regions.empty()) for frame in shown]


def test_the_encoder_of_a_file_holds_frames_back_and_gives_all_of_them() -> None:
    info, items = stream(12)
    encoder = FileEncoder(info, "cpu")
    early = [encoder.encode(item) for item in items]
    assert early[0] == 0
    assert sum(early) + encoder.flush() > 12 * 100


@pytest.mark.parametrize("live", [True, False])
def test_nothing_is_written_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: bool) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    info, items = stream(5)
    sink = EncodedAway(info, live=live)
    for item in items:
        sink.write(item)
    sink.close()
    sink.close()
    sink.abort()
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_is_given_up_is_not_flushed() -> None:
    info, items = stream(2)
    sink = EncodedAway(info, live=False)
    sink.write(items[0])
    sink.abort()
    sink.close()

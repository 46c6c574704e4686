from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest

from stream import endpoints
from stream.address import input_address, output_address
from stream.anonymizer import Anonymized
from stream.config import RunSettings, make_settings
from stream.endpoints import open_sinks
from stream.frame import Frame
from stream.regions import Regions
from tests.media import info_like, pictures


def codec_written(path: Path, **settings: Any) -> str:
    """What a file is written with."""
    shown = pictures(3)
    made = make_settings(RunSettings, settings)
    (sink,) = open_sinks(input_address("in.mp4"), [output_address(str(path))], info_like(shown[0]), made, still=False)
    for number, image in enumerate(shown):
        sink.write(Anonymized(Frame(image, pts=number), Regions.empty()))
    sink.close()
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.name


@pytest.fixture
def gpu_encodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As if the GPU wrote MPEG-4; the endings that it was asked for."""
    asked: list[str] = []

    def chosen(_: object, ending: str, **__: object) -> str:
        asked.append(ending)
        return "mpeg4"

    monkeypatch.setattr(endpoints, "gpu_codec", chosen)
    return asked


def test_beside_a_gpu_its_encoder_is_taken(gpu_encodes: list[str], tmp_path: Path) -> None:
    assert codec_written(tmp_path / "a.mp4", device="cuda") == "mpeg4"
    assert codec_written(tmp_path / "b.mkv", device="tensorrt") == "mpeg4"
    assert gpu_encodes == [".mp4", ".mkv"]


def test_what_is_asked_for_counts_and_so_does_a_run_on_the_processor(gpu_encodes: list[str], tmp_path: Path) -> None:
    assert codec_written(tmp_path / "a.mp4", device="cuda", codec="libx264") == "h264"
    assert codec_written(tmp_path / "b.mp4") == "h264"
    assert gpu_encodes == []


def test_where_the_gpu_has_none_the_processor_encodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(endpoints, "gpu_codec", lambda *_, **__: None)
    assert codec_written(tmp_path / "a.mp4", device="cuda") == "h264"

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
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As if MPEG-4 were usual beside every device; the devices that were asked about."""
    devices: list[str] = []

    def usual(device: str) -> str:
        devices.append(device)
        return "mpeg4"

    monkeypatch.setattr(endpoints, "usual_codec", usual)
    return devices


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_usual_beside_the_device_is_taken(device: str, asked: list[str], tmp_path: Path) -> None:
    assert codec_written(tmp_path / "a.mp4", device=device) == "mpeg4"
    assert asked == [device]


def test_what_is_asked_for_counts(asked: list[str], tmp_path: Path) -> None:
    assert codec_written(tmp_path / "a.mp4", device="cuda", codec="libx264") == "h264"
    assert asked == []


def test_where_a_gpu_has_no_encoder_its_run_is_written_all_the_same(tmp_path: Path) -> None:
    assert codec_written(tmp_path / "a.mp4", device="cuda") == "h264"
    assert codec_written(tmp_path / "b.mkv", codec="gpu") == "h264"

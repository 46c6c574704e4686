from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest

from engines.errors import RuntimeUnavailableError, SourceError
from stream import endpoints
from stream.address import input_address, output_address
from stream.anonymizer import Anonymized
from stream.config import RunSettings, make_settings
from stream.endpoints import live_options, open_sinks, open_source
from stream.frame import Frame
from stream.regions import Regions
from stream.sources import live
from stream.sources.connection import Progress
from tests.media import info_like, pictures, write_clip


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


GPU_DECODES = {"decoder": "cuda", "decoding": "lenient"}


def test_a_file_is_decoded_where_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No card decodes FFV1, so that it is refused where one was asked for, and read where not."""
    checked: list[str] = []
    monkeypatch.setattr(endpoints, "check_decoder", checked.append)
    clip = input_address(str(write_clip(tmp_path / "clip.mkv", pictures(3), codec="ffv1")))
    open_source(clip, make_settings(RunSettings, {}), still=False).close()
    with pytest.raises(SourceError, match="try --decoder cpu"):
        open_source(clip, make_settings(RunSettings, GPU_DECODES), still=False)
    assert checked == ["cpu", "cuda"]


def test_pipes_and_live_sources_are_decoded_where_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(endpoints, "check_decoder", lambda device: None)
    monkeypatch.setattr(endpoints, "PipeSource", lambda **options: given.append(options["decoder"]))
    settings = make_settings(RunSettings, GPU_DECODES)
    open_source(input_address("-"), settings, still=False)
    monkeypatch.setattr(live, "AvConnection", lambda *_, **options: given.append(options["decoder"]))
    live._connect(input_address("rtsp://127.0.0.1:9/x"), live_options(settings), Progress())
    assert given == ["cuda", "cuda"]


def test_without_a_gpu_that_decodes_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(device: str) -> None:
        raise RuntimeUnavailableError(f"no {device}")

    monkeypatch.setattr(endpoints, "check_decoder", none)
    for address in ("clip.mkv", "-", "rtsp://127.0.0.1:9/x"):
        with pytest.raises(RuntimeUnavailableError, match="no cuda"):
            open_source(input_address(address), make_settings(RunSettings, GPU_DECODES), still=False)

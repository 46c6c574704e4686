"""The GPU's own video encoder, where it has one: chosen by itself, and as good as what it stands in for."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from engines.runtime import Device
from stream.address import input_address, output_address
from stream.anonymizer import Anonymized
from stream.config import RunSettings, make_settings
from stream.endpoints import open_sinks
from stream.frame import Frame
from stream.regions import Regions
from stream.sinks.encoder import GPU, choose_encoder
from stream.sinks.live_encoder import LiveEncoder
from tests.fakes import read_pictures
from tests.media import busy_pictures, info_like

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def encoder(gpu: Device) -> None:
    """Skips where there is none."""
    info = info_like(busy_pictures(1, 640, 360)[0])
    if choose_encoder(info, ".mp4", width=640, height=360, codec=GPU).codec == "libx264":
        pytest.skip(f"{gpu} has no encoder")


def test_what_it_writes_looks_like_what_it_was_given(gpu: Device, tmp_path: Path) -> None:
    shown = busy_pictures(30, 640, 360)
    info = info_like(shown[0])
    sizes = {}
    for device in (gpu, "cpu"):
        path = tmp_path / f"{device}.mp4"
        settings = make_settings(RunSettings, {"device": device})
        (sink,) = open_sinks(input_address("in.mp4"), [output_address(str(path))], info, settings, still=False)
        for number, image in enumerate(shown):
            sink.write(Anonymized(Frame(image, pts=number), Regions.empty()))
        sink.close()
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
        apart = [a.astype(float) - b for a, b in zip(read_pictures(path), shown, strict=True)]
        assert 10 * np.log10(255**2 / np.mean(np.square(apart))) > 30
        sizes[device] = path.stat().st_size
    assert sizes[gpu] < 3 * sizes["cpu"]


def test_live_a_key_frame_comes_when_it_is_asked_for_and_headers_before_it() -> None:
    shown = busy_pictures(12, 640, 360)
    made = LiveEncoder(info_like(shown[0]), codec=GPU)
    assert made.context.codec.name == "h264_nvenc"
    packets = []
    for number, image in enumerate(shown):
        if number == 7:
            made.want_key()
        packets += made.encode(Anonymized(Frame(image, pts=number), Regions.empty()))
    packets += made.flush()
    assert [number for number, packet in enumerate(packets) if packet.is_keyframe] == [0, 7]
    # Whoever tunes in at the second one has nothing but the stream.
    decoder = av.CodecContext.create("h264", "r")
    decoded = [frame for packet in packets[7:] for frame in decoder.decode(av.Packet(bytes(packet)))]
    assert len(decoded) + len(decoder.decode(None)) == 5

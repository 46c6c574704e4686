"""A whole run from a camera to a file: nothing raw, whatever happens to the camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engines.errors import SinkError, SourceError, UsageError
from stream.address import Address, input_address, output_address
from stream.anonymizer import Anonymized, Anonymizer
from stream.config import RunSettings
from stream.frame import Image
from stream.pipeline import Pipeline
from stream.run import RunResult, run
from stream.sources.base import StreamInfo
from stream.sources.live import AWAY
from tests.fakes import FILLS, Box, FixedDetector, finishes_within, flat_settings, noise, read_pictures, write_lossless
from tests.stream.sinks.servers import Server, free_port
from tests.stream.sources.camera import Camera, packets

FACE: Box = (20, 10, 44, 34)


@pytest.fixture(scope="module")
def pieces() -> list[bytes]:
    return packets()


def go(
    camera: Camera,
    output: Path | Address,
    when: Callable[[Anonymized, Callable[[], None]], None],
    **settings: object,
) -> RunResult:
    """Runs until `when` calls what it is given."""
    pipelines: list[Pipeline] = []

    def begin(_: StreamInfo, pipeline: Pipeline) -> None:
        pipelines.append(pipeline)

    chosen = RunSettings.model_validate({"codec": "ffv1", "read_timeout": 1, **settings})
    covering = Anonymizer([FixedDetector(FACE)], FILLS, flat_settings())
    return finishes_within(
        60,
        lambda: run(
            input_address(camera.url),
            output,
            chosen,
            anonymizer=covering,
            on_start=begin,
            on_frame=lambda item: when(item, pipelines[0].stop),
        ),
    )


def stop_after(count: int) -> Callable[[Anonymized, Callable[[], None]], None]:
    seen: list[Anonymized] = []

    def when(item: Anonymized, stop: Callable[[], None]) -> None:
        seen.append(item)
        if len(seen) >= count:
            stop()

    return when


class Unplugging:
    """Unplugs the camera after some frames, plugs it in again after some without a picture, and stops."""

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self.seen: list[Anonymized] = []

    def __call__(self, item: Anonymized, stop: Callable[[], None]) -> None:
        self.seen.append(item)
        away = sum(one.withheld == AWAY for one in self.seen)
        if len(self.seen) == 5:
            threading.Thread(target=self._camera.unplug).start()
        if away == 6 and item.withheld == AWAY:
            self._camera.plug_in()
        if away >= 6 and item.withheld is None:
            stop()


def test_a_camera_is_anonymized_until_the_run_is_stopped(pieces: list[bytes], tmp_path: Path) -> None:
    with Camera(pieces) as camera:
        result = go(camera, tmp_path / "out.mkv", stop_after(10))
    pictures = read_pictures(tmp_path / "out.mkv")
    assert len(pictures) == result.summary.frames >= 10
    x0, y0, x1, y1 = FACE
    assert all((picture[y0:y1, x0:x1] == 0).all() for picture in pictures)
    assert not any((picture[:y0] == 0).all() for picture in pictures)
    assert any("0 reconnects" in note for note in result.notes)


@pytest.mark.parametrize("when_lost", ["slate", "hold"])
def test_while_the_camera_is_away_a_slate_or_the_last_anonymized_picture_goes_out(
    when_lost: str, pieces: list[bytes], tmp_path: Path
) -> None:
    with Camera(pieces) as camera:
        unplugging = Unplugging(camera)
        result = go(camera, tmp_path / "out.mkv", unplugging, when_lost=when_lost)
    seen = unplugging.seen
    pictures = read_pictures(tmp_path / "out.mkv")
    assert result.summary.withheld == sum(item.withheld == AWAY for item in seen) >= 6
    assert any("1 reconnects" in note for note in result.notes)
    assert result.summary.holds == (when_lost == "hold")
    x0, y0, x1, y1 = FACE
    last: Image = np.zeros((1, 1, 3), np.uint8)
    for item, picture in zip(seen, pictures, strict=False):
        if item.withheld is None:
            last = picture
            assert (picture[y0:y1, x0:x1] == 0).all()
        elif when_lost == "slate":
            assert (abs(picture.astype(int) - 128) <= 2).all()
        else:
            assert np.array_equal(picture, last)


def test_the_output_may_end_with_the_camera(pieces: list[bytes], tmp_path: Path) -> None:
    with Camera(pieces) as camera:
        unplugging = Unplugging(camera)
        result = go(camera, tmp_path / "out.mkv", unplugging, when_lost="end")
    assert result.summary.withheld == 0
    assert not result.summary.interrupted
    assert len(read_pictures(tmp_path / "out.mkv")) == result.summary.frames


def test_a_slow_stage_drops_pictures_instead_of_falling_behind(pieces: list[bytes], tmp_path: Path) -> None:
    late: list[float] = []

    def slowly(item: Anonymized, stop: Callable[[], None]) -> None:
        time.sleep(0.2)
        late.append(item.frame.time)
        if len(late) == 12:
            stop()

    began = time.monotonic()
    with Camera(pieces) as camera:
        result = go(camera, tmp_path / "out.mkv", slowly, latency_budget=200)
    passed = time.monotonic() - began
    assert result.summary.withheld == 0
    assert any(note.startswith(("1", "2", "3", "4", "5")) and "too late" in note for note in result.notes)
    assert late[-1] > 1.2  # the pictures of that time, and not the first twelve
    assert late[-1] < passed


def test_a_camera_that_was_never_there_leaves_no_output(tmp_path: Path) -> None:
    settings = RunSettings(reconnect_attempts=0, connect_timeout=1)
    with pytest.raises(SourceError, match="given up"):
        run(input_address("udp://127.0.0.1:9?timeout=200000"), tmp_path / "out.mkv", settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": 1.0}, "--start and --end are for files"),
        ({"audio": "keep"}, "--audio keep is for files"),
        ({"detections": Path("d.zip")}, "--detections is for files"),
    ],
)
def test_what_only_files_have_is_refused(settings: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        run(input_address("rtsp://127.0.0.1/x"), tmp_path / "out.mkv", RunSettings.model_validate(settings))


def test_a_file_may_be_given_as_an_address(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        run(input_address("file:///does/not/exist.mp4"), tmp_path / "out.mkv", RunSettings())


def test_a_camera_goes_on_to_a_server(pieces: list[bytes]) -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/x"
    server = Server(url)
    with Camera(pieces) as camera:
        result = go(camera, output_address(url), stop_after(50), codec="libx264")
    assert result.summary.frames >= 50
    assert any("did not reach rtmp://" in note for note in result.notes)
    assert len(server.pictures) >= 20
    x0, y0, x1, y1 = FACE
    # Encoded with loss: the covered part stays far from anything that the camera shows.
    assert all(picture[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].max() < 12 for picture in server.pictures)


def send_file(clip: Path, url: str, **settings: object) -> RunResult:
    covering = Anonymizer([FixedDetector(FACE)], FILLS, flat_settings())
    chosen = RunSettings.model_validate(settings)
    return finishes_within(60, lambda: run(clip, output_address(url), chosen, anonymizer=covering))


def test_a_file_goes_to_a_server_whole_and_at_its_own_pace(tmp_path: Path) -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/x"
    clip = write_lossless(tmp_path / "clip.mkv", noise(60))
    server = Server(url)
    began = time.monotonic()
    result = send_file(clip, url, sink_timeout=20)
    took = time.monotonic() - began
    assert server.ended()
    assert len(server.pictures) == result.summary.frames == 60
    # Of 25 frames a second.
    assert took >= 2.2
    assert any("0 frames did not reach" in note for note in result.notes)


def test_a_file_that_no_server_takes_is_an_error(tmp_path: Path) -> None:
    clip = write_lossless(tmp_path / "clip.mkv", noise(20))
    with pytest.raises(SinkError, match=r"Connection refused \(given up: failed 3 times in a row\)"):
        send_file(clip, f"rtmp://127.0.0.1:{free_port()}/live/x", reconnect_attempts=2)


def test_images_and_sound_are_not_sent_to_a_server(tmp_path: Path) -> None:
    server = output_address("rtmp://127.0.0.1:9/live/x")
    (tmp_path / "photo.png").touch()
    with pytest.raises(UsageError, match="images cannot be sent"):
        run(tmp_path / "photo.png", server, RunSettings())
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(UsageError, match="no sound is sent"):
        run(tmp_path / "clip.mp4", server, RunSettings(audio="keep"))

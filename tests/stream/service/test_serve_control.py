"""What can be seen of a service and done to it while it runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.errors import UsageError
from stream.service.control import UnknownStreamError
from stream.service.serve import Service
from tests.fakes import read_pictures, shows_nothing
from tests.stream.service.services import FACE, alive, frames, running, status, until, workers_of, write_config
from tests.stream.sources.camera import Camera

pytestmark = pytest.mark.usefixtures("at_home")


def test_streams_are_added_paused_resumed_and_removed(camera: Camera, tmp_path: Path) -> None:
    path = write_config(tmp_path / "config.toml", {"front": {"input": camera.url, "output": "front.mkv"}})
    with running(Service(path)) as service:
        with pytest.raises(UsageError, match="'front' is there already"):
            service.add("front", {"input": camera.url, "output": "x.mkv"})
        with pytest.raises(UsageError, match=r"write to .*front\.mkv"):
            service.add("back", {"input": camera.url, "output": str(tmp_path / "front.mkv")})
        with pytest.raises(UsageError, match="unknown key 'outptu'"):
            service.add("back", {"input": camera.url, "outptu": "x.mkv"})
        assert [stream.name for stream in service.overview().streams] == ["front"]
        service.add("back", {"input": camera.url, "output": "back.mkv"})
        until(lambda: frames(service, "front") and frames(service, "back"), "frames")
        service.pause("front")
        assert status(service, "front").state == "paused"
        until(lambda: (tmp_path / "front.mkv").exists(), "its end")
        assert service.preview("front")
        assert "secret" not in service.overview().model_dump_json()
        service.remove("back")
        until(lambda: (tmp_path / "back.mkv").exists(), "its end")
        for do in (service.preview, service.pause, service.resume, service.remove):
            with pytest.raises(UnknownStreamError, match="there is no stream 'back'"):
                do("back")
        service.resume("front")
        assert status(service, "front").state == "starting"
        until(lambda: status(service, "front").state == "running", "frames again")
        # A file that is read again does not undo what was done by hand, where it has not changed.
        service.pause("front")
        service.reload()
        time.sleep(0.3)
        assert status(service, "front").state == "paused"
    for name in ("front", "back"):
        pictures = read_pictures(tmp_path / f"{name}.mkv")
        assert pictures
        assert all(shows_nothing(picture, FACE) for picture in pictures)


def test_who_writes_to_where_another_one_still_does_waits(camera: Camera, tmp_path: Path) -> None:
    values = {"input": camera.url, "output": "front.mkv"}
    path = write_config(tmp_path / "config.toml", {"front": values}, "[supervisor]\ndrain = 1.5")
    with running(Service(path)) as service:
        until(lambda: frames(service, "front"), "frames")
        ((_, before),) = workers_of(os.getpid())
        # It cannot end by itself, so that it takes its time.
        os.kill(before, signal.SIGSTOP)
        service.remove("front")
        service.add("again", values)
        began = time.monotonic()
        while alive(before):
            assert len(workers_of(os.getpid())) <= 1
        assert time.monotonic() - began > 1
        until(lambda: frames(service, "again"), "frames")


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Service]:
    """A service whose streams come later."""
    pytest.importorskip("uvicorn")
    with running(Service(write_config(tmp_path / "config.toml", {}, "[status]\nport = 0"))) as service:
        yield service


def test_a_loop_that_is_stuck_is_noticed(idle: Service) -> None:
    until(lambda: idle.stood_still() < 0.5, "a look at the streams")
    # What it waits for, whatever that may be.
    with idle._lock:
        until(lambda: idle.stood_still() > 1, "nothing")
    until(lambda: idle.stood_still() < 0.5, "a look at the streams")


def test_a_file_cannot_take_the_place_of_a_stream_that_was_added(
    idle: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = "http://127.0.0.1:9/x"
    idle.add("back", {"input": nowhere, "output": "recordings/"})
    write_config(tmp_path / "config.toml", {"front": {"input": nowhere, "output": "./recordings/"}})
    until(lambda: "was not taken over" in caplog.text, "the refusal")
    assert "front and back both write to" in caplog.text
    assert [stream.name for stream in idle.overview().streams] == ["back"]


@pytest.mark.parametrize(
    "changes", [{"output": "front.mkv", "overwrite": False}, {"segment": "1min"}, {"start": 3.0}], ids=str
)
def test_what_cannot_be_meant_does_not_stop_a_good_stream(
    idle: Service, changes: dict[str, object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good: dict[str, object] = {"input": "http://127.0.0.1:9/x", "output": "rtmp://127.0.0.1:9/x", "codec": "libx264"}
    write_config(tmp_path / "config.toml", {"front": good})
    until(lambda: workers_of(os.getpid()), "its worker")
    before = workers_of(os.getpid())
    write_config(tmp_path / "config.toml", {"front": good | changes})
    until(lambda: "was not taken over" in caplog.text, "the refusal")
    assert workers_of(os.getpid()) == before
    # Over the API it is refused as well.
    with pytest.raises(UsageError):
        idle.add("yard", good | {"output": "rtmp://127.0.0.1:9/y"} | changes)


@pytest.mark.parametrize("path", ["file://data[1]/clip.mp4", "file://recordings/clip.mp4"])
def test_a_slip_in_the_file_does_not_end_the_service(
    idle: Service, path: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_config(tmp_path / "config.toml", {"front": {"input": path, "output": "front.mkv"}})
    until(lambda: "was not taken over, the old one is in force" in caplog.text, "the refusal")
    assert idle.stood_still() < 5
    assert not idle.overview().streams


def test_nor_does_what_nobody_thought_of(
    idle: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("who would have thought")

    monkeypatch.setattr("stream.service.serve.read_serve_config", fail)
    idle.reload()
    until(lambda: "was not taken over, the old one is in force" in caplog.text, "the refusal")
    assert "who would have thought" in caplog.text
    monkeypatch.undo()
    write_config(tmp_path / "config.toml", {"front": {"input": "http://127.0.0.1:9/x", "output": "front.mkv"}})
    until(lambda: idle.overview().streams, "the stream")


def test_defaults_that_become_stricter_than_an_added_stream_are_told(
    camera: Camera, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    front = {"front": {"input": camera.url, "output": "front.mkv"}}
    path = write_config(tmp_path / "config.toml", front)
    with running(Service(path)) as service:
        until(lambda: service.overview().streams, "the stream")
        service.add("back", {"input": camera.url, "output": "back.mkv"})
        service.reload()
        until(lambda: "was read again" in caplog.text, "a look at the file")
        assert "would be refused" not in caplog.text
        path.write_text(path.read_text().replace("[defaults]", "[defaults]\nthreshold = 0.1"))
        until(lambda: "would be refused" in caplog.text, "the news")
        (told,) = [record for record in caplog.records if "would be refused" in record.getMessage()]
        assert getattr(told, "stream", None) == "back"
        assert "threshold: 0.2" in told.getMessage()

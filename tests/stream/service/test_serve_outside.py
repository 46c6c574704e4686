"""A service and those around it: status page, systemd, shared engine processes, and whoever reads lists and logs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from stream.service.serve import Service
from tests.fakes import read_pictures, shows_nothing
from tests.stream.service.services import FACE, SETTINGS, Serving, frames, running, status, until, write_config
from tests.stream.sources.camera import Camera

pytestmark = pytest.mark.usefixtures("at_home")
TOKEN = "0123456789abcdef0123"


def test_a_service_is_seen_and_changed_over_http(camera: Camera, tmp_path: Path) -> None:
    for library in ("fastapi", "uvicorn", "prometheus_client"):
        pytest.importorskip(library)
    (tmp_path / "token").write_text(TOKEN)
    section = f'[status]\nport = 0\ntoken_file = "token"\nallow_paths = ["{tmp_path}"]\n'
    path = write_config(tmp_path / "config.toml", {"front": {"input": camera.url, "output": "front.mkv"}}, section)
    service = Service(path)
    with running(service):
        assert service.status_url is None or service.status_url.startswith("http://127.0.0.1:")
        until(lambda: frames(service, "front"), "frames")
        url = service.status_url
        assert url is not None
        metrics = httpx.get(f"{url}metrics").text
        assert 'stream="front"' in metrics
        assert "secret" not in metrics
        assert httpx.get(f"{url}healthz").status_code == 200
        new = {"name": "back", "values": {"input": camera.url, "output": str(tmp_path / "back.mkv")}}
        assert httpx.post(f"{url}api/v1/streams", json=new).status_code == 401
        token = {"authorization": f"Bearer {TOKEN}"}
        assert httpx.post(f"{url}api/v1/streams", json=new, headers=token).status_code == 201
        until(lambda: frames(service, "back"), "frames of the new one")
        picture = httpx.get(f"{url}api/v1/streams/back/preview.jpg")
        assert picture.content.startswith(b"\xff\xd8")
        new["values"] = {"input": camera.url, "output": str(tmp_path.parent / "out.mkv")}
        assert httpx.post(f"{url}api/v1/streams", json=new | {"name": "x"}, headers=token).status_code == 400
        assert httpx.delete(f"{url}api/v1/streams/back", headers=token).status_code == 204
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}healthz")


def test_systemd_hears_of_its_start_its_life_and_its_end(
    tmp_path: Path, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        path = write_config(tmp_path / "config.toml", {"front": {"input": camera.url, "output": "front.mkv"}})
        with running(Service(path)) as service:
            heard = [listener.recv(200)]
            assert heard == [b"READY=1"]
            while b"STATUS=1 of 1 streams are running" not in heard:
                heard.append(listener.recv(200))
            assert heard.count(b"WATCHDOG=1") > 5
            assert heard.count(b"STATUS=0 of 1 streams are running") == 1
            service.reload()
            while not (word := listener.recv(200)).startswith(b"RELOADING=1"):
                assert word == b"WATCHDOG=1"
            assert listener.recv(200) == b"READY=1"
        listener.setblocking(False)
        rest = []
        with contextlib.suppress(BlockingIOError):
            while True:
                rest.append(listener.recv(200))
        assert b"STOPPING=1" in rest


def test_streams_share_an_engine_process_and_outlive_it(camera: Camera, tmp_path: Path) -> None:
    streams = {name: {"input": camera.url, "output": f"{name}.mkv", "read_timeout": 2} for name in ("front", "back")}
    path = write_config(tmp_path / "config.toml", streams, "[engine_process]\nthreads = 1\nlongest_wait = 0.3")
    with running(Service(path)) as service:
        until(lambda: frames(service, "front") and frames(service, "back"), "frames")
        (engine,) = service.overview().engines
        assert engine.device == SETTINGS.get("device", "cpu")
        assert engine.running
        os.kill(service.engine_pids()["cpu"], signal.SIGKILL)
        until(lambda: service.overview().engines[0].restarts == 1, "another process")
        before = frames(service, "front"), frames(service, "back")
        until(lambda: frames(service, "front") > before[0] and frames(service, "back") > before[1], "frames again")
        assert [stream.restarts for stream in service.overview().streams] == [0, 0]
    for name in streams:
        pictures = read_pictures(tmp_path / f"{name}.mkv")
        grey = [bool((abs(picture.astype(int) - 128) <= 2).all()) for picture in pictures]
        assert any(grey)
        assert all(shows_nothing(picture, FACE) for picture in pictures)


def test_an_engine_process_that_is_stopped_makes_its_streams_unready_before_it_is_given_up(
    camera: Camera, tmp_path: Path
) -> None:
    path = write_config(
        tmp_path / "config.toml",
        {"front": {"input": camera.url, "output": "front.mkv"}},
        "[engine_process]\nthreads = 1\nsilence = 60\n[status]\nport = 0",
    )
    with running(Service(path)) as service:
        until(lambda: frames(service, "front"), "frames")
        url = service.status_url
        until(lambda: httpx.get(f"{url}readyz").status_code == 200, "readiness")
        engine = service.engine_pids()["cpu"]
        os.kill(engine, signal.SIGSTOP)
        began = time.monotonic()
        until(lambda: httpx.get(f"{url}readyz").status_code == 503, "the news")
        # Three seconds where the machine has time.
        assert time.monotonic() - began < 8
        (reason,) = httpx.get(f"{url}readyz").json()["reasons"]
        assert reason.startswith("stream front: every frame has been withheld for ")
        assert service.overview().engines[0].restarts == 0
        os.kill(engine, signal.SIGCONT)
        until(lambda: httpx.get(f"{url}readyz").status_code == 200, "readiness again")


def test_why_a_camera_is_away_can_be_seen_before_its_first_picture(
    camera: Camera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", "geheim99")
    camera.status = "401 Unauthorized"
    table = {"input": f"http://me:${{CAMERA_PASSWORD}}@127.0.0.1:{camera.port}/live?key=offen99", "output": "front.mkv"}
    path = write_config(tmp_path / "config.toml", {"front": table}, "[status]\nport = 0")
    with running(Service(path)) as service:
        until(lambda: service.overview().streams, "the stream")
        until(lambda: status(service, "front").source_error, "why it is away")
        url = service.status_url
        shown = httpx.get(f"{url}api/v1/streams/front").json()
        assert (shown["state"], shown["snapshot"]) == ("starting", None)
        assert "401" in shown["source_error"]
        ready = httpx.get(f"{url}readyz")
        assert ready.json()["reasons"] == [f"stream front is starting: {shown['source_error']}"]
        assert not any(secret in ready.text + str(shown) for secret in ("geheim99", "offen99"))
        camera.status = "200 OK"
        until(lambda: frames(service, "front"), "frames")
        until(lambda: status(service, "front").source_error is None, "that it is there")


def test_no_secret_is_in_the_log_or_in_the_list_of_processes(camera: Camera, tmp_path: Path) -> None:
    url = camera.url.replace("secret", "${CAMERA_PASSWORD}")
    table = {"input": url, "output": "rtmp://me:offen99@127.0.0.1:9/${CAMERA_PASSWORD}", "codec": "libx264"}
    config = write_config(tmp_path / "config.toml", {"front": table})
    with Serving(config, "--log-format", "json", environment={"CAMERA_PASSWORD": "geheim99"}) as serving:
        serving.wait_for('"stream": "front"', "trying again")
        listed = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
        assert "stream.service.stream_worker front" in listed
        assert serving.end() < 3
    lines = [json.loads(line) for line in serving.log]
    assert {line["level"] for line in lines} <= {"info", "warning"}
    assert any("${CAMERA_PASSWORD}" in line["message"] for line in lines)
    assert not any(secret in listed + str(lines) for secret in ("geheim99", "offen99"))


def test_a_server_that_is_away_can_be_seen_from_outside(
    camera: Camera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_KEY", "geheim99")
    table = {"input": camera.url, "output": "rtmp://me:offen99@127.0.0.1:9/${SERVER_KEY}", "codec": "libx264"}
    path = write_config(tmp_path / "config.toml", {"front": table}, "[status]\nport = 0")
    with running(Service(path)) as service:
        until(lambda: frames(service, "front"), "frames")
        url = service.status_url
        until(lambda: "since" in httpx.get(f"{url}api/v1/streams/front").json(), "an answer")

        def seen() -> dict[str, Any]:
            (sink,) = httpx.get(f"{url}api/v1/streams/front").json()["snapshot"]["sinks"]
            assert isinstance(sink, dict)
            return sink

        until(lambda: seen()["error"], "why it is away")
        shown = seen()
        assert shown["there"] is False
        assert shown["name"] == "rtmp://***@127.0.0.1:9/${SERVER_KEY}"
        # The stream goes on, and says what is wrong.
        assert httpx.get(f"{url}api/v1/streams/front").json()["state"] == "running"
        ready = httpx.get(f"{url}readyz")
        assert ready.status_code == 503
        assert "127.0.0.1:9/${SERVER_KEY} is away: " in ready.json()["reasons"][0]
        assert 'standin_sink_up{sink="1",stream="front"} 0.0' in httpx.get(f"{url}metrics").text
        assert not any(secret in ready.text + str(shown) for secret in ("geheim99", "offen99"))
        assert httpx.get(f"{url}healthz").status_code == 200

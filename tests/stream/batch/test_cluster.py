"""Batches on a Ray cluster: nodes and the command itself are killed, and everything is done once, whole and covered."""

from __future__ import annotations

import http.server
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import RuntimeUnavailableError, UsageError
from stream.batch.cluster import joined
from stream.config import RunSettings, make_settings
from stream.run import run
from tests.command import FACE, ROOT
from tests.fakes import install_bundle, read_pictures
from tests.stream.batch.clips import blinking, write_groups
from tests.stream.batch.nodes import cluster

COUNT = 12
OPTIONS = ["--preset", "faces", "--face", "mask", "--codec", "ffv1", "--seed", "5"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    install_bundle(home, FACE, brighter_than=60.0)
    return home


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number in range(COUNT):
        below = folder / f"day{number % 2}"
        below.mkdir(exist_ok=True)
        write_groups(below / f"{number:02d}.mkv", blinking(90, 160, 120, seed=number))
    return folder


@pytest.fixture
def nodes(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, list[Any]]]:
    monkeypatch.setenv("STANDIN_HOME", str(home))
    with cluster(2) as made:
        yield made


def batch(clips: Path, output: Path, address: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stream", "batch", clips, "--output", output, "--address", address, *OPTIONS]
    return subprocess.Popen([*map(str, command), "--cpus-per-worker", "1"], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def finished(output: Path) -> list[Path]:
    """What has a final name."""
    return sorted(path for path in output.glob("day*/*") if path.suffix == ".mkv")


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it took too long"
        time.sleep(0.02)


def test_a_node_and_the_command_are_killed_and_everything_is_done_once(
    clips: Path, nodes: tuple[Any, list[Any]], tmp_path: Path
) -> None:
    whole, (_, second) = nodes
    output = tmp_path / "out"
    with batch(clips, output, whole.address) as first:
        wait_for(lambda: len(finished(output)) >= 2)
        whole.remove_node(second, allow_graceful=False)
        wait_for(lambda: len(finished(output)) >= 5)
        first.send_signal(signal.SIGKILL)
        first.communicate()
    early = {path: path.stat().st_mtime_ns for path in finished(output)}
    assert 5 <= len(early) < COUNT, "the clips are too short for this machine"
    with batch(clips, output, whole.address) as again:
        _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert f"{COUNT - len(early)} of {COUNT} files to do, {len(early)} are done already" in said
    results = finished(output)
    assert [path.relative_to(output) for path in results] == sorted(
        path.relative_to(clips) for path in clips.glob("*/*.mkv")
    )
    # What was done is as it was.
    assert all(path.stat().st_mtime_ns == at for path, at in early.items())
    check_results(clips, output)


def check_results(clips: Path, output: Path) -> None:
    """Every result is that of a run of its own; nothing else is there."""
    settings = make_settings(RunSettings, {"preset": "faces", "face": "mask", "codec": "ffv1", "seed": 5})
    for path in finished(output):
        clip, alone = clips / path.relative_to(output), output.parent / path.name
        run(clip, alone, settings.model_copy(update={"report": alone.with_suffix(".json")}))
        assert all(np.array_equal(a, b) for a, b in zip(read_pictures(path), read_pictures(alone), strict=True))
        covered = json.loads(path.with_name(f"{path.name}.report.json").read_text())["frames"]
        assert covered == json.loads(alone.with_suffix(".json").read_text())["frames"]
    others = {path.name for path in output.rglob("*") if path.is_file() and ".mkv" not in path.suffixes}
    assert others <= {"manifest.sqlite", "lock"} | {f"{path.name}.report.json" for path in finished(output)}
    with closing(sqlite3.connect(output / ".standin/manifest.sqlite")) as database:
        rows = database.execute("SELECT state, count(*) FROM files GROUP BY state").fetchall()
    assert rows == [("done", COUNT)]


@pytest.mark.parametrize("address", ["nonsense", "ray://head:10001", "user:secret@head:1", "head:0", "head:99999"])
def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(UsageError, match="--address is HOST:PORT") as caught, joined(address):
        pass
    assert "secret" not in str(caught.value)


def test_where_nobody_answers_is_said_at_once() -> None:
    with pytest.raises(RuntimeUnavailableError, match="nobody answers at --address"), joined("127.0.0.1:1"):
        pass


def test_what_is_no_ray_is_said() -> None:
    """A server of another kind, which Ray itself would ask for minutes; and one that says nothing."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(RuntimeUnavailableError, match="is no Ray cluster's head"):
                joined(f"127.0.0.1:{server.server_port}").__enter__()
        finally:
            server.shutdown()
            thread.join()

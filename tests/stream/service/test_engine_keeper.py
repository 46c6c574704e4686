"""Engine processes that end, or stop to answer, are started again, and their clients come back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engines.bundle import Bundle
from engines.engine_client import ping
from engines.engine_messages import Pulse
from engines.errors import RuntimeFailedError, StandinError, UsageError
from engines.runtime import Runtime, open_runtime
from stream.service.engine_keeper import EngineKeepers
from stream.service.serve_config import EngineConfig
from tests.fakes import install_bundle
from tests.stream.service.services import FACE, alive, until

CONFIG = EngineConfig(threads=1, silence=2, longest_wait=0.3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return install_bundle(tmp_path_factory.mktemp("home"), FACE)


@pytest.fixture
def keepers(tmp_path: Path) -> Iterator[EngineKeepers]:
    there = EngineKeepers(CONFIG, tmp_path / "run")
    yield there
    there.close()


def works(runtime: Runtime) -> bool:
    try:
        answer = runtime.run(
            {"image": np.full((1, 3, 32, 32), 90, np.float32), "image_size": np.full((1, 2), 32, np.int64)}
        )
    except RuntimeFailedError:
        return False
    return bool(answer["count"].sum())


def test_a_process_is_started_when_it_is_needed_and_ends_with_its_keepers(keepers: EngineKeepers) -> None:
    assert keepers.status() == ()
    path = keepers.path("cpu")
    assert keepers.path("cpu") == path
    until(lambda: keepers.status()[0].running, "an answer")
    status = keepers.status()[0]
    assert (status.device, status.restarts, status.runs) == ("cpu", 0, 0)
    pid = keepers.pids()["cpu"]
    keepers.close()
    assert not alive(pid)
    with pytest.raises(StandinError, match="have ended"):
        keepers.path("cpu")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_dies_or_does_not_answer_is_started_again(
    number: signal.Signals, keepers: EngineKeepers, bundle: Bundle
) -> None:
    with open_runtime(bundle, "detector", server=keepers.path("cpu"), threads=1, timeout=2) as runtime:
        until(lambda: works(runtime), "an answer")
        until(lambda: keepers.status()[0].runs == 1, "its count")
        pid = keepers.pids()["cpu"]
        os.kill(pid, number)
        until(lambda: keepers.status()[0].restarts == 1, "another process")
        assert not alive(pid)
        until(lambda: works(runtime), "answers again")
        until(lambda: keepers.status()[0].running, "a look")
        # What was counted before counts on.
        until(lambda: keepers.status()[0].runs >= 2, "its count")
        assert keepers.status()[0].rows >= keepers.status()[0].runs


def test_one_whose_runs_can_never_succeed_again_is_started_again(
    keepers: EngineKeepers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said = [Pulse(device="cpu", stalled="a run lost the GPU: CUDA failure 700")]
    monkeypatch.setattr("stream.service.engine_keeper.ping", lambda *given: said.pop() if said else ping(*given))
    keepers.path("cpu")
    until(lambda: keepers.status()[0].restarts == 1, "another process")
    assert "started again: it is stuck: a run lost the GPU" in caplog.text
    until(lambda: keepers.status()[0].running, "an answer")


def test_where_nothing_can_listen_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="address of an engine process"):
        EngineKeepers(CONFIG, tmp_path / ("x" * 200)).path("cpu")


def test_without_a_folder_one_is_made_and_goes_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    keepers = EngineKeepers(CONFIG)
    path = keepers.path("cpu")
    assert path.parent.stat().st_mode & 0o077 == 0
    keepers.close()
    assert not path.parent.exists()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    keepers = EngineKeepers(CONFIG)
    assert keepers.path("cpu").is_relative_to(tmp_path)
    keepers.close()

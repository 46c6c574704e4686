from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.batching import Limits
from engines.bundle import Bundle
from engines.engine_client import ping
from engines.engine_messages import make_socket
from engines.engine_process import EngineProcess, settings_for, start_engine_process
from engines.engine_server import ServerSettings
from engines.errors import RuntimeFailedError, RuntimeUnavailableError, UsageError
from engines.runtime import DEVICES, Runtime, open_runtime
from engines.runtime_remote import RemoteRuntime
from tests.engines.serving import SECONDS, descriptors, doubled, feeds, is_running, mapped, states, wait_until

SETTINGS = ServerSettings("cpu", 1, Limits(4, 0.001, 2))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "engine"


@pytest.fixture
def process(path: Path) -> Iterator[EngineProcess]:
    process = start_engine_process(path, SETTINGS)
    yield process
    process.kill()


def works(runtime: Runtime, value: float = 3) -> bool:
    """Whether a run works; one that does gives the right answer."""
    try:
        answer = runtime.run(feeds(value))["y"]
    except RuntimeFailedError:
        return False
    np.testing.assert_array_equal(answer, doubled(feeds(value)))
    return True


def test_clients_wait_for_it_and_get_what_they_would_get_here(tiny: Bundle, process: EngineProcess) -> None:
    with open_runtime(tiny, server=process.path, threads=1) as there, open_runtime(tiny, threads=1) as here:
        given: dict[str, Any] = {"x": np.random.default_rng(0).random((3, 2, 5), np.float32), "n": np.arange(3)}
        np.testing.assert_array_equal(there.run(given)["y"], here.run(given)["y"])
    pulse = process.pulse()
    assert (pulse.device, pulse.stalled, pulse.engines, pulse.requests, pulse.runs, pulse.rows) == (
        "cpu", None, 1, 1, 1, 3,
    )  # fmt: skip


def test_what_it_says_is_logged_by_its_owner(
    tiny: Bundle, process: EngineProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with open_runtime(tiny, server=process.path):
        wait_until(lambda: "engine process for cpu: opened graph detector of bundle" in caplog.messages)
    with make_socket() as broken:
        broken.connect(str(process.path))
        broken.send(b"nonsense")
        wait_until(lambda: "makes no sense" in caplog.text)
    assert [record.levelname for record in caplog.records if "makes no sense" in record.message] == ["WARNING"]


def test_a_run_fails_when_the_process_is_killed_and_the_next_one_brings_it_back(
    tiny: Bundle, process: EngineProcess
) -> None:
    shared = set(os.listdir("/dev/shm"))
    with RemoteRuntime(tiny, "detector", server=process.path, timeout=SECONDS) as runtime:
        assert works(runtime)
        before, first = descriptors(), process.pid
        assert mapped() == 2, "arrays went another way"
        for restarts in (1, 2):
            os.kill(process.pid, signal.SIGKILL)
            began = time.monotonic()
            wait_until(lambda: not works(runtime))
            assert time.monotonic() - began < SECONDS / 2, "it waited for an answer that nobody could give"
            wait_until(lambda: not process.is_alive)
            with pytest.raises(RuntimeFailedError, match="SIGKILL"):
                process.pulse()
            process.restart()
            assert process.restarts == restarts
            wait_until(lambda: works(runtime))
        assert process.pid != first
        assert descriptors() <= before
        assert set(os.listdir("/dev/shm")) <= shared
    assert mapped() == 0


def test_a_stopped_process_costs_a_run_no_more_than_its_time_and_its_late_answer_is_nobodys(
    tiny: Bundle, process: EngineProcess
) -> None:
    process.wait_until_ready()
    with RemoteRuntime(tiny, "detector", server=process.path, timeout=1.0) as runtime:
        wait_until(lambda: works(runtime))
        stop(process.pid)
        began = time.monotonic()
        with pytest.raises(RuntimeFailedError, match="no answer within"):
            runtime.run(feeds(11))
        assert time.monotonic() - began < 3
        with pytest.raises(RuntimeFailedError, match="no answer within"):
            process.pulse(0.2)
        assert not works(runtime, 12)
        os.kill(process.pid, signal.SIGCONT)
        # `works` compares: the answers to 11 and 12 would be wrong ones.
        wait_until(lambda: works(runtime, 13))
        assert all(works(runtime, value) for value in range(20, 40))


def test_a_stopped_process_can_be_started_again(tiny: Bundle, process: EngineProcess) -> None:
    process.wait_until_ready()
    with RemoteRuntime(tiny, "detector", server=process.path, timeout=1) as runtime:
        stop(process.pid)
        assert not works(runtime)
        process.restart()
        wait_until(lambda: works(runtime))


def test_it_ends_when_it_is_told_to_and_takes_its_address_with_it(tiny: Bundle, process: EngineProcess) -> None:
    with open_runtime(tiny, server=process.path):
        began = time.monotonic()
        process.close()
        assert time.monotonic() - began < 3
    assert not process.is_alive
    assert not process.path.exists()
    with pytest.raises(RuntimeFailedError, match="exit code 0"):
        process.pulse()
    process.close()


OWNER = """
import sys, time
from pathlib import Path
from engines.engine_process import settings_for, start_engine_process

process = start_engine_process(Path(sys.argv[1]), settings_for("cpu", 1))
process.wait_until_ready()
print(process.pid, flush=True)
time.sleep(60)
"""


def test_it_ends_with_its_owner_even_if_that_was_killed(path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(path)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    owned = int(owner.stdout.readline())
    assert is_running(owned)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    wait_until(lambda: not is_running(owned))


def stop(pid: int) -> None:
    """Returns when it has stopped: the signal only says that it is to."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: states(pid) == {"T"})


def test_it_leaves_no_core_dump(process: EngineProcess) -> None:
    process.wait_until_ready()
    assert resource.prlimit(process.pid, resource.RLIMIT_CORE)[0] == 0


def test_a_second_process_at_the_same_address_ends_with_wrong_usage(process: EngineProcess) -> None:
    process.wait_until_ready()
    second = start_engine_process(process.path, SETTINGS)
    wait_until(lambda: not second.is_alive)
    with pytest.raises(RuntimeUnavailableError, match="exit code 2"):
        second.wait_until_ready()
    second.close()
    assert ping(process.path).device == "cpu"


def test_a_path_that_cannot_be_listened_at_is_refused_before_anything_is_started() -> None:
    with pytest.raises(UsageError, match="absolute path"):
        start_engine_process(Path("engine"), SETTINGS)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--threads", "0"], "threads is 0"),
        (["--rows", "0"], "at least 1 row"),
        (["--wait", "-1"], "a wait of 0 to 1"),
        (["--stall", "0"], "over 0"),
        (["--socket", "engine"], "absolute path"),
    ],
)
def test_wrong_options_are_told_in_one_line(path: Path, options: list[str], text: str) -> None:
    code = "import sys; from engines.engine_process import main; sys.exit(main())"
    ended = subprocess.run(
        [sys.executable, "-c", code, "--socket", str(path), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert ended.returncode == 2
    assert text in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_rows_are_joined_only_where_that_gains_time() -> None:
    assert {device: settings_for(device).limits.most_rows for device in DEVICES} == {
        "cpu": 1, "openvino": 1, "cuda": 8, "tensorrt": 8,
    }  # fmt: skip
    assert settings_for("cpu", 2).limits.side_by_side == len(os.sched_getaffinity(0))
    with pytest.raises(UsageError, match="not known"):
        settings_for("gpu")  # type: ignore[arg-type]

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.batching import Limits
from engines.bundle import Bundle
from engines.engine_client import EngineConnection, ping
from engines.engine_messages import LONGEST, Open, make_socket
from engines.engine_pool import open_asked
from engines.engine_server import EngineServer, ServerSettings
from engines.errors import (
    BundleError,
    BundleMissingError,
    BundleTamperedError,
    RuntimeFailedError,
    RuntimeUnavailableError,
    UsageError,
)  # fmt: skip
from engines.runtime import open_runtime
from engines.runtime_remote import RemoteRuntime
from engines.shared_arrays import Outbox
from tests.engines.serving import SECONDS, Blocking, descriptors, doubled, feeds, mapped, serving, wait_until

MEBIBYTE = 2**20
#: For who has patience.
LATER = 1e9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "engine"


@pytest.fixture
def server(path: Path) -> Iterator[EngineServer]:
    with serving(path) as server:
        yield server


def connected(path: Path, *messages: bytes) -> socket.socket:
    connection = make_socket()
    connection.settimeout(SECONDS)
    connection.connect(str(path))
    for message in messages:
        connection.send(message)
    return connection


def question(bundle: Bundle, /, **changes: Any) -> Open:
    fields = {"bundle": str(bundle.path), "digest": bundle.digest, "graph": "detector", "device": "cpu"}
    return Open.model_validate(fields | {"threads": 1, "spinning": False} | changes)


def opening(bundle: Bundle) -> bytes:
    return question(bundle).model_dump_json().encode()


def run_of(*arrays: dict[str, Any]) -> bytes:
    return json.dumps({"kind": "run", "number": 1, "arrays": arrays}).encode()


def array(name: str, shape: list[int], offset: int = 0, dtype: str = "float32") -> dict[str, Any]:
    return {"name": name, "shape": shape, "offset": offset, "dtype": dtype}


GARBAGE: dict[str, bytes] = {
    "bytes": b"\x00\xff\x00",
    "no object": b"[1, 2]",
    "unknown": b'{"kind": "shutdown"}',
    "a field more": b'{"kind": "ping", "then": "x"}',
    "deep": b"[" * 30_000,
    "long": b" " * LONGEST + b"x",
    "run before open": run_of(array("x", [1])),
    "bad digest": b'{"kind": "open", "bundle": "/", "digest": "x", "graph": "g", "device": "cpu"}',
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_whoever_says_what_makes_no_sense_is_hung_up_on_and_nobody_else(
    tiny: Bundle, server: EngineServer, path: Path, garbage: bytes
) -> None:
    with open_runtime(tiny, server=path) as other:
        other.run(feeds(1))
        before = descriptors()
        with connected(path, garbage) as broken:
            assert broken.recv(LONGEST) == b""
        np.testing.assert_array_equal(other.run(feeds(2))["y"], doubled(feeds(2)))
        wait_until(lambda: descriptors() <= before)


@pytest.mark.parametrize(
    "arrays",
    [
        [array("x", [1, 2, 3])],
        [array("x", [1, 2, 3], offset=MEBIBYTE)],
        [array("x", [1, 2, 3], offset=-64)],
        [array("x", [1, 2, 3], offset=3)],
        [array("x", [2**40, 2**40, 2**40])],
        [array("x", [-1, -1, -1])],
        [array("x", [1] * 9)],
        [array("x", [1, 2, 3], dtype="object")],
        [array("x", [1]), array("x", [1])],
        [array("x", [1])] * 300,
        [{**array("x", [1]), "address": 0}],
    ],
)
def test_no_number_of_a_client_is_believed(
    tiny: Bundle, server: EngineServer, path: Path, arrays: list[dict[str, Any]]
) -> None:
    with open_runtime(tiny, server=path) as other, connected(path, opening(tiny)) as broken:
        assert b"opened" in broken.recv(LONGEST)
        # The first case is right in all but that no memory was shared.
        if len(arrays) > 1 or arrays != [array("x", [1, 2, 3])]:
            _, descriptor = Outbox(MEBIBYTE).put(feeds(1))
            assert descriptor is not None
            socket.send_fds(broken, [run_of(*arrays)], [descriptor])
            os.close(descriptor)
        else:
            broken.send(run_of(*arrays))
        assert broken.recv(LONGEST) == b""
        np.testing.assert_array_equal(other.run(feeds(2))["y"], doubled(feeds(2)))


def test_descriptors_that_are_no_shared_memory_are_refused_and_closed(
    tiny: Bundle, server: EngineServer, path: Path
) -> None:
    with open_runtime(tiny, server=path) as other:
        other.run(feeds(1))
        before = descriptors()
        for count in (1, 20):
            with connected(path, opening(tiny)) as broken, Path("/dev/zero").open("rb") as zero:
                assert b"opened" in broken.recv(LONGEST)
                socket.send_fds(broken, [run_of(array("x", [1]))], [zero.fileno()] * count)
                assert broken.recv(LONGEST) == b""
        np.testing.assert_array_equal(other.run(feeds(2))["y"], doubled(feeds(2)))
        wait_until(lambda: descriptors() <= before)


def test_a_client_that_asks_and_never_listens_is_hung_up_on(tiny: Bundle, server: EngineServer, path: Path) -> None:
    with open_runtime(tiny, server=path) as other, connected(path) as deaf:
        deaf.settimeout(1)
        with contextlib.suppress(TimeoutError):
            # Until the server waits for it to listen, and takes no more.
            while True:
                deaf.send(b'{"kind": "ping"}')
        np.testing.assert_array_equal(other.run(feeds(2))["y"], doubled(feeds(2)))
        wait_until(lambda: server.pulse().clients == 1)


def test_arrays_that_the_graph_does_not_take_are_an_answer_and_no_reason_to_hang_up(
    tiny: Bundle, server: EngineServer, path: Path
) -> None:
    connection = EngineConnection(path, LATER)
    assert connection.open(question(tiny), LATER).kind == "opened"
    failed = connection.run({"x": np.zeros((1, 3, 3), np.float32), "n": np.zeros(1, np.int64)}, LATER)
    assert not isinstance(failed, dict)
    assert failed.error == "TensorError"
    answer = connection.run(feeds(3), LATER)
    assert isinstance(answer, dict)
    np.testing.assert_array_equal(answer["y"], doubled(feeds(3)))
    connection.close()


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"digest": "0" * 64}, BundleTamperedError, "the client opened 0000"),
        ({"bundle": "/nowhere"}, BundleMissingError, "/nowhere"),
        ({"graph": "heads"}, BundleError, "'heads'"),
        ({"device": "openvino"}, UsageError, "runs on 'cpu'"),
    ],
)
def test_what_cannot_be_opened_says_why_with_its_own_error(
    tiny: Bundle, server: EngineServer, path: Path, changes: dict[str, Any], error: type[Exception], text: str
) -> None:
    connection = EngineConnection(path, LATER)
    answer = connection.open(question(tiny, **changes), LATER)
    assert answer.kind == "failed"
    assert type(answer.exception()) is error
    assert text in answer.text
    assert connection.open(question(tiny), LATER).kind == "opened"
    connection.close()


def test_a_bundle_that_was_changed_after_the_client_opened_it_is_refused(
    tiny: Bundle, server: EngineServer, path: Path
) -> None:
    file = tiny.file("detector.onnx")
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(BundleTamperedError, match=r"detector\.onnx was changed"):
        open_runtime(tiny, server=path)


def test_a_graph_is_opened_once_for_all_its_clients(tiny: Bundle, path: Path) -> None:
    opened: list[Open] = []

    def counted(question: Open) -> Any:
        opened.append(question)
        return open_asked(question)

    with serving(path, opener=counted):
        clients = [open_runtime(tiny, server=path, threads=1) for _ in range(3)]
        clients += [open_runtime(tiny, server=path, threads=2)]
        for number, client in enumerate(clients):
            np.testing.assert_array_equal(client.run(feeds(number))["y"], doubled(feeds(number)))
        pulse = ping(path)
        for client in clients:
            client.close()
    assert sorted(one.threads or 0 for one in opened) == [1, 2]
    assert (pulse.engines, pulse.requests, pulse.runs, pulse.rows) == (2, 4, 4, 4)


def test_a_client_without_a_number_of_threads_gets_the_servers(tiny: Bundle, path: Path) -> None:
    blocking = Blocking()
    asked: list[Open] = []

    def remember(question: Open) -> Any:
        asked.append(question)
        return blocking

    with serving(path, ServerSettings(threads=3), remember):
        open_runtime(tiny, server=path).close()
    assert [one.threads for one in asked] == [3]


def test_requests_of_several_clients_share_a_run_and_get_their_own_answers(tiny: Bundle, path: Path) -> None:
    blocking = Blocking()
    with serving(path, ServerSettings(limits=Limits(most_rows=8, wait=0)), blocking) as server:
        clients = [open_runtime(tiny, server=path) for _ in range(4)]
        clients[0].run(feeds(1))
        answers: dict[int, Any] = {}

        def ask(number: int) -> None:
            answers[number] = clients[number].run(feeds(number))["y"]

        held_up = threading.Thread(target=lambda: clients[0].run(feeds(-1, width=9)))
        held_up.start()
        assert blocking.entered.wait(SECONDS)
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(1, 4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: server.pulse().requests == 5)
        blocking.let_go.set()
        for thread in (held_up, *threads):
            thread.join()
        pulse = server.pulse()
        for client in clients:
            client.close()
    for number in range(1, 4):
        np.testing.assert_array_equal(answers[number], doubled(feeds(number)))
    assert (pulse.requests, pulse.runs, pulse.rows) == (5, 3, 5)


def test_a_run_that_hangs_is_told_to_whoever_asks_and_pings_are_answered(tiny: Bundle, path: Path) -> None:
    blocking = Blocking()
    with serving(path, ServerSettings(stall=0.05), blocking):
        runtime = RemoteRuntime(tiny, "detector", server=path, timeout=0.2)
        runtime.run(feeds(1))
        assert ping(path).stalled is None
        with pytest.raises(RuntimeFailedError, match="no answer within"):
            runtime.run(feeds(-1))
        stalled = ping(path).stalled
        assert stalled is not None
        assert "a run of graph detector of bundle has not returned" in stalled
        blocking.let_go.set()
        wait_until(lambda: ping(path).stalled is None)
        runtime.close()


def test_clients_behind_a_run_that_hangs_leave_nothing_behind(tiny: Bundle, path: Path) -> None:
    blocking = Blocking()
    with serving(path, opener=blocking) as server:
        runtimes = [RemoteRuntime(tiny, "detector", server=path, timeout=0.2) for _ in range(4)]
        before = descriptors()
        for runtime, value in zip(runtimes, (-1, 1, 2, 3), strict=True):
            with pytest.raises(RuntimeFailedError):
                runtime.run(feeds(value))
        # The first is still in the engine.
        wait_until(lambda: server.pulse().clients == 1)
        blocking.let_go.set()
        wait_until(lambda: server.pulse().clients == 0)
        wait_until(lambda: descriptors() < before)
        assert server.pulse().runs == 1, "nobody waited for the others"
        for runtime in runtimes:
            runtime.close()


def test_more_clients_than_the_limit_are_told_so(tiny: Bundle, path: Path) -> None:
    with serving(path, ServerSettings(most_clients=2)), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(open_runtime(tiny, server=path)) for _ in range(2)]
        with pytest.raises(RuntimeUnavailableError, match="as many clients as it takes"):
            RemoteRuntime(tiny, "detector", server=path, patience=0.2)
        # Its owner is answered all the same. Who was told so a moment ago may not be gone yet.
        wait_until(lambda: ping(path).clients == 3)
        clients[0].close()
        wait_until(lambda: ping(path).clients == 2)
        stack.enter_context(open_runtime(tiny, server=path))


def test_arrays_over_the_limit_are_an_error_either_way(tiny: Bundle, path: Path) -> None:
    with serving(path, ServerSettings(memory=MEBIBYTE)), open_runtime(tiny, server=path) as runtime:
        with pytest.raises(RuntimeFailedError, match="at most 1 MiB"):
            runtime.run(feeds(1, width=MEBIBYTE))
        np.testing.assert_array_equal(runtime.run(feeds(1))["y"], doubled(feeds(1)))


KILLED = """
import sys
from pathlib import Path
import numpy as np
from engines.bundle import open_bundle
from engines.runtime import open_runtime

runtime = open_runtime(open_bundle(Path(sys.argv[1])), server=Path(sys.argv[2]))
feeds = {"x": np.ones((1, 2, 1000000), np.float32), "n": np.zeros(1, np.int64)}
runtime.run(feeds)
print("ran", flush=True)
runtime.run(feeds | {"x": -feeds["x"]})
"""


def test_nothing_is_left_of_a_client_that_was_killed_in_the_middle_of_a_run(tiny: Bundle, path: Path) -> None:
    blocking = Blocking()
    with serving(path, opener=blocking) as server:
        before, shared = descriptors(), set(os.listdir("/dev/shm"))
        client = subprocess.Popen([sys.executable, "-c", KILLED, str(tiny.path), str(path)], stdout=subprocess.PIPE)
        assert client.stdout is not None
        assert client.stdout.readline() == b"ran\n"
        assert blocking.entered.wait(SECONDS)
        assert mapped() >= 2, "arrays went another way"
        client.kill()
        client.wait()
        client.stdout.close()
        blocking.let_go.set()
        wait_until(lambda: server.pulse().clients == 0)
        wait_until(lambda: descriptors() <= before and mapped() == 0)
        assert set(os.listdir("/dev/shm")) <= shared


def test_it_ends_while_clients_are_connected_and_takes_its_address_with_it(tiny: Bundle, path: Path) -> None:
    threads = set(threading.enumerate())
    with serving(path) as server:
        runtime = open_runtime(tiny, server=path)
        runtime.run(feeds(1))
        server.stop()
        wait_until(lambda: not path.exists())
        with pytest.raises(RuntimeFailedError):
            runtime.run(feeds(1))
        runtime.close()
    wait_until(lambda: set(threading.enumerate()) <= threads)


@pytest.mark.parametrize("wrong", [{"stall": 0}, {"memory": 0}, {"most_clients": 0}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="over 0"):
        ServerSettings(**wrong)

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.batching import Limits
from engines.bundle import Bundle
from engines.engine_messages import Done, Opened, closing, make_socket, parse_question, receive, send
from engines.engine_server import EngineServer, ServerSettings
from engines.errors import BundleError, RuntimeFailedError, RuntimeUnavailableError, TensorError, UsageError
from engines.private_socket import listen
from engines.runtime import open_runtime
from engines.runtime_remote import RemoteRuntime
from engines.shared_arrays import Outbox
from tests.engines.serving import SECONDS, Blocking, doubled, feeds, serving, wait_until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "engine"


@pytest.fixture
def server(path: Path) -> Iterator[EngineServer]:
    with serving(path, ServerSettings(limits=Limits(most_rows=8, wait=0.002, side_by_side=2))) as server:
        yield server


def test_it_is_a_runtime_like_any_other(tiny: Bundle, server: EngineServer, path: Path) -> None:
    with open_runtime(tiny) as here, open_runtime(tiny, server=path) as there:
        assert isinstance(there, RemoteRuntime)
        assert (there.device, there.provider) == (here.device, here.provider)
        assert (there.inputs, there.outputs) == (here.inputs, here.outputs)
        rng = np.random.default_rng(0)
        for rows in (1, 3, 12):
            x = rng.standard_normal((rows, 2, 8)).astype(np.float32)[..., ::2]
            given: dict[str, Any] = {"x": x, "n": np.arange(rows)}
            expected, answer = here.run(given), there.run(given)
            assert list(answer) == list(expected)
            np.testing.assert_array_equal(answer["y"], expected["y"])
            assert answer["y"].dtype == expected["y"].dtype


def test_arrays_that_do_not_fit_the_manifest_never_leave(tiny: Bundle, server: EngineServer, path: Path) -> None:
    with open_runtime(tiny, server=path) as runtime, pytest.raises(TensorError, match="missing: n"):
        runtime.run({"x": feeds(1)["x"]})
    assert server.pulse().requests == 0


def test_a_result_stays_what_it_is_when_the_next_one_comes(tiny: Bundle, server: EngineServer, path: Path) -> None:
    with open_runtime(tiny, server=path) as runtime:
        first = runtime.run(feeds(1))["y"]
        runtime.run(feeds(2))
    np.testing.assert_array_equal(first, doubled(feeds(1)))
    first[...] = 0


def test_many_threads_of_many_clients_get_their_own_answers(tiny: Bundle, server: EngineServer, path: Path) -> None:
    with contextlib.ExitStack() as stack:
        runtimes = [stack.enter_context(open_runtime(tiny, server=path)) for _ in range(4)]

        def ask(number: int) -> bool:
            given = feeds(number, rows=1 + number % 2, width=50)
            return bool((runtimes[number % 4].run(given)["y"] == doubled(given)).all())

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(400)))
    pulse = server.pulse()
    assert pulse.requests == 400
    assert pulse.runs < 400, "nothing was shared, so that nothing was tested"
    assert pulse.rows >= 600


def test_a_run_that_hangs_fails_in_time_and_its_answer_is_nobodys(tiny: Bundle, path: Path) -> None:
    blocking = Blocking()
    with serving(path, ServerSettings(limits=Limits(most_rows=1, side_by_side=2)), blocking):
        runtime = RemoteRuntime(tiny, "detector", server=path, timeout=0.3)
        runtime.run(feeds(1))
        began = time.monotonic()
        with pytest.raises(RuntimeFailedError, match=r"no answer within 0\.3 s"):
            runtime.run(feeds(-1))
        assert time.monotonic() - began < 3
        # The late answer comes while a later run of the same shape waits for its own.
        with ThreadPoolExecutor(1) as pool:
            later = pool.submit(runtime.run, feeds(5))
            blocking.let_go.set()
            np.testing.assert_array_equal(later.result()["y"], doubled(feeds(5)))
        for value in (6, 7):
            np.testing.assert_array_equal(runtime.run(feeds(value))["y"], doubled(feeds(value)))
        runtime.close()


def test_an_answer_to_another_run_is_not_taken(tiny: Bundle, path: Path) -> None:
    """The process would have to be broken: connections are closed when a run is given up."""
    with imposter(path, {2: 1}), RemoteRuntime(tiny, "detector", server=path, timeout=SECONDS) as runtime:
        np.testing.assert_array_equal(runtime.run(feeds(1))["y"], 0)
        with pytest.raises(RuntimeFailedError, match="'done' to another question"):
            runtime.run(feeds(2))


def test_control_an_answer_to_the_right_run_is_taken(tiny: Bundle, path: Path) -> None:
    with imposter(path, {}), RemoteRuntime(tiny, "detector", server=path, timeout=SECONDS) as runtime:
        for _ in range(2):
            np.testing.assert_array_equal(runtime.run(feeds(1))["y"], 0)


@pytest.mark.parametrize("name", ["z", "x"])
def test_outputs_that_the_graph_does_not_have_are_an_error(tiny: Bundle, path: Path, name: str) -> None:
    with (
        imposter(path, {}, name),
        RemoteRuntime(tiny, "detector", server=path, timeout=SECONDS) as runtime,
        pytest.raises(RuntimeFailedError, match=f"gave {name} for"),
    ):
        runtime.run(feeds(1))


@contextlib.contextmanager
def imposter(path: Path, numbers: dict[int, int], name: str = "y") -> Iterator[None]:
    """A process that answers zeros to everything, under other numbers where told so."""
    with listen(path) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                outbox = Outbox(2**20)
                while (raw := receive(connection)[0]) != b"":
                    question = parse_question(raw)
                    if question.kind == "open":
                        send(connection, Opened(provider="imposter", limit=2**20))
                    elif question.kind == "run":
                        arrays, descriptor = outbox.put({name: np.zeros((1, 2, 3), np.float32)})
                        number = numbers.get(question.number, question.number)
                        with closing(descriptor):
                            send(connection, Done(number=number, arrays=arrays), descriptor)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(SECONDS)


def test_runs_fail_at_once_while_no_process_is_there_and_work_again_when_one_is(tiny: Bundle, path: Path) -> None:
    with serving(path):
        runtime = RemoteRuntime(tiny, "detector", server=path, timeout=SECONDS)
        runtime.run(feeds(1))
    for _ in range(20):
        began = time.monotonic()
        with pytest.raises(RuntimeFailedError, match="no engine process answers"):
            runtime.run(feeds(2))
        assert time.monotonic() - began < 1
    with serving(path):
        wait_until(lambda: works(runtime))
    runtime.close()


def works(runtime: RemoteRuntime) -> bool:
    try:
        return bool((runtime.run(feeds(3))["y"] == doubled(feeds(3))).all())
    except RuntimeFailedError:
        return False


def test_attempts_to_reach_a_process_that_is_gone_get_rare(tiny: Bundle, path: Path) -> None:
    with serving(path):
        runtime = RemoteRuntime(tiny, "detector", server=path)
    reasons = []
    until = time.monotonic() + 1
    while time.monotonic() < until:
        with pytest.raises(RuntimeFailedError) as caught:
            runtime.run(feeds(1))
        reasons.append("asked again in" not in str(caught.value))
        time.sleep(0.005)
    assert 1 < sum(reasons) <= 5
    assert len(reasons) > 10
    runtime.close()


def test_a_bundle_that_was_replaced_meanwhile_fails_the_run_and_not_the_stream(tiny: Bundle, path: Path) -> None:
    with serving(path):
        runtime = RemoteRuntime(tiny, "detector", server=path)
    tiny.file("detector.onnx").write_bytes(b"another")
    with serving(path), pytest.raises(RuntimeFailedError, match="was changed"):
        runtime.run(feeds(1))
    runtime.close()


def test_it_waits_for_a_process_that_is_being_started(tiny: Bundle, path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(open_runtime, tiny, server=path)
        time.sleep(0.3)
        with serving(path), opened.result(SECONDS) as runtime:
            np.testing.assert_array_equal(runtime.run(feeds(1))["y"], doubled(feeds(1)))


def test_a_process_that_never_comes_is_an_error_that_says_where_it_should_be(tiny: Bundle, path: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match=r"no engine process answers at .*engine") as caught:
        RemoteRuntime(tiny, "detector", server=path, patience=0.3)
    assert "\n" not in str(caught.value)


def test_a_process_that_accepts_and_says_nothing_is_given_up(tiny: Bundle, path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with make_socket() as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(RuntimeUnavailableError, match="gave no answer within"):
            RemoteRuntime(tiny, "detector", server=path, patience=0.3)


def test_a_closed_runtime_says_so_and_may_be_closed_again(tiny: Bundle, server: EngineServer, path: Path) -> None:
    runtime = open_runtime(tiny, server=path)
    runtime.run(feeds(1))
    runtime.close()
    runtime.close()
    with pytest.raises(RuntimeFailedError, match="closed"):
        runtime.run(feeds(1))
    wait_until(lambda: server.pulse().clients == 0)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"device": "openvino"}, UsageError, "runs on 'cpu'"),
        ({"device": "gpu"}, UsageError, "not known"),
        ({"threads": 0}, UsageError, "at least 1"),
        ({"timeout": 0.0}, UsageError, "more than 0"),
        ({"server": Path("engine")}, UsageError, "absolute path"),
        ({"server": Path("/" + "x" * 200)}, UsageError, "shorter name"),
        ({"graph": "heads"}, BundleError, "'heads'"),
    ],
)
def test_wrong_options_say_what_is_wrong(
    tiny: Bundle, server: EngineServer, path: Path, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        open_runtime(tiny, **({"server": path} | options))

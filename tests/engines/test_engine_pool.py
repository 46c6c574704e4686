from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import engine_pool
from engines.batching import Limits
from engines.bundle import Bundle
from engines.engine_messages import Open
from engines.engine_pool import EnginePool, Watch
from engines.errors import BundleTamperedError, RuntimeFailedError
from engines.runtime import Runtime
from tests.engines.serving import SECONDS, Blocking, doubled, feeds, wait_until
from tests.engines.tensorrt_machines import tiny_machine


def question(digest: str = "0" * 64, **changes: Any) -> Open:
    fields = {"bundle": "/b", "digest": digest, "graph": "detector", "device": "cpu", "threads": 1, "spinning": False}
    return Open.model_validate(fields | changes)


def always() -> bool:
    return True


class Closing(Blocking):
    def __init__(self) -> None:
        super().__init__()
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def pool_of(opener: Any, stall: float = 30.0) -> EnginePool:
    return EnginePool(Limits(), Watch(), stall, opener)


def test_all_who_ask_for_the_same_graph_share_an_engine() -> None:
    runtime = Blocking()
    pool = pool_of(runtime)
    with pool.use(question(), always) as one, pool.use(question(bundle="/elsewhere"), always) as other:
        assert one is other
        assert one.clients == 2
        # Whoever wants it computed in another way gets another one.
        for changes in ({"threads": 2}, {"bfloat16": True}):
            with pool.use(question(**changes), always) as third:
                assert third is not one
        np.testing.assert_array_equal(one.run(feeds(1))["y"], doubled(feeds(1)))
    assert runtime.opened == 3
    assert pool.counts()[0] == 3
    assert pool.counts()[1].runs == 1


def test_those_who_come_while_a_graph_is_being_opened_wait_for_it() -> None:
    runtime, entered, let_go = Blocking(), threading.Event(), threading.Event()

    def slow(asked: Open) -> Runtime:
        entered.set()
        assert let_go.wait(SECONDS)
        return runtime(asked)

    pool = pool_of(slow)

    def use() -> int:
        with pool.use(question(), always) as batcher:
            return id(batcher)

    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(use) for _ in range(3)]
        assert entered.wait(SECONDS)
        with pytest.raises(RuntimeFailedError, match="nobody waits"), pool.use(question(), lambda: False):
            pass
        let_go.set()
        assert len({one.result() for one in asked}) == 1
    assert runtime.opened == 1


def test_a_graph_that_could_not_be_opened_is_tried_again_for_the_next() -> None:
    runtime = Blocking()
    failures = [BundleTamperedError("changed")]

    def opener(asked: Open) -> Runtime:
        if failures:
            raise failures.pop()
        return runtime(asked)

    pool = pool_of(opener)
    with pytest.raises(BundleTamperedError), pool.use(question(), always):
        pass
    with pool.use(question(), always):
        pass


def test_another_bundle_than_the_client_opened_is_refused(tiny: Bundle) -> None:
    with pytest.raises(BundleTamperedError, match="replaced meanwhile"):
        engine_pool.open_asked(question(bundle=str(tiny.path)))
    engine_pool.open_asked(question(tiny.digest, bundle=str(tiny.path))).close()


def test_how_an_engine_computes_is_what_was_asked_for(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(engine_pool, "open_runtime", lambda *_, **options: asked.append(options))
    for changes in ({}, {"bfloat16": True, "device": "openvino"}, {"spinning": True}):
        engine_pool.open_asked(question(tiny.digest, bundle=str(tiny.path), **changes))
    assert [(one["device"], one["bfloat16"], one["spinning"]) for one in asked] == [
        ("cpu", False, False),
        ("openvino", True, False),
        ("cpu", False, True),
    ]


def test_engines_that_nobody_uses_are_closed_when_another_one_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Closing] = []

    def opener(asked: Open) -> Runtime:
        opened.append(Closing())
        return opened[-1]

    pool = pool_of(opener)
    with pool.use(question("1" * 64), always) as batcher:
        batcher.run(feeds(1))
        with pool.use(question("2" * 64), always):
            pass
        with pool.use(question("3" * 64), always):
            pass
        assert [runtime.closed for runtime in opened] == [0, 0, 0], "they were used a moment ago"
        monkeypatch.setattr(engine_pool, "_KEPT", 0.0)
        with pool.use(question("4" * 64), always):
            pass
        assert [runtime.closed for runtime in opened] == [0, 1, 1, 0]
    with pool.use(question("5" * 64), always):
        pass
    assert [runtime.closed for runtime in opened] == [1, 1, 1, 1, 0]
    assert pool.counts()[0] == 1
    assert pool.counts()[1].runs == 1, "what they did is not forgotten"
    pool.close()
    assert opened[-1].closed == 1


def test_a_run_that_hangs_is_noticed_and_forgotten_when_it_returns() -> None:
    runtime, watch = Blocking(), Watch()
    pool = EnginePool(Limits(), watch, 0.05, runtime)
    with pool.use(question(), always) as batcher, ThreadPoolExecutor(1) as threads:
        assert watch.stalled() is None
        hung = threads.submit(batcher.run, feeds(-1))
        wait_until(lambda: watch.stalled() is not None)
        assert "a run of graph detector of b has not returned for 0 s" in str(watch.stalled())
        runtime.let_go.set()
        hung.result()
        assert watch.stalled() is None


class Losing(Blocking):
    """Says what ONNX Runtime says when the GPU does not answer any more, from the first of some values on."""

    def _run(self, given: Any) -> Any:
        if given["x"].flat[0] == 13:
            raise RuntimeFailedError(f"thirteen{' is unlucky' * 100}")
        if given["x"].flat[0] == 700:
            raise RuntimeFailedError(f"CUDA failure 700: an illegal memory access was encountered {'; at' * 1000}")
        return super()._run(given)


def test_a_process_that_lost_the_gpu_says_so_from_then_on() -> None:
    watch = Watch()
    pool = EnginePool(Limits(), watch, 30.0, Losing())
    with pool.use(question(), always) as batcher:
        with pytest.raises(RuntimeFailedError, match="thirteen"):
            batcher.run(feeds(13))
        assert watch.stalled() is None, "that was this request's fault"
        with pytest.raises(RuntimeFailedError, match="CUDA failure 700"):
            batcher.run(feeds(700))
        with pytest.raises(RuntimeFailedError, match="thirteen"):
            batcher.run(feeds(13))
    said = str(watch.stalled())
    assert said.startswith("a run of graph detector of b lost the GPU: CUDA failure 700: an illegal memory access")
    assert len(said) < 1000


def test_a_gpu_that_is_lost_when_a_graph_is_opened_is_noticed() -> None:
    def opener(asked: Open) -> Runtime:
        raise RuntimeFailedError("cudaMalloc said cudaErrorLaunchFailure")

    watch = Watch()
    pool = EnginePool(Limits(), watch, 30.0, opener)
    with pytest.raises(RuntimeFailedError), pool.use(question(), always):
        pass
    assert str(watch.stalled()).startswith("opening graph detector of b lost the GPU: cudaMalloc")


class Said(Blocking):
    """Says that it is executed by something."""

    def __init__(self, provider: str) -> None:
        super().__init__()
        self._said = provider

    @property
    def provider(self) -> str:
        return self._said


def test_an_engine_that_plans_for_new_shapes_gets_the_time_for_it() -> None:
    for provider, stalls in (("TensorRT 10.16.1.11", True), ("TensorrtExecutionProvider", False)):
        runtime, watch = Said(provider), Watch()
        pool = EnginePool(Limits(), watch, 0.01, runtime)
        with pool.use(question(device="tensorrt"), always) as batcher, ThreadPoolExecutor(1) as threads:
            planning = threads.submit(batcher.run, feeds(-1))
            assert runtime.entered.wait(SECONDS)
            time.sleep(0.02)
            assert (watch.stalled() is not None) is stalls
            runtime.let_go.set()
            planning.result()
            runtime.let_go.clear()
            hung = threads.submit(batcher.run, feeds(-1))
            wait_until(lambda watch=watch: watch.stalled() is not None)  # type: ignore[misc]
            runtime.let_go.set()
            hung.result()


def test_requests_for_a_plan_share_its_runs(tmp_path: Path) -> None:
    machine = tiny_machine(tmp_path)
    runtime = machine.runtime()
    # With such patience a request waits until each of both clients has asked.
    pool = EnginePool(Limits(8, 1.0, 1), Watch(), 30.0, lambda asked: runtime)
    with (
        pool.use(question(device="tensorrt"), always) as one,
        pool.use(question(device="tensorrt"), always),
        ThreadPoolExecutor(2) as threads,
    ):
        one.run(feeds(0))  # says what an answer looks like
        asked = [threads.submit(one.run, feeds(value)) for value in (1, 2)]
        for value, answer in zip((1, 2), asked, strict=True):
            np.testing.assert_array_equal(answer.result()["y"], doubled(feeds(value)))
    assert (one.counts.runs, one.counts.rows) == (2, 3)
    pool.close()


def test_the_longest_stall_is_told_first() -> None:
    watch = Watch()
    with watch.during("first", 0.01), watch.during("patient", 100):
        time.sleep(0.02)
        with watch.during("second", 0.01):
            time.sleep(0.02)
            assert str(watch.stalled()).startswith("first ")

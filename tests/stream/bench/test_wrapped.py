from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines.bundle import Bundle
from engines.runtime import open_runtime
from engines.runtime_onnx import OnnxRuntime
from stream.bench.engines import TimedRuntime, example_feeds, generator_runs, has_tf32
from stream.bench.wrapped import WrappedRuntime
from tests.engines.onnx_fakes import CPU, CUDA, FakeOnnxRuntime, assigned
from tests.generator_bundles import write_unet


@pytest.fixture
def unet(tmp_path: Path) -> Bundle:
    return write_unet(tmp_path / "unet")


def use(monkeypatch: pytest.MonkeyPatch, **options: Any) -> FakeOnnxRuntime:
    fake = FakeOnnxRuntime(**options)
    monkeypatch.setattr("engines.runtime_onnx.import_module", lambda name: fake.module)
    return fake


def test_it_says_what_the_graph_says_however_often_it_is_wrapped(unet: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, parts=[assigned(CUDA, "Conv"), assigned(CPU, "Shape")])
    graph = unet.graph("mapping")
    inner = OnnxRuntime(unet.file(graph.file), graph, device="cuda", tf32=True)

    class Twice(WrappedRuntime):
        def _run(self, feeds: Any) -> Any:
            return self._inner.run(feeds)

    with Twice(unet, "mapping", TimedRuntime(unet, "mapping", inner)) as outer:
        assert (outer.provider, outer.device, outer.tf32) == (CUDA, "cuda", True)
        assert str(outer.placement) == "1 of 2 nodes on the CPU (Shape 1)"
        outer.run(example_feeds(graph, 1))
    with pytest.raises(Exception, match="closed"):
        inner.run(example_feeds(graph, 1))


def test_where_there_is_no_other_place_than_the_cpu_nothing_is_astray(unet: Bundle) -> None:
    with TimedRuntime(unet, "mapping", open_runtime(unet, "mapping")) as runtime:
        assert runtime.placement is None
        assert runtime.tf32 is None


def test_runs_on_the_largest_input_are_timed_whatever_comes_between(unet: Bundle) -> None:
    with TimedRuntime(unet, "mapping", open_runtime(unet, "mapping")) as runtime:
        runtime.keeps = True
        for rows in (1, 3, 1, 3, 2):
            runtime.run(example_feeds(unet.graph("mapping"), rows))
        figures = runtime.figures()
        assert len(runtime.seconds) == figures.milliseconds.runs == 2
        assert figures.inputs.startswith("3x")
        assert {array.shape[0] for array in runtime.feeds.values()} == {3}


def test_tf32_is_measured_where_it_can_be_switched() -> None:
    assert has_tf32("cuda", "fp32")
    assert not any((has_tf32("cuda", "fp16"), has_tf32("tensorrt", "fp32"), has_tf32("cpu", "fp32")))


def test_a_generator_on_a_gpu_is_measured_with_and_without_tf32(unet: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = use(monkeypatch, parts=[assigned(CUDA, "Conv", "Conv"), assigned(CPU, "Resize")])
    runs, missing = generator_runs([unet], "cuda", "fp32", 1, (1, 2))
    assert missing == ()
    assert [(run.graph, run.batch, run.tf32) for run in runs] == [
        ("mapping", 1, False), ("generator", 1, False), ("generator", 2, False),
        ("generator", 1, True), ("generator", 2, True),
    ]  # fmt: skip
    assert {run.provider for run in runs} == {CUDA}
    # Measured with arrays that stay there as well: the outputs of those runs were bound to the device.
    assert all(run.on_device is not None for run in runs)
    assert {place for _, place in fake.bound} == {"cpu", "cuda"}
    assert {(run.nodes, tuple((run.on_cpu or {}).items())) for run in runs} == {(3, (("Resize", 1),))}
    assert [dict([made["providers"][0]])[CUDA]["use_tf32"] for made in fake.made] == ["0", "0", "1"]


def test_a_batch_for_which_a_gpu_has_no_memory_is_measured_in_the_parts_in_which_it_runs(
    unet: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, most=2)
    runs, missing = generator_runs([unet], "cuda", "fp16", 1, (4,))
    assert missing == ()
    assert [(run.graph, run.batch) for run in runs] == [("mapping", 1), ("generator_fp16", 4)]
    # Arrays that stay on the device are never divided.
    assert [run.on_device is None for run in runs] == [False, True]

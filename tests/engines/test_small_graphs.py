from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import small_graphs
from engines.dlpack import CUDA, DeviceArray
from engines.errors import BundleError, RuntimeUnavailableError
from engines.manifest import Tensor
from engines.nodes import Nodes
from engines.runtime import Device
from engines.small_graphs import SmallGraph, open_small, small_graph
from engines.tensorrt_policy import Policy
from tests.engines.helpers import open_on_cpu


def sums() -> SmallGraph:
    nodes = Nodes("sums")
    nodes.named("c", "Add", "a", nodes.one("Mul", "b", nodes.number(2)))
    inputs = [Tensor(name=name, dtype="float32", shape=("N", 2), meaning="") for name in "ab"]
    return small_graph("sums.onnx", inputs, [inputs[0].model_copy(update={"name": "c"})], nodes)


def test_a_graph_of_collected_nodes_runs_as_declared() -> None:
    graph = sums()
    a, b = np.ones((3, 2), np.float32), np.full((3, 2), 4, np.float32)
    with open_on_cpu(graph) as runtime:
        np.testing.assert_array_equal(runtime.run({"a": a, "b": b})["c"], a + 2 * b)
        assert [tensor.name for tensor in runtime.inputs] == ["a", "b"]


def test_a_model_that_is_none_is_named_by_what_it_was_to_be() -> None:
    graph = sums()
    with pytest.raises(BundleError, match=r"sums\.onnx cannot be loaded"):
        open_on_cpu(SmallGraph(graph.declared, b"nonsense"))


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_the_processor_has_better_ways(device: Device) -> None:
    def never() -> SmallGraph:
        raise AssertionError("nobody needs it")

    assert open_small(never, device) is None


@pytest.mark.parametrize(("device", "policy"), [("cuda", None), ("tensorrt", None), ("tensorrt", Policy())])
def test_beside_networks_on_a_gpu_it_runs_there(
    device: Device, policy: Policy | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    class Noted:
        def __init__(self, *_: object, **options: Any) -> None:
            asked.append(options)

        hold = staticmethod(on_the_gpu)

    monkeypatch.setattr(small_graphs, "OnnxRuntime", Noted)
    monkeypatch.setattr(small_graphs, "tensorrt_policy", lambda: policy)
    graph = sums()
    assert open_small(lambda: graph, device) is not None
    # Never TensorRT's provider, which would build an engine for every new size.
    assert asked == [{"device": "cuda", "model": graph.model}]


def on_the_gpu(array: NDArray[np.float32]) -> DeviceArray:
    """As a build of ONNX Runtime holds it that hands it over."""
    return DeviceArray(array.ctypes.data, array.shape, array.dtype, (CUDA, 0), array)


@pytest.mark.parametrize("what", ["there", "no CUDA", "not handed over"])
def test_beside_plans_it_runs_where_they_get_what_onnx_runtime_keeps(
    what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    there, closed = what == "there", list[str]()

    class Cuda:
        def __init__(self, *_: object, device: str, model: bytes) -> None:
            del model
            assert device == "cuda"
            if what == "no CUDA":
                raise RuntimeUnavailableError("this ONNX Runtime has no CUDA")

        def hold(self, array: NDArray[np.float32]) -> object:
            return on_the_gpu(array) if there else SimpleNamespace(shape=array.shape, dtype=array.dtype)

        def close(self) -> None:
            closed.append(what)

    monkeypatch.setattr(small_graphs, "OnnxRuntime", Cuda)
    monkeypatch.setattr(small_graphs, "tensorrt_policy", Policy)
    caplog.set_level("INFO")
    assert (open_small(sums, "tensorrt") is not None) is there
    assert closed == ([what] if what == "not handed over" else [])
    assert ("sums.onnx is computed on the processor" in caplog.text) is not there
    # With `cuda` it was asked for, and nothing falls back.
    if what == "no CUDA":
        with pytest.raises(RuntimeUnavailableError):
            open_small(sums, "cuda")


def test_runs_on_the_processor_do_without_the_package_that_makes_graphs() -> None:
    program = "import sys; import stream.anonymizer; print('onnx' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "False"

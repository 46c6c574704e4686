"""What only a GPU can show of `engines.runtime_onnx`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from engines.bundle import Bundle, write_bundle
from engines.errors import OutOfMemoryError
from engines.manifest import Graph, Tensor
from engines.onnx_binding import OrtArray
from engines.runtime import Device, open_runtime
from engines.runtime_onnx import PROVIDERS, OnnxRuntime
from engines.store import Store
from stream.bench.machine import Gpu
from tests.engines.helpers import doubler, tiny_draft

pytestmark = pytest.mark.gpu

X, N = np.arange(12, dtype=np.float32).reshape(2, 2, 3), np.array([5, 7], np.int64)
Y = 2 * X + N[:, None, None]


@pytest.fixture
def tiny(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "tiny", tiny_draft(), {"detector.onnx": doubler()})


def test_what_was_asked_for_runs(tiny: Bundle, device: Device) -> None:
    with open_runtime(tiny, device=device) as runtime:
        assert runtime.provider == PROVIDERS[device][0]
        np.testing.assert_array_equal(runtime.run({"x": X, "n": N})["y"], Y)


def test_arrays_stay_on_the_gpu(tiny: Bundle, gpu: Device) -> None:
    with OnnxRuntime(tiny.file("detector.onnx"), tiny.graph("detector"), device=gpu) as runtime:
        kept = runtime.run({"x": runtime.hold(X), "n": N}, keep=["y"])["y"]
        assert isinstance(kept, OrtArray)
        assert kept.device_name == "cuda"
        # DLPack's number of CUDA.
        assert kept.__dlpack_device__()[0] == 2
        np.testing.assert_array_equal(kept.numpy(), Y)
        again = runtime.run({"x": kept, "n": N})["y"]
        np.testing.assert_array_equal(again, 2 * Y + N[:, None, None])


class Foreign:
    """An array of another library, of which nothing is known but that it can be handed over."""

    def __init__(self, kept: OrtArray) -> None:
        self._kept = kept

    def __dlpack__(self, **given: Any) -> Any:
        return self._kept.__dlpack__(**given)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._kept.__dlpack_device__()


def test_another_librarys_array_is_taken_where_it_lies(tiny: Bundle, gpu: Device) -> None:
    first, second = (OnnxRuntime(tiny.file("detector.onnx"), tiny.graph("detector"), device=gpu) for _ in range(2))
    with first, second:
        kept = first.run({"x": X, "n": N}, keep=["y"])["y"]
        assert isinstance(kept, OrtArray)
        taken = second.adopt(Foreign(kept))
        np.testing.assert_array_equal(second.run({"x": taken, "n": N})["y"], 2 * Y + N[:, None, None])


def test_tf32_is_off_unless_it_is_asked_for(tmp_path: Path, gpu: Device) -> None:
    draw = np.random.default_rng(0)
    left, right = (draw.standard_normal((256, 256)).astype(np.float32) for _ in range(2))
    exact = left.astype(np.float64) @ right.astype(np.float64)
    errors = {}
    for tf32 in (False, True):
        with product(tmp_path, gpu, tf32=tf32) as runtime:
            errors[tf32] = float(np.abs(runtime.run({"a": left, "b": right})["y"] - exact).max())
    assert errors[False] < 1e-4
    # The control: where it is on, it shows.
    assert errors[True] > 10 * errors[False]


def test_a_batch_that_does_not_fit_into_the_gpu_is_run_in_parts(tmp_path: Path, gpu: Device) -> None:
    # 8 rows in tensors of 4 GiB, of which no kernel has to count beyond 2**31.
    with swelling(tmp_path, gpu, mebibytes=512, copies=gpu_gib() // 4 + 4) as runtime:
        found = runtime.run({"x": np.arange(8, dtype=np.float32)[:, None]})["y"]
    np.testing.assert_allclose(found[:, 0], np.arange(8), rtol=1e-5)


def test_a_row_that_does_not_fit_is_an_error_and_smaller_runs_work_afterwards(tmp_path: Path, gpu: Device) -> None:
    one = {"x": np.full((1, 1), 3, np.float32)}
    with (
        swelling(tmp_path, gpu, mebibytes=4096, copies=gpu_gib() // 4 + 4) as runtime,
        pytest.raises(OutOfMemoryError),
    ):
        runtime.run(one)
    with swelling(tmp_path, gpu, mebibytes=1, copies=4) as runtime:
        assert runtime.run(one)["y"][0, 0] == pytest.approx(3)


def test_what_takes_much_memory_gives_back_its_input(tmp_path: Path, device: Device) -> None:
    """The graph of the tests above, at a size that fits everywhere."""
    with swelling(tmp_path, device, mebibytes=1, copies=6) as runtime:
        found = runtime.run({"x": np.arange(3, dtype=np.float32)[:, None]})["y"]
    np.testing.assert_allclose(found[:, 0], np.arange(3), rtol=1e-5)


def test_an_assignment_names_nodes_that_a_gpu_did_not_get(tmp_path: Path, gpu: Device) -> None:
    """The control for tests that find no such node: strings, which no GPU has."""
    nodes = [
        helper.make_node("Add", ["x", "x"], ["a"]),
        helper.make_node("Cast", ["a"], ["text"], to=TensorProto.STRING),
        helper.make_node("Cast", ["text"], ["y"], to=TensorProto.FLOAT),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "text", ends[:1], ends[1:])
    path = tmp_path / "text.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    shape = Tensor(name="x", dtype="float32", shape=(2,), meaning="any")
    declared = Graph(file=path.name, inputs=(shape,), outputs=(shape.model_copy(update={"name": "y"}),))
    with OnnxRuntime(path, declared, device=gpu) as runtime:
        assert runtime.placement is not None
        assert runtime.placement.on_cpu == {"Cast": 2}


@pytest.mark.parametrize("name", ["starter-generator", "starter-detector"])
def test_engines_that_come_along_run_on_the_gpu(name: str, gpu: Device, tmp_path: Path) -> None:
    bundle = Store(tmp_path).open(name)
    for key, graph in bundle.manifest.graphs.items():
        with OnnxRuntime(bundle.file(graph.file), graph, device=gpu) as runtime:
            placement = runtime.placement
        if placement is None:
            pytest.skip(f"ONNX Runtime {onnxruntime.__version__} does not tell where nodes are")
        if key.startswith("generator"):
            assert placement.on_cpu == {}, str(placement)
        assert "Conv" not in placement.on_cpu, str(placement)


def gpu_gib() -> int:
    with Gpu.opened() as found:
        total = None if found is None else found.total()
    if total is None:
        pytest.skip("the GPU does not say how much memory it has")
    return int(total / 1024)


def product(folder: Path, device: Device, *, tf32: bool) -> OnnxRuntime:
    return one_graph(folder, [helper.make_node("MatMul", ["a", "b"], ["y"])], "ab", {}, device, tf32=tf32)


def swelling(folder: Path, device: Device, *, mebibytes: int, copies: int) -> OnnxRuntime:
    """y is x, if it is not negative, by way of some tensors of so much memory for each row, all there at a time."""
    names = [f"copy{number}" for number in range(copies)]
    nodes = [
        helper.make_node("Expand", ["x", "size"], ["much"]),
        *(helper.make_node("LeakyRelu", ["much"], [name], alpha=0.01 * n) for n, name in enumerate(names, start=1)),
        helper.make_node("Max", names, ["most"]),
        helper.make_node("ReduceMax", ["most"], ["y"], axes=[1], keepdims=1),
    ]
    return one_graph(folder, nodes, "x", {"size": [1, mebibytes * 2**18]}, device)


def one_graph(
    folder: Path,
    nodes: list[onnx.NodeProto],
    names: str,
    constants: dict[str, list[int]],
    device: Device,
    **options: Any,
) -> OnnxRuntime:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", f"c{name}"]) for name in (*names, "y")]
    weights = [helper.make_tensor(name, TensorProto.INT64, [len(v)], v) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "one", values[:-1], values[-1:], weights)
    path = folder / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    tensors = [Tensor(name=v.name, dtype="float32", shape=("N", f"c{v.name}"), meaning="any") for v in values]
    declared = Graph(file=path.name, inputs=tuple(tensors[:-1]), outputs=(tensors[-1],))
    return OnnxRuntime(path, declared, device=device, **options)

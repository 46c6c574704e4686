from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from engines import runtime_openvino
from engines.bundle import Bundle, write_bundle
from engines.errors import BundleError, DeviceMissingError, RuntimeFailedError, RuntimeUnavailableError, UsageError
from engines.manifest import Graph, Tensor
from engines.runtime import open_runtime
from engines.runtime_openvino import import_openvino, openvino_core
from tests.engines.helpers import doubler, tiny_draft


def test_openvinos_telemetry_is_never_loaded_and_leaves_nothing_in_the_home(tmp_path: Path) -> None:
    program = (
        "import sys; from engines.runtime_openvino import import_openvino; import_openvino().Core();"
        "print([name for name, module in sys.modules.items() if name.startswith('openvino_telemetry') and module])"
    )
    # Continuous integration switches it off by itself: ask without.
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")}
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=kept | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert result.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


SIGNALLED = """
import gc, signal, sys
from pathlib import Path
from engines.bundle import open_bundle
from engines.errors import StandinError
from engines.runtime import open_runtime
kept = []
for name in ("bad", "good", "bad", "good", "bad"):
    try:
        open_runtime(open_bundle(Path(sys.argv[1]) / name), device="openvino").close()
    except StandinError as error:
        kept.append(error)
kept.clear()
gc.collect()
signal.signal(signal.SIGINT, lambda *_: print("handled"))
for _ in range(3):
    signal.raise_signal(signal.SIGINT)
"""


def test_signals_are_still_handled_after_runtimes_have_come_and_gone(tmp_path: Path) -> None:
    """Each OpenVINO core exchanges the stack that signal handlers run on; a freed one would end the process."""
    write_bundle(tmp_path / "good", tiny_draft(), {"detector.onnx": doubler()})
    write_bundle(tmp_path / "bad", tiny_draft(), {"detector.onnx": b"nothing"})
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", SIGNALLED, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (result.returncode, result.stdout) == (0, "handled\n" * 3), result.stderr


def test_without_openvino_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> types.ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr("engines.runtime_openvino.import_module", missing)
    with pytest.raises(DeviceMissingError, match=r'pip install "standin\[openvino\]"'):
        import_openvino()


def test_an_emptied_installation_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.runtime_openvino.import_module", types.ModuleType)
    with pytest.raises(DeviceMissingError, match="empty"):
        import_openvino()


def test_a_file_that_is_no_model_is_a_bundle_error(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", tiny_draft(), {"detector.onnx": b"nothing"})
    with pytest.raises(BundleError, match="cannot be loaded by OpenVINO") as caught:
        open_runtime(bundle, device="openvino")
    assert "\n" not in str(caught.value)


def test_a_model_with_other_names_than_its_manifest_is_a_bundle_error(tmp_path: Path) -> None:
    draft = tiny_draft()
    graph = draft.graphs["detector"]
    renamed = graph.model_copy(update={"outputs": (graph.outputs[0].model_copy(update={"name": "z"}),)})
    draft = draft.model_copy(update={"graphs": {"detector": renamed}})
    bundle = write_bundle(tmp_path / "b", draft, {"detector.onnx": doubler()})
    with pytest.raises(BundleError, match="outputs y, its manifest declares z"):
        open_runtime(bundle, device="openvino")


def test_what_openvino_raises_becomes_one_line_with_the_shapes(tmp_path: Path) -> None:
    draft = tiny_draft()
    graph = draft.graphs["detector"]
    loose = tuple(
        tensor.model_copy(update={"shape": tuple(f"{tensor.name}{axis}" for axis in range(len(tensor.shape)))})
        for tensor in graph.inputs
    )
    draft = draft.model_copy(update={"graphs": {"detector": graph.model_copy(update={"inputs": loose})}})
    bundle = write_bundle(tmp_path / "b", draft, {"detector.onnx": doubler()})
    feeds: dict[str, Any] = {"x": np.zeros((2, 2, 3), np.float32), "n": np.zeros(3, np.int64)}
    good: dict[str, Any] = {"x": np.ones((2, 2, 3), np.float32), "n": np.zeros(2, np.int64)}
    with open_runtime(bundle, device="openvino") as runtime:
        with pytest.raises(RuntimeFailedError, match=r"x \(2, 2, 3\)") as caught:
            runtime.run(feeds)
        assert "\n" not in str(caught.value)
        # The failure does not spoil what comes after it.
        np.testing.assert_array_equal(runtime.run(good)["y"], 2 * good["x"])


def product(folder: Path) -> tuple[Bundle, Any, Any]:
    """A bundle that multiplies by a matrix, some rows, and what it should make of them."""
    draw = np.random.default_rng(0)
    x, weight = (draw.standard_normal((64, 64)).astype(np.float32) for _ in range(2))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 64]) for name in "xy"]
    held = helper.make_tensor("weight", TensorProto.FLOAT, weight.shape, weight.tobytes(), raw=True)
    product = helper.make_graph([helper.make_node("MatMul", ["x", "weight"], ["y"])], "p", ends[:1], ends[1:], [held])
    model = helper.make_model(product, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    tensors = [Tensor(name=name, dtype="float32", shape=("N", 64), meaning="") for name in "xy"]
    graph = Graph(file="detector.onnx", inputs=tuple(tensors[:1]), outputs=tuple(tensors[1:]))
    draft = tiny_draft().model_copy(update={"graphs": {"detector": graph}})
    bundle: Bundle = write_bundle(folder, draft, {"detector.onnx": model.SerializeToString()})
    return bundle, x, x.astype(np.float64) @ weight.astype(np.float64)


def test_float32_is_computed_in_float32(tmp_path: Path) -> None:
    """Where the processor has bfloat16, OpenVINO would use it unless told otherwise."""
    bundle, x, exact = product(tmp_path / "b")
    with open_runtime(bundle, device="openvino") as runtime:
        y = runtime.run({"x": x})["y"]
        assert runtime.provider == "OpenVINO CPU"
    assert np.abs(y - exact).max() < 1e-5 * np.abs(exact).max()


def test_bfloat16_is_computed_where_it_is_asked_for_and_the_processor_has_it(tmp_path: Path) -> None:
    bundle, x, exact = product(tmp_path / "b")
    if "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(RuntimeUnavailableError, match="--precision fp32"):
            open_runtime(bundle, device="openvino", bfloat16=True)
        return
    with open_runtime(bundle, device="openvino", bfloat16=True) as runtime:
        y = runtime.run({"x": x})["y"]
        assert runtime.provider == "OpenVINO CPU, bfloat16"
    # Two to three digits, and not more.
    assert 1e-4 < np.abs(y - exact).max() / np.abs(exact).max() < 2e-2


class _OldProcessor:
    def get_property(self, device: str, name: str) -> Any:
        return {"FULL_DEVICE_NAME": "Old One ", "OPTIMIZATION_CAPABILITIES": ["FP32", "INT8"]}[name]


def test_a_processor_without_bfloat16_is_told_so_and_other_precisions_stay_usable(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_openvino, "openvino_core", _OldProcessor)
    with pytest.raises(RuntimeUnavailableError, match="Old One does not compute in bfloat16") as caught:
        open_runtime(tiny, device="openvino", bfloat16=True)
    # Else a measurement of several precisions would leave the device out.
    assert not isinstance(caught.value, DeviceMissingError)


@pytest.mark.parametrize("device", ["cpu", "cuda", "tensorrt"])
def test_no_other_device_computes_in_bfloat16(tiny: Bundle, device: Any) -> None:
    with pytest.raises(UsageError, match="--device openvino"):
        open_runtime(tiny, device=device, bfloat16=True)

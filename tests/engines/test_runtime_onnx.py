from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from engines.bundle import Bundle, write_bundle
from engines.errors import BundleError, DeviceMissingError, OutOfMemoryError, RuntimeFailedError, TensorError
from engines.onnx_binding import OrtArray
from engines.resident import HostArray
from engines.runtime import open_runtime
from engines.runtime_onnx import (
    OnnxRuntime,
    import_onnxruntime,
    provider_options,
    require_active,
    require_providers,
)
from tests.engines.helpers import doubler, tiny_draft
from tests.engines.onnx_fakes import CPU, CUDA, TENSORRT, FakeOnnxRuntime, assigned


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_there_is_an_error_that_lists_those_that_are(tiny: Bundle, device: Any) -> None:
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider")
    with pytest.raises(DeviceMissingError, match=CPU) as caught:
        open_runtime(tiny, device=device)
    assert "pip install" in str(caught.value)
    assert CUDA in str(caught.value)


def test_providers_come_in_the_order_of_preference() -> None:
    assert require_providers("tensorrt", [CPU, CUDA, TENSORRT]) == (TENSORRT, CUDA, CPU)
    assert require_providers("cuda", [CPU, CUDA]) == (CUDA, CPU)
    assert require_providers("cpu", [CPU]) == (CPU,)


@pytest.mark.parametrize("active", [[CPU], [CUDA, CPU], []])
def test_a_fall_back_after_creation_is_an_error(active: list[str]) -> None:
    with pytest.raises(DeviceMissingError, match="fell back"):
        require_active("tensorrt", active)


def use(monkeypatch: pytest.MonkeyPatch, fake: FakeOnnxRuntime, **more: Any) -> None:
    module = fake.module
    module.__dict__.update(more)
    monkeypatch.setattr("engines.runtime_onnx.import_module", lambda name: module)


def doubled(feeds: Mapping[str, Any]) -> Sequence[Any]:
    return [2 * feeds["x"] + feeds["n"][:, None, None].astype(np.float32)]


def tiny_feeds(rows: int) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    return {"x": draw.normal(size=(rows, 2, 3)).astype(np.float32), "n": np.arange(rows, dtype=np.int64)}


@pytest.mark.parametrize(("device", "wanted"), [("cuda", CUDA), ("tensorrt", TENSORRT)])
def test_a_session_that_fell_back_is_never_used(
    tiny: Bundle,
    device: Any,
    wanted: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = FakeOnnxRuntime(doubled, active=[CPU])
    use(monkeypatch, fake, preload_dlls=lambda: print("libcudnn was not found"))
    with pytest.raises(DeviceMissingError, match=f"needs {wanted}.* fell back to CPUExecutionProvider"):
        open_runtime(tiny, device=device)
    assert fake.made[0]["enable_fallback"] == 0
    assert fake.rows == []
    assert capsys.readouterr().out == ""
    assert "libcudnn was not found" in caplog.text


def test_tf32_is_off_unless_it_is_asked_for() -> None:
    names = (TENSORRT, CUDA, CPU)
    for tf32, said in ((False, "0"), (True, "1")):
        # No stream waits until all ways to convolve a new shape were timed.
        told = {"use_tf32": said, "cudnn_conv_algo_search": "HEURISTIC"}
        assert provider_options(names, tf32=tf32) == [TENSORRT, (CUDA, told), CPU]
    assert provider_options((CPU,), tf32=True) == [CPU]


@pytest.mark.parametrize(
    ("device", "asked", "said"), [("cpu", True, None), ("cuda", False, False), ("cuda", True, True)]
)
def test_a_runtime_says_whether_it_computes_in_tf32(
    tiny: Bundle, device: Any, asked: bool, said: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, FakeOnnxRuntime(doubled))
    with OnnxRuntime(tiny.file("detector.onnx"), tiny.graph("detector"), device=device, tf32=asked) as runtime:
        assert runtime.tf32 is said


def test_tensorrts_provider_does_not_claim_to_have_tf32_off(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeOnnxRuntime(doubled))
    with OnnxRuntime(tiny.file("detector.onnx"), tiny.graph("detector"), device="tensorrt", tf32=False) as runtime:
        assert runtime.tf32 is True


def test_nodes_that_a_gpu_does_not_get_are_counted_and_said(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parts = [assigned(CUDA, "Conv", "Add"), assigned(CPU, "Shape"), assigned(CPU, "Resize"), assigned(CUDA, "Mul")]
    use(monkeypatch, FakeOnnxRuntime(doubled, parts=parts))
    caplog.set_level("INFO", "engines.runtime_onnx")
    with OnnxRuntime(tiny.file("detector.onnx"), tiny.graph("detector"), device="cuda") as runtime:
        placement = runtime.placement
    assert placement is not None
    assert placement.nodes == 5
    assert placement.on_cpu == {"Shape": 1, "Resize": 1}
    assert "2 of 5 nodes on the CPU (Resize 1, Shape 1)" in caplog.text


def test_an_onnx_runtime_that_does_not_tell_where_nodes_are_is_not_taken_for_one_without_strays(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use(monkeypatch, FakeOnnxRuntime(doubled, parts=None))
    caplog.set_level("INFO", "engines.runtime_onnx")
    with OnnxRuntime(tiny.file("detector.onnx"), tiny.graph("detector"), device="cuda") as runtime:
        assert runtime.placement is None
    assert "does not tell" in caplog.text


def test_a_run_on_a_gpu_gives_what_the_graph_gives(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeOnnxRuntime(doubled)
    use(monkeypatch, fake)
    feeds = tiny_feeds(4)
    with open_runtime(tiny, device="cuda") as runtime:
        found = runtime.run(feeds)["y"]
    np.testing.assert_array_equal(found, doubled(feeds)[0])
    assert fake.bound == [("y", "cpu")]
    assert fake.rows == [4]


def test_arrays_that_are_held_and_kept_stay_on_the_device(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeOnnxRuntime(doubled)
    use(monkeypatch, fake)
    feeds = tiny_feeds(2)
    with OnnxRuntime(tiny.file("detector.onnx"), tiny.graph("detector"), device="cuda") as runtime:
        held = runtime.hold(feeds["x"])
        found = runtime.run(feeds | {"x": held}, keep=["y"])["y"]
        again = runtime.run(feeds | {"x": found})["y"]
    assert isinstance(found, OrtArray)
    np.testing.assert_array_equal(found.numpy(), doubled(feeds)[0])
    np.testing.assert_array_equal(again, doubled(feeds | {"x": doubled(feeds)[0]})[0])
    assert fake.held == ["cuda"]
    assert fake.bound == [("y", "cuda"), ("y", "cpu")]


def test_arrays_of_another_runtime_are_taken_from_the_host(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeOnnxRuntime(doubled))
    feeds = tiny_feeds(2)
    with OnnxRuntime(tiny.file("detector.onnx"), tiny.graph("detector"), device="cuda") as runtime:
        found = runtime.run(feeds | {"x": HostArray(feeds["x"])})["y"]
    np.testing.assert_array_equal(found, doubled(feeds)[0])


def test_runs_with_rows_or_answers_on_the_device_are_not_split(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeOnnxRuntime(doubled, most=2)
    use(monkeypatch, fake)
    feeds = tiny_feeds(3)
    with OnnxRuntime(tiny.file("detector.onnx"), tiny.graph("detector"), device="cuda") as runtime:
        for given, keep in ((feeds, ["y"]), (feeds | {"x": runtime.hold(feeds["x"])}, [])):
            with pytest.raises(OutOfMemoryError):
                runtime.run(given, keep=keep)
    assert fake.rows == [3, 3]


@pytest.mark.parametrize("message", [
    "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 9",
    "Available memory of 5 is smaller than requested bytes of 9",
    "CUDA failure 2: out of memory ; GPU=0",
    "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
])  # fmt: skip
def test_a_batch_for_which_there_is_no_memory_is_run_in_parts(
    tiny: Bundle, message: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def small_gpu(feeds: Mapping[str, Any]) -> Sequence[Any]:
        if len(feeds["x"]) > 2:
            raise RuntimeError(f"[ONNXRuntimeError] : 6 : {message}")
        return doubled(feeds)

    fake = FakeOnnxRuntime(small_gpu)
    use(monkeypatch, fake)
    feeds = tiny_feeds(5)
    with open_runtime(tiny, device="cuda") as runtime:
        np.testing.assert_array_equal(runtime.run(feeds)["y"], doubled(feeds)[0])
        assert fake.rows == [5, 2, 2, 1]
        np.testing.assert_array_equal(runtime.run(feeds)["y"], doubled(feeds)[0])
    # What was learnt is kept.
    assert fake.rows == [5, 2, 2, 1, 2, 2, 1]
    assert "no memory for 5 rows" in caplog.text


def test_without_memory_for_a_single_row_a_run_fails_in_one_line(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Mapping[str, Any]) -> Sequence[Any]:
        raise RuntimeError("CUDA failure 2:\nout of memory")

    fake = FakeOnnxRuntime(full)
    use(monkeypatch, fake)
    with open_runtime(tiny, device="cuda") as runtime, pytest.raises(OutOfMemoryError, match="smaller") as caught:
        runtime.run(tiny_feeds(4))
    assert fake.rows == [4, 2, 1]
    assert isinstance(caught.value, RuntimeFailedError)
    assert "\n" not in str(caught.value)


def test_other_failures_are_not_tried_again(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Mapping[str, Any]) -> Sequence[Any]:
        raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")

    fake = FakeOnnxRuntime(broken)
    use(monkeypatch, fake)
    with open_runtime(tiny, device="cuda") as runtime, pytest.raises(RuntimeFailedError, match="illegal"):
        runtime.run(tiny_feeds(4))
    assert fake.rows == [4]


def test_the_fakes_have_the_arguments_of_the_installed_onnx_runtime() -> None:
    session = FakeOnnxRuntime().module.InferenceSession(doubler(), None, providers=[CPU])
    with pytest.raises(TypeError):
        session.io_binding("an argument")
    with pytest.raises(TypeError):
        session.io_binding().bind_output()
    with pytest.raises(AttributeError):
        _ = session.no_such_method


def test_the_real_thing_tells_where_nodes_are(tiny: Bundle) -> None:
    with OnnxRuntime(tiny.file("detector.onnx"), tiny.graph("detector"), device="cpu") as runtime:
        placement = runtime.placement
    if placement is None:
        pytest.skip(f"ONNX Runtime {onnxruntime.__version__} does not tell where nodes are")
    assert placement.providers == {CPU: {"Add": 2, "Cast": 1, "Unsqueeze": 1}}


def test_a_closed_runtime_says_so(tiny: Bundle) -> None:
    runtime = OnnxRuntime(tiny.file("detector.onnx"), tiny.graph("detector"), device="cpu")
    runtime.close()
    for call in (lambda: runtime.run(tiny_feeds(1)), lambda: runtime.hold(np.zeros(1, np.float32))):
        with pytest.raises(RuntimeFailedError, match="closed"):
            call()


def test_arrays_of_other_libraries_are_inputs(tiny: Bundle) -> None:
    feeds = tiny_feeds(2)
    with OnnxRuntime(tiny.file("detector.onnx"), tiny.graph("detector"), device="cpu") as runtime:
        adopted = runtime.adopt(feeds["x"])
        assert np.shares_memory(adopted.numpy(), feeds["x"])
        found = runtime.run({"x": adopted, "n": feeds["n"]})["y"]
        np.testing.assert_array_equal(found, doubled(feeds)[0])
        with pytest.raises(TensorError, match="cannot be taken"):
            runtime.adopt(np.array(["text"]))


def test_where_the_device_is_the_processor_nothing_is_copied(tiny: Bundle) -> None:
    feeds = tiny_feeds(2)
    with OnnxRuntime(tiny.file("detector.onnx"), tiny.graph("detector"), device="cpu") as runtime:
        assert runtime.hold(feeds["x"]).numpy() is feeds["x"]


def test_arrays_on_the_device_are_checked_as_others(tiny: Bundle) -> None:
    with OnnxRuntime(tiny.file("detector.onnx"), tiny.graph("detector"), device="cpu") as runtime:
        held = runtime.hold(np.zeros((2, 5, 3), np.float32))
        with pytest.raises(TensorError, match="5 in dimension 1"):
            runtime.run({"x": held, "n": np.zeros(2, np.int64)})


def test_without_onnx_runtime_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> types.ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr("engines.runtime_onnx.import_module", missing)
    with pytest.raises(DeviceMissingError, match=r'pip install "standin\[cpu\]"'):
        import_onnxruntime()


def test_an_emptied_installation_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.runtime_onnx.import_module", types.ModuleType)
    with pytest.raises(DeviceMissingError, match="empty"):
        import_onnxruntime()


def test_a_file_that_is_no_model_is_a_bundle_error(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", tiny_draft(), {"detector.onnx": b"nothing"})
    with pytest.raises(BundleError, match="cannot be loaded") as caught:
        open_runtime(bundle)
    assert "\n" not in str(caught.value)


def test_a_model_with_other_names_than_its_manifest_is_a_bundle_error(tmp_path: Path) -> None:
    draft = tiny_draft()
    graph = draft.graphs["detector"]
    renamed = graph.model_copy(update={"outputs": (graph.outputs[0].model_copy(update={"name": "z"}),)})
    draft = draft.model_copy(update={"graphs": {"detector": renamed}})
    bundle = write_bundle(tmp_path / "b", draft, {"detector.onnx": doubler()})
    with pytest.raises(BundleError, match="outputs y, its manifest declares z"):
        open_runtime(bundle)


def test_what_onnx_runtime_raises_becomes_one_line_with_the_shapes(tmp_path: Path) -> None:
    draft = tiny_draft()
    graph = draft.graphs["detector"]
    loose = tuple(
        tensor.model_copy(update={"shape": tuple(f"{tensor.name}{axis}" for axis in range(len(tensor.shape)))})
        for tensor in graph.inputs
    )
    draft = draft.model_copy(update={"graphs": {"detector": graph.model_copy(update={"inputs": loose})}})
    bundle = write_bundle(tmp_path / "b", draft, {"detector.onnx": doubler()})
    feeds: dict[str, Any] = {"x": np.zeros((2, 2, 3), np.float32), "n": np.zeros(3, np.int64)}
    with open_runtime(bundle) as runtime, pytest.raises(RuntimeFailedError, match=r"x \(2, 2, 3\)") as caught:
        runtime.run(feeds)
    assert "\n" not in str(caught.value)

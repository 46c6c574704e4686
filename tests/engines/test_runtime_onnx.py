from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from engines.bundle import Bundle, write_bundle
from engines.errors import BundleError, RuntimeFailedError, RuntimeUnavailableError
from engines.runtime import open_runtime
from engines.runtime_onnx import import_onnxruntime, require_active, require_providers
from tests.engines.helpers import doubler, tiny_draft

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_there_is_an_error_that_lists_those_that_are(tiny: Bundle, device: Any) -> None:
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider")
    with pytest.raises(RuntimeUnavailableError, match=CPU) as caught:
        open_runtime(tiny, device=device)
    assert "pip install" in str(caught.value)
    assert CUDA in str(caught.value)


def test_providers_come_in_the_order_of_preference() -> None:
    assert require_providers("tensorrt", [CPU, CUDA, TENSORRT]) == (TENSORRT, CUDA, CPU)
    assert require_providers("cuda", [CPU, CUDA]) == (CUDA, CPU)
    assert require_providers("cpu", [CPU]) == (CPU,)


@pytest.mark.parametrize("active", [[CPU], [CUDA, CPU], []])
def test_a_fall_back_after_creation_is_an_error(active: list[str]) -> None:
    with pytest.raises(RuntimeUnavailableError, match="fell back"):
        require_active("tensorrt", active)


def test_a_session_that_fell_back_is_never_used(
    tiny: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    made: list[dict[str, Any]] = []

    class FellBack:
        def __init__(self, path: str, options: Any, **settings: Any) -> None:
            made.append(settings)

        def get_providers(self) -> list[str]:
            return [CPU]

    fake = types.SimpleNamespace(
        InferenceSession=FellBack,
        SessionOptions=onnxruntime.SessionOptions,
        get_available_providers=lambda: [CUDA, CPU],
        preload_dlls=lambda: print("libcudnn was not found"),
    )
    monkeypatch.setattr("engines.runtime_onnx.import_module", lambda name: fake)
    with pytest.raises(RuntimeUnavailableError, match="fell back to CPUExecutionProvider"):
        open_runtime(tiny, device="cuda")
    assert made == [{"providers": [CUDA, CPU], "enable_fallback": 0}]
    assert capsys.readouterr().out == ""
    assert "libcudnn was not found" in caplog.text


def test_without_onnx_runtime_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> types.ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr("engines.runtime_onnx.import_module", missing)
    with pytest.raises(RuntimeUnavailableError, match=r'pip install "standin\[cpu\]"'):
        import_onnxruntime()


def test_an_emptied_installation_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.runtime_onnx.import_module", types.ModuleType)
    with pytest.raises(RuntimeUnavailableError, match="empty"):
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

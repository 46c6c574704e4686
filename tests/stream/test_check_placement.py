from __future__ import annotations

import sys
from pathlib import Path

import onnxruntime
import pytest

from engines.errors import RuntimeUnavailableError
from engines.store import Store
from stream.check_placement import check_placement, placements
from tests.engines.onnx_fakes import CPU, CUDA, FakeOnnxRuntime, assigned


def use(monkeypatch: pytest.MonkeyPatch, fake: FakeOnnxRuntime) -> None:
    monkeypatch.setattr("engines.runtime_onnx.import_module", lambda name: fake.module)


def test_without_the_provider_there_is_nothing_to_say() -> None:
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider")

    def never(command: list[str]) -> tuple[int, str, str]:
        raise AssertionError(command)

    assert check_placement(never) == []


def test_every_graph_that_comes_along_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path))
    use(monkeypatch, FakeOnnxRuntime(parts=[assigned(CUDA, "Conv", "Add"), assigned(CPU, "Shape")]))
    store = Store(tmp_path)
    manifests = [store.open(name).manifest for name in store.built_in()]
    graphs = {f"{one.name} {key}" for one in manifests for key in one.graphs if key not in one.quantized}
    assert graphs
    assert dict(placements("cuda")) == dict.fromkeys(graphs, "1 of 3 nodes on the CPU (Shape 1)")


def test_a_fall_back_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path))
    use(monkeypatch, FakeOnnxRuntime(active=[CPU]))
    with pytest.raises(RuntimeUnavailableError, match="fell back"):
        placements("cuda")


def test_what_the_probe_says_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeOnnxRuntime())
    asked: list[list[str]] = []

    def probe(command: list[str]) -> tuple[int, str, str]:
        asked.append(command)
        return 0, 'a line of a driver\n[["starter-generator generator", "0 of 9 nodes on the CPU"]]\n', ""

    (check,) = check_placement(probe)
    assert (check.status, check.detail) == ("ok", "starter-generator generator: 0 of 9 nodes on the CPU")
    assert asked[0][0] == sys.executable
    # It is Python that can be run.
    compile(asked[0][2], "probe", "exec")


def test_a_probe_that_fails_is_a_warning_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeOnnxRuntime())
    (check,) = check_placement(lambda command: (1, "", "Traceback\n...\nRuntimeUnavailableError: fell back to CPU\n"))
    assert (check.status, check.detail) == ("warn", "RuntimeUnavailableError: fell back to CPU")
    assert "driver" in check.todo


def test_the_probe_runs_on_the_cpu_as_it_would_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path))
    found = dict(placements("cpu"))
    assert any("nodes on the CPU" in text or "does not tell" in text for text in found.values())

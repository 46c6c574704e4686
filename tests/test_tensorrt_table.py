from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fake_cuda import FakeGpu, fake_cudart
from tests.fake_tensorrt import FakeTensorrt
from tests.fake_tensorrt_parts import FAKES
from tests.tensorrt_table import CLASSES, CUDA_FUNCTIONS, ENUMS, closest, collect, collect_cuda, overloads, table

ROOT = Path(__file__).parents[1]
VERSIONS = ("10.3.0", "10.16.1.11", "11.4.0.106")


def test_the_table_has_everything_that_is_used_in_every_version() -> None:
    assert set(table()["tensorrt"]) == set(VERSIONS)
    for version, known in table()["tensorrt"].items():
        for name, members in CLASSES.items():
            found = known["classes"][name]
            assert {*found["methods"], *found["properties"]} == set(members), (version, name)
            assert all(found["methods"].values()), (version, name)
        assert known["functions"]["init_libnvinfer_plugins"]
    for known in table()["cuda.bindings.runtime"].values():
        assert set(known["functions"]) == set(CUDA_FUNCTIONS)


def test_what_only_later_versions_have_is_not_in_the_table_of_earlier_ones() -> None:
    levels = {v: set(known["enums"]["HardwareCompatibilityLevel"]) for v, known in table()["tensorrt"].items()}
    assert "SAME_COMPUTE_CAPABILITY" not in levels["10.3.0"]
    assert "SAME_COMPUTE_CAPABILITY" in levels["11.4.0.106"]


def test_the_table_has_nothing_that_is_not_used() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "engines").glob("*.py"))
    members = {member for names in CLASSES.values() for member in names} - {"__init__"}
    flags = {member for name, names in ENUMS.items() if name != "TensorIOMode" for member in names} - {
        "NONE",
        "VERBOSE",
    }
    for name in members | set(CUDA_FUNCTIONS) | flags:
        assert re.search(rf"\b{name}\b", sources), name


def test_signatures_are_read_from_what_the_bindings_write_about_themselves() -> None:
    doc = """f(*args, **kwargs)
    Overloaded function.

    1. f(self: m.A, network: m.N, flags: int = 0) -> m.H
    2. f(self: m.A, way: m.S = <S.STATIC: 0>, names: dict[str, int] = {}) -> None
    """
    assert overloads("f", doc) == [[("network", False), ("flags", True)], [("way", True), ("names", True)]]
    assert overloads("g", doc) == []


def test_an_unknown_version_is_taken_for_the_last_one_of_its_kind() -> None:
    known = table()["tensorrt"]
    assert closest(known, "10.9.1") == known["10.16.1.11"]
    assert closest(known, "11.0.0") == known["11.4.0.106"]
    with pytest.raises(ValueError):
        closest(known, "12.0")


@pytest.mark.parametrize("version", VERSIONS)
def test_fakes_refuse_what_the_table_does_not_list(version: str) -> None:
    trt = FakeTensorrt(FakeGpu(), version).module

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

    builder = trt.Builder(Logger())
    config = builder.create_builder_config()
    mistakes: tuple[Callable[[], Any], ...] = (
        lambda: builder.create_network(flag=1),
        lambda: builder.create_network(1, 2),
        lambda: config.set_timing_cache(config.create_timing_cache(b"")),
        lambda: trt.OnnxParser(builder.create_network()),
    )
    for mistake in mistakes:
        with pytest.raises(TypeError, match="the table has"):
            mistake()
    for owner, name in ((builder, "build_engine"), (trt.BuilderFlag, "FP16"), (trt, "volume")):
        assert not hasattr(owner, name)
    for owner, name in ((config, "max_workspace_size"), (trt.Runtime(Logger()), "logger")):
        with pytest.raises(AttributeError):
            setattr(owner, name, 1)


def test_a_listener_whose_base_was_not_made_is_refused() -> None:
    trt = FakeTensorrt(FakeGpu()).module

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match="must be called"):
        trt.Builder(Logger())


def test_the_fake_gpu_refuses_what_the_table_does_not_list() -> None:
    cudart = fake_cudart(FakeGpu())
    with pytest.raises(TypeError):
        cudart.cudaMalloc()
    with pytest.raises(TypeError):
        cudart.cudaMalloc(bytes=1)
    assert not hasattr(cudart, "cudaMemcpy")


def test_there_is_a_fake_for_every_class_that_is_made_and_none_besides() -> None:
    assert set(FAKES) | {"ITensor"} == set(CLASSES)


@pytest.mark.gpu
def test_the_table_is_what_the_installed_tensorrt_says() -> None:
    trt = pytest.importorskip("tensorrt", reason="TensorRT is not installed", exc_type=ImportError)
    known, found = closest(table()["tensorrt"], trt.__version__), collect(trt)
    for name, members in known["enums"].items():
        assert set(found["enums"][name]) >= set(members)
    for name, spec in known["classes"].items():
        assert found["classes"][name]["properties"] == spec["properties"], name
        for method, ways in spec["methods"].items():
            # Later versions may add ways to call a method; those that are used must stay.
            assert all(way in found["classes"][name]["methods"][method] for way in ways), (name, method)
    assert found["functions"] == known["functions"]


def test_the_table_is_what_the_installed_cuda_bindings_say() -> None:
    runtime: Any = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    version = pytest.importorskip("cuda.bindings").__version__
    found, known = collect_cuda(runtime), closest(table()["cuda.bindings.runtime"], version)
    assert found == known
    error = runtime.cudaError_t.cudaErrorMemoryAllocation
    assert (int(error), error.name) == (2, "cudaErrorMemoryAllocation")

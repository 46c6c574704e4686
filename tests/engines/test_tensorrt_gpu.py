"""Plans on a real GPU, where there is one with TensorRT: everything that fakes cannot know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu_gains
from engines.bundle import Bundle
from engines.dlpack import CUDA
from engines.errors import RuntimeUnavailableError
from engines.plan_adopt import adopt_plan
from engines.plan_build import PlanBuilder
from engines.plan_open import open_plan
from engines.plan_serialize import BuildOptions
from engines.plan_shapes import Range, dimension_ranges, input_shapes
from engines.runtime import open_runtime
from engines.runtime_chained import ChainedRuntime
from engines.runtime_tensorrt import TensorrtRuntime
from engines.store import Store
from engines.tensorrt_policy import Policy
from stream.generators.inputs import RawInputs, crops_graph
from tests.engines.importers.networks import columns, fixed_answer, imported, ultralytics
from tests.engines.tensorrt_machines import RANGES
from tests.generator_bundles import HEIGHT, VERTICES, WIDTH, crops, inputs_of, vertex_embeddings, write_surface

# A plan takes a minute and more to build.
pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def builder() -> PlanBuilder:
    try:
        return PlanBuilder()
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))


FULL = BuildOptions("fp32")


def planned(
    bundle: Bundle, graph: str, builder: PlanBuilder, folder: Path, options: BuildOptions = FULL, /, **given: Range
) -> TensorrtRuntime:
    declared = bundle.graph(graph)
    shapes = input_shapes(declared, dimension_ranges(bundle.manifest, declared, given=given))
    plan = builder.build(bundle, graph, shapes, options, folder).plan
    return TensorrtRuntime(plan, declared, host_code=options.version_compatible)


def drawn(bundle: Bundle, graph: str, sizes: dict[str, int], seed: int = 0) -> dict[str, Any]:
    """Something for each input of a graph: indices that are there, and numbers around zero."""
    draw = np.random.default_rng(seed)
    feeds: dict[str, Any] = {}
    for tensor in bundle.graph(graph).inputs:
        shape = tuple(sizes[side] if isinstance(side, str) else side for side in tensor.shape)
        if tensor.dtype == "int64":
            feeds[tensor.name] = draw.integers(0, 2, shape)
        else:
            feeds[tensor.name] = draw.standard_normal(shape).astype(tensor.dtype)
    return feeds


def test_a_tiny_graph_computes_the_same_recorded_or_not(tiny: Bundle, builder: PlanBuilder, tmp_path: Path) -> None:
    with planned(tiny, "detector", builder, tmp_path, **RANGES) as runtime:
        for rows in (2, 2, 2, 8, 11, 2):
            x = np.random.default_rng(rows).standard_normal((rows, 2, 5)).astype(np.float32)
            n = np.arange(rows)
            found = runtime.run({"x": x, "n": n})["y"]
            np.testing.assert_allclose(found, 2 * x + n[:, None, None], rtol=1e-6)
        assert runtime._contexts.capturable, "recording a CUDA graph failed"


@pytest.mark.parametrize(("graph", "sizes"), [("mapping", {}), ("generator", {"N": 2, "S": 2})])
def test_the_starter_generator_computes_as_on_the_cpu(
    graph: str, sizes: dict[str, int], builder: PlanBuilder, tmp_path: Path
) -> None:
    bundle = Store(tmp_path / "store").open("starter-generator")
    feeds = drawn(bundle, graph, sizes)
    with planned(bundle, graph, builder, tmp_path / "plans", S=Range(1, 2, 4)) as runtime:
        for _ in range(3):
            found = runtime.run(feeds)
    with open_runtime(bundle, graph) as cpu:
        for name, wanted in cpu.run(feeds).items():
            np.testing.assert_allclose(found[name], wanted, atol=1e-3)


def test_a_plan_takes_what_onnx_runtime_kept_where_it_lies(builder: PlanBuilder, tmp_path: Path) -> None:
    bundle, crop = write_surface(tmp_path / "b"), crops(1, 2)
    made, graph = inputs_of(bundle), bundle.graph("generator")
    small = crops_graph(made.names, (HEIGHT, WIDTH), made.normalisation, vertex_embeddings())
    others = {n: a for n, a in drawn(bundle, "generator", {"N": 2, "S": 2}).items() if n not in made.names}
    try:
        beside = small.open("cuda")
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))
    with beside, planned(bundle, "generator", builder, tmp_path / "plans", S=Range(1, 2, 4)) as plan:
        kept = beside.run(RawInputs(VERTICES).of(crop), made.names)
        assert plan.adopt(kept["image"]).device == (CUDA, 0)
        both = ChainedRuntime(beside, plan)
        wanted = plan.run({**made.of(crop), **others})["output"]
        for _ in range(3):
            found = both.run({**RawInputs(VERTICES).of(crop), **others})["output"]
            np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert graph.outputs == both.outputs


def test_the_starter_detector_finds_what_it_finds_on_the_cpu(builder: PlanBuilder, tmp_path: Path) -> None:
    bundle = Store(tmp_path / "store").open("starter-detector")
    feeds = drawn(bundle, "detector", {"N": 1, "h": 384, "w": 640})
    feeds["image_size"] = np.array([[384, 640]])
    with planned(bundle, "detector", builder, tmp_path / "plans") as runtime:
        # The third one runs as recorded, suppression and all.
        for _ in range(3):
            found = runtime.run(feeds)
        assert runtime._contexts.capturable, "recording a CUDA graph failed"
    with open_runtime(bundle) as cpu:
        wanted = cpu.run(feeds)
    assert found["count"] == wanted["count"]
    np.testing.assert_allclose(found["pixels"], wanted["pixels"], atol=1e-2)
    np.testing.assert_allclose(found["scores"], wanted["scores"], atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        BuildOptions("fp32", hardware="capability"),
        BuildOptions("fp32", hardware="ampere+"),
        BuildOptions("fp32", version_compatible=True),
        BuildOptions("tf32"),
    ],
    ids=["hardware", "ampere", "version", "tf32"],
)
def test_plans_of_every_kind_compute(options: BuildOptions, tiny: Bundle, builder: PlanBuilder, tmp_path: Path) -> None:
    with planned(tiny, "detector", builder, tmp_path, options, **RANGES) as runtime:
        x, n = np.ones((2, 2, 5), np.float32), np.arange(2)
        np.testing.assert_allclose(runtime.run({"x": x, "n": n})["y"], 2 * x + n[:, None, None], rtol=1e-3)


def test_suppression_whose_rows_depend_on_data_computes_as_on_the_cpu(builder: PlanBuilder, tmp_path: Path) -> None:
    # Two that cover each other, and one that stands alone.
    table = columns([[20, 30, 10, 20, 0.9], [21, 30, 10, 20, 0.8], [60, 30, 10, 20, 0.7]])
    bundle = imported(fixed_answer({"o": table}, metadata=ultralytics(["person"])), tmp_path, "yolo")
    declared = bundle.graph("detector")
    sizes = Range(64, 64, 64), Range(96, 96, 96)
    shapes = input_shapes(declared, dimension_ranges(bundle.manifest, declared, sizes=sizes))
    feeds: dict[str, Any] = {"image": np.zeros((1, 3, 64, 96), np.float32), "image_size": np.array([[64, 96]])}
    with open_runtime(bundle) as cpu:
        wanted = cpu.run(feeds)
    assert wanted["count"] == 2
    with TensorrtRuntime(builder.build(bundle, "detector", shapes, FULL, tmp_path / "plans").plan, declared) as runtime:
        for _ in range(4):
            found = runtime.run(feeds)
            for name, values in wanted.items():
                np.testing.assert_allclose(found[name], values, atol=1e-4)
        assert runtime.recorded == 0


def test_a_plan_that_was_built_elsewhere_is_adopted(tiny: Bundle, builder: PlanBuilder, tmp_path: Path) -> None:
    declared = tiny.graph("detector")
    shapes = input_shapes(declared, dimension_ranges(tiny.manifest, declared, given=RANGES))
    built = builder.build(tiny, "detector", shapes, FULL, tmp_path / "there").plan
    plan = adopt_plan(tiny, "detector", built.path, FULL, tmp_path / "here")
    assert plan.record.key == built.record.key
    with TensorrtRuntime(plan, declared) as runtime:
        assert runtime.run({"x": np.ones((1, 2, 3), np.float32), "n": np.array([1])})["y"][0, 0, 0] == 3


def test_runs_of_fewer_rows_need_less_memory(builder: PlanBuilder, tmp_path: Path) -> None:
    """What halving the rows is for, where memory lacks."""
    bundle = Store(tmp_path / "store").open("starter-generator")
    declared = bundle.graph("generator")
    needed = []
    for most in (1, 8):
        with planned(bundle, "generator", builder, tmp_path / "plans", S=Range(1, 2, 4)) as runtime:
            limits = {name: limit[1] for name, limit in runtime._limits.items()}
            shapes = limits | {name: (most, *limits[name][1:]) for name in runtime._by_row}
            runtime._contexts.reserve(shapes, [tensor.name for tensor in declared.outputs])
            assert runtime._contexts._scratch is not None
            needed.append(runtime._contexts._scratch.size)
    assert needed[0] < 0.5 * needed[1]


def test_what_was_measured_in_one_build_is_not_measured_again(builder: PlanBuilder, tmp_path: Path) -> None:
    bundle = Store(tmp_path / "store").open("starter-generator")
    declared = bundle.graph("generator")
    shapes = input_shapes(declared, dimension_ranges(bundle.manifest, declared, given={"S": Range(1, 2, 4)}))
    first, again = (
        builder.build(bundle, "generator", shapes, FULL, tmp_path / "plans", force=force).plan.record.seconds
        for force in (False, True)
    )
    (cache,) = (tmp_path / "plans").glob("timing-*.cache")
    assert cache.stat().st_size > 1000
    assert again < 0.8 * first


def test_half_precision_is_near_full(builder: PlanBuilder, tmp_path: Path) -> None:
    bundle = write_surface(tmp_path / "surface")
    halves = [tensor for tensor in bundle.graph("generator_fp16").inputs if tensor.dtype == "float16"]
    assert halves, "nothing in it is half precision: nothing was tested"
    answers = []
    for graph, options in (("generator", FULL), ("generator_fp16", BuildOptions("fp16"))):
        feeds = drawn(bundle, graph, {"N": 2, "S": 2})
        with planned(bundle, graph, builder, tmp_path / "plans", options, S=Range(1, 2, 4)) as runtime:
            answers.append(runtime.run(feeds)["output"].astype(np.float32))
    assert np.sqrt(np.mean((answers[1] - answers[0]) ** 2)) < 2e-2 * np.sqrt(np.mean(answers[0] ** 2))


def test_recorded_runs_are_faster_than_others(
    builder: PlanBuilder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    del builder
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path))
    rows = list(gpu_gains.plans(200))
    print(rows)
    assert len(rows) == len(gpu_gains.GRAPHS)
    assert all(row["recorded"] for row in rows)
    assert all(row["gain"] >= 0.95 for row in rows)
    # Hundreds of small operators: what the launch of each costs is what a recording saves.
    assert max(row["gain"] for row in rows) > 1.1


def test_answers_stay_on_the_gpu(tiny: Bundle, builder: PlanBuilder, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    with planned(tiny, "detector", builder, tmp_path, **RANGES) as runtime:
        x = torch.randn(3, 2, 5, device="cuda")
        n = torch.arange(3, device="cuda")
        for _ in range(3):
            found = runtime.run({"x": runtime.adopt(x), "n": runtime.adopt(n)}, keep=["y"])["y"]
            assert found.device == (CUDA, 0)
            torch.testing.assert_close(torch.from_dlpack(found), 2 * x + n[:, None, None])


def test_the_plan_is_found_again_by_device_tensorrt(
    tiny: Bundle, builder: PlanBuilder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path))
    with pytest.raises(RuntimeUnavailableError, match="has no plan for TensorRT"):
        open_plan(tiny, "detector", Policy())
    planned(tiny, "detector", builder, tiny.path / "plans", **RANGES).close()
    with open_runtime(tiny, device="tensorrt") as runtime:
        assert runtime.run({"x": np.ones((1, 2, 3), np.float32), "n": np.array([1])})["y"][0, 0, 0] == 3

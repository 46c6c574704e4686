"""Plans of the published networks on a real GPU, what they do without memory, and what of a frame comes back."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu_gains
from engines.bundle import Bundle
from engines.cuda import Cuda, Stream
from engines.errors import OutOfMemoryError
from engines.importers.reference import drawn_picture
from engines.onnx_binding import Binding, OrtArray
from engines.plan_build import PlanBuilder
from engines.plan_serialize import BuildOptions
from engines.plan_shapes import Range
from engines.runtime import open_runtime
from engines.runtime_tensorrt import TensorrtRuntime
from engines.store import Store
from export.dsfd import export_dsfd
from export.models.dsfd import MEAN
from stream.anonymizer import Anonymizer
from stream.config import AnonymizerSettings, make_settings
from stream.demo import WALKERS
from stream.sources.video import VideoSource
from tests.engines.test_tensorrt_gpu import FULL, builder, planned
from tests.export.detector_cases import all_cases
from tests.export.models.test_dsfd import DSFD, load
from tests.export.networks import assert_near, assert_near_in_half
from tests.export.test_detectors_parity import Exporter, assert_same_boxes, exported, feeds_of, heads_feeds_of
from tests.export.test_generators import GRAPHS, export_case
from tests.parity import STYLE_UNET, SURFACE_UNET, ParityCase, parity_cases

# A plan of a full-size detector takes many minutes to build.
pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(3600)]

__all__ = ["builder", "exported"]

Feeds = dict[str, Any]
#: Those of full size, too, which take a processor minutes.
ALL_CASES = parity_cases(STYLE_UNET) + parity_cases(SURFACE_UNET)
#: Height and width of DSFD's pictures.
FACES = (288, 512)


def planned_for(bundle: Bundle, graph: str, builder: PlanBuilder, folder: Path, feeds: Feeds) -> TensorrtRuntime:
    """A plan for just these inputs."""
    declared = bundle.graph(graph)
    sides = itertools.chain.from_iterable(
        zip(tensor.shape, feeds[tensor.name].shape, strict=True) for tensor in declared.inputs
    )
    given = {word: Range(side, side, side) for word, side in sides if isinstance(word, str)}
    options = BuildOptions("fp16") if graph.endswith("_fp16") else FULL
    return planned(bundle, graph, builder, folder, options, **given)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: case.name)
def test_generators_give_what_they_give_on_the_processor(
    case: ParityCase, graph: str, builder: PlanBuilder, tmp_path: Path
) -> None:
    found = export_case(case, tmp_path)
    feeds = found.feeds(graph)
    wanted = found.image("generator", found.feeds("generator"), "cpu")
    with planned_for(found.bundle, graph, builder, tmp_path / "plans", feeds) as runtime:
        for _ in range(3):
            made = torch.from_numpy(runtime.run(feeds)["output"])
        assert runtime.recorded == 1
    (assert_near_in_half if graph.endswith("_fp16") else assert_near)(made, wanted)


@pytest.mark.parametrize("case", all_cases("in/image_bgr"), ids=lambda case: case.name)
def test_detectors_find_what_the_published_code_finds(
    case: ParityCase, exported: Exporter, builder: PlanBuilder, tmp_path: Path
) -> None:
    bundle, arrays, feeds = exported(case), case.arrays, feeds_of(case)
    with planned_for(bundle, "detector", builder, tmp_path, feeds) as runtime:
        for _ in range(3):
            found = runtime.run(feeds)
        assert runtime.recorded == 1
    count = int(found["count"][0])
    assert_same_boxes(found["boxes"][0, :count], found["scores"][0], arrays)
    given = heads_feeds_of(case, found)
    with planned_for(bundle, "heads", builder, tmp_path, given) as heads, open_runtime(bundle, "heads") as on_processor:
        looked, wanted = heads.run(given), on_processor.run(given)
    for name, values in wanted.items():
        assert_near(torch.from_numpy(looked[name]), torch.from_numpy(values))


@pytest.mark.parametrize("case", parity_cases(DSFD), ids=lambda case: case.name)
def test_faces_of_the_full_network_are_those_that_it_finds_on_the_processor(
    case: ParityCase, builder: PlanBuilder, tmp_path: Path
) -> None:
    torch.save(load(case).state_dict(), tmp_path / "dsfd.pth")
    bundle = export_dsfd(tmp_path / "dsfd.pth", tmp_path / "dsfd", input_size=FACES)
    pictures = drawn_picture(*FACES, seed=5) - np.array(MEAN, np.float32).reshape(1, 3, 1, 1)
    feeds: Feeds = {"image": pictures.astype(np.float32), "image_size": np.array([FACES], np.int64)}
    with planned_for(bundle, "detector", builder, tmp_path / "plans", feeds) as runtime, open_runtime(bundle) as cpu:
        found, wanted = runtime.run(feeds), cpu.run(feeds)
    best = min(5, int(wanted["count"][0]))
    assert best
    np.testing.assert_allclose(found["scores"][0, :best], wanted["scores"][0, :best], atol=1e-3)
    np.testing.assert_allclose(found["boxes"][0, :best], wanted["boxes"][0, :best], atol=0.5)


def test_without_memory_a_plan_is_refused_and_opens_once_there_is_some(builder: PlanBuilder, tmp_path: Path) -> None:
    bundle, cuda, taken = Store(tmp_path / "store").open("starter-generator"), Cuda(), []
    feeds = {
        tensor.name: np.zeros([1 if isinstance(side, str) else side for side in tensor.shape], tensor.dtype)
        for tensor in bundle.graph("generator").inputs
    }
    planned_for(bundle, "generator", builder, tmp_path / "plans", feeds).close()
    size = 2**34
    while size >= 2**16:
        try:
            taken.append(cuda.allocate(size))
        except OutOfMemoryError:
            size //= 2
    try:
        with pytest.raises(OutOfMemoryError):
            planned_for(bundle, "generator", builder, tmp_path / "plans", feeds)
    finally:
        for memory in taken:
            memory.free()
    with planned_for(bundle, "generator", builder, tmp_path / "plans", feeds) as runtime:
        assert np.isfinite(runtime.run(feeds)["output"]).all()


def test_no_copy_from_the_gpu_is_a_frame_or_a_picture_of_one(
    builder: PlanBuilder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    del builder
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path))
    list(gpu_gains.plans(1))
    sizes: list[int] = []
    download = Stream.download

    def counted(self: Stream, target: int, source: int, size: int) -> None:
        sizes.append(size)
        download(self, target, source, size)

    monkeypatch.setattr(Stream, "download", counted)
    # And what comes by way of ONNX Runtime, which computes beside the plans.
    run, numpy = Binding.run, OrtArray.numpy

    def ran(self: Binding, feeds: Any, keep: Any = ()) -> dict[str, Any]:
        made = run(self, feeds, keep)
        sizes.extend(array.nbytes for name, array in made.items() if name not in keep)
        return made

    def copied(self: OrtArray) -> Any:
        values = numpy(self)
        sizes.append(values.nbytes)
        return values

    monkeypatch.setattr(Binding, "run", ran)
    monkeypatch.setattr(OrtArray, "numpy", copied)
    settings = make_settings(AnonymizerSettings, {"preset": "starter", "device": "tensorrt"})
    with Anonymizer.from_settings(settings, offline=True) as anonymizer:
        made = list(anonymizer.iterate(itertools.islice(VideoSource(WALKERS), 10)))
    assert [item.withheld for item in made] == [None] * 10
    assert sum(item.generated for item in made) > 10
    height, width = made[0].image.shape[:2]
    assert sizes
    # What the detector is shown of it is padded to multiples of 32.
    for plane in (height * width, 3 * 384 * 640):
        assert not any(size % plane == 0 for size in sizes)

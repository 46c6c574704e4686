"""What travels between the host and the GPU while frames are anonymized: nothing as large as a frame comes back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engines.cuda import Cuda
from engines.runtime import Device
from engines.store import Store
from stream.bench.engines import opened_engines
from stream.config import AnonymizerSettings, make_settings
from stream.frame import Frame
from tests import generator_bundles as generators
from tests.detector_bundles import install_presets
from tests.engines.onnx_fakes import FakeOnnxRuntime
from tests.fake_cuda import FakeGpu, fake_cudart
from tests.fake_tensorrt import FakeTensorrt
from tests.media import picture

FRAMES, PERSONS = 3, 3
#: Sides without a common factor with anything that networks give.
WIDTH, HEIGHT = 131, 97
#: Height and width of what the detectors of persons and of faces are shown of it.
SHOWN = ((64, 96), (128, 160))
#: What generators are given and nothing else makes.
MADE = ("image", "mask", "embedding_mask")
#: What detectors say, and their second graphs of each box.
ANSWERS = ("boxes", "scores", "classes", "count", "floor", "masks", "coarse_segm", "embedding")
#: The tiny detector of faces is in one stage, and gives these all the same.
FEATURES_OF_FACES = ("p2", "p3", "p4", "p5")


@pytest.fixture
def onnxruntime(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> FakeOnnxRuntime:
    """ONNX Runtime with CUDA, on the same GPU."""
    fake = FakeOnnxRuntime(gpu=gpu)
    monkeypatch.setattr("engines.runtime_onnx.import_module", lambda name: fake.module)
    return fake


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeGpu:
    """A GPU with TensorRT, which builds plans where they are needed."""
    made = FakeGpu(memory=2**33)
    tensorrt, cuda = FakeTensorrt(made), Cuda(fake_cudart(made))
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path))
    monkeypatch.setenv("STANDIN_TENSORRT", "build")
    monkeypatch.setattr("engines.tensorrt_policy.installed_version", lambda: tensorrt.version)
    monkeypatch.setattr("engines.plan_open.import_tensorrt", lambda: tensorrt.module)
    monkeypatch.setattr("engines.plan_open.Cuda", lambda: cuda)
    return made


def frames() -> Iterator[Frame]:
    for number in range(FRAMES):
        yield Frame(picture(WIDTH, HEIGHT), pts=number)


def anonymize(root: Path, device: Device, begin: Callable[[], None] = lambda: None) -> None:
    """Anonymizes some frames with a preset that has detectors of both kinds and generators."""
    install_presets(root)
    settings = make_settings(AnonymizerSettings, {"preset": "deepprivacy2", "device": device, "seed": 1})
    with opened_engines(settings, Store(root), persons=PERSONS, aspect=WIDTH / HEIGHT) as opened:
        begin()
        assert [item.withheld for item in opened.anonymizer.iterate(frames())] == [None] * FRAMES


def test_of_a_frame_its_bytes_alone_go_to_the_gpu_and_none_of_it_comes_back(
    tmp_path: Path, onnxruntime: FakeOnnxRuntime
) -> None:
    anonymize(tmp_path, "cuda")
    # Pictures for all three detectors stay there, as the features of those in two stages do, and so do generators'
    # inputs, of which there are two in each frame besides the first runs; vertices come back, not scores.
    assert onnxruntime.bound.count(("p2", "cuda")) == 2 * FRAMES
    assert onnxruntime.bound.count(("image", "cuda")) >= 5 * FRAMES
    assert {device for name, device in onnxruntime.bound if name in MADE} == {"cuda"}
    assert {device for name, device in onnxruntime.bound if name == "vertex"} == {"cpu"}
    # All that comes back: answers of detectors, of mappings and of generators, and pixels of regions.
    returned = {name for name, device in onnxruntime.bound if device == "cpu"}
    assert returned == {*ANSWERS, *FEATURES_OF_FACES, "vertex", "w", "output", "levels"}
    assert_no_frame_came_back(onnxruntime)


def assert_no_frame_came_back(onnxruntime: FakeOnnxRuntime) -> None:
    shapes = [shape for name, shape in onnxruntime.returned if name == "levels"]
    assert len(shapes) >= 2 * PERSONS
    assert all(height * width < HEIGHT * WIDTH for height, width, _ in shapes)
    assert not any((HEIGHT, WIDTH) in itertools.pairwise(shape) for _, shape in onnxruntime.returned)


def test_with_plans_no_copy_from_the_gpu_is_a_frame_or_a_picture_of_one(
    tmp_path: Path, gpu: FakeGpu, onnxruntime: FakeOnnxRuntime
) -> None:
    anonymize(tmp_path, "tensorrt", gpu.moved.clear)
    up, down, there = (
        [size for direction, size in gpu.moved if direction == wanted]
        for wanted in ("HostToDevice", "DeviceToHost", "DeviceToDevice")
    )
    assert len(down) > FRAMES
    # What detectors are shown was made there of the frame's bytes;
    shown = [3 * 4 * height * width for height, width in SHOWN]
    assert there.count(shown[0]) >= 2 * FRAMES
    assert there.count(shown[1]) >= FRAMES
    assert not any(size in shown for size in up)
    for height, width in SHOWN:
        assert not any(size % (3 * height * width) == 0 for size in down)
    # neither frames nor masks of their size came back, nor went to the plans;
    assert not any(size % (HEIGHT * WIDTH) == 0 for size in up + down)
    # what detectors in two stages keep for their second graph, and what shows generators their crops, moved within it;
    crop = 4 * generators.HEIGHT * generators.WIDTH
    assert {crop, 3 * crop, generators.CHANNELS * crop} <= {size // rows for size in there for rows in (1, 2, 3)}
    assert not any(size in (crop, 3 * crop, generators.CHANNELS * crop) for size in up)
    # and the small graphs beside the plans gave back pixels of regions alone.
    assert {name for name, _ in onnxruntime.returned} == {"levels", "vertex"}
    assert_no_frame_came_back(onnxruntime)

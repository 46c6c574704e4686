from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engines.runtime import Device, Runtime
from stream import resample
from stream.compose import resampler as module
from stream.compose.composer import compose
from stream.compose.parts import Painters
from stream.compose.resampler import HOST, DeviceResampler, HostResampler, levels_graph, open_resampler
from stream.regions import Kind, Regions
from tests.compose import FILLS, Flat

Size = tuple[int, int]


@pytest.fixture(scope="module")
def device() -> Iterator[DeviceResampler]:
    """The graphs that run on a GPU, on the processor."""
    pytest.importorskip("onnxruntime")
    made = DeviceResampler({dtype: levels_graph(dtype).open("cpu") for dtype in ("uint8", "float32")})
    yield made
    made.close()


def picture(height: int, width: int, dtype: type[Any] = np.uint8, seed: int = 0) -> Any:
    draw = np.random.default_rng(seed)
    return draw.uniform(-9, 264, (height, width, 3)).clip(0, 255).astype(dtype)


@pytest.mark.parametrize("filter_", ["bicubic", "bilinear", "linear"])
@pytest.mark.parametrize(("whole", "size"), [((90, 50), (24, 16)), ((24, 16), (71, 53)), ((40, 40), (40, 40))])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_device_gives_what_the_host_gives(
    filter_: resample.Filter, whole: Size, size: Size, dtype: type[Any], device: DeviceResampler
) -> None:
    rows, columns = (resample.axis(filter_, whole[i], size[i]) for i in (0, 1))
    given = picture(*whole, dtype)
    parts = (None, ((3, size[0] - 2), (0, size[1] // 2)))
    for part in parts:
        wanted = HOST.levels(given, rows, columns, part=part)
        found = device.levels(given, rows, columns, part=part)
        assert found.dtype == np.uint8
        assert found.shape == wanted.shape
        apart = np.abs(found.astype(int) - wanted)
        assert apart.max() <= 1
        assert (apart == 0).mean() > 0.999


@pytest.mark.parametrize("start", [(0, 0), (7, 3), (-4, -6), (60, 30), (95, 5)])
def test_what_lies_beside_the_picture_counts_as_black(start: Size, device: DeviceResampler) -> None:
    rows, columns = resample.axis("bilinear", 90, 24), resample.axis("bilinear", 50, 16)
    given = picture(30, 20)
    wanted = HOST.levels(given, rows, columns, start=start)
    found = device.levels(given, rows, columns, start=start)
    assert np.abs(found.astype(int) - wanted).max() <= 1
    assert (wanted.max() > 0) == (start != (95, 5))


def test_overshoot_is_clipped(device: DeviceResampler) -> None:
    edge = np.zeros((20, 20, 3), np.float32)
    edge[:, 10:] = 255
    rows, columns = resample.axis("bicubic", 20, 60), resample.axis("bicubic", 20, 60)
    unbounded = resample.resize(edge, rows, columns)
    assert unbounded.max() > 256
    assert unbounded.min() < -1
    np.testing.assert_array_equal(device.levels(edge, rows, columns), resample.to_levels(unbounded))


def test_a_composed_picture_is_the_same_within_two_levels(device: DeviceResampler) -> None:
    image = picture(120, 160)
    boxes = np.array([[10, 20, 60, 110], [70, 5, 150, 118], [100, 40, 130, 75]], np.float32)
    regions = Regions.of(boxes, Kind.FACE, track_ids=np.arange(3))
    one, other = (
        compose(image, regions, Painters({"face": Flat(Kind.FACE)}, FILLS, resampler=resampler))
        for resampler in (HOST, device)
    )
    assert one.generated.all()
    assert other.generated.all()
    assert (one.image != image).any(axis=2).mean() > 0.2
    assert (np.abs(one.image.astype(int) - other.image) <= 2).mean() >= 0.999


class Opened:
    """Notes what is opened and closed."""

    def __init__(self) -> None:
        self.open: list[str] = []

    def __call__(self, make: Any, device: Device) -> Runtime | None:
        if device in ("cpu", "openvino"):
            return None
        graph = make()
        self.open.append(graph.declared.inputs[0].dtype)
        opened: Runtime = graph.open("cpu")
        return opened


def test_it_is_opened_where_the_networks_have_memory_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened()
    monkeypatch.setattr(module, "open_small", opened)
    assert isinstance(open_resampler("cpu"), HostResampler)
    there = open_resampler("cuda")
    assert isinstance(there, DeviceResampler)
    assert opened.open == ["uint8", "float32"]
    rows = resample.axis("bilinear", 8, 4)
    assert there.levels(picture(8, 8), rows, rows).shape == (4, 4, 3)
    there.close()
    there.close()

"""The detectors' input, made on the host and by the graph that makes it on a device: here on the processor too."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from engines.manifest import Normalisation
from engines.resident import as_numpy
from stream.detectors import pictures
from stream.detectors.pictures import DevicePictures, Form, HostPictures, open_pictures, pictures_graph
from stream.detectors.view import Shown, shortest_edge, show_full, show_limited
from stream.frame import Frame, Transfer
from tests.engines.helpers import open_on_cpu

NORMAL = Normalisation(colour="rgb", mean=(103.5, 116.3, 123.7), std=(57.0, 1.0, 58.4), multiple=32)


def frame(height: int, width: int, transfer: Transfer = Transfer.NORMAL, aspect: Fraction | int = 1) -> Frame:
    draw = np.random.default_rng(height * width)
    smooth = draw.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    noisy = draw.integers(0, 256, (height, width, 3), np.uint8)
    image = np.where(np.arange(width)[None, :, None] < width // 2, smooth[:height, :width], noisy)
    return Frame(np.asarray(image, np.uint8), transfer=transfer, pixel_aspect=Fraction(aspect))


def shown(whole: Frame, shorter: int) -> Shown:
    return show_full(whole, lambda height, width: shortest_edge(height, width, shorter, 4 * shorter))


@pytest.mark.parametrize("size", [None, (160, 320)], ids=["next multiples", "one size"])
@pytest.mark.parametrize(
    ("whole", "shorter"),
    [
        (frame(300, 500), 150),
        (frame(70, 100), 140),
        (frame(96, 128), 96),
        (frame(119, 201, Transfer.PQ), 77),
        (frame(119, 201, Transfer.HLG), 119),
        (frame(100, 150, aspect=Fraction(16, 11)), 90),
    ],
    ids=["smaller", "larger", "as it is", "pq", "hlg and as it is", "odd pixels"],
)
def test_the_graph_makes_what_the_host_makes(whole: Frame, shorter: int, size: tuple[int, int] | None) -> None:
    looks, form = shown(whole, shorter), Form(NORMAL, size)
    made, apart = both_ways(whole, looks, form)
    # Sums in another order fall on another side where a level ends, which a tone curve may stretch.
    assert (apart > 0.01).mean() < 1e-3
    assert apart.max() < (1.01 if whole.transfer is Transfer.NORMAL else 8)
    assert not made[:, :, looks.height :].any()
    assert not made[:, :, :, looks.width :].any()


def both_ways(whole: Frame, looks: Shown, form: Form) -> tuple[Any, Any]:
    """What the graph makes, and how many levels it is away from what the host makes."""
    expected = HostPictures(form).make(whole, looks)
    there = DevicePictures(open_on_cpu(pictures_graph()), form)
    made = as_numpy(there.make(whole, looks))
    there.close()
    assert made.shape == expected.shape == (1, 3, *form.padded(looks))
    assert made.dtype == expected.dtype
    return made, np.abs(made - expected) * np.array(NORMAL.std, np.float32)[:, None, None]


@pytest.mark.parametrize(
    ("whole", "longest", "size", "stretch"),
    [
        (frame(300, 500), 250, None, False),
        (frame(300, 500), 220, None, False),
        (frame(96, 128), 640, None, False),
        (frame(119, 201, Transfer.PQ), 77, None, False),
        (frame(119, 201, Transfer.HLG), 201, None, False),
        (frame(100, 150, aspect=Fraction(16, 11)), 640, None, False),
        (frame(100, 150, aspect=Fraction(16, 11)), 200, None, False),
        (frame(300, 500), 250, (96, 128), False),
        (frame(60, 50), 250, (96, 128), True),
        (frame(300, 64), 250, (96, 128), True),
    ],
    ids=[
        "half",
        "smaller",
        "as it is",
        "pq",
        "hlg",
        "wider",
        "wider and lower",
        "padded",
        "filled",
        "filled both ways",
    ],
)
def test_for_networks_in_one_stage_the_graph_makes_what_opencv_makes(
    whole: Frame, longest: int, size: tuple[int, int] | None, stretch: bool
) -> None:
    looks, form = show_limited(whole, longest, size, stretch=stretch), Form(NORMAL, size, one_stage=True)
    made, apart = both_ways(whole, looks, form)
    # OpenCV counts in integers where it does not shrink.
    assert (apart > 2.01).mean() < 1e-3
    assert apart.max() < (2.01 if whole.transfer is Transfer.NORMAL else 9)
    black = -np.array(NORMAL.mean, np.float32) / np.array(NORMAL.std, np.float32)
    for padding in (made[0, :, looks.height :], made[0, :, :, looks.width :]):
        np.testing.assert_allclose(padding, np.broadcast_to(black[:, None, None], padding.shape), rtol=1e-6)


def test_weights_are_made_once_for_each_of_a_few_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = open_on_cpu(pictures_graph())
    held: list[tuple[int, ...]] = []
    hold = runtime.hold

    def note(array: Any) -> Any:
        held.append(array.shape)
        return hold(array)

    monkeypatch.setattr(runtime, "hold", note)
    monkeypatch.setattr(pictures, "_MOST_SIZES", 2)
    made = DevicePictures(runtime, Form(NORMAL))
    sizes = [frame(60, 80), frame(64, 80), frame(60, 80), frame(64, 80, Transfer.HLG)]
    for whole in (*sizes, sizes[0]):
        made.make(whole, shown(whole, 40))
    # The third is the first's; the fourth drives out the first, which comes again.
    assert len(held) == 7 * 4
    made.close()


def test_where_networks_run_on_the_processor_so_does_this() -> None:
    assert isinstance(open_pictures(Form(NORMAL), "cpu"), HostPictures)
    assert isinstance(open_pictures(Form(NORMAL), "openvino"), HostPictures)


def test_where_networks_run_on_a_gpu_so_does_this(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "open_small", lambda make, device: open_on_cpu(make()) if device == "cuda" else None)
    made = open_pictures(Form(NORMAL, (64, 96)), "cuda")
    assert isinstance(made, DevicePictures)
    made.close()
    made.close()

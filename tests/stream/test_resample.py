import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from stream import resample

SIZES = [
    ((50, 70), (288, 160)),
    ((900, 500), (288, 160)),
    ((300, 90), (288, 160)),
    ((112, 112), (250, 90)),
    ((5, 3), (1, 2)),
    ((1, 1), (4, 4)),
    ((9, 7), (9, 7)),
]


def picture(height: int, width: int) -> resample.Floats:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.float32)


def published(values: resample.Floats, size: tuple[int, int], mode: str, *, antialias: bool) -> resample.Floats:
    tensor = torch.from_numpy(values).permute(2, 0, 1)[None]
    moved = functional.interpolate(tensor, size, mode=mode, antialias=antialias, align_corners=False)
    return np.asarray(moved[0].permute(1, 2, 0).numpy(), np.float32)


@pytest.mark.parametrize(("given_size", "wanted"), SIZES)
@pytest.mark.parametrize(
    ("filter_", "mode", "antialias"),
    [("bicubic", "bicubic", True), ("bilinear", "bilinear", True), ("linear", "bilinear", False)],
)
def test_values_are_those_of_the_published_resampling(
    given_size: tuple[int, int], wanted: tuple[int, int], filter_: resample.Filter, mode: str, antialias: bool
) -> None:
    values = picture(*given_size)
    axes = resample.axis(filter_, given_size[0], wanted[0]), resample.axis(filter_, given_size[1], wanted[1])
    expected = published(values, wanted, mode, antialias=antialias)
    assert np.abs(resample.resize(values, *axes) - expected).max() < 5e-3
    sparse = (values[..., :1] > 240).astype(np.float32)
    expected = published(sparse, wanted, mode, antialias=antialias)
    if filter_ != "bicubic":
        # What is exactly zero decides about masks.
        assert ((resample.resize(sparse, *axes) > 0) == (expected > 0)).all()


@pytest.mark.parametrize(("given_size", "wanted"), SIZES)
def test_nearest_takes_the_published_pixels(given_size: tuple[int, int], wanted: tuple[int, int]) -> None:
    values = picture(*given_size)
    expected = functional.interpolate(torch.from_numpy(values).permute(2, 0, 1)[None], wanted, mode="nearest")
    rows, columns = (resample.nearest(n, m) for n, m in zip(given_size, wanted, strict=True))
    assert (values[rows[:, None], columns] == expected[0].permute(1, 2, 0).numpy()).all()


@given(
    st.sampled_from(("bicubic", "bilinear")), st.integers(1, 90), st.integers(1, 90), st.integers(-20, 90), st.data()
)
def test_a_part_of_the_input_and_of_the_output_is_what_the_padded_whole_gives(
    filter_: resample.Filter, length: int, wanted: int, start: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, 40))
    first = data.draw(st.integers(0, wanted - 1))
    last = data.draw(st.integers(first + 1, wanted))
    values = np.random.default_rng(1).random((count, 2)).astype(np.float32)
    padded = np.zeros((length, 2), np.float32)
    low, high = max(0, start), min(length, start + count)
    if low < high:
        padded[low:high] = values[low - start : high - start]
    axis = resample.axis(filter_, length, wanted)
    whole = axis.dense() @ padded
    assert np.allclose(axis.apply(values, start=start, part=(first, last)), whole[first:last], atol=1e-5)


@given(st.sampled_from(("bicubic", "bilinear", "linear")), st.integers(1, 500), st.integers(1, 500))
@settings(max_examples=60)
def test_weights_of_every_pixel_add_up_to_one(filter_: resample.Filter, length: int, wanted: int) -> None:
    assert np.allclose(resample.axis(filter_, length, wanted).dense().sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("length", "wanted"), [(12, 4), (12, 5), (13, 12), (7, 7), (1080, 601), (9, 1)])
def test_area_means_are_opencvs(length: int, wanted: int) -> None:
    rows = np.random.default_rng(length).uniform(0, 255, (length, 3)).astype(np.float32)
    expected = cv2.resize(rows[:, None], (1, wanted), interpolation=cv2.INTER_AREA)[:, 0]
    np.testing.assert_allclose(resample.axis("area", length, wanted).apply(rows), expected, atol=0.1)


def test_area_means_make_nothing_longer() -> None:
    with pytest.raises(ValueError, match="cannot resample 3 to 4 pixels by area; expected at most 3"):
        resample.axis("area", 3, 4)


def test_sizes_of_weights_show_what_a_pixel_depends_on() -> None:
    axis = resample.axis("bicubic", 40, 10)
    spots = np.zeros((40, 1), np.float32)
    spots[20:23] = 1
    depends = axis.apply(spots, sizes=True)[:, 0] > 0
    assert depends.tolist() == (np.abs(axis.dense()[:, 20:23]).sum(axis=1) > 0).tolist()
    assert 0 < depends.sum() < 10


def test_nothing_can_be_resampled_from_or_to_no_pixels() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        resample.axis("bicubic", 0, 5)
    with pytest.raises(ValueError, match="at least 1"):
        resample.axis("bicubic", 5, 0)


def test_an_empty_part_gives_black() -> None:
    axes = resample.axis("bicubic", 40, 10), resample.axis("bicubic", 40, 12)
    assert resample.resize(np.zeros((0, 5, 3), np.uint8), *axes).shape == (10, 12, 3)

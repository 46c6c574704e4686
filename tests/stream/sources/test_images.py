from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageCms

from engines.errors import SourceError
from stream.sources.images import ImageSource
from tests.media import exif_block, mean_error, noise, picture, stored_picture


def read(path: Path) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    return [frame.image for frame in ImageSource(path)]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_every_exif_orientation_comes_out_upright(tmp_path: Path, orientation: int, ending: str) -> None:
    upright = picture(80, 48)
    path = tmp_path / f"in.{ending}"
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    stored = Pillow.fromarray(stored_picture(upright, orientation))
    options: dict[str, Any] = {"quality": 95} if ending in {"jpg", "webp"} else {}
    stored.save(path, exif=exif, **options)
    source = ImageSource(path)
    assert (source.info.width, source.info.height) == (80, 48)
    assert mean_error(next(iter(source)).image, upright) < 3


def test_formats_without_loss_are_read_to_the_bit(tmp_path: Path) -> None:
    image = noise(1)[0]
    for ending in ("png", "bmp", "tif", "webp"):
        path = tmp_path / f"in.{ending}"
        options: dict[str, Any] = {"lossless": True} if ending == "webp" else {}
        Pillow.fromarray(image).save(path, **options)
        assert np.array_equal(read(path)[0], image)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bit_grey_is_reduced_by_its_upper_byte(tmp_path: Path, ending: str) -> None:
    grey = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    Pillow.fromarray(grey).save(tmp_path / f"in.{ending}")
    image = read(tmp_path / f"in.{ending}")[0]
    assert image.shape == (48, 64, 3)
    assert np.abs(image[..., 0].astype(int) - (grey >> 8).astype(int)).max() <= 1


@pytest.mark.parametrize("mode", ["L", "LA", "P", "PA", "1", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    base = Pillow.fromarray(picture())
    converted = base.convert("L").convert(mode) if mode in {"I", "F"} else base.convert(mode)
    path = tmp_path / "in.tif"
    if mode == "PA":
        converted, path = base.convert("P"), tmp_path / "in.png"
        converted.save(path, transparency=0)
    elif mode == "LA":
        path = tmp_path / "in.png"
        converted.save(path)
    else:
        converted.save(path)
    image = read(path)[0]
    assert image.shape == (48, 64, 3)
    expected = np.asarray(base.convert("L").convert("RGB") if mode in {"L", "LA", "I", "F"} else base.convert("RGB"))
    limit = {"1": 130, "P": 20, "PA": 20, "LAB": 8, "CMYK": 3}.get(mode, 2)
    assert mean_error(image, expected) < limit


def test_a_cmyk_jpeg_is_read_in_its_right_colours(tmp_path: Path) -> None:
    Pillow.fromarray(picture()).convert("CMYK").save(tmp_path / "in.jpg", quality=95)
    assert mean_error(read(tmp_path / "in.jpg")[0], picture()) < 6


def test_what_is_transparent_is_read_as_it_is_stored(tmp_path: Path) -> None:
    image = np.dstack([picture(), np.zeros((48, 64), np.uint8)])
    Pillow.fromarray(image).save(tmp_path / "in.png")
    assert np.array_equal(read(tmp_path / "in.png")[0], picture())


def test_a_colour_profile_is_applied_and_a_broken_one_ignored(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Pillow.fromarray(picture()).save(tmp_path / "a.png", icc_profile=profile)
    Pillow.fromarray(picture()).save(tmp_path / "b.png", icc_profile=b"nonsense" * 20)
    images = read(tmp_path)
    assert mean_error(images[0], picture()) < 1
    assert np.array_equal(images[1], picture())


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", "bmp"])
def test_a_truncated_image_is_a_source_error_of_one_line(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"in.{ending}"
    Pillow.fromarray(noise(1, 200, 150)[0]).save(path)
    whole = path.read_bytes()
    for share in (0.02, 0.3, 0.7, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(SourceError) as caught:
            ImageSource(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"this is text\n" * 50, b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_file_that_is_no_image_is_a_source_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in.jpg").write_bytes(content)
    with pytest.raises(SourceError, match="cannot be read as an image"):
        ImageSource(tmp_path / "in.jpg")


def test_noise_in_a_file_never_raises_anything_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for ending in ("jpg", "png", "tif", "webp", "bmp"):
        path = tmp_path / f"in.{ending}"
        kept: dict[str, Any] = {"exif": exif_block(thumbnail=b"\xff\xd8")} if ending in {"jpg", "webp"} else {}
        Pillow.fromarray(noise(1)[0]).save(path, **kept)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(40):
            changed = whole.copy()
            changed[rng.integers(0, min(len(whole), 300), 8)] = rng.integers(0, 256, 8)
            path.write_bytes(changed.tobytes())
            try:
                assert read(path)[0].ndim == 3
            except SourceError as error:
                assert "\n" not in str(error)  # noqa: PT017


def test_one_unreadable_image_is_a_problem_and_the_others_go_on(tmp_path: Path) -> None:
    Pillow.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"nonsense")
    Pillow.fromarray(picture(phase=1)).save(tmp_path / "c.png")
    source = ImageSource(tmp_path)
    assert [frame.source for frame in source] == ["a.png", "c.png"]
    assert len(source.problems()) == 1
    assert "b.jpg" in source.problems()[0]


def test_a_folder_is_read_with_its_subfolders_in_order(tmp_path: Path) -> None:
    for name in ("b.PNG", "sub/c.jpg", "sub/deeper/d.webp", "a.tiff"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(picture()).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    source = ImageSource(tmp_path)
    frames = list(source)
    assert [frame.source for frame in frames] == ["a.tiff", "b.PNG", "sub/c.jpg", "sub/deeper/d.webp"]
    assert [frame.pts for frame in frames] == [0, 1, 2, 3]
    assert source.info.frames == 4
    assert source.side_exits() == ("notes.txt (not an image)",)


def test_a_folder_without_images_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no image"):
        ImageSource(tmp_path)


def test_further_pictures_in_a_file_are_listed(tmp_path: Path) -> None:
    first, second = (Pillow.fromarray(image) for image in noise(2))
    first.save(tmp_path / "in.tif", save_all=True, append_images=[second])
    source = ImageSource(tmp_path / "in.tif")
    assert len(list(source)) == 1
    assert any("further pictures" in line for line in source.side_exits())


@pytest.mark.parametrize("form", ["PPM", "GIF", "ICO", "TGA", "EPS"])
def test_no_other_format_is_read_under_an_ending_of_these(tmp_path: Path, form: str) -> None:
    Pillow.fromarray(picture()).save(tmp_path / "in.png", format=form)
    with pytest.raises(SourceError, match="cannot be read as an image"):
        ImageSource(tmp_path / "in.png")


def test_a_jpeg_of_several_pictures_is_read_and_the_others_are_listed(tmp_path: Path) -> None:
    first, second = (Pillow.fromarray(image) for image in noise(2))
    first.save(tmp_path / "in.jpg", format="MPO", save_all=True, append_images=[second])
    source = ImageSource(tmp_path / "in.jpg")
    assert source.side_exits() == ("in.jpg: further pictures in the file",)


def test_what_cannot_be_looked_into_below_a_folder_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pillow.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "locked").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path)
    look = os.scandir

    def refuse(place: str) -> object:
        if str(place).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(place))
        return look(place)

    monkeypatch.setattr(os, "scandir", refuse)
    source = ImageSource(tmp_path)
    assert [frame.source for frame in source] == ["a.png"]
    assert source.problems() == (
        f"{tmp_path}/gone.png cannot be read as an image: it is a link to nothing",
        f"{tmp_path}/locked cannot be read: Permission denied",
        f"{tmp_path}/pipe.jpg cannot be read as an image: it is not a file",
    )
    assert source.side_exits() == ("linked (a link to a folder)",)


@pytest.mark.parametrize("white", [1, 255])
def test_floating_point_greys_keep_their_brightness(tmp_path: Path, white: int) -> None:
    grey = np.linspace(0, white, 64 * 48, dtype=np.float32).reshape(48, 64)
    Pillow.fromarray(grey).save(tmp_path / "in.tif")
    image = read(tmp_path / "in.tif")[0]
    assert np.abs(image[..., 1] - grey * (255 / white)).max() <= 0.5001


@pytest.mark.parametrize("white", [3.5, 65535, np.inf])
def test_floating_point_greys_of_another_scale_are_refused(tmp_path: Path, white: float) -> None:
    grey = np.full((48, 64), white, np.float32)
    Pillow.fromarray(grey).save(tmp_path / "in.tif")
    with pytest.raises(SourceError, match="floating-point"):
        ImageSource(tmp_path / "in.tif")


def test_transparency_that_is_dropped_is_listed(tmp_path: Path) -> None:
    Pillow.fromarray(picture()).convert("RGBA").save(tmp_path / "in.png")
    assert ImageSource(tmp_path / "in.png").side_exits() == ("in.png: transparency",)

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL.ExifTags import Base

from engines.bundle import Bundle, write_bundle
from stream.frame import Image
from stream.regions import Kind
from stream.samples import Region, cut_out
from tests.command import Standin
from tests.engines.helpers import doubler, tiny_draft
from tests.fakes import noise
from tests.generator_bundles import HEIGHT, VERTICES, WIDTH, Fault, write_surface, write_unet

PHOTO_HEIGHT, PHOTO_WIDTH = 90, 70
HOLE = np.s_[20:60, 25:45]


class Desk:
    """A photo, its mask, its vertices and two bundles."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.photo, self.mask = folder / "photo.png", folder / "mask.png"
        self.vertices, self.sheet = folder / "vertices.npy", folder / "sheet.png"
        self.image = noise(1, PHOTO_WIDTH, PHOTO_HEIGHT)[0]
        self.unknown = np.zeros((PHOTO_HEIGHT, PHOTO_WIDTH), np.bool_)
        self.unknown[HOLE] = True
        self.of_pixels = np.where(self.unknown, np.arange(PHOTO_HEIGHT)[:, None] % VERTICES, -1).astype(np.int32)
        Pillow.fromarray(self.image).save(self.photo)
        Pillow.fromarray(self.unknown).save(self.mask)
        np.save(self.vertices, self.of_pixels)

    def options(self, **changes: Any) -> list[object]:
        given: dict[str, Any] = {"image": self.photo, "mask": self.mask, "output": self.sheet, "seed": 5}
        return [part for name, value in (given | changes).items() for part in (f"--{name}", value) if value is not None]

    def read(self) -> Image:
        with Pillow.open(self.sheet) as picture:
            return np.asarray(picture.convert("RGB"))

    def cell(self, row: int, column: int) -> Image:
        """Of the sheet, at the size of the crop: tiny crops are shown eight times as large."""
        top, left = 26 + row * (8 * HEIGHT + 26), 6 + column * (8 * WIDTH + 6)
        return self.read()[top : top + 8 * HEIGHT : 8, left : left + 8 * WIDTH : 8]

    def left(self) -> list[str]:
        """Names of files that are not there at the start."""
        known = {self.photo.name, self.mask.name, self.vertices.name, "unet", "surface", "bundles"}
        return sorted(path.name for path in self.folder.iterdir() if path.name not in known)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path))
    return Desk(tmp_path)


@pytest.fixture
def unet(desk: Desk) -> Bundle:
    return write_unet(desk.folder / "unet", centres=True)


@pytest.fixture
def surface(desk: Desk) -> Bundle:
    return write_surface(desk.folder / "surface")


def test_a_sheet_shows_the_masked_input_and_samples_for_each_truncation(
    desk: Desk, unet: Bundle, standin: Standin
) -> None:
    ended = standin("generate", unet.path, *desk.options(samples=3, truncation="0,1"), "--plain")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.strip() == f"{desk.sheet}: 3 samples, 2 truncations, seed 5"
    crop = cut_out(Region(desk.image, desk.unknown), (HEIGHT, WIDTH), Kind.PERSON)
    known = crop.known[0]
    for row in range(2):
        assert (desk.cell(row, 0)[~known] == 128).all()
        for column in range(4):
            assert np.array_equal(desk.cell(row, column)[known], crop.images[0][known])
    average, free = ([desk.cell(row, column).tobytes() for column in (1, 2, 3)] for row in (0, 1))
    assert len(set(average)) == 1
    assert len(set(free)) == 3
    assert desk.left() == ["sheet.png"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_bundle_with_a_surface_takes_vertices(desk: Desk, surface: Bundle, standin: Standin, precision: str) -> None:
    options = desk.options(samples=2, truncation="0,0.5,1", vertices=desk.vertices, precision=precision)
    ended = standin("generate", surface.path, *options)
    assert (ended.code, ended.err) == (0, "")
    region = Region(desk.image, desk.unknown, desk.of_pixels.astype(np.int64))
    crop = cut_out(region, (HEIGHT, WIDTH), Kind.PERSON)
    assert np.array_equal(desk.cell(2, 2)[crop.known[0]], crop.images[0][crop.known[0]])
    assert np.array_equal(desk.cell(0, 1), desk.cell(0, 2))
    assert len({desk.cell(row, 1).tobytes() for row in range(3)}) == 3
    assert not np.array_equal(desk.cell(2, 1), desk.cell(2, 2))
    # Another vertex, another colour.
    first = desk.cell(2, 1)
    np.save(desk.vertices, np.where(desk.unknown, 3, -1))
    assert standin("generate", surface.path, *options, "--overwrite").code == 0
    assert not np.array_equal(desk.cell(2, 1), first)


def test_a_dense_unet_takes_vertices(desk: Desk, standin: Standin) -> None:
    dense = write_unet(desk.folder / "unet", surface=True)
    assert standin("generate", dense.path, *desk.options(samples=1, vertices=desk.vertices)).code == 0
    assert desk.cell(3, 1).shape == (HEIGHT, WIDTH, 3)


def test_the_original_under_the_mask_is_nowhere_in_the_sheet(desk: Desk, surface: Bundle, standin: Standin) -> None:
    options = desk.options(samples=2, vertices=desk.vertices)
    assert standin("generate", surface.path, *options).code == 0
    before = desk.read()
    # The noise holds neither black nor white, so that every pixel under the mask changes.
    for level in (0, 255):
        changed = desk.image.copy()
        changed[HOLE] = level
        Pillow.fromarray(changed).save(desk.photo)
        assert standin("generate", surface.path, *options, "--overwrite").code == 0
        assert np.array_equal(desk.read(), before)
    # Control: the pixel beside it.
    changed = desk.image.copy()
    changed[40, 24] = 0
    Pillow.fromarray(changed).save(desk.photo)
    assert standin("generate", surface.path, *options, "--overwrite").code == 0
    assert not np.array_equal(desk.read(), before)


def test_a_seed_repeats_the_sheet_and_without_one_another_is_drawn_and_named(
    desk: Desk, unet: Bundle, standin: Standin
) -> None:
    drawn = standin("generate", unet.path, *desk.options(samples=2, seed=None))
    first, seed = desk.read(), drawn.out.split()[-1]
    standin("generate", unet.path, *desk.options(samples=2, seed=None), "--overwrite")
    assert not np.array_equal(desk.read(), first)
    standin("generate", unet.path, *desk.options(samples=2, seed=seed), "--overwrite")
    assert np.array_equal(desk.read(), first)


def test_truncation_goes_towards_centres_where_there_are_some(desk: Desk, unet: Bundle, standin: Standin) -> None:
    options = desk.options(samples=8, truncation="0")
    standin("generate", unet.path, *options)
    centred = {desk.cell(0, column).tobytes() for column in range(1, 9)}
    standin("generate", unet.path, *options, "--plain", "--overwrite")
    plain = {desk.cell(0, column).tobytes() for column in range(1, 9)}
    assert (len(centred), len(plain)) == (3, 1)


def test_a_bundle_may_be_named(desk: Desk, standin: Standin) -> None:
    write_unet(desk.folder / "bundles" / "mine")
    assert standin("generate", "mine", *desk.options(samples=1)).code == 0


def test_photo_and_mask_are_turned_upright_first(desk: Desk, unet: Bundle, standin: Standin) -> None:
    assert standin("generate", unet.path, *desk.options(samples=2)).code == 0
    upright = desk.read()
    # Orientation 6: the stored picture must be turned clockwise to be shown.
    exif = Pillow.Exif()
    exif[Base.Orientation] = 6
    for path, pixels in ((desk.photo, desk.image), (desk.mask, desk.unknown.astype(np.uint8) * 255)):
        Pillow.fromarray(np.ascontiguousarray(np.rot90(pixels))).save(path, exif=exif)
    assert standin("generate", unet.path, *desk.options(samples=2), "--overwrite").code == 0
    assert np.array_equal(desk.read(), upright)


def test_white_is_what_is_lighter_than_the_middle(desk: Desk, unet: Bundle, standin: Standin) -> None:
    standin("generate", unet.path, *desk.options(samples=1))
    expected = desk.read()
    grey = np.where(desk.unknown, 128, 127).astype(np.uint8)
    Pillow.fromarray(grey).save(desk.mask)
    assert standin("generate", unet.path, *desk.options(samples=1), "--overwrite").code == 0
    assert np.array_equal(desk.read(), expected)


def save(path: Path, values: Any) -> None:
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Pillow.fromarray(values).save(path)


BLACK = np.zeros((PHOTO_HEIGHT, PHOTO_WIDTH), np.uint8)


@pytest.mark.parametrize(
    ("name", "values", "code", "message"),
    [
        ("mask.png", BLACK, 2, "marks nothing"),
        ("mask.png", BLACK + 255, 2, "marks the whole photo"),
        ("mask.png", BLACK[1:], 2, "is 70x89, the photo 70x90"),
        ("mask.png", BLACK.T, 2, "is 90x70, the photo 70x90"),
        ("vertices.npy", BLACK.T, 2, r"is \(70, 90\), the photo \(90, 70\)"),
        ("vertices.npy", BLACK[None], 2, r"is \(1, 90, 70\)"),
        ("vertices.npy", BLACK.astype(np.float32), 2, "holds float32"),
        ("vertices.npy", BLACK.astype(np.int64) - 2, 2, "from -2 to -2; this surface has 0 to 9"),
        ("vertices.npy", BLACK + VERTICES, 2, "from 10 to 10; this surface has 0 to 9"),
        ("vertices.npy", np.full(BLACK.shape, -1), 2, "no pixel under the mask has a vertex"),
    ],
    ids=str,
)
def test_inputs_that_do_not_fit_are_one_line(
    desk: Desk, surface: Bundle, standin: Standin, name: str, values: Any, code: int, message: str
) -> None:
    save(desk.folder / name, values)
    ended = standin("generate", surface.path, *desk.options(vertices=desk.vertices))
    assert ended.code == code
    assert re.search(message, ended.line())
    assert desk.left() == []


@pytest.mark.parametrize("name", ["photo.png", "mask.png", "vertices.npy"])
@pytest.mark.parametrize(("content", "code"), [(b"", 1), (b"PK\x03\x04 and more", 1), (b"\x93NUMPY\x01", 1), (None, 2)])
def test_inputs_that_cannot_be_read_are_one_line(
    desk: Desk, surface: Bundle, standin: Standin, name: str, content: bytes | None, code: int
) -> None:
    path = desk.folder / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    ended = standin("generate", surface.path, *desk.options(vertices=desk.vertices))
    assert ended.code == code
    assert str(path) in ended.line()
    assert desk.left() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"truncation": "0,1.5"}, "--truncation takes up to 16 numbers from 0 to 1"),
        ({"truncation": "nan"}, "--truncation"),
        ({"truncation": ""}, "--truncation"),
        ({"truncation": "half"}, "--truncation"),
        ({"truncation": ",".join("0" * 17)}, "--truncation"),
        ({"samples": 0}, "samples"),
        ({"samples": 65}, "samples"),
        ({"seed": -1}, "seed is -1"),
        ({"precision": "int8"}, "precision"),
        ({"device": "tpu"}, "device"),
        ({"threads": 0}, "threads is 0"),
        ({"output": "sheet.jpg"}, "must end in .png"),
        ({"output": "nowhere/sheet.png"}, "does not exist"),
        ({"vertices": "vertices.npy"}, "knows no surface"),
        ({"image": "."}, "is a folder"),
        ({"image": None}, "--image"),
    ],
    ids=str,
)
def test_wrong_usage_is_one_line(
    desk: Desk,
    unet: Bundle,
    standin: Standin,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(desk.folder)
    ended = standin("generate", unet.path, *desk.options(**changes))
    assert ended.code == 2
    assert message in ended.line()
    assert desk.left() == []


def test_bundles_that_do_not_fit_are_one_line(desk: Desk, unet: Bundle, surface: Bundle, standin: Standin) -> None:
    assert "needs the vertex of each pixel" in standin("generate", surface.path, *desk.options()).line()
    assert (
        "multi-modal"
        in standin("generate", surface.path, *desk.options(vertices=desk.vertices), "--multi-modal").line()
    )
    bare = write_surface(desk.folder / "bundles" / "bare", embeddings=False)
    ended = standin("generate", bare.path, *desk.options(vertices=desk.vertices))
    assert ended.code == 1
    assert "export it again with --surface" in ended.line()
    single = write_unet(desk.folder / "bundles" / "single", halves=[False])
    ended = standin("generate", single.path, *desk.options(precision="fp16"))
    assert "no generator in fp16" in ended.line()
    detector = write_bundle(desk.folder / "bundles" / "detector", tiny_draft(), {"detector.onnx": doubler()})
    assert "is for detection" in standin("generate", detector.path, *desk.options()).line()
    assert standin("generate", "nobody", *desk.options()).code == 2
    assert desk.left() == []


@pytest.mark.parametrize(("precision", "fault"), [("fp32", "not finite"), ("fp16", "half overflows")])
def test_a_generator_that_fails_leaves_no_sheet(desk: Desk, standin: Standin, precision: str, fault: Fault) -> None:
    broken = write_surface(desk.folder / "surface", fault=fault)
    ended = standin("generate", broken.path, *desk.options(vertices=desk.vertices, precision=precision))
    assert ended.code == 1
    assert "not finite" in ended.line()
    assert desk.left() == []


def test_nothing_is_replaced_unasked_and_inputs_never(desk: Desk, unet: Bundle, standin: Standin) -> None:
    desk.sheet.write_bytes(b"mine")
    ended = standin("generate", unet.path, *desk.options())
    assert ended.code == 2
    assert "--overwrite" in ended.line()
    assert desk.sheet.read_bytes() == b"mine"
    for path in (desk.photo, desk.mask):
        before = path.read_bytes()
        ended = standin("generate", unet.path, *desk.options(output=path), "--overwrite")
        assert ended.code == 2
        assert "is the input" in ended.line()
        assert path.read_bytes() == before
    assert standin("generate", unet.path, *desk.options(samples=1), "--overwrite").code == 0
    assert desk.read().shape[2] == 3

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from stream.frame import Image
from stream.generators.classical import Fill, blur, mask_out, pixelate
from stream.outline import Outline, PixelMask
from stream.regions import Kind, Regions
from stream.stitch import stitch
from stream.verify.raw import Aligner, RawShare, background_of, cores
from tests.media import read_clip, write_clip
from tests.stream.verify.clips import FIRST, SECOND, face_regions, scene

FACES = face_regions(FIRST, SECOND)
COVERS: dict[str, Fill] = {
    "mask": mask_out((0, 0, 0)),
    "grey": mask_out((128, 128, 128)),
    "blur": blur(0.25),
    "pixelate 8": pixelate(8),
    "pixelate 16": pixelate(16),
}


def coded(image: Image, folder: Path, crf: int) -> Image:
    path = write_clip(folder / f"{crf}.mp4", [image] * 3, options={"preset": "veryfast", "crf": str(crf)})
    return read_clip(path).images[2]


def shares(before: Image, after: Image, regions: Regions = FACES) -> list[RawShare]:
    look = Aligner().look(before, after, background_of((before.shape[0], before.shape[1]), regions.boxes))
    return [look.share(core) for core in cores(regions)]


@pytest.mark.parametrize("crf", [10, 23, 32])
def test_a_raw_face_is_raw_however_it_is_encoded(tmp_path: Path, crf: int) -> None:
    image = scene(0)
    for share in shares(image, coded(image, tmp_path, crf)):
        assert share.judged
        assert share.share > 0.75


@pytest.mark.parametrize("crf", [0, 20, 32, 42])
@pytest.mark.parametrize("cover", COVERS)
def test_a_covered_face_is_not_raw_however_it_is_encoded(tmp_path: Path, cover: str, crf: int) -> None:
    image = scene(0)
    covered = stitch(image, FACES, dict.fromkeys(Kind, COVERS[cover]), margin=0.2)
    for share in shares(image, coded(covered, tmp_path, crf)):
        assert share.judged
        assert share.share < 0.02


def test_another_face_in_the_same_place_is_not_raw() -> None:
    image = scene(0)
    turned = image.copy()
    for x0, y0, x1, y1 in np.array([FIRST, SECOND], int).tolist():
        # As alike as another face can be: the same one, mirrored.
        turned[y0:y1, x0:x1] = image[y0:y1, x0:x1][:, ::-1]
    assert all(share.share < 0.1 for share in shares(image, turned))


def test_brighter_is_still_raw() -> None:
    image = scene(0)
    brighter = np.asarray((image * 0.85 + 25).clip(0, 255), np.uint8)
    assert all(share.share > 0.95 for share in shares(image, brighter))


def test_only_the_raw_part_counts() -> None:
    image = scene(0)
    half = image.copy()
    x0, y0, x1, y1 = (int(value) for value in FIRST)
    half[y0 : (y0 + y1) // 2, x0 - 5 : x1 + 5] = 0
    first, second = shares(image, half)
    assert 0.3 < first.share < 0.6
    assert second.share > 0.98


def test_what_is_flat_in_the_original_is_not_judged() -> None:
    image = np.full((80, 80, 3), 90, np.uint8)
    (share,) = shares(image, image, face_regions((10, 10, 60, 60)))
    assert not share.judged
    assert share.share == 0
    assert not share.is_raw


@pytest.mark.parametrize("motion", [((1, 0, 2), (0, 1, -1.5)), ((1.01, 0, 0), (0, 1.01, 0))], ids=["shifted", "scaled"])
def test_an_output_that_was_moved_a_little_is_brought_back(motion: tuple[tuple[float, ...], ...]) -> None:
    image = scene(0)
    height, width = image.shape[:2]
    matrix = np.array(motion, np.float32)
    free = background_of((height, width), FACES.boxes)
    for after, raw in ((image, True), (stitch(image, FACES, dict.fromkeys(Kind, COVERS["blur"])), False)):
        aligner = Aligner()
        look = aligner.look(
            image, np.asarray(cv2.warpAffine(after, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)), free
        )
        assert aligner.moved
        assert all((look.share(core).share > 0.8) is raw for core in cores(FACES))


def test_without_background_a_raw_face_is_raw_all_the_same() -> None:
    image = scene(0)[20:80, 20:68]
    regions = face_regions((0, 0, 48, 60))
    assert not background_of((60, 48), regions.boxes).any()
    assert shares(image, image, regions)[0].share > 0.9
    flat = np.full_like(image, 128)
    assert shares(image, flat, regions)[0].share == 0


def test_a_mask_counts_instead_of_its_box() -> None:
    pixels = np.zeros((60, 40), np.bool_)
    pixels[:, 10:30] = True
    outline = Outline(PixelMask(20, 30, pixels))
    (core,) = cores(Regions.of([(20, 30, 60, 90)], Kind.PERSON, outlines=[outline]))
    assert 0.6 * 1200 < core.area < 1200
    assert not core.within((20, 30, 30, 90)).pixels.any()


def test_a_region_outside_the_frame_has_no_area() -> None:
    image = scene(0)
    assert shares(image, image, face_regions((-50, -50, -20, -20)))[0] == RawShare(0, 0, 0)


def test_pictures_of_different_size_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        Aligner().look(scene(0), scene(0)[:-2], background_of(scene(0).shape[:2], np.zeros((0, 4))))

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from engines.errors import DetectionError, UsageError
from engines.store import Store
from stream.evaluate.methods import CLASSICAL, Methods, MethodSettings, check_classical, or_whole
from stream.follow import Look
from stream.frame import Frame, Image
from stream.regions import Kind, Regions
from tests.detector_bundles import PERSONS, write_two_stage
from tests.fakes import noise
from tests.stream.evaluate.made import write_store

pytest.importorskip("onnxruntime", reason="detectors run in ONNX Runtime")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_store(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def image() -> Image:
    return noise(1, 160, 120)[0]


def test_every_method_covers_what_the_detectors_found_and_each_in_its_way(store: Store, image: Image) -> None:
    with contextlib.closing(Methods.open("sg-gan", tuple(CLASSICAL), MethodSettings(), store)) as methods:
        assert methods.names == (*CLASSICAL, "sg-gan")
        look = methods.look(image, "1.png")
        covered = {name: methods.cover(name, look) for name in methods.names}
    middle = covered["mask-out"].image[60, 40]
    assert np.array_equal(middle, (127, 127, 127))
    pictures = [one.image for one in covered.values()]
    # The middle of a person is raw nowhere, and no two methods leave the same.
    assert all((one[50:70, 30:50] != image[50:70, 30:50]).mean() > 0.9 for one in pictures)
    assert all(not np.array_equal(a, b) for i, a in enumerate(pictures) for b in pictures[:i])
    counts = {len(one.regions) for one in covered.values()}
    assert len(counts) == 1
    assert covered["sg-gan"].generated > 0
    assert covered["blur"].generated == 0


def test_pixelate_16_keeps_more_than_pixelate_8(store: Store, image: Image) -> None:
    smooth = np.asarray(np.kron(image[:15, :20], np.ones((8, 8, 1), np.uint8)), np.uint8)
    with contextlib.closing(Methods.open("sg-gan", ("pixelate-8", "pixelate-16"), MethodSettings(), store)) as methods:
        look = methods.look(smooth, "1.png")
        gaps = [
            np.abs(methods.cover(name, look).image.astype(int) - smooth).mean()
            for name in ("pixelate-8", "pixelate-16")
        ]
    assert gaps[1] < gaps[0]


def test_no_two_pictures_share_a_stand_in_and_a_seed_repeats_all_of_them(store: Store, image: Image) -> None:
    def run(seed: int) -> list[Image]:
        with contextlib.closing(Methods.open("sg-gan", (), MethodSettings(seed=seed), store)) as methods:
            return [methods.cover("sg-gan", methods.look(image, f"{number}.png")).image for number in range(2)]

    first, again, other = run(1), run(1), run(2)
    assert not np.array_equal(first[0], first[1])
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_where_nobody_is_found_the_whole_picture_is_the_person(image: Image) -> None:
    look = Look(Frame(image), Regions.of([[10, 10, 20, 20]], Kind.FACE))
    whole, alone = or_whole(look, Kind.PERSON)
    assert alone
    assert np.array_equal(whole.detections.boxes, [[10, 10, 20, 20], [0, 0, 160, 120]])
    seen = Look(Frame(image), Regions.of([[10, 10, 20, 20]], Kind.PERSON))
    assert or_whole(seen, Kind.PERSON) == (seen, False)


def test_a_picture_that_could_not_be_looked_at_is_no_picture_of_nobody(tmp_path: Path, image: Image) -> None:
    store = write_store(tmp_path)
    shutil.rmtree(store.path("cse"))
    write_two_stage(store.path("cse"), "cse", PERSONS, name="cse", broken_heads=True)
    with (
        contextlib.closing(Methods.open("sg-gan", ("blur",), MethodSettings(), store)) as methods,
        pytest.raises(DetectionError, match=r"1\.png: detection failed"),
    ):
        methods.look(image, "1.png")


def test_what_cannot_be_meant_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'blur'"):
        check_classical(["blurr"])
    with pytest.raises(UsageError, match="unknown preset"):
        Methods.open("sg-gam", (), MethodSettings(), store)
    with pytest.raises(UsageError, match="no generator, and no classical method"):
        Methods.open("faces", (), MethodSettings(), store)
    with pytest.raises(UsageError, match="nothing goes by that name"):
        Methods.open("sg-gan", (), MethodSettings(engine={"nobody": tmp_path}), store)

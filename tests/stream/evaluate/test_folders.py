from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from engines.errors import SourceError, UsageError
from stream.evaluate.coco import read_coco
from stream.evaluate.folders import folder_distance, folder_fid, folder_identity, folder_precision
from stream.evaluate.judge import Judge
from stream.evaluate.market import read_market
from stream.evaluate.pictures import list_pictures, read_picture
from stream.evaluate.synthetic import ANNOTATIONS, IMAGES, MARKET
from stream.networks import NetworkSettings
from stream.perception import PerceptualNetwork, VectorNetwork
from stream.regions import Kind
from stream.verify.people import LookSettings, choose_detectors
from tests.stream.evaluate.made import map_network, vector_network, write_set, write_store

pytest.importorskip("onnxruntime", reason="networks run in ONNX Runtime")


def shift(real: Any, made: Any) -> float:
    return float(np.square(real.mean(axis=0) - made.mean(axis=0)).sum())


def ignore(done: int, count: int) -> None:
    assert 0 < done <= count


def darker(before: Path, after: Path, by: int) -> Path:
    """A copy of all pictures, so many levels darker."""
    for name in list_pictures(before):
        (after / name).parent.mkdir(parents=True, exist_ok=True)
        image = read_picture(before, name).astype(int) - by
        Pillow.fromarray(image.clip(0, 255).astype(np.uint8)).save(after / name)
    return after


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folders")
    write_set(folder / "set")
    darker(folder / "set", folder / "dark", 10)
    return folder


@pytest.fixture
def vectors(tmp_path: Path) -> VectorNetwork:
    path = vector_network(tmp_path / "x.onnx", pooled=True)
    return VectorNetwork(NetworkSettings(path, mean=0.0, std=1.0), "--features")


def test_fid_is_of_all_pictures_of_both_folders(folder: Path, vectors: VectorNetwork) -> None:
    before, after = folder / "set" / IMAGES, folder / "dark" / IMAGES
    figure = folder_fid(before, after, vectors, lambda: shift, ignore)
    assert (figure.count, figure.of) == (3, "pictures")
    # Means of three channels, each ten levels lower, where nothing was darker than ten levels.
    assert figure.value == pytest.approx(3 * 10**2, rel=0.02)


def test_the_distance_is_of_pictures_of_the_same_name(folder: Path, tmp_path: Path) -> None:
    network = PerceptualNetwork(NetworkSettings(map_network(tmp_path / "x.onnx"), mean=0.0, std=1.0))
    before, after = folder / "set" / IMAGES, folder / "dark" / IMAGES
    assert folder_distance(before, after, network, ignore).value == pytest.approx(3 * 10**2, rel=0.02)
    assert folder_distance(before, before, network, ignore).value == 0


def test_re_identification_compares_queries_with_both_galleries(folder: Path, vectors: VectorNetwork) -> None:
    before, after = (read_market(folder / name / MARKET) for name in ("set", "dark"))
    original, anonymized = folder_identity(before, after, vectors, ignore)
    assert set(original.figures) == {"rank1", "map"}
    assert set(anonymized.figures) == {"rank1", "map", "rank1_both", "map_both"}
    assert anonymized.figures["map"].count == 6
    same, _ = folder_identity(before, before, vectors, ignore)
    assert same.figures["map"] == original.figures["map"]


def test_sets_that_differ_are_no_original_and_result(folder: Path, vectors: VectorNetwork, tmp_path: Path) -> None:
    other = write_set(tmp_path / "other", people=3)
    with pytest.raises(UsageError, match="only one of them has query/0003"):
        folder_identity(read_market(folder / "set" / MARKET), read_market(other / MARKET), vectors, ignore)


def test_average_precision_is_of_both_folders(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools", reason="average precision is pycocotools'")
    store = write_store(tmp_path / "home")
    look = LookSettings(("judge",), (Kind.PERSON,), 0.02)
    truth = read_coco(folder / "set" / ANNOTATIONS, folder / "set" / IMAGES)
    with contextlib.closing(Judge(choose_detectors(look, store), look)) as judge:
        rows = folder_precision(truth, folder / "dark" / IMAGES, judge, ignore)
        with pytest.raises(UsageError, match="lacks 3 annotated pictures"):
            folder_precision(truth, folder / "dark" / MARKET, judge, ignore)
    assert [row.method for row in rows] == ["original", "anonymized"]
    assert rows[0].figures == rows[1].figures
    assert rows[0].figures["ap"].count == 3


def test_pictures_of_another_size_are_no_results(folder: Path, tmp_path: Path) -> None:
    network = PerceptualNetwork(NetworkSettings(map_network(tmp_path / "x.onnx")))
    for name in list_pictures(folder / "set" / IMAGES):
        (tmp_path / "small").mkdir(exist_ok=True)
        Pillow.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "small" / name)
    with pytest.raises(SourceError, match="sizes must agree"):
        folder_distance(folder / "set" / IMAGES, tmp_path / "small", network, ignore)

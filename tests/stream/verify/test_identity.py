from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from engines.errors import BundleError, UsageError
from stream.frame import Image
from stream.networks import NetworkSettings
from stream.regions import Kind
from stream.verify.identity import Embedder, EmbeddingSettings, Identities, compare, search

pytest.importorskip("onnxruntime", reason="the network runs in ONNX Runtime")
BOX = (8.0, 8.0, 40.0, 40.0)


def network(path: Path, *, size: tuple[int | str, int | str] = (4, 4), channels: int = 3) -> Path:
    """Gives the picture itself, as a vector."""
    node = onnx.helper.make_node("Flatten", ["data"], ["vector"], axis=1)
    graph = onnx.helper.make_graph(
        [node],
        "itself",
        [onnx.helper.make_tensor_value_info("data", onnx.TensorProto.FLOAT, ["N", channels, *size])],
        [onnx.helper.make_tensor_value_info("vector", onnx.TensorProto.FLOAT, ["N", "C"])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def embedder_of(path: Path, **settings: Any) -> Embedder:
    return Embedder(EmbeddingSettings(NetworkSettings(path, **settings)))


def patch(seed: int) -> Image:
    """A picture of somebody: coarse, so that a small network sees it."""
    return np.kron(np.random.default_rng(seed).integers(0, 256, (12, 12, 3)), np.ones((4, 4, 1))).astype(np.uint8)


def test_the_network_gets_the_region_normalised(tmp_path: Path) -> None:
    image = np.zeros((48, 48, 3), np.uint8)
    image[..., 0] = 255
    embedder = embedder_of(network(tmp_path / "x.onnx"), mean=55.0, std=100.0)
    vector = embedder.embed(image, BOX).reshape(3, 16)
    assert np.allclose(vector[0] / vector[1], (255 - 55) / (0 - 55), rtol=1e-5)
    assert np.isclose(np.linalg.norm(vector), 1, atol=1e-5)
    other = embedder_of(network(tmp_path / "x.onnx"), mean=55.0, std=100.0, colour="bgr")
    assert np.allclose(other.embed(image, BOX).reshape(3, 16)[::-1], vector)


def test_a_region_at_the_edge_is_cut_out_all_the_same(tmp_path: Path) -> None:
    embedder = embedder_of(network(tmp_path / "x.onnx"))
    assert embedder.embed(patch(0), (-20.0, -5.0, 10.0, 30.0)).shape == (48,)


def test_people_who_are_left_are_recognised_and_others_are_not(tmp_path: Path) -> None:
    embedder = embedder_of(network(tmp_path / "x.onnx"))
    raw, replaced = Identities(embedder), Identities(embedder)
    for track in range(6):
        for turn in range(3):
            before = np.asarray(np.roll(patch(track), turn, axis=1), np.uint8)
            raw.add(track, Kind.FACE, BOX, before, before)
            replaced.add(track, Kind.FACE, BOX, before, patch(100 + track))
            raw.add(track, Kind.PERSON, BOX, before, before)
    known, unknown = raw.result(), replaced.result()
    assert known is not None
    assert unknown is not None
    assert (known.pictures, known.tracks) == (18, 6)
    assert known.similarity == pytest.approx(1, abs=1e-5)
    assert known.rank1 == 1
    assert known.mean_ap is not None
    assert known.mean_ap > 0.9
    assert unknown.similarity < 0.5
    assert unknown.rank1 is not None
    assert unknown.rank1 <= 0.5
    assert unknown.rank1_original == 1
    assert unknown.chance == pytest.approx(3 / 18)


def test_one_person_cannot_be_mistaken_for_another() -> None:
    one = np.eye(2, dtype=np.float32)
    result = compare(one, one, np.array([3, 3]))
    assert result.similarity == 1
    assert result.rank1 is result.mean_ap is result.chance is None


def test_nobody_is_no_result(tmp_path: Path) -> None:
    assert Identities(embedder_of(network(tmp_path / "x.onnx"))).result() is None


def test_the_search_is_that_of_the_textbook() -> None:
    similarity = np.array([[0.9, 0.8, 0.1], [0.2, 0.9, 0.8]], np.float32)
    same = np.array([[True, False, True], [True, False, False]])
    # First query: hits at ranks 1 and 3; second one: at rank 3.
    rank1, mean_ap = search(similarity, same)
    assert rank1 == 0.5
    assert mean_ap == pytest.approx(((1 + 2 / 3) / 2 + 1 / 3) / 2)


def test_a_size_is_asked_for_where_the_file_leaves_it_open(tmp_path: Path) -> None:
    path = network(tmp_path / "open.onnx", size=("h", "w"))
    with pytest.raises(UsageError, match="say which: --embedding FILE,size=WxH"):
        embedder_of(path)
    assert embedder_of(path, size=(6, 5)).embed(patch(0), BOX).shape == (90,)
    with pytest.raises(UsageError, match="takes pictures of 4x4 only"):
        embedder_of(network(tmp_path / "fixed.onnx"), size=(6, 5))


def test_files_that_are_no_such_network_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("no network")
    with pytest.raises(BundleError, match="is not an ONNX file"):
        embedder_of(text)
    with pytest.raises(UsageError, match="no such file"):
        embedder_of(tmp_path / "nothing.onnx")
    with pytest.raises(BundleError, match="picture"):
        embedder_of(network(tmp_path / "grey.onnx", channels=1))

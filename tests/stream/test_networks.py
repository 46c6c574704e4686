from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.bundle import sha256_file
from engines.errors import BundleError, UsageError
from stream.networks import NetworkSettings, PictureNetwork, fit, parse_network
from tests.stream.evaluate.made import map_network, vector_network

pytest.importorskip("onnxruntime", reason="networks run in ONNX Runtime")


def open_network(path: Path, **settings: object) -> PictureNetwork:
    return PictureNetwork(NetworkSettings(path, **settings), say_size="--size")  # type: ignore[arg-type]


def pictures(count: int, height: int = 4, width: int = 4) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def test_each_channel_is_normalised_by_itself_and_then_turned_round(tmp_path: Path) -> None:
    network = open_network(
        vector_network(tmp_path / "x.onnx"), mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 4.0), colour="bgr"
    )
    shown = pictures(2)
    expected = (shown[..., ::-1].astype(np.float32) - (10, 20, 30)) / (1, 2, 4)
    assert np.allclose(network.first(shown), expected.transpose(0, 3, 1, 2).reshape(2, -1))


@pytest.mark.parametrize("batch", ["N", 1])
def test_more_pictures_than_one_run_takes_come_back_in_order(tmp_path: Path, batch: int | str) -> None:
    network = open_network(vector_network(tmp_path / "x.onnx", batch=batch), mean=0.0, std=1.0)
    shown = pictures(35)
    assert np.array_equal(network.first(shown), shown.transpose(0, 3, 1, 2).reshape(35, -1))


def test_all_outputs_are_given_and_floats_keep_their_fractions(tmp_path: Path) -> None:
    network = open_network(map_network(tmp_path / "x.onnx", layers=2), mean=0.0, std=1.0)
    shown = pictures(3, 5, 7).astype(np.float32) + np.float32(0.25)
    first, second = network.all(shown)
    assert np.array_equal(first, shown.transpose(0, 3, 1, 2))
    assert np.array_equal(second, 2 * first)


def test_the_name_tells_the_hash(tmp_path: Path) -> None:
    path = vector_network(tmp_path / "x.onnx")
    network = open_network(path)
    assert network.sha256 == sha256_file(path)
    assert network.name == f"x.onnx (sha256 {network.sha256[:12]})"


def test_the_size_is_the_files_where_it_says_one(tmp_path: Path) -> None:
    assert open_network(vector_network(tmp_path / "x.onnx", (6, 8))).size == (8, 6)
    anything = vector_network(tmp_path / "y.onnx", ("h", "w"))
    assert open_network(anything).size is None
    assert open_network(anything, size=(8, 6)).size == (8, 6)
    with pytest.raises(UsageError, match="pictures of 8x6 only; leave --size out"):
        open_network(tmp_path / "x.onnx", size=(9, 6))


def test_what_is_no_such_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        open_network(tmp_path / "nothing.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(BundleError, match="export the network"):
        open_network(tmp_path / "text.onnx")
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Mul", ["picture", "scale"], ["out"])],
        "two",
        [info("picture", TensorProto.FLOAT, ["N", 3, 4, 4]), info("scale", TensorProto.FLOAT, [1])],
        [info("out", TensorProto.FLOAT, ["N", 3, 4, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "two.onnx")
    with pytest.raises(BundleError, match="takes scale besides a picture"):
        open_network(tmp_path / "two.onnx")


def test_an_answer_that_is_not_for_each_picture_is_refused(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["picture"], ["out"], axes=[0], keepdims=1)],
        "mean",
        [info("picture", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [info("out", TensorProto.FLOAT, [1, 3, 4, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "mean.onnx")
    with pytest.raises(BundleError, match="for 2 pictures"):
        open_network(tmp_path / "mean.onnx").first(pictures(2))


def test_pictures_shrink_by_means_of_areas() -> None:
    checks = np.zeros((8, 8, 3), np.float32)
    checks[::2, ::2] = 100
    small = fit(checks, (4, 4))
    assert np.allclose(small, 25)
    assert fit(checks, None) is checks
    assert fit(checks, (8, 8)) is checks
    assert fit(checks.astype(np.uint8), (16, 12)).shape == (12, 16, 3)


def test_a_network_is_given_with_what_it_takes() -> None:
    found = parse_network("a,b/net.onnx,size=128x256,mean=123.7/116.3/103.5,std=58,colour=bgr", "--x")
    assert found == NetworkSettings(Path("a,b/net.onnx"), (128, 256), (123.7, 116.3, 103.5), 58.0, "bgr")
    assert parse_network("net.onnx", "--x") == NetworkSettings(Path("net.onnx"))


@pytest.mark.parametrize(
    "text",
    [
        "", "net.onnx,size=3", "net.onnx,size=0x4", "net.onnx,sise=3x3", "net.onnx,mean=a", "net.onnx,mean=1/2",
        "net.onnx,std=0", "net.onnx,std=nan", "net.onnx,colour=red", "net.onnx,std=1,std=2", ",std=1",
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_the_option(text: str) -> None:
    with pytest.raises(UsageError, match="--x"):
        parse_network(text, "--x")

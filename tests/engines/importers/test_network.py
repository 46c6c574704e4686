from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.errors import BundleError, UsageError
from engines.importers.network import OPSET, metadata_names, read_network
from tests.engines.importers.networks import columns, fixed_answer, save

if TYPE_CHECKING:
    from pathlib import Path


def _model() -> onnx.ModelProto:
    return fixed_answer({"o": columns([[20, 30, 10, 20, 0.9]])})


def _with_outside_weights(location: str) -> onnx.ModelProto:
    model = _model()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", location
    return model


def test_what_is_in_a_file_is_told(tmp_path: Path) -> None:
    model = fixed_answer(
        {"o": columns([[20, 30, 10, 20, 0.9]])},
        picture=("batch", 3, "height", "width"),
        metadata={"names": "{0: 'face'}"},
    )
    network = read_network(save(model, tmp_path))
    assert network.picture.name == "images"
    assert network.picture.shape == ("batch", 3, "height", "width")
    assert network.size == ("height", "width")
    assert [(port.name, port.shape) for port in network.outputs] == [("o", (1, 5, 6))]
    assert network.metadata == {"names": "{0: 'face'}"}


def test_names_cannot_collide_with_those_of_the_bundle(tmp_path: Path) -> None:
    network = read_network(save(fixed_answer({"boxes": columns([[1, 1, 1, 1, 0]])}), tmp_path))
    assert [value.name for value in network.model.graph.output] == ["net.boxes"]


def test_a_missing_file_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_network(tmp_path / "none.onnx")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 100, b"\x08\x07"])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="not an ONNX file"):
        read_network(path)


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = save(_model(), tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BundleError, match="ONNX file"):
        read_network(path)


def test_a_graph_that_is_not_valid_is_refused(tmp_path: Path) -> None:
    model = _model()
    model.graph.node[-1].input[0] = "nowhere"
    with pytest.raises(BundleError, match="not a valid ONNX file") as caught:
        read_network(save(model, tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("opset", [1, 6, 99])
def test_opsets_beyond_the_known_are_refused(tmp_path: Path, opset: int) -> None:
    model = _model()
    model.opset_import[0].version = opset
    with pytest.raises(BundleError, match=r"opset|not a valid ONNX file"):
        read_network(save(model, tmp_path))


def test_an_old_file_is_brought_to_a_newer_opset(tmp_path: Path) -> None:
    network = read_network(save(fixed_answer({"o": columns([[1, 1, 1, 1, 0]])}, opset=9), tmp_path))
    assert [entry.version for entry in network.model.opset_import] == [OPSET]
    assert [entry.version for entry in network.original.opset_import] == [9]


def test_custom_operators_are_refused(tmp_path: Path) -> None:
    model = _model()
    model.graph.node[-1].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(BundleError, match=r"com\.example"):
        read_network(save(model, tmp_path))


def test_functions_of_the_file_are_written_out(tmp_path: Path) -> None:
    model = _model()
    last = model.graph.node[-1]
    body = [helper.make_node("Add", ["a", "b"], ["c"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("local", "Plus", ["a", "b"], ["c"], body, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    last.domain, last.op_type = "local", "Plus"
    network = read_network(save(model, tmp_path))
    assert {node.domain for node in network.model.graph.node} == {""}


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    values = columns([[20, 30, 10, 20, 0.9]])
    (tmp_path / "weights.bin").write_bytes(values.tobytes())
    network = read_network(save(_with_outside_weights("weights.bin"), tmp_path))
    weight = next(t for t in network.model.graph.initializer if t.name == "net.answer.o")
    assert weight.data_location == TensorProto.DEFAULT
    np.testing.assert_array_equal(numpy_helper.to_array(weight), values)


@pytest.mark.parametrize("place", ["/etc/hostname", "../weights.bin", "sub/weights.bin", "", "..", "C:weights", "a\\b"])
def test_weights_elsewhere_are_refused(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(1000))
    with pytest.raises(BundleError, match="right beside it"):
        read_network(save(_with_outside_weights(place), folder))


def test_weights_behind_a_link_or_missing_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(1000))
    path = save(_with_outside_weights("weights.bin"), folder)
    with pytest.raises(BundleError, match="no regular file"):
        read_network(path)
    (folder / "weights.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(BundleError, match="no regular file"):
        read_network(path)


def test_weights_inside_subgraphs_are_looked_at_too(tmp_path: Path) -> None:
    model = _model()
    inner = numpy_helper.from_array(np.zeros((1, 5, 6), np.float32), "inner")
    inner.ClearField("raw_data")
    inner.data_location = TensorProto.EXTERNAL
    entry = inner.external_data.add()
    entry.key, entry.value = "location", "../secret"
    out = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [1, 5, 6])
    branch = helper.make_graph([helper.make_node("Identity", ["inner"], ["chosen"])], "branch", [], [out], [inner])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["p"], then_branch=branch, else_branch=branch))
    with pytest.raises(BundleError, match="right beside it"):
        read_network(save(model, tmp_path))


@pytest.mark.parametrize("picture", [(1, 4, 64, 96), (64, 96), (1, 64, 96, 3)])
def test_what_takes_no_picture_is_refused(tmp_path: Path, picture: tuple[int, ...]) -> None:
    model = fixed_answer({"o": columns([[1, 1, 1, 1, 0]])}, picture=picture)
    with pytest.raises(BundleError, match="expected one picture"):
        read_network(save(model, tmp_path))


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        ((8, 3, 64, 96), "8 pictures at once"),
        ((1, 3, 64, "width"), "one side"),
        ((1, 3, "height", 96), "one side"),
    ],
)
def test_pictures_that_frames_cannot_become_are_refused(
    tmp_path: Path, picture: tuple[int | str, ...], says: str
) -> None:
    model = fixed_answer({"o": columns([[1, 1, 1, 1, 0]])}, picture=picture)
    with pytest.raises(BundleError, match=says):
        read_network(save(model, tmp_path))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{0: 'person', 1: 'face'}", ("person", "face")),
        ('{"0": "person", "1": "face"}', ("person", "face")),
        ("['a', 'b']", ("a", "b")),
        ("", None),
    ],
)
def test_class_names(text: str, names: tuple[str, ...] | None) -> None:
    assert metadata_names({"names": text}) == names


@pytest.mark.parametrize("text", ["{0: 'a', 2: 'b'}", "[]", "3", "[1, 2]", "open('x')", "{", "(" * 3000])
def test_class_names_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BundleError, match="class names"):
        metadata_names({"names": text})

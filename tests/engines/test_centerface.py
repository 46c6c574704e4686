from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import skimage.data
from onnx import TensorProto, helper, numpy_helper

from engines import centerface as recipe
from engines.centerface_parity import Decoded, decode, measure_parity
from engines.errors import BundleError
from engines.registry import find_artefact
from engines.runtime import open_runtime

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from engines.bundle import Bundle

    Array = NDArray[Any]

#: Where in a cell's 4x4 pixels the network below reads each map: map -> rows of (channel, y, x).
READS: dict[str, list[tuple[int, int, int]]] = {
    "537": [(0, 0, 0)],
    "538": [(1, 0, 0), (1, 0, 1)],
    "539": [(2, 0, 0), (2, 0, 1)],
    "540": [(0, 1, 1)],
}


def readable_network(gains: Mapping[str, tuple[float, float]] | None = None) -> onnx.ModelProto:
    """A network with CenterFace's outputs, each read straight from the image: value * gain + bias.

    Like the published file: opset 9, IR 4, fixed dimensions, initializers listed as inputs.
    """
    nodes, weights = [], []
    for name, places in READS.items():
        gain, bias = (gains or {}).get(name, (1.0, 0.0))
        kernel = np.zeros((len(places), 3, 4, 4), np.float32)
        for row, (channel, y, x) in enumerate(places):
            kernel[row, channel, y, x] = gain
        weights.append(numpy_helper.from_array(kernel, f"w{name}"))
        weights.append(numpy_helper.from_array(np.full(len(places), bias, np.float32), f"b{name}"))
        nodes.append(helper.make_node("Conv", ["input.1", f"w{name}", f"b{name}"], [name], strides=[4, 4]))
    inputs = [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [10, 3, 32, 32])]
    inputs += [helper.make_tensor_value_info(w.name, w.data_type, list(w.dims)) for w in weights]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [10, len(places), 8, 8])
        for name, places in READS.items()
    ]
    graph = helper.make_graph(nodes, "readable", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4)


class Scene:
    """An image that makes the readable network answer what a test wants, by cell."""

    def __init__(self, rows: int, columns: int) -> None:
        self.heat = np.zeros((rows, columns), np.float32)
        self.scale = np.zeros((2, rows, columns), np.float32)
        self.offset = np.zeros((2, rows, columns), np.float32)

    @classmethod
    def random(cls, rows: int, columns: int, seed: int) -> Scene:
        draw = np.random.default_rng(seed)
        scene = cls(rows, columns)
        scene.heat = np.where(draw.random((rows, columns)) < 0.3, draw.random((rows, columns)), 0).astype(np.float32)
        scene.scale = draw.uniform(-0.5, 2, scene.scale.shape).astype(np.float32)
        scene.offset = draw.uniform(-1, 1, scene.offset.shape).astype(np.float32)
        return scene

    def face(self, row: int, column: int, score: float, side: float) -> None:
        """A square face centred in a cell; `side` in pixels."""
        self.heat[row, column] = score
        self.scale[:, row, column] = np.log(side / 4)

    @property
    def image(self) -> Array:
        image = np.zeros((1, 3, 4 * self.heat.shape[0], 4 * self.heat.shape[1]), np.float32)
        for name, values in (("537", self.heat[None]), ("538", self.scale), ("539", self.offset)):
            for (channel, y, x), plane in zip(READS[name], values, strict=True):
                image[0, channel, y::4, x::4] = plane
        return image

    def decoded(self, size: tuple[int, int], most: int = recipe.MOST_CANDIDATES) -> Decoded:
        return decode(self.heat, self.scale, self.offset, size, most=most)


def session(model: onnx.ModelProto) -> Any:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def detect(graph: Any, image: Array, *sizes: tuple[int, int]) -> dict[str, Array]:
    names = [tensor.name for tensor in recipe.OUTPUTS]
    return dict(zip(names, graph.run(names, {"image": image, "image_size": np.array(sizes)}), strict=True))


def assert_same(found: dict[str, Array], row: int, expected: Decoded) -> None:
    count = int(found["count"][row])
    assert count == len(expected.scores)
    np.testing.assert_allclose(found["boxes"][row, :count], expected.boxes, atol=1e-3)
    np.testing.assert_array_equal(found["scores"][row, :count], expected.scores)
    assert not found["scores"][row, count:].any()
    assert not found["boxes"][row, count:].any()
    assert not found["classes"][row].any()
    assert found["floor"][row] == np.float32(expected.floor)


@pytest.fixture(scope="module")
def readable() -> Any:
    return session(recipe.build_detector(readable_network()))


@pytest.mark.parametrize("seed", range(8))
def test_the_graph_equals_the_numpy_decoder_on_random_maps(readable: Any, seed: int) -> None:
    rows, columns = [(8, 8), (16, 24), (40, 8), (24, 24)][seed % 4]
    size = (4 * rows - 7 * (seed % 3), 4 * columns - 5 * (seed % 2))
    scene = Scene.random(rows, columns, seed)
    expected = scene.decoded(size)
    assert len(expected.scores) > 3
    found = detect(readable, scene.image, size)
    assert_same(found, 0, expected)
    assert found["scores"].shape == (1, rows * columns)


def test_a_box_is_where_its_cell_and_maps_say(readable: Any) -> None:
    scene = Scene(8, 16)
    scene.heat[2, 5] = 0.75
    scene.scale[:, 2, 5] = np.log([10, 5])
    scene.offset[:, 2, 5] = (0.25, -0.5)
    found = detect(readable, scene.image, (32, 64))
    # Centre y (2 + 0.25 + 0.5) 4 = 11, x (5 - 0.5 + 0.5) 4 = 20; height 40, width 20: reaches outside.
    np.testing.assert_allclose(found["boxes"][0, 0], [10, -9, 30, 31], rtol=1e-6)
    assert found["scores"][0, 0] == 0.75
    assert found["count"].tolist() == [1]
    assert {name: value.dtype.name for name, value in found.items()} == {t.name: t.dtype for t in recipe.OUTPUTS}


def test_an_image_without_faces_has_none(readable: Any) -> None:
    found = detect(readable, Scene(8, 8).image, (32, 32))
    assert_same(found, 0, Decoded(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 0.0))


def test_candidates_at_the_score_floor_are_dropped_and_above_it_kept(readable: Any) -> None:
    scene = Scene(8, 8)
    scene.face(1, 1, recipe.SCORE_FLOOR, 4)
    scene.face(6, 6, float(np.nextafter(np.float32(recipe.SCORE_FLOOR), np.float32(1))), 4)
    assert detect(readable, scene.image, (32, 32))["count"].tolist() == [1]


@pytest.mark.parametrize(("side", "count"), [(8.0, 2), (16.0, 1)])
def test_overlapping_boxes_are_suppressed_from_the_limit_on(readable: Any, side: float, count: int) -> None:
    # Two squares 8 apart sideways: 8 wide touch (IoU 0), 16 wide share a half (IoU 1/3).
    scene = Scene(8, 16)
    scene.face(3, 4, 0.9, side)
    scene.face(3, 6, 0.8, side)
    assert detect(readable, scene.image, (32, 64))["count"].tolist() == [count]


def test_equal_scores_far_apart_are_both_kept(readable: Any) -> None:
    scene = Scene(8, 16)
    scene.face(2, 2, 0.5, 8)
    scene.face(5, 12, 0.5, 8)
    assert detect(readable, scene.image, (32, 64))["count"].tolist() == [2]


def test_suppression_does_not_cross_images(readable: Any) -> None:
    scenes = [Scene(8, 8), Scene(8, 8)]
    for scene, score in zip(scenes, (0.9, 0.6), strict=True):
        scene.face(3, 3, score, 12)
    found = detect(readable, np.concatenate([scene.image for scene in scenes]), (32, 32), (32, 32))
    assert found["count"].tolist() == [1, 1]


def test_a_batch_equals_single_runs(readable: Any) -> None:
    scenes = [Scene.random(16, 16, seed) for seed in (1, 2, 3)]
    sizes = [(64, 64), (50, 64), (64, 33)]
    found = detect(readable, np.concatenate([scene.image for scene in scenes]), *sizes)
    for row, (scene, size) in enumerate(zip(scenes, sizes, strict=True)):
        assert_same(found, row, scene.decoded(size))
        for name, value in detect(readable, scene.image, size).items():
            np.testing.assert_array_equal(value[0], found[name][row])


def test_what_lies_in_the_padding_is_dropped_and_crowds_nothing_out(readable: Any) -> None:
    scene = Scene(16, 16)
    scene.face(14, 3, 0.99, 8)
    scene.face(3, 14, 0.98, 8)
    scene.face(5, 5, 0.5, 8)
    assert detect(readable, scene.image, (64, 64))["count"].tolist() == [3]
    found = detect(readable, scene.image, (58, 58))
    assert found["count"].tolist() == [1]
    assert found["scores"][0, 0] == 0.5
    few = session(recipe.build_detector(readable_network(), most=1))
    assert detect(few, scene.image, (58, 58))["scores"].tolist() == [[0.5]]


@pytest.mark.parametrize(("faces", "floor"), [(0, 0.0), (4, 0.0), (5, 0.0), (6, 0.5), (9, 0.5)])
def test_floor_tells_when_candidates_were_lost(faces: int, floor: float) -> None:
    graph = session(recipe.build_detector(readable_network(), most=5))
    scene = Scene(32, 32)
    for number in range(faces):
        scene.face(3 * number + 2, 5, (9 - number) / 10, 4)
    found = detect(graph, scene.image, (128, 128))
    assert found["count"].tolist() == [min(faces, 5)]
    assert found["floor"][0] == np.float32(floor)
    assert_same(found, 0, scene.decoded((128, 128), most=5))


def test_floor_is_set_even_if_suppression_leaves_few() -> None:
    graph = session(recipe.build_detector(readable_network(), most=5))
    scene = Scene(16, 16)
    for number in range(8):
        scene.face(4, 4 + number, (9 - number) / 10, 60)
    found = detect(graph, scene.image, (64, 64))
    assert found["count"].tolist() == [1]
    assert found["floor"][0] == np.float32(0.5)


def test_more_candidates_than_the_limit_of_tensorrt_are_cut(readable: Any) -> None:
    scene = Scene(64, 64)
    scene.heat[:] = np.random.default_rng(0).uniform(0.1, 1, scene.heat.shape)
    scene.scale[:] = np.log(0.5)
    found = detect(readable, scene.image, (256, 256))
    assert found["count"].tolist() == [recipe.MOST_CANDIDATES]
    assert_same(found, 0, scene.decoded((256, 256)))
    assert found["floor"][0] == found["scores"][0, -1] > 0.1


def test_the_built_file_is_clean_and_always_the_same() -> None:
    model = readable_network()
    before = model.SerializeToString()
    built = recipe.build_detector(model)
    assert model.SerializeToString() == before
    again = recipe.build_detector(readable_network())
    assert built.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
    used = {name for node in built.graph.node for name in node.input}
    assert {tensor.name for tensor in built.graph.initializer} <= used
    assert [value.name for value in built.graph.input] == ["image", "image_size"]
    assert not any("540" in tensor.name for tensor in built.graph.initializer)


def test_a_network_that_computes_rubbish_does_not_look_like_an_empty_image(readable: Any) -> None:
    scene = Scene(8, 8)
    scene.face(3, 3, 0.5, 8)
    image = scene.image
    # The convolutions carry it into all maps of this cell: score, centre and size are not numbers.
    image[0, 0, 20, 20] = np.nan
    found = detect(readable, image, (32, 32))
    assert found["count"].tolist() == [2]
    assert found["scores"][0, :2].tolist() == [1.0, 0.5]
    assert np.isnan(found["boxes"][0, 0]).all()
    assert np.isfinite(found["boxes"][0, 1:]).all()


def test_another_network_is_refused() -> None:
    model = readable_network()
    model.graph.node[0].output[0] = "other"
    with pytest.raises(BundleError, match="expected one input and outputs"):
        recipe.build_detector(model)


#: Heat from red above 235, so that a few cells of the drawn faces are candidates.
GAINS = {"537": (1 / 20, -235 / 20), "538": (1 / 100, 0.0), "539": (1 / 255, 0.0), "540": (1.0, 0.0)}


def test_parity_is_measured() -> None:
    network = readable_network(GAINS)
    results = measure_parity(network, recipe.build_detector(network))
    assert [result.output for result in results] == ["boxes", "scores", "floor"]
    assert all(result.largest_difference <= result.tolerance for result in results)


def test_a_graph_that_differs_from_its_network_is_refused() -> None:
    network = readable_network(GAINS)
    other = readable_network(GAINS | {"538": (1 / 100, 0.01)})
    with pytest.raises(BundleError, match="boxes"):
        measure_parity(network, recipe.build_detector(other))


def test_parity_of_nothing_is_refused() -> None:
    network = readable_network(dict.fromkeys(READS, (0.0, 0.0)))
    with pytest.raises(BundleError, match="no candidates"):
        measure_parity(network, recipe.build_detector(network))


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    fake = tmp_path / "fake"
    fake.write_bytes(b"\xff\xff")
    with pytest.raises(BundleError, match="not an ONNX file"):
        recipe.build(fake, find_artefact("centerface"), tmp_path / "out")


def photo() -> Array:
    image: Array = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    return image


def padded(image: Array) -> Array:
    """uint8 (h,w,3) -> float32 (1,3,H,W) with H and W multiples of 32."""
    height, width = image.shape[:2]
    bottom, right = -height % 32, -width % 32
    return np.pad(image, ((0, bottom), (0, right), (0, 0))).astype(np.float32).transpose(2, 0, 1)[None].copy()


def test_the_real_detector_finds_the_astronauts_face(centerface: Bundle) -> None:
    image = padded(photo())
    with open_runtime(centerface) as runtime:
        found = runtime.run({"image": image, "image_size": np.array([[512, 512]])})
    assert (found["scores"][0] > 0.5).sum() == 1
    x1, y1, x2, y2 = found["boxes"][0, 0]
    assert 175 < x1 < x2 < 275
    assert 40 < y1 < y2 < 210
    assert found["floor"][0] == 0


def test_the_real_detector_in_a_batch_equals_single_runs(centerface: Bundle) -> None:
    astronaut = photo()
    images = [padded(astronaut[:480, :500]), padded(astronaut[479::-1, 499::-1])]
    sizes = np.array([[480, 500], [470, 490]])
    with open_runtime(centerface) as runtime:
        both = runtime.run({"image": np.concatenate(images), "image_size": sizes})
        for row, image in enumerate(images):
            alone = runtime.run({"image": image, "image_size": sizes[row : row + 1]})
            count = int(alone["count"][0])
            assert both["count"][row] == count
            np.testing.assert_allclose(both["boxes"][row, :count], alone["boxes"][0, :count], atol=1e-2)
            np.testing.assert_allclose(both["scores"][row], alone["scores"][0], atol=1e-5)
    assert both["scores"][0, 0] > 0.5


def test_the_real_bundle_says_what_it_is(centerface: Bundle) -> None:
    manifest = centerface.manifest
    assert manifest.kinds == ("face",)
    assert manifest.licence == "MIT"
    assert manifest.normalisation.multiple == 32
    assert manifest.graphs["detector"].inputs == recipe.INPUTS
    assert manifest.graphs["detector"].outputs == recipe.OUTPUTS
    assert manifest.parity
    assert all(result.largest_difference <= result.tolerance for result in manifest.parity)


def test_onnx_runtime_has_nothing_to_say_about_the_real_graph(
    centerface: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 2
    path = str(centerface.file("detector.onnx"))
    graph = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    detect(graph, np.zeros((1, 3, 64, 64), np.float32), (64, 64))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")

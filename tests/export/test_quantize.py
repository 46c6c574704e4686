from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from engines.bundle import Bundle, open_bundle, write_bundle
from engines.detector_tensors import decided_tensors
from engines.errors import ExportError, SourceError, UsageError
from engines.manifest import Graph, ManifestDraft, Tensor
from engines.runtime import open_runtime
from export.quantize import between_convolutions, quantize_detector
from export.quantize_compare import Limits
from tests.engines.helpers import tiny_draft

Arrays = dict[str, NDArray[Any]]

MOST = 4
#: Finds the brightest cells of 4x4 pixels: a mean in each of two layers, and what comes out is the score. A second
#: channel that nobody reads says `LOUD` in between.
TEXT = f"""
<ir_version: 8, opset_import: ["" : 17]>
detector (float[N, 3, h, w] image, int64[N, 2] image_size)
=> (float[N, {MOST}, 4] boxes, float[N, {MOST}] scores, int64[N, {MOST}] classes, int64[N] count, float[N] floor)
<
  int64[1] most = {{{MOST}}}, int64[3] flat = {{0, 1, -1}}, float four = {{4}}, int64[1] one = {{1}},
  int64[1] two = {{2}}, int64 end = {{3}}, float[2] loud = {{0, LOUD}}, float[1] zero = {{0}}
>
{{
  cells = Conv <kernel_shape = [4, 4], strides = [4, 4]> (image, look, loud)
  seen = Relu (cells)
  kept = Conv <kernel_shape = [1, 1]> (seen, pass)
  passed = Relu (kept)
  score = Conv <kernel_shape = [1, 1]> (passed, read, zero)
  rows = Reshape (score, flat)
  row = Squeeze (rows, one)
  scores, places = TopK <axis = 1> (row, most)
  shape = Shape (score)
  width = Gather (shape, end)
  y = Div (places, width)
  x = Mod (places, width)
  xf = Cast <to = 1> (x)
  yf = Cast <to = 1> (y)
  x0 = Mul (xf, four)
  y0 = Mul (yf, four)
  x1 = Add (x0, four)
  y1 = Add (y0, four)
  a = Unsqueeze (x0, two)
  b = Unsqueeze (y0, two)
  c = Unsqueeze (x1, two)
  d = Unsqueeze (y1, two)
  boxes = Concat <axis = 2> (a, b, c, d)
  classes = Sub (places, places)
  ones = Add (classes, one)
  count = ReduceSum <keepdims = 0> (ones, one)
  nothing = Sub (scores, scores)
  floor = ReduceMin <axes = [1], keepdims = 0> (nothing)
}}
"""


def model(loud: float) -> onnx.ModelProto:
    made = onnx.parser.parse_model(TEXT.replace("LOUD", repr(loud)))
    look = np.stack([np.full((3, 4, 4), 1 / 48), np.zeros((3, 4, 4))]).astype(np.float32)
    weights = {
        "look": look,
        "pass": np.eye(2, dtype=np.float32)[:, :, None, None],
        "read": np.array([1, 0], np.float32).reshape(1, 2, 1, 1),
    }
    made.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.checker.check_model(made, full_check=True)
    return made


def write(folder: Path, loud: float = 1.0, detector: onnx.ModelProto | None = None) -> Bundle:
    inputs = (
        Tensor(name="image", dtype="float32", shape=("N", 3, "h", "w"), meaning="a test"),
        Tensor(name="image_size", dtype="int64", shape=("N", 2), meaning="a test"),
    )
    outputs = decided_tensors(MOST, boxes="pixels", scores="best first", classes="all 0", floor="0")
    draft = tiny_draft("bright")
    graph = Graph(file="detector.onnx", inputs=inputs, outputs=outputs)
    fields = draft.model_dump() | {"graphs": {"detector": graph}}
    return write_bundle(
        folder,
        ManifestDraft.model_validate(fields),
        {"detector.onnx": (detector or model(loud)).SerializeToString()},
    )


def feeds(count: int = 40) -> list[list[Callable[[], Arrays]]]:
    """Dark pictures with `MOST` bright cells each."""

    def picture(seed: int) -> Arrays:
        draw = np.random.default_rng(seed)
        image = draw.uniform(0, 0.1, (1, 3, 32, 48)).astype(np.float32)
        for place in draw.choice(8 * 12, MOST, replace=False):
            y, x = divmod(int(place), 12)
            image[0, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = draw.uniform(0.7, 1.0)
        return {"image": image, "image_size": np.array([[32, 48]], np.int64)}

    return [[partial(picture, seed)] for seed in range(count)]


def found(bundle: Bundle, graph: str, feed: Arrays) -> Arrays:
    with open_runtime(bundle, graph, device="cpu") as runtime:
        return dict(runtime.run(feed))


def test_a_bundle_gets_a_graph_in_integers_that_finds_the_same(tmp_path: Path) -> None:
    bundle = write(tmp_path / "float")
    said: list[str] = []
    made = quantize_detector(bundle, feeds(), tmp_path / "made", progress=said.append)
    assert said[-1] == "100.00 % of 80 regions are found again"
    measured = made.manifest.quantized["detector_int8"]
    assert (measured.source, measured.pictures, measured.regions, measured.found) == ("detector", 20, 80, 1.0)
    assert made.graph("detector_int8").inputs == bundle.graph("detector").inputs
    # What was there stays as it was.
    assert made.manifest.files["detector.onnx"] == bundle.manifest.files["detector.onnx"]
    feed = feeds()[1][0]()
    exact, rounded = (found(made, name, feed) for name in ("detector", "detector_int8"))
    assert {tuple(box) for box in rounded["boxes"][0]} == {tuple(box) for box in exact["boxes"][0]}
    assert 0 < np.abs(rounded["scores"] - exact["scores"]).max() < 0.02


def test_only_what_lies_between_convolutions_becomes_integers(tmp_path: Path) -> None:
    made = quantize_detector(write(tmp_path / "float"), feeds(), tmp_path / "made")
    graph = onnx.load(made.file("detector_int8.onnx")).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    integers = [
        all(makers.get(name) == "DequantizeLinear" for name in node.input[:2])
        for node in graph.node
        if node.op_type == "Conv"
    ]
    assert integers == [False, True, False]
    # Places of boxes stay as exact as they were.
    assert not any(
        makers.get(name) == "DequantizeLinear" for node in graph.node if node.op_type == "Add" for name in node.input
    )


def test_nodes_without_names_get_some_and_are_found(tmp_path: Path) -> None:
    nameless = model(1.0)
    assert {node.name for node in nameless.graph.node} == {""}
    names = [f"{node.op_type}_{number}" for number, node in enumerate(nameless.graph.node)]
    for node, name in zip(nameless.graph.node, names, strict=True):
        node.name = name
    assert between_convolutions(nameless) == ["Relu_1", "Conv_2", "Relu_3"]


def test_integers_that_lose_people_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    # What is a million beside it is nothing in 8 bits.
    bundle = write(tmp_path / "float", loud=1e6)
    with pytest.raises(ExportError, match=r"integers lose 80 of 80 regions .80 of class 0., more than"):
        quantize_detector(bundle, feeds(), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_part_may_be_allowed_to_be_lost(tmp_path: Path) -> None:
    bundle = write(tmp_path / "float")
    # 230 parts of 255 are 0.90196: what is a little over 0.902 is rounded down to it.
    strict = Limits(sure=0.902, threshold=0.902, most_lost=0.0, fewest=1)
    with pytest.raises(ExportError, match="integers lose"):
        quantize_detector(bundle, feeds(400), tmp_path / "strict", strict)
    loose = Limits(sure=0.902, threshold=0.902, most_lost=0.5, fewest=1)
    made = quantize_detector(bundle, feeds(400), tmp_path / "loose", loose)
    assert 0.5 < made.manifest.quantized["detector_int8"].found < 1


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Limits(most_lost=-0.1), "a part of -0.1"),
        (Limits(most_lost=1.0), "a part of 1.0"),
        (Limits(threshold=0.6), "thresholds of 0.6 and 0.5"),
        (Limits(threshold=0.0), "thresholds of 0.0"),
    ],
)
def test_what_cannot_be_judged_is_a_usage_error(tmp_path: Path, limits: Limits, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        quantize_detector(write(tmp_path / "float"), feeds(), tmp_path / "made", limits)
    assert not (tmp_path / "made").exists()


def test_too_few_regions_are_no_ground_to_judge_by(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"only 80 regions with a score of 0.5 or more in 20 pictures, expected 81"):
        quantize_detector(write(tmp_path / "float"), feeds(), tmp_path / "made", Limits(fewest=81))
    assert not (tmp_path / "made").exists()


def test_a_picture_alone_is_too_little(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 pictures; expected a hundred"):
        quantize_detector(write(tmp_path / "float"), feeds(1), tmp_path / "made")


def test_what_has_integers_already_gets_them_anew(tmp_path: Path) -> None:
    made = quantize_detector(write(tmp_path / "float"), feeds(), tmp_path / "made")
    again = quantize_detector(made, feeds(60), tmp_path / "again")
    assert again.manifest.quantized["detector_int8"].pictures == 30
    assert again.manifest.files["detector.onnx"] == made.manifest.files["detector.onnx"]


def test_a_picture_that_cannot_be_read_is_no_fault_of_the_graph(tmp_path: Path) -> None:
    def unreadable() -> Arrays:
        raise SourceError("a.jpg cannot be read as an image")

    with pytest.raises(SourceError, match=r"a\.jpg cannot be read"):
        quantize_detector(write(tmp_path / "float"), [[unreadable], *feeds()], tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_every_look_at_a_picture_counts(tmp_path: Path) -> None:
    twice = [[*one, *other] for one, other in zip(feeds(), feeds()[::-1], strict=True)]
    measured = quantize_detector(write(tmp_path / "float"), twice, tmp_path / "made").manifest.quantized[
        "detector_int8"
    ]
    assert (measured.pictures, measured.regions) == (20, 160)
    # This detector gives none.
    assert measured.masks is None


def test_a_generator_is_refused(tmp_path: Path) -> None:
    generator = open_bundle(Path("engines/starter/starter-generator"))
    with pytest.raises(UsageError, match="starter-generator is for generation; only detectors"):
        quantize_detector(generator, feeds(), tmp_path / "made")


def test_a_graph_without_convolutions_between_others_cannot_be_quantized(tmp_path: Path) -> None:
    plain = model(1.0)
    for node in plain.graph.node:
        if node.op_type == "Conv" and node.output[0] in ("kept", "score"):
            node.op_type = "Identity"
            del node.attribute[:], node.input[1:]
    shape = next(tensor for tensor in plain.graph.initializer if tensor.name == "look")
    shape.CopyFrom(onnx.numpy_helper.from_array(np.full((1, 3, 4, 4), 1 / 48, np.float32), "look"))
    loud = next(tensor for tensor in plain.graph.initializer if tensor.name == "loud")
    loud.CopyFrom(onnx.numpy_helper.from_array(np.zeros(1, np.float32), "loud"))
    bundle = write(tmp_path / "float", detector=plain)
    with pytest.raises(ExportError, match=r"detector.onnx has no convolution between two others"):
        quantize_detector(bundle, feeds(), tmp_path / "made")

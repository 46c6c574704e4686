"""Joins a checked network with its decoding into `detector.onnx`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx
from onnx import helper

from engines.detector_tensors import decided_tensors
from engines.errors import BundleError
from engines.importers.finish import MOST_MASKS, Limits, finish
from engines.importers.network import PREFIX
from engines.importers.text import shown
from engines.manifest import Tensor
from engines.nodes import Nodes, value_info

if TYPE_CHECKING:
    from engines.importers.classes import Classes
    from engines.importers.network import Network
    from engines.importers.recognise import Recipe

#: The oldest IR that knows opset 17, so that older runtimes read the file too.
_IR_VERSION = 8


def input_tensors(network: Network, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """The declared inputs; sides that the file fixes stay fixed."""
    shape = network.picture.shape or ()
    pictures = shape[0] if len(shape) == 4 else 1
    n = pictures if isinstance(pictures, int) else "N"
    height, width = (side if isinstance(side, int) else word for side, word in zip(network.size, "hw", strict=True))
    fixed = isinstance(height, int) and isinstance(width, int)
    meaning = "RGB, resized, normalised, padded at the bottom and right"
    if not fixed and recipe.multiple > 1:
        meaning += f"; h and w are multiples of {recipe.multiple}"
    return (
        Tensor(name="image", dtype="float32", shape=(n, 3, height, width), meaning=meaning),
        Tensor(name="image_size", dtype="int64", shape=(n, 2), meaning="height and width in pixels before padding"),
    )


def output_tensors(recipe: Recipe, limits: Limits) -> tuple[Tensor, ...]:
    """The declared outputs."""
    tensors = decided_tensors(
        "M",
        boxes="x1, y1, x2, y2 in pixels of `image`, not clipped; 0 after `count`",
        scores="descending; 0 after `count`",
        classes="index into kinds; 0 after `count`",
        floor=f"0 if all candidates with a score over {limits.score:g} were considered and returned, else the lowest "
        "score that was; with a threshold at or below it, candidates were lost",
    )
    if not recipe.form.has_masks:
        return tensors
    masks = Tensor(
        name="masks",
        dtype="uint8",
        shape=("N", "M", "mh", "mw"),
        meaning="for each box, over the whole of `image` at a lower resolution: 255 times the probability that the "
        "cell shows it; 0 after `count`",
    )
    return (*tensors, masks)


def limits_of(recipe: Recipe) -> Limits:
    """When boxes of this network are dropped."""
    limits = Limits(iou=recipe.iou)
    return replace(limits, returned=MOST_MASKS) if recipe.form.has_masks else limits


def build_detector(network: Network, recipe: Recipe, classes: Classes, limits: Limits) -> onnx.ModelProto:
    """Makes `detector.onnx`.

    Args:
        network: The checked file.
        recipe: How it is fed and read.
        classes: What is wanted of its classes.
        limits: When boxes are dropped.

    Raises:
        BundleError: The result is no valid graph.
    """
    front = Nodes("feed")
    _feed(front, network, recipe)
    back = Nodes("decode")
    half = {port.name for port in network.outputs if port.code == onnx.TensorProto.FLOAT16}
    outputs = {n: back.real(PREFIX + n) if n in half else PREFIX + n for n in recipe.form.outputs}
    finish(back, recipe.form.decode(back, outputs, classes.groups), limits)
    model = network.model
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    graph = helper.make_graph(
        [*front.nodes, *model.graph.node, *back.nodes],
        "detector",
        [value_info(tensor) for tensor in input_tensors(network, recipe)],
        [value_info(tensor) for tensor in output_tensors(recipe, limits)],
        [*front.constants, *model.graph.initializer, *back.constants],
        sparse_initializer=list(model.graph.sparse_initializer),
    )
    built = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=max(_IR_VERSION, model.ir_version),
        producer_name="standin",
    )
    try:
        onnx.checker.check_model(built)
    except Exception as error:  # noqa: BLE001  the errors of onnx have no common base class
        text = shown(" ".join(str(error).split()), 200)
        raise BundleError(f"the network does not take the detector's end ({text}); report it") from None
    return built


def _feed(g: Nodes, network: Network, recipe: Recipe) -> None:
    """From `image` to what the network wants: its own padding, order of colours, and rank."""
    picture = "image"
    if recipe.padding:
        rows = g.one("Reshape", g.steps(g.size("image", 2)), g.integers(1, 1, -1, 1))
        columns = g.one("Reshape", g.steps(g.size("image", 3)), g.integers(1, 1, 1, -1))
        height, width = (
            g.one("Reshape", g.part("image_size", index, index + 1, 1), g.integers(-1, 1, 1, 1)) for index in (0, 1)
        )
        beside = g.one("Or", g.one("GreaterOrEqual", rows, height), g.one("GreaterOrEqual", columns, width))
        picture = g.one("Where", beside, g.number(recipe.padding), picture)
    if recipe.bgr:
        picture = g.one("Gather", picture, g.integers(2, 1, 0), axis=1)
    if network.picture.code != onnx.TensorProto.FLOAT:
        picture = g.one("Cast", picture, to=network.picture.code)
    name = PREFIX + network.picture.name
    if len(network.picture.shape or ()) == 3:
        g.named(name, "Squeeze", picture, g.integers(0))
    else:
        g.named(name, "Identity", picture)
    for port in network.others:
        # Boxes come in pixels of `image`: the network is told that this is the picture's size, width first.
        sides = [g.one("Reshape", g.size("image", axis), g.integers(1, 1)) for axis in (3, 2)]
        pair = g.one("Concat", *sides, axis=1)
        n = g.one("Concat", g.one("Reshape", g.size("image", 0), g.integers(1)), g.integers(2), axis=0)
        wide = g.one("Expand", pair, n)
        g.named(PREFIX + port.name, "Cast", wide, to=port.code)

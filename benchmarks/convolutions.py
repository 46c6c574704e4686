"""The work of convolutions: how much a graph holds, and how fast this machine does it at best."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from engines.runtime_onnx import import_onnxruntime

#: Channels, height and width of the generators' own 3x3 convolutions.
SIZES = ((128, 288, 160), (256, 144, 80), (512, 72, 40), (512, 36, 20))
#: Threads of torch and of the engines wait busily for a while: let them fall asleep before another one's turn.
PAUSE = 0.05
#: Several in a row, so that the changes of layout at both ends, which a network has once, count little.
_CHAIN, _REPEATS = 3, 2


class Convolutions:
    """Chains of equal 3x3 convolutions in ONNX Runtime and single ones in torch, to find the machine's best rate."""

    def __init__(self, threads: int, sizes: Sequence[tuple[int, int, int]] = SIZES) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # As in the engines: threads that wait busily would take the cores from whoever comes next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._runs: dict[str, tuple[float, Callable[[], object]]] = {}
        draw = np.random.default_rng(0)
        for channels, height, width in sizes:
            x = draw.standard_normal((1, channels, height, width), np.float32)
            weight = draw.standard_normal((channels, channels, 3, 3), np.float32) / np.float32(3 * channels**0.5)
            session = ort.InferenceSession(_chain(x, weight), options, providers=["CPUExecutionProvider"])
            size, giga = f"{channels}x{height}x{width}", 9 * channels**2 * height * width / 1e9
            self._runs[f"onnxruntime {size}"] = _CHAIN * giga, partial(session.run, None, {"x": x})
            tensors = torch.from_numpy(x), torch.from_numpy(weight)
            self._runs[f"torch {size}"] = giga, partial(torch.conv2d, *tensors, padding=1)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """GMAC/s by convolution, each the best of a few."""
        rates = {}
        for name, (giga, run) in self._runs.items():
            time.sleep(PAUSE)
            rates[name] = max(giga / seconds(run) for _ in range(_REPEATS))
        return rates


def count_macs(model: onnx.ModelProto) -> dict[str, float]:
    """Multiplications with addition, in units of 1e9, of a graph for one person.

    Returns:
        `dense` convolutions, `depthwise` ones (a filter for each channel), and matrix `products`.

    Raises:
        ValueError: a shape is not known.
    """
    single = onnx.ModelProto()
    single.CopyFrom(model)
    for value in (*single.graph.input, *single.graph.output):
        for side in value.type.tensor_type.shape.dim:
            if not side.HasField("dim_value"):
                side.dim_value = 1
    graph = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    shapes = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    } | {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    counts = {"dense": 0, "depthwise": 0, "products": 0}
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
            continue
        names = (node.input[0], node.input[1], node.output[0])
        if not all(shapes.get(name) and all(shapes[name]) for name in names):
            raise ValueError(f"{node.op_type} {node.name}: the shapes of {', '.join(names)} are not known")
        taken, weight, given = (shapes[name] for name in names)
        if node.op_type in ("MatMul", "Gemm"):
            counts["products"] += int(np.prod(given)) * taken[-1]
            continue
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        # Each place of the output takes a filter; with a transposed one, each of the input gives one.
        places = given if node.op_type == "Conv" else taken
        kind = "depthwise" if groups > 1 and groups == taken[1] else "dense"
        counts[kind] += int(np.prod(places)) * int(np.prod(weight[1:]))
    return {kind: count / 1e9 for kind, count in counts.items()}


def seconds(run: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _chain(x: npt.NDArray[np.float32], weight: npt.NDArray[np.float32]) -> bytes:
    names = ["x", *(f"x{i}" for i in range(1, _CHAIN)), "y"]
    nodes = [helper.make_node("Conv", [names[i], "weight"], [names[i + 1]], pads=[1, 1, 1, 1]) for i in range(_CHAIN)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [numpy_helper.from_array(weight, "weight")])
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    ).SerializeToString()
    return made

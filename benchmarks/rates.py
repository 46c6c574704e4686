"""The best rates of a device: of matrix products, and of reading and writing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from engines.manifest import Graph, Tensor
from engines.runtime import Device
from engines.runtime_onnx import OnnxRuntime
from stream.generators.open import Precision

#: Sides of square matrices, from the first on until a product takes long enough to be timed well.
_SIDES: Final = (512, 1024, 2048, 4096, 8192, 16384)
_LONG: Final = 0.05
#: Bytes of the array that is read and written: far more than caches hold.
_COPIED: Final[dict[Device, int]] = {"cpu": 2**28, "cuda": 2**30, "tensorrt": 2**30}
_REPEATS: Final = 5
_TYPES: Final = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}


@dataclass(frozen=True)
class Rates:
    """What a device does in a second at best.

    Attributes:
        operations: of a matrix product, multiplication and addition counted as one each.
        product: which one.
        bytes: read and written.
    """

    operations: float
    product: str
    bytes: float

    def better(self, other: Rates) -> Rates:
        """The best of both."""
        faster = max(self, other, key=lambda rates: rates.operations)
        return Rates(faster.operations, faster.product, max(self.bytes, other.bytes))


def measure_rates(
    folder: Path,
    device: Device,
    threads: int | None,
    precision: Precision,
    *,
    tf32: bool = False,
    sides: Sequence[int] = _SIDES,
    copied: int | None = None,
) -> Rates:
    """Measures a device.

    Args:
        folder: for small ONNX files.
        device: where ONNX Runtime runs them.
        threads: on the CPU, None for all cores.
        precision: of the products; on the CPU float32 counts as well, since halves are computed in it.
        tf32: whether a GPU may compute float32 products in TF32.
        sides: of the matrices.
        copied: bytes that are read and written, None for more than caches hold.

    Raises:
        StandinError: the device cannot be used here.
    """
    kinds = ["float32"] if precision == "fp32" else ["float16"]
    if device == "cpu" and precision == "fp16":
        kinds.append("float32")
    products = [_products(folder, device, threads, kind, sides, tf32=tf32) for kind in kinds]
    operations, product = max(products)
    size = copied or _COPIED[device]
    copies = [_reads_and_writes(folder, device, threads, size)]
    if device == "cpu":
        copies.append(_copies_on_host(threads or len(os.sched_getaffinity(0)), size))
    return Rates(operations, product, max(copies))


def _products(
    folder: Path, device: Device, threads: int | None, kind: str, sides: Sequence[int], *, tf32: bool
) -> tuple[float, str]:
    node = helper.make_node("MatMul", ["a", "b"], ["y"])
    with _opened(folder / f"product-{kind}.onnx", node, 2, kind, device, threads, tf32=tf32) as runtime:
        rate, side = 0.0, 0
        for side in sides:
            # Constant: what is multiplied does not change how long it takes.
            feeds = {name: runtime.hold(np.full((side, side), 0.01, kind)) for name in ("a", "b")}
            seconds = _best(lambda feeds=feeds: runtime.run(feeds, keep=["y"]))  # type: ignore[misc]
            rate = max(rate, 2 * side**3 / seconds)
            if seconds > _LONG:
                break
    return rate, f"{kind}{', TF32' if tf32 and kind == 'float32' else ''}, up to {side}x{side}"


def _reads_and_writes(folder: Path, device: Device, threads: int | None, size: int) -> float:
    """Bytes in a second, of an operator that does nothing else."""
    node = helper.make_node("Relu", ["a"], ["y"])
    with _opened(folder / "copy.onnx", node, 1, "float32", device, threads) as runtime:
        feeds = {"a": runtime.hold(np.zeros((1, size // 4), np.float32))}
        return 2 * size / _best(lambda: runtime.run(feeds, keep=["y"]))


def _copies_on_host(threads: int, size: int) -> float:
    """Bytes in a second, of plain copies that lie beside each other."""
    source, target = np.ones(size // 4, np.float32), np.empty(size // 4, np.float32)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        return 2 * size / _best(lambda: list(pool.map(lambda part: np.copyto(*part), parts)))


def _best(run: Callable[[], object]) -> float:
    """Seconds of the fastest of a few calls, after one that does not count."""
    run()
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def _opened(
    path: Path,
    node: onnx.NodeProto,
    inputs: int,
    kind: str,
    device: Device,
    threads: int | None,
    *,
    tf32: bool = False,
) -> OnnxRuntime:
    """A graph of one operator on matrices of any size."""

    def declared(name: str) -> Tensor:
        shape = (f"{name}0", f"{name}1")
        fields: dict[str, Any] = {"name": name, "dtype": kind, "shape": shape, "meaning": "any"}
        return Tensor(**fields)

    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, _TYPES[kind], [f"{name}0", f"{name}1"])

    names = ["a", "b"][:inputs]
    graph = helper.make_graph([node], "rate", [value(name) for name in names], [value("y")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    declaration = Graph(file=path.name, inputs=tuple(declared(name) for name in names), outputs=(declared("y"),))
    return OnnxRuntime(path, declaration, device=device, threads=threads, tf32=tf32)

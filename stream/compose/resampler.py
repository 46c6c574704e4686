"""Resizing to whole levels, on the host or where generators run: crops, and answers on their way back."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt

from engines.manifest import Tensor
from engines.small_graphs import SmallGraph, open_small, small_graph
from stream import resample
from stream.frame import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engines.manifest import DType
    from engines.runtime import Device, Runtime
    from stream.resample import Axis, Floats, Range

#: What is resized: pictures, and generators' answers.
_DTYPES: Final[tuple[DType, ...]] = ("uint8", "float32")


class Resampler(Protocol):
    """Resizes pictures. May be called from several threads at once."""

    def levels(
        self,
        values: Image | Floats,
        rows: Axis,
        columns: Axis,
        *,
        start: tuple[int, int] = (0, 0),
        part: tuple[Range, Range] | None = None,
    ) -> Image:
        """Resizes, rounds, and clips to 0..255.

        Args:
            values: uint8 or float32 (h, w, 3), 0 to 255; the part of the input that is not zero.
            rows: for the first axis.
            columns: for the second.
            start: where `values` begins in the input, (y, x).
            part: which output rows and columns are wanted, None for all.

        Returns:
            uint8 (rows, columns, 3).

        Raises:
            StandinError: the device failed.
        """

    def close(self) -> None:
        """Frees what it holds; may be called again."""


class HostResampler:
    """Resizes on the processor, see `stream.resample`."""

    def levels(
        self,
        values: Image | Floats,
        rows: Axis,
        columns: Axis,
        *,
        start: tuple[int, int] = (0, 0),
        part: tuple[Range, Range] | None = None,
    ) -> Image:
        """See `Resampler`."""
        return resample.to_levels(resample.resize(values, rows, columns, start=start, part=part))

    def close(self) -> None:
        """There is nothing to free."""


HOST: Final = HostResampler()


def open_resampler(device: Device) -> Resampler:
    """What resizes beside networks that run on a device.

    Args:
        device: of the generators; `cpu` where they run in another process, whose memory is not ours.

    Raises:
        RuntimeUnavailableError: the device is not usable here.
    """
    opened: dict[str, Runtime] = {}
    with contextlib.ExitStack() as stack:
        for dtype in _DTYPES:
            runtime = open_small(partial(levels_graph, dtype), device)
            if runtime is None:
                return HOST
            stack.callback(runtime.close)
            opened[dtype] = runtime
        stack.pop_all()
    return DeviceResampler(opened)


def levels_graph(dtype: DType) -> SmallGraph:
    """A picture of that type to whole levels, as two products with the weights of the resampling."""
    # The package onnx is not needed on a processor.
    from onnx import TensorProto

    from engines.nodes import Nodes

    nodes = Nodes("levels")
    whole = nodes.levels("values", "rows", "columns")
    nodes.named("levels", "Cast", nodes.one("Transpose", whole, perm=[1, 2, 0]), to=TensorProto.UINT8)
    inputs = (
        Tensor(name="values", dtype=dtype, shape=("H", "W", 3), meaning="RGB, 0 to 255"),
        Tensor(name="rows", dtype="float32", shape=("h", "H"), meaning="weights of rows"),
        Tensor(name="columns", dtype="float32", shape=("W", "w"), meaning="weights of columns"),
    )
    levels = Tensor(name="levels", dtype="uint8", shape=("h", "w", 3), meaning="RGB")
    return small_graph(f"levels_{dtype}.onnx", inputs, [levels], nodes)


class DeviceResampler:
    """Resizes where the generators run; what travels is the region, and the weights for its size.

    Args:
        runtimes: of `levels_graph`, by the type that they take.
    """

    def __init__(self, runtimes: Mapping[str, Runtime]) -> None:
        self._runtimes = dict(runtimes)

    def levels(
        self,
        values: Image | Floats,
        rows: Axis,
        columns: Axis,
        *,
        start: tuple[int, int] = (0, 0),
        part: tuple[Range, Range] | None = None,
    ) -> Image:
        """See `Resampler`."""
        down, across = part or (None, None)
        feeds = {
            "values": np.ascontiguousarray(values),
            "rows": _weights(rows, start[0], values.shape[0], down),
            "columns": np.ascontiguousarray(_weights(columns, start[1], values.shape[1], across).T),
        }
        return np.asarray(self._runtimes[values.dtype.name].run(feeds)["levels"], np.uint8)

    def close(self) -> None:
        """Frees the graphs."""
        for runtime in self._runtimes.values():
            runtime.close()


def _weights(axis: Axis, start: int, count: int, part: Range | None) -> npt.NDArray[np.float32]:
    """Weights (wanted rows, count) of the input rows `start` to `start + count`; those beyond the axis have none."""
    first, last = part or (0, axis.wanted)
    low, high = max(start, 0), min(start + count, axis.given)
    found = np.zeros((last - first, count), np.float32)
    if high > low:
        found[:, low - start : high - start] = axis.dense()[first:last, low:high]
    return found

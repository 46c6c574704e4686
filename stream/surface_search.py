"""The search for the nearest vertex on the device where the networks run: one product with all vertices.

What the processor saves itself by patches (`stream.surface`), a GPU does in less time than the patches would take it:
15,000 pixels of a person and 27,554 vertices in 16 dimensions are 13 billion operations.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from engines.manifest import Tensor
from engines.runtime import Runtime
from engines.small_graphs import SmallGraph, small_graph

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

#: Queries in one run: their products with 27,554 vertices are 226 MB.
_CHUNK: Final = 2048


def search_graph() -> SmallGraph:
    """Scores of all vertices for some queries, and the best one of each; of equal ones the lowest."""
    from engines.nodes import Nodes  # it takes the package onnx, which is not needed on a processor

    nodes = Nodes("search")
    scores = nodes.one("MatMul", "queries", "columns")
    # Not ArgMax: older ONNX Runtimes have none on GPUs for this opset, and would take all scores to the host.
    _, places = nodes.many("TopK", [scores, nodes.integers(1)], 2, axis=1, largest=1, sorted=1)
    nodes.named("vertex", "Squeeze", places, nodes.integers(1))
    inputs = (
        Tensor(name="queries", dtype="float32", shape=("N", "D"), meaning="s times the query, and s"),
        Tensor(name="columns", dtype="float32", shape=("D", "K"), meaning="of each vertex v: v and -|v|^2 / 2"),
    )
    vertex = Tensor(name="vertex", dtype="int64", shape=("N",), meaning="of the highest score")
    return small_graph("search.onnx", inputs, [vertex], nodes)


class DeviceSearch:
    """Looks for nearest vertices by a graph. May be called from several threads at once.

    Args:
        runtime: of `search_graph`; closed with the search.
        columns: float32 (D + 1, K), of each vertex v: v and -|v|^2 / 2.
    """

    def __init__(self, runtime: Runtime, columns: Floats) -> None:
        self._runtime = runtime
        self._columns = runtime.hold(columns)

    def __call__(self, scaled: npt.NDArray[np.floating]) -> Indices:
        """The vertex with the highest score of each query (Q, D + 1), (Q,) int64; decided in float32.

        Raises:
            RuntimeFailedError: the graph could not be run.
        """
        found = np.empty(len(scaled), np.int64)
        for at in range(0, len(scaled), _CHUNK):
            queries = scaled[at : at + _CHUNK].astype(np.float32)
            found[at : at + _CHUNK] = self._runtime.run({"queries": queries, "columns": self._columns})["vertex"]
        return found

    def close(self) -> None:
        """Frees the graph; may be called again."""
        self._runtime.close()

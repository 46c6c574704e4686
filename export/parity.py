"""Whether an exported graph computes what the published network does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engines.errors import BundleError, ExportError, RuntimeFailedError, TensorError
from engines.manifest import Activation, Graph, Parity
from engines.runtime_onnx import OnnxRuntime

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from export.graphs import GraphPlan

#: In units of the output's standard deviation, or of 1 where that is less: float32 by the largest difference, float16
#: by the root mean square. Rounding weights to float16 alone moves single pixels of a random network by more than 1e-2.
TOLERANCES: Final = {False: 1e-3, True: 1e-2}
#: float16 ends at 65504; the largest activation of random inputs must leave room for other inputs.
LARGEST_ACTIVATION = 30_000.0


def measure_parity(plan: GraphPlan, path: Path, expected: Mapping[str, NDArray[Any]]) -> tuple[Parity, ...]:
    """Runs an exported file on its example and compares every output.

    Args:
        plan: declarations and example inputs.
        path: the ONNX file.
        expected: what the published way of computing gives, in float32.

    Raises:
        ExportError: it does not run, or differs by more than the declared tolerance; or the network itself gives what
            is not finite.
    """
    for name, values in expected.items():
        if not np.isfinite(values).all():
            raise ExportError(
                f"the network's {name} is not finite, even before it is exported: its weights are too large; "
                "check the training"
            )
    graph = Graph(file=plan.file, inputs=plan.inputs, outputs=plan.outputs)
    try:
        with OnnxRuntime(path, graph, device="cpu") as runtime:
            found = runtime.run(plan.example)
    except (BundleError, RuntimeFailedError, TensorError) as error:
        raise ExportError(f"{plan.file} does not run in ONNX Runtime ({error}); report it") from error
    return tuple(_compare(plan, name, values, expected[name]) for name, values in found.items())


def _compare(plan: GraphPlan, name: str, found: NDArray[Any], expected: NDArray[Any]) -> Parity:
    # In float32 the squares of large values would be infinite, and so would what is tolerated.
    tolerance = TOLERANCES[plan.half] * max(1.0, float(expected.std(dtype=np.float64)))
    differences = np.abs(found.astype(np.float64) - expected)
    difference = float(np.sqrt(np.square(differences).mean()) if plan.half else differences.max())
    # Written so that NaN fails too.
    if not difference <= tolerance:
        raise ExportError(
            f"{plan.file} differs from the published network: {name} by {difference:.3g}, "
            f"expected at most {tolerance:.3g}; nothing was written"
        )
    return Parity(
        graph=plan.key,
        output=name,
        largest_difference=float(differences.max()),
        measure="rms" if plan.half else "largest",
        measured=difference,
        tolerance=tolerance,
        # Persons, or draws of z: a table's rows are no cases of their own.
        cases=len(next(iter(plan.example.values()))),
    )


class ActivationRecord:
    """Collects the largest absolute value of every layer while a folded network runs in float32."""

    def __init__(self) -> None:
        self._largest: dict[str, float] = {}

    def watch(self, name: str, module: nn.Module) -> None:
        """Asks a module with a `probe` to tell."""

        def note(what: str, x: Tensor) -> None:
            key = f"{name}.{what}"
            # NaN, which compares with nothing, has to stay.
            self._largest[key] = float(np.maximum(self._largest.get(key, 0.0), float(x.abs().max())))

        module.probe = note  # type: ignore[assignment]

    def activations(self) -> tuple[Activation, ...]:
        """What was seen, by layer."""
        return tuple(Activation(layer=layer, largest=largest) for layer, largest in self._largest.items())

    def require_half(self) -> None:
        """Refuses a network that could overflow in float16: a CPU computes that in float32 and would hide it.

        Raises:
            ExportError: a layer's activation is too large.
        """
        layer = max(self._largest, key=lambda key: np.nan_to_num(self._largest[key], nan=np.inf), default="")
        if layer and not self._largest[layer] <= LARGEST_ACTIVATION:
            raise ExportError(
                f"layer {layer} reaches {self._largest[layer]:.3g}, expected at most "
                f"{LARGEST_ACTIVATION:g} for float16; export with --precision fp32"
            )

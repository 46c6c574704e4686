"""I/O binding: runs of ONNX Runtime whose inputs and outputs may stay on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engines.resident import as_numpy

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from engines.dlpack import SupportsDlpack
    from engines.resident import Feeds

    Array = NDArray[Any]

#: ONNX's numbers of element types (TensorProto.DataType), as far as bundles use them.
_DTYPES: Final = {
    1: "float32",
    2: "uint8",
    3: "int8",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
}


class OrtArray:
    """An array of ONNX Runtime that lies where the graph runs. Other libraries take it without a copy, by DLPack.

    Args:
        value: ONNX Runtime's `OrtValue`, a tensor.
    """

    def __init__(self, value: Any) -> None:
        self._value = value

    @property
    def value(self) -> Any:
        """ONNX Runtime's `OrtValue`."""
        return self._value

    @property
    def shape(self) -> tuple[int, ...]:
        """As of a numpy array."""
        return tuple(int(side) for side in self._value.shape())

    @property
    def dtype(self) -> np.dtype[Any]:
        """As of a numpy array."""
        return np.dtype(_DTYPES[self._value.element_type()])

    @property
    def device_name(self) -> str:
        """ONNX Runtime's name of the device, such as `cuda`."""
        return str(self._value.device_name())

    def numpy(self) -> Array:
        """A copy on the host."""
        return np.array(self._value.numpy())

    def __dlpack__(self, **options: Any) -> Any:
        return self._value.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, number = self._value.__dlpack_device__()
        return int(kind), int(number)


class Binding:
    """Runs a session with its arrays bound.

    Args:
        ort: The module onnxruntime.
        session: Its `InferenceSession`.
        outputs: Names of the graph's outputs.
        device: ONNX Runtime's name of the device, such as `cuda`.
    """

    def __init__(self, ort: Any, session: Any, outputs: Sequence[str], device: str) -> None:
        self._ort = ort
        self._session = session
        self._outputs = tuple(outputs)
        self._device = device

    def hold(self, array: Array) -> OrtArray:
        """Copies an array to the device, for many runs."""
        # Where the device is the CPU, ONNX Runtime would go on reading the caller's own.
        whole = np.array(array, order="C", copy=True if self._device == "cpu" else None)
        return OrtArray(self._ort.OrtValue.ortvalue_from_numpy(whole, self._device, 0))

    def adopt(self, array: SupportsDlpack) -> OrtArray:
        """Takes an array of another library where it lies, without a copy; not one of truth values."""
        return OrtArray(self._ort.OrtValue.from_dlpack(array))

    def run_on_host(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the graph once, with nothing bound: the shortest way where the device is the CPU."""
        values = self._session.run(list(self._outputs), dict(feeds))
        return {name: np.asarray(value) for name, value in zip(self._outputs, values, strict=True)}

    def run(self, feeds: Feeds, keep: Collection[str] = ()) -> dict[str, Any]:
        """Runs the graph once; returns when it has run.

        Args:
            feeds: An array for each input; those on the host are copied to the device.
            keep: Outputs that stay on the device.

        Returns:
            An `OrtArray` for each output in `keep`, a numpy array for every other one.
        """
        binding = self._session.io_binding()
        for name, array in feeds.items():
            if isinstance(array, OrtArray):
                binding.bind_ortvalue_input(name, array.value)
            else:
                binding.bind_cpu_input(name, np.ascontiguousarray(as_numpy(array)))
        for name in self._outputs:
            binding.bind_output(name, self._device if name in keep else "cpu", 0)
        self._session.run_with_iobinding(binding)
        values = dict(zip(self._outputs, binding.get_outputs(), strict=True))
        return {name: OrtArray(v) if name in keep else np.asarray(v.numpy()) for name, v in values.items()}

"""Which of a detector's graphs runs: in floating point, or in 8-bit integers where those are faster."""

from __future__ import annotations

from typing import Final, Literal

from engines.bundle import Bundle
from engines.runtime import Device

#: `auto`: integers on the processor where the bundle has them, whose finds were compared when they were made.
DetectorPrecision = Literal["auto", "fp32"]

_EXACT: Final = "detector"
_INTEGERS: Final = "detector_int8"


def detector_graph(bundle: Bundle, device: Device, precision: DetectorPrecision) -> str:
    """The name of the graph that finds boxes.

    Args:
        bundle: of a detector.
        device: where it runs. Integers are ONNX Runtime's on the processor; OpenVINO and TensorRT read them otherwise.
        precision: see there.
    """
    fits = precision == "auto" and device == "cpu" and _INTEGERS in bundle.manifest.quantized
    return _INTEGERS if fits else _EXACT

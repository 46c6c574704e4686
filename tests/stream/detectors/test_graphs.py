from __future__ import annotations

from pathlib import Path

import pytest

from engines.runtime import Device
from stream.detectors.graphs import DetectorPrecision, detector_graph
from tests.detector_bundles import FACES, with_integers, write_one_stage


@pytest.mark.parametrize(
    ("device", "precision", "graph"),
    [
        ("cpu", "auto", "detector_int8"),
        ("cpu", "fp32", "detector"),
        ("openvino", "auto", "detector"),
        ("cuda", "auto", "detector"),
        ("tensorrt", "auto", "detector"),
    ],
)
def test_integers_are_for_processors(device: Device, precision: DetectorPrecision, graph: str, tmp_path: Path) -> None:
    plain = write_one_stage(tmp_path / "plain", FACES)
    assert detector_graph(plain, device, precision) == "detector"
    assert detector_graph(with_integers(plain, tmp_path / "both"), device, precision) == graph

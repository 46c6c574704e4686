from __future__ import annotations

import platform
from pathlib import Path

from engines.machine import processor


def test_the_first_core_names_the_processor(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: A : B\nmodel name\t: C\n")
    assert processor(told) == "A : B"
    told.write_text("processor\t: 0\n")
    assert processor(told) == platform.processor()
    assert processor(tmp_path / "none") == platform.processor()

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from engines.machine import computes_bfloat16, processor


def test_the_first_core_names_the_processor(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: A : B\nmodel name\t: C\n")
    assert processor(told) == "A : B"
    told.write_text("processor\t: 0\n")
    assert processor(told) == platform.processor()
    assert processor(tmp_path / "none") == platform.processor()


@pytest.mark.parametrize(
    ("line", "has"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16", True),
        ("flags\t\t: fpu amx_bf16 amx_tile", True),
        ("Features\t: fp asimd bf16", True),
        ("flags\t\t: fpu avx2 avx512f", False),
        ("vmx flags\t: bf16", False),
    ],
)
def test_bfloat16_is_what_the_first_cores_flags_say(line: str, has: bool, tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text(f"processor\t: 0\n{line}\n")
    assert computes_bfloat16(told) == has
    assert not computes_bfloat16(tmp_path / "none")

"""What results and records say of the machine."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")
#: What Linux calls instructions that multiply bfloat16, on x86 and on ARM.
_BFLOAT16: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def processor(cpuinfo: Path = _CPUINFO) -> str:
    """The processor's name, as the system tells it."""
    return _line(cpuinfo, "model name") or platform.processor()


def computes_bfloat16(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether the processor multiplies bfloat16 itself; False where the system does not tell.

    Others can be asked to: each product is then computed by way of float32, many times slower than that itself.
    """
    flags = _line(cpuinfo, "flags") or _line(cpuinfo, "Features")
    return not _BFLOAT16.isdisjoint(flags.split())


def _line(cpuinfo: Path, name: str) -> str:
    """What stands behind a name, of the first processor."""
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.partition(":")[0].strip() == name:
                return line.partition(":")[2].strip()
    return ""

"""Errors of the GPU after which no call of CUDA in this process succeeds any more: only another process can go on.

Libraries that call CUDA have no class for them, so that they are known by what is said: the error's name, its number or
its description.
"""

from __future__ import annotations

import re
from typing import Final

#: Names, numbers and descriptions of those that NVIDIA says leave a process in a state in which it has to be ended.
_NAMES: Final = (
    "cudaErrorECCUncorrectable",
    "cudaErrorNvlinkUncorrectable",
    "cudaErrorContained",
    "cudaErrorIllegalAddress",
    "cudaErrorLaunchTimeout",
    "cudaErrorContextIsDestroyed",
    "cudaErrorAssert",
    "cudaErrorHardwareStackError",
    "cudaErrorIllegalInstruction",
    "cudaErrorMisalignedAddress",
    "cudaErrorInvalidAddressSpace",
    "cudaErrorInvalidPc",
    "cudaErrorLaunchFailure",
    "cudaErrorTensorMemoryLeak",
)
_NUMBERS: Final = frozenset({214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721})
_DESCRIPTIONS: Final = (
    "uncorrectable ecc error encountered",
    "uncorrectable nvlink error",
    "an illegal memory access was encountered",
    "the launch timed out and was terminated",
    "context is destroyed",
    "device-side assert triggered",
    "hardware stack error",
    "an illegal instruction was encountered",
    "misaligned address",
    "operation not supported on global/shared address space",
    "invalid program counter",
    "unspecified launch failure",
    "invalid access of peer gpu memory over nvlink or a hardware error",
    "tensor memory not completely freed",
)
#: Whole words: one name may begin like another.
_SAID = re.compile(rf"\b({'|'.join(_NAMES)})\b")
#: As ONNX Runtime and TensorRT write numbers.
_NUMBERED = re.compile(r"\bcuda (?:failure|error):? (\d+)\b")


def is_device_lost(error: BaseException) -> bool:
    """Whether an error says that the GPU is of no use to this process any more.

    Args:
        error: of any library.
    """
    return says_device_lost(str(error))


def says_device_lost(text: str) -> bool:
    """Whether an error's words say so, where nothing else is left of it.

    Args:
        text: of the error, or a report that quotes it.
    """
    lower = " ".join(text.lower().split())
    return (
        _SAID.search(text) is not None
        or any(int(number) in _NUMBERS for number in _NUMBERED.findall(lower))
        or any(description in lower for description in _DESCRIPTIONS)
    )

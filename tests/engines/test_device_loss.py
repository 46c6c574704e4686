from __future__ import annotations

import pytest

from engines.device_loss import is_device_lost, says_device_lost
from engines.errors import OutOfMemoryError, RuntimeFailedError


@pytest.mark.parametrize(
    "text",
    [
        "a call of CUDA failed: cudaStreamSynchronize said cudaErrorIllegalAddress; see the driver's messages",
        "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=h ; file=f ; line=1",
        "Non-zero status code: CUDA failure 719: a text of tomorrow ; GPU=0",
        "Error Code 1: Myelin ([cuda_error.h:24] CUDA error 716 for 'x')",
        "Error Code 1: Cuda Runtime (unspecified launch failure)",
        "Error Code 1: Cuda Runtime\n(uncorrectable ECC\nerror encountered)",
        "cudaGraphLaunch said cudaErrorContained",
    ],
)
def test_errors_after_which_nothing_succeeds_are_known_by_what_is_said(text: str) -> None:
    assert is_device_lost(RuntimeFailedError(text))
    # As ONNX Runtime raises them: of no class of ours.
    assert is_device_lost(ValueError(text))
    # As a report quotes them.
    assert says_device_lost(f"detection failed: {text}")


@pytest.mark.parametrize(
    "text",
    [
        "a call of CUDA failed: cudaMalloc said cudaErrorMemoryAllocation",
        "CUDA failure 2: out of memory ; GPU=0",
        "CUDA failure 7000: no such number",
        "cudaMemcpyAsync said cudaErrorInvalidValue",
        "cudaMalloc said cudaErrorLaunchFailureOfTomorrow",
        "input 'x' has the shape (700, 2, 3)",
        "",
    ],
)
def test_errors_after_which_others_may_succeed_are_not(text: str) -> None:
    assert not is_device_lost(RuntimeFailedError(text))
    assert not is_device_lost(OutOfMemoryError(text))

"""What needs an NVIDIA GPU and onnxruntime-gpu: `python -m pytest -m gpu tests/gpu`.

With STANDIN_GPU_TESTS_ON=cpu the same tests run on the CPU, where most must pass as well: so that whoever changes them
without a GPU sees whether they work at all.
"""

from __future__ import annotations

import os

import onnxruntime
import pytest

from engines.runtime import Device


@pytest.fixture(scope="session", autouse=True)
def device() -> Device:
    """Where these tests run."""
    wanted = os.environ.get("STANDIN_GPU_TESTS_ON", "cuda")
    # Plans have tests of their own, beside the engines' (`tests/engines/test_tensorrt_gpu.py`).
    allowed: tuple[Device, ...] = ("cuda", "cpu")
    found = next((known for known in allowed if known == wanted), None)
    assert found is not None, f"STANDIN_GPU_TESTS_ON is {wanted!r}, expected {' or '.join(allowed)}"
    if found == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA provider")
    return found


@pytest.fixture(scope="session")
def gpu(device: Device) -> Device:
    """The same for tests that mean nothing on a CPU."""
    if device == "cpu":
        pytest.skip("needs a GPU")
    return device

from __future__ import annotations

import gc
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from engines.cuda import Cuda, import_cudart
from engines.errors import DeviceMissingError, OutOfMemoryError, RuntimeFailedError
from tests.fake_cuda import FakeGpu, fake_cudart


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr("engines.cuda.import_module", missing)
    with pytest.raises(DeviceMissingError, match=r'pip install "standin\[tensorrt\]"'):
        import_cudart()


@pytest.mark.parametrize("status", ["cudaErrorInsufficientDriver", "cudaErrorNoDevice"])
def test_without_a_driver_or_a_gpu_the_error_says_so(status: str) -> None:
    with pytest.raises(DeviceMissingError, match=f"{status}.*driver"):
        Cuda(fake_cudart(FakeGpu(status=status)))
    with pytest.raises(DeviceMissingError, match="no NVIDIA GPU"):
        Cuda(fake_cudart(FakeGpu(count=0)))


def test_the_gpu_is_described() -> None:
    gpu = Cuda(fake_cudart(FakeGpu(capability=(8, 7), name="Orin", memory=1000))).gpu()
    assert (gpu.name, gpu.capability, gpu.free, gpu.total) == ("Orin", (8, 7), 1000, 1000)


def test_memory_is_given_back_once() -> None:
    gpu = FakeGpu()
    cuda = Cuda(fake_cudart(gpu))
    memory, pinned = cuda.allocate(100), cuda.pinned(100)
    assert gpu.used == 100
    for _ in range(2):
        memory.free()
        pinned.free()
    assert not gpu.allocated
    assert not gpu.pinned
    assert gpu.calls.count("cudaFree") == 1


def test_what_cannot_be_given_back_is_logged_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    gpu = FakeGpu()
    cuda = Cuda(fake_cudart(gpu))
    memory, pinned, stream = cuda.allocate(100), cuda.pinned(100), cuda.stream()
    graph = stream.capture(lambda: None)
    # As after an error from which no process recovers: every call says it again.
    for gpu.status in ("cudaErrorInvalidValue", "cudaErrorInitializationError"):
        graph.free()
        memory.free()
        pinned.free()
        stream.close()
    said = [record.message for record in caplog.records]
    for call in ("cudaGraphExecDestroy", "cudaFree", "cudaFreeHost", "cudaStreamDestroy"):
        assert any(f"could not be given back: a call of CUDA failed: {call} said" in line for line in said)
    assert len(said) == 5


def test_too_little_memory_is_an_error_of_its_own() -> None:
    cuda = Cuda(fake_cudart(FakeGpu(memory=100)))
    with pytest.raises(OutOfMemoryError, match=r"out of memory.*--batch"):
        cuda.allocate(101)


def test_a_call_that_fails_is_named() -> None:
    gpu = FakeGpu()
    stream = Cuda(fake_cudart(gpu)).stream()
    with pytest.raises(RuntimeFailedError, match="cudaMemcpyAsync said cudaErrorInvalidValue"):
        stream.upload(1, 2, 3)


def test_bytes_go_to_the_gpu_and_come_back() -> None:
    cuda = Cuda(fake_cudart(FakeGpu()))
    stream, device, copy = cuda.stream(), cuda.allocate(24), cuda.allocate(24)
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    host = cuda.pinned(24).array((2, 3), values.dtype)
    stream.upload(device.address, values.ctypes.data, values.nbytes)
    stream.move(copy.address, device.address, values.nbytes)
    stream.download(host.ctypes.data, copy.address, values.nbytes)
    stream.wait()
    np.testing.assert_array_equal(host, values)


def test_recorded_work_is_done_when_it_is_launched_and_not_before() -> None:
    gpu = FakeGpu()
    cuda = Cuda(fake_cudart(gpu))
    stream, device = cuda.stream(), cuda.allocate(8)
    source, back = np.array([1, 2], np.int32), np.zeros(2, np.int32)
    graph = stream.capture(lambda: stream.upload(device.address, source.ctypes.data, 8))
    stream.download(back.ctypes.data, device.address, 8)
    assert list(back) == [-1, -1]
    stream.launch(graph)
    stream.download(back.ctypes.data, device.address, 8)
    assert list(back) == [1, 2]


def test_a_recording_that_fails_leaves_the_stream_usable() -> None:
    gpu = FakeGpu()
    cuda = Cuda(fake_cudart(gpu))
    stream = cuda.stream()

    def fails() -> None:
        raise RuntimeFailedError("no")

    with pytest.raises(RuntimeFailedError, match="no"):
        stream.capture(fails)
    stream.wait()
    gpu.refuses_capture = True
    with pytest.raises(RuntimeFailedError, match="Invalidated"):
        stream.capture(lambda: None)
    stream.wait()


def test_nothing_is_collected_in_the_middle_of_a_recording() -> None:
    """What the collector finds there could give memory back, which a recording does not survive."""
    cuda = Cuda(fake_cudart(FakeGpu()))
    seen: list[bool] = []
    stream = cuda.stream()
    stream.capture(lambda: seen.append(gc.isenabled()))
    assert (seen, gc.isenabled()) == ([False], True)

    def fails() -> None:
        raise RuntimeFailedError("no")

    with pytest.raises(RuntimeFailedError, match="no"):
        stream.capture(fails)
    assert gc.isenabled()
    # Another plan's recording, in another thread, may begin and end in the middle of this one.
    other = Cuda(fake_cudart(FakeGpu())).stream()
    with ThreadPoolExecutor(1) as pool:

        def between() -> None:
            pool.submit(other.capture, lambda: None).result()
            seen.append(gc.isenabled())

        stream.capture(between)
    assert (seen, gc.isenabled()) == ([False, False], True)
    gc.disable()
    try:
        stream.capture(lambda: None)
        assert not gc.isenabled()
    finally:
        gc.enable()

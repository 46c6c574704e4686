from __future__ import annotations

import gc

import numpy as np
import pytest

from engines.cuda import Cuda
from engines.errors import OutOfMemoryError
from engines.tensorrt_buffers import Buffer, Lending
from tests.fake_cuda import FakeGpu, fake_cudart

FLOATS = np.dtype(np.float32)


def test_small_arrays_go_through_pinned_memory_and_large_ones_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu()
    cuda = Cuda(fake_cudart(gpu))
    stream = cuda.stream()
    for limit, pinned in ((100, 1), (23, 0)):
        monkeypatch.setattr("engines.tensorrt_buffers._MOST_PINNED", limit)
        buffer = Buffer(cuda, FLOATS, (2, 3))
        assert (buffer.size, len(gpu.pinned)) == (24, pinned)
        values = np.arange(6, dtype=np.float32).reshape(2, 3)
        kept = buffer.send(stream, values)
        found = buffer.fetch(stream, (2, 3))
        stream.wait()
        mine = buffer.own(found)
        np.testing.assert_array_equal(mine, values)
        buffer.send(stream, values + 1)
        buffer.fetch(stream, (2, 3))
        np.testing.assert_array_equal(mine, values)
        assert kept is not None
        buffer.free()
        buffer.free()
    assert gpu.used == 0


def test_what_was_lent_is_lent_again_once_nobody_refers_to_it() -> None:
    gpu = FakeGpu()
    cuda = Cuda(fake_cudart(gpu))
    stream, lending, buffer = cuda.stream(), Lending(cuda), Buffer(cuda, FLOATS, (4,))
    first, second = (lending.copy(stream, buffer, (4,)) for _ in range(2))
    assert first.address != second.address
    address = first.address
    del first
    gc.collect()
    third = lending.copy(stream, buffer, (2,))
    assert (third.address, third.shape) == (address, (2,))
    lending.close()
    assert gpu.used == 48
    del second, third
    gc.collect()
    assert gpu.used == 16


def test_no_memory_leaves_nothing_behind() -> None:
    gpu = FakeGpu(memory=10)
    with pytest.raises(OutOfMemoryError):
        Buffer(Cuda(fake_cudart(gpu)), FLOATS, (4,))
    assert (gpu.used, gpu.pinned) == (0, {})

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines.cuda import Stream
from engines.errors import OutOfMemoryError, RuntimeFailedError, TensorError
from engines.tensorrt_contexts import Contexts
from engines.tensorrt_library import Sayings, make_logger
from tests.engines.tensorrt_machines import FakeMachine, tiny_machine


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return tiny_machine(tmp_path)


def contexts(machine: FakeMachine) -> tuple[Contexts, Stream, dict[str, int]]:
    """Contexts of the tiny plan, and room for everything on the GPU."""
    trt, sayings = machine.tensorrt.module, Sayings()
    engine = trt.Runtime(make_logger(trt, sayings)).deserialize_cuda_engine(machine.build().plan.path.read_bytes())
    stream = machine.cuda.stream()
    made = Contexts(trt, engine, machine.cuda, stream, sayings, capturable=True, what="a.onnx")
    return made, stream, {name: machine.cuda.allocate(10_000).address for name in ("x", "n", "y")}


def shapes(rows: int, width: int = 3) -> dict[str, Any]:
    return {"x": (rows, 2, width), "n": (rows,)}


def test_room_is_made_for_the_largest_shapes_and_shared_by_all(machine: FakeMachine) -> None:
    made, _, addresses = contexts(machine)
    before = machine.gpu.used
    assert made.reserve(shapes(8), ["y"]) == {"y": (8, 2, 3)}
    assert machine.gpu.used - before == 8 * machine.tensorrt.context_bytes
    for rows in (1, 8, 3):
        assert made.prepare(shapes(rows), ["y"], addresses).outputs == {"y": (rows, 2, 3)}
    assert machine.gpu.used - before == 8 * machine.tensorrt.context_bytes
    made.close()
    assert machine.gpu.used == before


def test_shapes_that_need_more_room_than_the_largest_get_it(machine: FakeMachine) -> None:
    made, stream, addresses = contexts(machine)
    made.reserve(shapes(2), ["y"])
    small = made.prepare(shapes(2), ["y"], addresses)
    made.run(small)
    stream.wait()
    made.record(small)
    large = made.prepare(shapes(8), ["y"], addresses)
    made.run(large)
    # What was recorded with the old room is forgotten.
    assert made.prepare(shapes(2), ["y"], addresses) is not small
    assert small.graph is None or machine.gpu.launches == 0


def test_a_context_is_kept_for_the_shapes_that_were_used_last(machine: FakeMachine) -> None:
    made, _, addresses = contexts(machine)
    made.reserve(shapes(8, 9), ["y"])
    first = made.prepare(shapes(1, 1), ["y"], addresses)
    for width in range(2, 9):
        made.prepare(shapes(1, width), ["y"], addresses)
        assert made.prepare(shapes(1, 1), ["y"], addresses) is first
    made.prepare(shapes(1, 9), ["y"], addresses)
    assert made.prepare(shapes(1, 1), ["y"], addresses) is first
    for width in range(2, 10):
        made.prepare(shapes(1, width), ["y"], addresses)
    assert made.prepare(shapes(1, 1), ["y"], addresses) is not first


def test_nothing_is_recorded_before_a_first_run(machine: FakeMachine) -> None:
    made, stream, addresses = contexts(machine)
    made.reserve(shapes(2), ["y"])
    prepared = made.prepare(shapes(2), ["y"], addresses)
    made.record(prepared)
    assert prepared.graph is None
    made.run(prepared)
    stream.wait()
    made.record(prepared)
    assert prepared.graph is not None
    assert machine.tensorrt.runs == 1


def test_what_goes_wrong_is_said_in_tensorrts_words(machine: FakeMachine) -> None:
    made, _, addresses = contexts(machine)
    made.reserve(shapes(2), ["y"])
    with pytest.raises(TensorError, match=r"does not take x \(9, 2, 3\) .x: \(9, 2, 3\) is not in the profile"):
        made.prepare(shapes(9), ["y"], addresses)
    with pytest.raises(RuntimeFailedError, match="takes no address for 'x'"):
        made.prepare(shapes(2), ["y"], {"x": 1})
    prepared = made.prepare(shapes(2), ["y"], addresses)
    for words, error in (("Cask", RuntimeFailedError), ("CUDA out of memory", OutOfMemoryError)):
        machine.tensorrt.run_error = words
        with pytest.raises(error, match=f"did not run a.onnx: {words}"):
            made.run(prepared)

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


@pytest.mark.parametrize(("version", "rows"), [("10.3.0", 8), ("10.16.1.11", 2), ("11.4.0.106", 2)])
def test_fewer_rows_need_less_room_where_tensorrt_can_do_that(version: str, rows: int, tmp_path: Path) -> None:
    machine = tiny_machine(tmp_path / "other", version)
    made, _, _ = contexts(machine)
    before = machine.gpu.used
    made.reserve(shapes(2), ["y"])
    assert machine.gpu.used - before == rows * machine.tensorrt.context_bytes
    made.close()


def test_a_context_that_cannot_say_what_it_needs_is_not_run(machine: FakeMachine) -> None:
    made, _, addresses = contexts(machine)
    machine.tensorrt.scratch_error = "Error Code 3: API Usage Error"
    with pytest.raises(RuntimeFailedError, match=r"does not say how much memory a\.onnx needs: .*API Usage"):
        made.prepare(shapes(2), ["y"], addresses)
    machine.tensorrt.scratch_error = "Error Code 2: OutOfMemory"
    with pytest.raises(OutOfMemoryError, match="does not say"):
        made.prepare(shapes(2), ["y"], addresses)
    machine.tensorrt.scratch_error = None
    machine.tensorrt.context_bytes = 0
    # Nothing needed, and nothing said of it.
    assert made.prepare(shapes(2), ["y"], addresses).outputs


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
    others = [shapes(rows, width) for rows in range(1, 5) for width in range(2, 10)]
    assert len(others) == 32
    for other in others:
        made.prepare(other, ["y"], addresses)
        # Used again, it is not the one that was not used for longest.
        assert made.prepare(shapes(1, 1), ["y"], addresses) is first
    for other in others:
        made.prepare(other, ["y"], addresses)
    assert made.prepare(shapes(1, 1), ["y"], addresses) is not first


def test_every_number_of_rows_is_recorded_and_stays_so(machine: FakeMachine) -> None:
    """Boxes and crops come in any number, again and again, and one does not take the other's place."""
    made, stream, addresses = contexts(machine)
    made.reserve(shapes(8, 9), ["y"])
    for _ in range(4):
        for rows in range(1, 9):
            prepared = made.prepare(shapes(rows), ["y"], addresses)
            made.run(prepared)
            stream.wait()
            made.record(prepared)
    assert made.recorded == 8
    # The first two of each were runs, the others launches.
    assert machine.gpu.launches == 2 * 8


def test_nothing_is_recorded_before_it_came_again(machine: FakeMachine) -> None:
    made, stream, addresses = contexts(machine)
    made.reserve(shapes(2), ["y"])
    prepared = made.prepare(shapes(2), ["y"], addresses)
    for _ in range(2):
        made.record(prepared)
        assert prepared.graph is None
        made.run(prepared)
        stream.wait()
    assert made.recorded == 0
    made.record(prepared)
    assert prepared.graph is not None
    assert made.recorded == 1
    assert machine.tensorrt.runs == 2


def test_without_memory_for_a_recording_it_is_tried_again_later(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made, stream, addresses = contexts(machine)
    made.reserve(shapes(2), ["y"])
    prepared = made.prepare(shapes(2), ["y"], addresses)

    def come_again(times: int) -> None:
        for _ in range(times):
            made.run(prepared)
            stream.wait()
            made.record(prepared)

    def refuse(work: object) -> None:
        raise OutOfMemoryError("cudaErrorMemoryAllocation")

    with monkeypatch.context() as scarce:
        scarce.setattr(stream, "capture", refuse)
        come_again(150)
        assert (prepared.graph, made.capturable) == (None, True)
        # Once, though it was tried twice.
        assert caplog.text.count("not recorded for now") == 1
    come_again(49)
    assert prepared.graph is None
    come_again(3)
    assert prepared.graph is not None


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

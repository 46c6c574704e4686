from __future__ import annotations

import contextlib
import time
import types
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from stream.bench.machine import Gpu, Sampler, describe_machine, energy, memory_of_process, visible_gpu

pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")


class Library:
    """What the driver answers, by the names and signatures of the package that asks it."""

    NVMLError = pynvml.NVMLError

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.used = 100 * 2**20
        self.milliwatts = 250_000
        self.asked_for: list[object] = []
        self.shut = False
        #: As CUDA_VISIBLE_DEVICES may name them, by their place on the bus.
        self.uuids = ["GPU-8932f937-0", "GPU-8932aaaa-1", "GPU-17-2"]

    def __getattr__(self, name: str) -> Any:
        return create_autospec(getattr(pynvml, name), side_effect=lambda *arguments: self._answer(name, *arguments))

    def _answer(self, name: str, *arguments: Any) -> Any:
        if name == "nvmlShutdown":
            self.shut = True
        if name.startswith("nvmlDeviceGetHandleBy"):
            self.asked_for.append(arguments[0])
        if self.broken and name != "nvmlInit":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        if name == "nvmlDeviceGetHandleByUUID" and arguments[0] not in self.uuids:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        if name == "nvmlDeviceGetUUID":
            return self.uuids[arguments[0]]
        return {
            "nvmlDeviceGetCount": len(self.uuids),
            "nvmlDeviceGetHandleByIndex": arguments[0] if arguments else None,
            "nvmlDeviceGetName": "a GPU",
            "nvmlSystemGetDriverVersion": "600.1",
            "nvmlDeviceGetMemoryInfo": types.SimpleNamespace(used=self.used, total=400 * 2**20),
            "nvmlDeviceGetPowerUsage": self.milliwatts,
        }.get(name)


def gpu(library: Library) -> Gpu:
    return Gpu(library, "a handle")


def use(monkeypatch: pytest.MonkeyPatch, library: Library) -> None:
    monkeypatch.setattr("stream.bench.machine.import_module", lambda name: {"pynvml": library}[name])


def waited(condition: Any) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_memory_is_read_in_mebibytes(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n")
    assert memory_of_process(status) == (2.0, 1.0)


def test_what_the_system_does_not_say_is_none_and_not_nought(tmp_path: Path) -> None:
    assert memory_of_process(tmp_path / "missing") == (None, None)
    assert energy(tmp_path) is None
    (tmp_path / "intel-rapl:0").mkdir()
    assert energy(tmp_path) is None


def test_energy_is_that_of_all_packages_without_their_parts(tmp_path: Path) -> None:
    for name, microjoules in (("intel-rapl:0", 2_000_000), ("intel-rapl:1", 500_000), ("intel-rapl:0:0", 9_000_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{microjoules}\n")
    assert energy(tmp_path) == 2.5


def test_without_a_driver_there_is_no_gpu() -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        with Gpu.opened() as found:
            assert found is None
    else:
        pynvml.nvmlShutdown()
        pytest.skip("there is a driver")


def test_without_the_package_there_is_no_gpu() -> None:
    with Gpu.opened("no_such_module") as found:
        assert found is None


def test_a_gpu_is_opened_and_the_library_left(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    use(monkeypatch, library)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-17-2,0")
    with Gpu.opened() as found:
        assert found is not None
        assert (found.name(), found.driver()) == ("a GPU", "600.1")
        assert not library.shut
    assert library.asked_for == ["GPU-17-2"]
    assert library.shut


def test_a_gpu_that_is_not_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, library := Library(broken=True))
    with contextlib.suppress(pynvml.NVMLError), Gpu.opened() as found:
        assert found is None
    assert library.asked_for == [0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, 0),
        ("0", 0),
        ("3,1", 3),
        (" 2 ", 2),
        ("GPU-1a, 0", "GPU-1a"),
        ("MIG-7", "MIG-7"),
        ("", None),
        ("-1", None),
    ],
)
def test_the_gpu_is_the_one_that_cuda_takes_first(text: str | None, expected: object) -> None:
    assert visible_gpu(text) == expected


@pytest.mark.parametrize(
    ("text", "handle"),
    [("GPU-17", 2), ("GPU-8932f", 0), ("GPU-8932a,GPU-17", 1), ("GPU-8932", None), ("GPU-9", None)],
)
def test_a_gpu_may_be_named_by_the_beginning_of_its_uuid(
    monkeypatch: pytest.MonkeyPatch, text: str, handle: int | None
) -> None:
    library = Library()
    use(monkeypatch, library)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
    with Gpu.opened() as found:
        assert (None if found is None else found._handle) == handle


@pytest.mark.parametrize(
    ("order", "count", "is_known"),
    [(None, 3, True), ("PCI_BUS_ID", 3, True), ("FASTEST_FIRST", 3, False), ("FASTEST_FIRST", 1, True)],
)
def test_a_gpu_by_its_number_is_known_only_where_cuda_counts_as_the_driver_does(
    monkeypatch: pytest.MonkeyPatch, order: str | None, count: int, is_known: bool
) -> None:
    library = Library()
    library.uuids = library.uuids[:count]
    use(monkeypatch, library)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    if order is not None:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    with Gpu.opened() as found:
        assert (found is not None) is is_known


def test_a_gpu_is_asked_for_name_memory_and_power() -> None:
    asked = gpu(Library())
    assert (asked.name(), asked.memory(), asked.total(), asked.power()) == ("a GPU", 100.0, 400.0, 250.0)


def test_what_a_gpu_refuses_to_say_is_none() -> None:
    asked = gpu(Library(broken=True))
    assert (asked.name(), asked.memory(), asked.power()) == (None, None, None)


def test_the_highest_memory_counts_and_power_only_while_frames_run() -> None:
    library = Library()
    with Sampler(gpu(library), counter=lambda: None) as sampler:
        library.used = 300 * 2**20
        waited(lambda: sampler.memory_now().gpu == 300)
        assert sampler.mean_power().gpu is None
        with sampler.power():
            waited(lambda: sampler.mean_power().gpu is not None)
        library.used = 0
    memory = sampler.memory_now()
    assert (memory.gpu_before, memory.gpu) == (100, 300)
    assert sampler.mean_power().gpu == 250
    assert sampler.mean_power().processor is None


def test_a_counter_that_began_anew_does_not_count() -> None:
    values = iter([10.0, 3.0, 5.0, 25.0])
    with Sampler(None, counter=lambda: next(values)) as sampler:
        with sampler.power():
            pass
        assert sampler.mean_power().processor is None
        with sampler.power():
            time.sleep(0.01)
    watts = sampler.mean_power().processor
    assert watts is not None
    assert 0 < watts < 20 / 0.01
    assert sampler.memory_now().gpu is None


def test_the_machine_can_be_described_here() -> None:
    found = describe_machine()
    assert 1 <= found.cores <= found.all_cores
    assert found.memory_gib > 0

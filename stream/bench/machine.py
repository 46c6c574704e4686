"""What a benchmark can read of the machine: memory, power, the GPU. What cannot be read is None, never 0."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from engines.machine import processor
from stream.bench.records import Machine, Memory, Power

T = TypeVar("T")

log = logging.getLogger(__name__)

_STATUS: Final = Path("/proc/self/status")
_GOVERNOR: Final = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
#: Energy counters of whole processor packages (Linux's powercap); most systems let only root read them.
_ENERGY: Final = Path("/sys/class/powercap")
#: Of the package nvidia-ml-py, which comes with the extras `gpu` and `tensorrt`.
_MODULE: Final = "pynvml"
#: The order in which CUDA counts GPUs; the driver's library has only this one.
DEVICE_ORDER: Final = "CUDA_DEVICE_ORDER"
BY_BUS: Final = "PCI_BUS_ID"
_INTERVAL: Final = 0.1
_MIB: Final = 2**20


def describe_machine() -> Machine:
    """This machine, as this process may use it."""
    load = None
    with contextlib.suppress(OSError):
        load = round(os.getloadavg()[0], 2)
    with Gpu.opened() as gpu:
        return Machine(
            processor=processor(),
            cores=len(os.sched_getaffinity(0)),
            all_cores=os.cpu_count() or 1,
            governor=_text(_GOVERNOR),
            memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            load=load,
            system=f"{platform.system()} {platform.machine()}",
            gpu=gpu and gpu.name(),
            driver=gpu and gpu.driver(),
        )


def memory_of_process(status: Path = _STATUS) -> tuple[float | None, float | None]:
    """Mebibytes that this process had at most (VmHWM) and has (VmRSS), None where the system does not say."""
    text = _text(status) or ""
    found: dict[str, float] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name in ("VmHWM", "VmRSS"):
            found[name] = int(value.split()[0]) / 1024
    return found.get("VmHWM"), found.get("VmRSS")


def energy(folder: Path = _ENERGY) -> float | None:
    """Joules that all processor packages together have used since some moment, None where they cannot be read."""
    total = 0
    packages = [path for path in folder.glob("intel-rapl:*") if path.name.count(":") == 1]
    for package in packages:
        text = _text(package / "energy_uj")
        if text is None or not text.isdecimal():
            return None
        total += int(text)
    return total / 1e6 if packages else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def visible_gpu(text: str | None) -> int | str | None:
    """Which GPU CUDA counts as its first one: its number or its UUID, None for none at all.

    Args:
        text: what CUDA_VISIBLE_DEVICES says, None where it is not set.
    """
    if text is None:
        return 0
    first = text.split(",")[0].strip()
    if first.isdecimal():
        return int(first)
    return first if first.startswith(("GPU-", "MIG-")) else None


class Gpu:
    """An NVIDIA GPU, asked through the driver's own library (NVML).

    Args:
        nvml: the module `pynvml`.
        handle: of the GPU.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    @classmethod
    @contextlib.contextmanager
    def opened(cls, module: str = _MODULE) -> Iterator[Gpu | None]:
        """The GPU that CUDA takes first; None where there is no driver, no GPU, or not the package nvidia-ml-py.

        Args:
            module: that speaks with the driver.
        """
        try:
            nvml = import_module(module)
            nvml.nvmlInit()
        except ImportError:
            yield None
            return
        except nvml.NVMLError as error:
            log.debug("no NVIDIA driver answers: %s", error)
            yield None
            return
        try:
            by_bus = os.environ.get(DEVICE_ORDER, BY_BUS) == BY_BUS
            yield cls._chosen(nvml, visible_gpu(os.environ.get("CUDA_VISIBLE_DEVICES")), by_bus=by_bus)
        finally:
            nvml.nvmlShutdown()

    @classmethod
    def _chosen(cls, nvml: Any, which: int | str | None, *, by_bus: bool) -> Gpu | None:
        if which is None:
            return None
        try:
            if isinstance(which, str):
                return cls(nvml, _by_uuid(nvml, which))
            if by_bus or nvml.nvmlDeviceGetCount() == 1:
                return cls(nvml, nvml.nvmlDeviceGetHandleByIndex(which))
        except nvml.NVMLError as error:
            log.debug("no GPU %s: %s", which, error)
            return None
        # The figures of another GPU would be worse than none.
        log.warning("nobody knows which GPU is number %d: set %s=%s, or name its UUID", which, DEVICE_ORDER, BY_BUS)
        return None

    def name(self) -> str | None:
        """As the driver calls it."""
        return self._asked(lambda: str(self._nvml.nvmlDeviceGetName(self._handle)))

    def driver(self) -> str | None:
        """The driver's version."""
        return self._asked(lambda: str(self._nvml.nvmlSystemGetDriverVersion()))

    def memory(self) -> float | None:
        """Mebibytes in use by all processes together."""
        return self._asked(lambda: int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used) / _MIB)

    def total(self) -> float | None:
        """Mebibytes that it has."""
        return self._asked(lambda: int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).total) / _MIB)

    def power(self) -> float | None:
        """Watts now."""
        return self._asked(lambda: int(self._nvml.nvmlDeviceGetPowerUsage(self._handle)) / 1000)

    def _asked(self, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except self._nvml.NVMLError as error:
            # Such as power, which some GPUs do not measure.
            log.debug("the driver does not say: %s", error)
            return None


def _by_uuid(nvml: Any, text: str) -> Any:
    """The handle of the GPU that goes by a UUID, or by the beginning of one as CUDA takes it."""
    try:
        return nvml.nvmlDeviceGetHandleByUUID(text)
    except nvml.NVMLError:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        found = [handle for handle in handles if str(nvml.nvmlDeviceGetUUID(handle)).startswith(text)]
        if len(found) != 1:
            raise
        return found[0]


class Sampler:
    """Looks at the GPU every tenth of a second, from its beginning to its end.

    Args:
        gpu: None where there is none.
        counter: gives the processor's energy in joules.
    """

    def __init__(self, gpu: Gpu | None, counter: Callable[[], float | None] = energy) -> None:
        self._gpu = gpu
        self._counter = counter
        self._before = None if gpu is None else gpu.memory()
        self._peak = self._before
        self._watts: list[float] = []
        self._joules = 0.0
        self._seconds = 0.0
        self._counted = False
        self._started: tuple[float, float | None] | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="standin-bench-sampler", daemon=True)

    @contextlib.contextmanager
    def power(self) -> Iterator[None]:
        """While this lasts, power counts."""
        self._started = time.monotonic(), self._counter()
        try:
            yield
        finally:
            began, joules = self._started
            self._started = None
            after = self._counter()
            # Counters begin anew once in a while; such a time is left out.
            if joules is not None and after is not None and after > joules:
                self._joules += after - joules
                self._seconds += time.monotonic() - began
                self._counted = True

    def memory_now(self) -> Memory:
        """What was in use at most so far."""
        peak, resident = memory_of_process()
        return Memory(peak=peak, resident=resident, gpu=self._peak, gpu_before=self._before)

    def mean_power(self) -> Power:
        """On average, while it counted."""
        return Power(
            gpu=statistics.fmean(self._watts) if self._watts else None,
            processor=self._joules / self._seconds if self._counted else None,
        )

    def __enter__(self) -> Self:
        if self._gpu is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if self._gpu is not None:
            self._thread.join()

    def _sample(self) -> None:
        while self._gpu is not None and not self._end.wait(_INTERVAL):
            used, watts = self._gpu.memory(), self._gpu.power()
            if used is not None:
                self._peak = max(used, self._peak or 0.0)
            if watts is not None and self._started is not None:
                self._watts.append(watts)

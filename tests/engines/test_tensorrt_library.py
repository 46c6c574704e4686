from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from unittest.mock import Mock

import pytest

from engines.cuda import Gpu
from engines.errors import DeviceMissingError
from engines.tensorrt_library import Sayings, import_tensorrt, make_logger, this_machine
from tests.fake_cuda import FakeGpu
from tests.fake_tensorrt import FakeTensorrt


def test_without_tensorrt_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise ImportError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr("engines.tensorrt_library.import_module", missing)
    with pytest.raises(DeviceMissingError, match=r'libnvinfer\.so\.10.*pip install "standin\[tensorrt\]"'):
        import_tensorrt()


def test_an_emptied_installation_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.tensorrt_library.import_module", ModuleType)
    with pytest.raises(DeviceMissingError, match="empty"):
        import_tensorrt()


@pytest.mark.parametrize(
    ("version", "good"), [("10.3.0", True), ("11.4.0.106", True), ("8.6.1", False), ("12.0", False)]
)
def test_versions_that_are_not_known_are_refused(version: str, good: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(Runtime=object, __version__=version)
    monkeypatch.setattr("engines.tensorrt_library.import_module", lambda name: module)
    if good:
        assert import_tensorrt() is module
    else:
        with pytest.raises(DeviceMissingError, match=f"TensorRT {version} is installed, versions 10 and 11"):
            import_tensorrt()


def test_a_machine_is_known_by_its_numbers() -> None:
    trt = SimpleNamespace(__version__="10.14.1.48.post1")
    machine = this_machine(trt, Gpu("Orin", (8, 7), 1, 2))
    assert (machine.tensorrt, machine.capability, machine.gpu) == ("10.14.1.48", (8, 7), "Orin")


def test_there_is_one_logger_for_all_and_each_hears_of_its_own_thread() -> None:
    world = FakeTensorrt(FakeGpu())
    mine, everything = Sayings(), Sayings(every_thread=True)
    logger = make_logger(world.module, mine)
    assert make_logger(world.module, everything) is logger
    assert world.plugins == 1
    with ThreadPoolExecutor(1) as pool:
        pool.submit(logger.log, world.module.ILogger.Severity.ERROR, "elsewhere").result()
        assert (mine.text, everything.text) == ("it gave no reason", "elsewhere")
        pool.submit(mine.clear).result()
        pool.submit(logger.log, world.module.ILogger.Severity.ERROR, "again").result()
    assert mine.text == "again"
    del mine
    gc.collect()
    assert list(logger.listeners) == [everything]


def test_whoever_begins_to_listen_while_tensorrt_speaks_disturbs_nobody() -> None:
    world = FakeTensorrt(FakeGpu())
    kept = [Sayings() for _ in range(200)]
    logger = make_logger(world.module, kept[0])
    for sayings in kept:
        make_logger(world.module, sayings)
    added: list[Sayings] = []

    def listen() -> None:
        added.append(Sayings())
        make_logger(world.module, added[-1])

    class Slow(weakref.WeakSet[Sayings]):
        """Takes its time while it is read, in which another thread would like to add to it."""

        def __iter__(self) -> Iterator[Sayings]:
            for number, sayings in enumerate(super().__iter__()):
                if number == 10:
                    adding.start()
                    adding.join(0.1)
                yield sayings

    adding = threading.Thread(target=listen)
    logger.listeners = Slow(kept)
    logger.tell(world.module.ILogger.Severity.ERROR, "no")
    adding.join()
    assert {sayings.text for sayings in kept} == {"no"}
    assert added[0] in logger.listeners


def test_nothing_is_raised_into_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    world = FakeTensorrt(FakeGpu())
    sayings = Sayings()
    logger = make_logger(world.module, sayings)
    broken = Mock(side_effect=RuntimeError("Set changed size during iteration"))
    monkeypatch.setattr(sayings, "add", broken)
    logger.log(world.module.ILogger.Severity.ERROR, "an error")
    broken.assert_called_once()


def test_complaints_are_logged_and_kept_and_chatter_is_not(caplog: pytest.LogCaptureFixture) -> None:
    world = FakeTensorrt(FakeGpu())
    severity = world.module.ILogger.Severity
    sayings = Sayings()
    logger = make_logger(world.module, sayings)
    assert world.plugins == 1
    assert sayings.text == "it gave no reason"
    with caplog.at_level(logging.DEBUG):
        logger.log(severity.VERBOSE, "a tactic took 1 ms")
        logger.log(severity.INFO, "an engine was built")
        logger.log(severity.WARNING, "a weight is tiny")
        logger.log(severity.ERROR, "Error Code 2:\n OutOfMemory")
        for number in range(30):
            logger.log(severity.INTERNAL_ERROR, f"then {number}")
    assert "tactic" not in caplog.text
    assert ("engines.tensorrt_library", logging.WARNING, "TensorRT: Error Code 2: OutOfMemory") in caplog.record_tuples
    assert sayings.text == "then 10; then 11; then 12"
    sayings.clear()
    logger.log(severity.ERROR, "Error Code 2:\n OutOfMemory")
    assert sayings.text == "Error Code 2: OutOfMemory"
    assert sayings.is_memory

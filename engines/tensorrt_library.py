"""TensorRT's Python package: loaded only where it is asked for, and what it says while it works."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import weakref
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from engines.errors import DeviceMissingError, RuntimeUnavailableError
from engines.plans import Target, host_platform

if TYPE_CHECKING:
    from engines.cuda import Gpu

log = logging.getLogger(__name__)

#: Networks are strongly typed, and tensors are addressed by name.
_MAJORS: Final = (10, 11)
_INSTALL: Final = 'pip install "standin[tensorrt]"'
#: Complaints that are kept for the message of an error.
_MOST_SAID: Final = 20
_MOST_SHOWN: Final = 3


def import_tensorrt() -> Any:
    """Imports TensorRT, which is an optional dependency.

    Raises:
        DeviceMissingError: It is not installed, cannot be loaded, or is a version that is not known here.
    """
    try:
        trt = import_module("tensorrt")
    except ImportError as error:
        raise DeviceMissingError(f"TensorRT cannot be imported ({error}); {_INSTALL}") from None
    if not hasattr(trt, "Runtime"):
        raise DeviceMissingError(f"the package tensorrt is there but empty; uninstall it, then {_INSTALL}")
    version = str(trt.__version__)
    if not version.partition(".")[0].isdecimal() or int(version.partition(".")[0]) not in _MAJORS:
        known = " and ".join(map(str, _MAJORS))
        raise DeviceMissingError(f"TensorRT {version} is installed, versions {known} are known; {_INSTALL}")
    return trt


def this_machine(trt: Any, gpu: Gpu) -> Target:
    """The machine that plans are built and run on.

    Args:
        trt: the module `tensorrt`.
        gpu: the GPU in use.
    """
    # A version may have parts beyond the numbers, such as 10.14.1.48.post1.
    numbers = [part for part in str(trt.__version__).split(".") if part.isdecimal()]
    return Target(platform=host_platform(), tensorrt=".".join(numbers), capability=gpu.capability, gpu=gpu.name)


class Sayings:
    """What TensorRT complains of: logged, and the last of it kept for the message of an error.

    Args:
        every_thread: keep what is said in any thread, not only in that which last called `clear`. TensorRT tells of a
            failure in the thread that called it, but builds in several.
    """

    def __init__(self, *, every_thread: bool = False) -> None:
        self._every_thread = every_thread
        self._thread = threading.get_ident()
        self._said: list[str] = []

    def add(self, line: str) -> None:
        """Takes an error's message.

        Args:
            line: of text.
        """
        if self._every_thread or threading.get_ident() == self._thread:
            self._said.append(line)
            del self._said[:-_MOST_SAID]

    def clear(self) -> None:
        """Forgets what was said so far; from now on this thread is listened to."""
        self._said.clear()
        self._thread = threading.get_ident()

    @property
    def text(self) -> str:
        """The first complaints, which name the cause; those that follow are consequences."""
        return "; ".join(self._said[:_MOST_SHOWN]) or "it gave no reason"

    @property
    def complained(self) -> bool:
        """Whether anything was said."""
        return bool(self._said)

    @property
    def is_memory(self) -> bool:
        """Whether it complained of memory."""
        return any("out of memory" in line.lower() or "outofmemory" in line.lower() for line in self._said)


def make_logger(trt: Any, sayings: Sayings) -> Any:
    """A logger for TensorRT that writes to our log, and tells of errors as long as somebody keeps `sayings`.

    There is one for all, and it is never let go: TensorRT remembers the first that it is given.

    Args:
        trt: the module `tensorrt`.
        sayings: gets what is said.
    """
    logger = _the_logger(trt)
    with logger.lock:
        logger.listeners.add(sayings)
    return logger


def start(kind: Any, logger: Any, sayings: Sayings) -> Any:
    """Makes a builder or a runtime, which is where a driver that does not suit is noticed.

    Args:
        kind: `Builder` or `Runtime` of the module `tensorrt`.
        logger: of `make_logger`.
        sayings: that the logger tells.

    Raises:
        DeviceMissingError: It cannot be made.
        RuntimeUnavailableError: There is no memory for it.
    """
    sayings.clear()
    try:
        return kind(logger)
    except Exception as error:  # the bindings say "nullptr" with a TypeError
        text = " ".join(str(error).split())
        missing = RuntimeUnavailableError if sayings.is_memory else DeviceMissingError
        raise missing(
            f"TensorRT cannot start here ({sayings.text}; {text}); check that the driver suits it, see: standin doctor"
        ) from error


@functools.cache
def _the_logger(trt: Any) -> Any:
    severity = trt.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.INFO,
        severity.INFO: logging.DEBUG,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]
        """Its base class is known only when TensorRT is there."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.listeners: weakref.WeakSet[Sayings] = weakref.WeakSet()
            # One that its own thread may take again: something that is let go meanwhile may make TensorRT speak.
            self.lock = threading.RLock()

        def log(self, severity: Any, msg: str) -> None:
            # Whatever is raised here would have to pass through TensorRT's own code, which ends the process.
            with contextlib.suppress(Exception):
                self.tell(severity, msg)

        def tell(self, severity: Any, msg: str) -> None:
            """What `log` does, which may raise."""
            level = levels.get(severity)
            # What is only for its makers is left out: it is called thousands of times while a plan is built.
            if level is None:
                return
            line = " ".join(msg.split())
            # An error of its own becomes one of ours, or was coped with: by itself it is no more than a hint.
            log.log(min(level, logging.WARNING), "TensorRT: %s", line)
            if level == logging.ERROR:
                with self.lock:
                    listeners = tuple(self.listeners)
                for sayings in listeners:
                    sayings.add(line)

    made = Logger()
    # RoiAlign and others are plugins; parsing and loading look them up in a registry that is empty until this.
    trt.init_libnvinfer_plugins(made, "")
    return made

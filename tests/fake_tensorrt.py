"""TensorRT without a GPU: classes, methods and arguments come from the table, what they do from `fake_tensorrt_parts`.

A name, an argument or an attribute that the table does not list raises, as it would there.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from tests.fake_cuda import FakeGpu
from tests.fake_tensorrt_parts import FAKES, ready, say
from tests.tensorrt_table import closest, table


@dataclass
class FakeTensorrt:
    """One version of TensorRT on one GPU, how it misbehaves, and what was asked of it.

    Attributes:
        gpu: that it builds for and runs on.
        version: of TensorRT.
        parse_error: why no ONNX file can be read, None if all can.
        start_error: why neither builders nor runtimes can be made, None if they can.
        build_error: why no plan can be built, None if all can.
        load_error: why no plan can be loaded, None if all can.
        run_error: why no run succeeds, None if all do.
        run_rows: rows from which on a run is out of memory.
        context_bytes: for intermediate results, for each row.
        scratch_error: why no context says how much memory it needs, None if all do.
        data_dependent: outputs whose shapes nobody knows before the run.
        shape_inputs: inputs whose values decide shapes.
        on_step: called at every step of a build.
    """

    gpu: FakeGpu
    version: str = "10.16.1.11"
    parse_error: str | None = None
    build_error: str | None = None
    load_error: str | None = None
    start_error: str | None = None
    run_error: str | None = None
    run_rows: int = 10**6
    context_bytes: int = 1000
    scratch_error: str | None = None
    data_dependent: tuple[str, ...] = ()
    shape_inputs: tuple[str, ...] = ()
    on_step: Callable[[], None] | None = None
    configs: list[Any] = field(default_factory=list)
    builds: int = 0
    runs: int = 0
    contexts: int = 0
    plugins: int = 0
    module: Any = None

    def __post_init__(self) -> None:
        self.module = _module(self)

    def wrap(self, name: str, fake: Any) -> Any:
        """An object of one of the module's classes."""
        made = object.__new__(getattr(self.module, name))
        object.__setattr__(made, "_fake", fake)
        return made


def _signature(overload: list[list[Any]]) -> inspect.Signature:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature(
        [
            inspect.Parameter(name, kind, default=None if optional else inspect.Parameter.empty)
            for name, optional in overload
        ]
    )


def _arguments(what: str, ways: list[list[list[Any]]], given: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    for way in ways:
        try:
            return dict(_signature(way).bind(*given, **named).arguments)
        except TypeError:
            continue
    raise TypeError(f"{what}(): incompatible function arguments: {given} {named}; the table has {ways}")


def _class(world: FakeTensorrt, name: str, known: dict[str, Any]) -> type:
    def method(member: str, ways: Any) -> Callable[..., Any]:
        def call(self: Any, *given: Any, **named: Any) -> Any:
            bound = _arguments(f"{name}.{member}", ways, given, named)
            if member == "__init__":
                if name in ("Builder", "Runtime") and world.start_error is not None:
                    say(world, bound["logger"], "ERROR", world.start_error)
                    raise TypeError("pybind11::init(): factory function returned nullptr")
                object.__setattr__(self, "_fake", FAKES[name](world, **bound))
                return None
            return getattr(self._fake, member)(**bound)

        return call

    def attribute(member: str, settable: bool) -> property:
        def write(self: Any, value: Any) -> None:
            setattr(self._fake, member, value)

        return property(lambda self: getattr(self._fake, member), write if settable else None)

    def refuse(self: Any, member: str, value: Any) -> None:
        # Their objects take no further attributes; those of classes that are derived from them do.
        if type(self) is made and member not in known["properties"]:
            raise AttributeError(f"{name!r} object has no attribute {member!r}")
        object.__setattr__(self, member, value)

    members: dict[str, Any] = {member: method(member, ways) for member, ways in known["methods"].items()}
    members |= {member: attribute(member, settable) for member, settable in known["properties"].items()}
    made = type(name, (), members | {"__setattr__": refuse})
    return made


def _module(world: FakeTensorrt) -> Any:
    known = closest(table()["tensorrt"], world.version)
    module: Any = ModuleType("tensorrt")
    module.__version__ = world.version
    for name, spec in known["classes"].items():
        setattr(module, name, _class(world, name, spec))
    for name, members in known["enums"].items():
        owner, _, last = name.rpartition(".")
        setattr(getattr(module, owner) if owner else module, last, enum.IntEnum(last, members))

    def init_libnvinfer_plugins(*given: Any, **named: Any) -> bool:
        bound = _arguments("init_libnvinfer_plugins", known["functions"]["init_libnvinfer_plugins"], given, named)
        ready(bound["logger"])
        world.plugins += 1
        return True

    module.init_libnvinfer_plugins = init_libnvinfer_plugins
    return module

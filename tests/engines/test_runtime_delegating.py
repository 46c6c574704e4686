"""What stands over another runtime says what that one says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from engines.resident import HostArray
from engines.runtime import Runtime
from engines.runtime_delegating import DelegatingRuntime
from tests.engines.helpers import tiny_draft

TINY = tiny_draft().graphs["detector"]
FEEDS: dict[str, Any] = {"x": np.ones((2, 2, 3), np.float32), "n": np.full(2, 7, np.int64)}


class Peculiar(Runtime):
    """Says nothing as the base class does."""

    @property
    def provider(self) -> str:
        return "AProvider"

    @property
    def most_rows(self) -> int:
        return 3

    @property
    def largest(self) -> Mapping[str, int]:
        return {"n": 4}

    @property
    def has_memory(self) -> bool:
        return True

    def __init__(self) -> None:
        super().__init__(TINY, "cuda")
        self.done: list[Any] = []

    def hold(self, array: Any) -> HostArray:
        self.done.append("hold")
        return HostArray(array)

    def adopt(self, array: Any) -> HostArray:
        self.done.append("adopt")
        return HostArray(array)

    def _run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        raise AssertionError("it has memory of its own")

    def _run_there(self, feeds: Any, keep: Any) -> dict[str, Any]:
        self.done.append(tuple(keep))
        return {"y": feeds["x"] * 2}

    def close(self) -> None:
        self.done.append("close")


def test_whatever_a_runtime_may_say_of_itself_is_asked_of_the_one_below() -> None:
    own = {"device", "graph", "inputs", "outputs", "run", "plans_for_shapes"}
    public = {name for name in vars(Runtime) if not name.startswith("_")}
    assert public - own <= set(vars(DelegatingRuntime))
    inner = Peculiar()
    with DelegatingRuntime(inner) as outer:
        for name in public - {"run", "hold", "adopt", "close"}:
            assert getattr(outer, name) == getattr(inner, name), name
        outer.hold(FEEDS["x"])
        outer.adopt(FEEDS["x"])
        assert outer.run(FEEDS)["y"].max() == 2
        outer.run(FEEDS, ["y"])
    assert inner.done == ["hold", "adopt", (), ("y",), "close"]


def test_it_may_be_declared_otherwise() -> None:
    graph = TINY.model_copy(update={"file": "other.onnx"})
    outer = DelegatingRuntime(Peculiar(), graph)
    assert outer.graph.file == "other.onnx"


@pytest.mark.parametrize("memory", [False, True])
def test_it_runs_where_the_one_below_does(memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Peculiar()
    monkeypatch.setattr(Peculiar, "has_memory", memory)
    monkeypatch.setattr(Peculiar, "_run", lambda self, feeds: {"y": feeds["x"] * 3})
    assert DelegatingRuntime(inner).run(FEEDS)["y"].max() == (2 if memory else 3)

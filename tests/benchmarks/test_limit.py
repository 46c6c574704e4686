from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from benchmarks import limit
from benchmarks.limit import Found, all_found, row_of
from benchmarks.rates import Rates
from engines.bundle import open_bundle
from engines.work import Work
from stream.assemble import Bundles
from stream.bench.records import EngineRun, Spread


def run(milliseconds: float) -> EngineRun:
    return EngineRun(
        bundle="tiny",
        graph="generator",
        batch=1,
        inputs="1x3x8x8",
        milliseconds=Spread.of([milliseconds, milliseconds, milliseconds / 2]),
        provider="CPUExecutionProvider",
    )


RATES = Rates(operations=1e12, product="float32", bytes=1e11)


@pytest.mark.parametrize(
    ("operations", "moved", "times"),
    [(10**10, 10**8, 2.0), (10**9, 10**9, 2.0), (10**9, 5 * 10**8, 4.0)],
)
def test_a_time_stands_over_the_higher_floor(operations: int, moved: int, times: float) -> None:
    row = row_of(Found(run(20), Work(operations, operations, moved, moved)), RATES)
    assert row.times_floor == times
    assert row.times_floor_best == times / 2
    assert (row.milliseconds, row.milliseconds_best) == (20, 10)
    assert row.floor_operations == pytest.approx(operations / 1e9)
    assert row.floor_bytes == pytest.approx(moved / 1e8)


@pytest.mark.parametrize(("device", "rated"), [("tensorrt", "cuda"), ("cuda", "cuda"), ("cpu", "cpu")])
def test_plans_are_held_against_what_the_gpu_can_do(device: str, rated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def rates(folder: Path, device: str, *more: Any, **others: Any) -> Rates:
        asked.append(device)
        return RATES

    monkeypatch.setattr(limit, "measure_rates", rates)
    monkeypatch.setattr(limit, "all_found", lambda arguments: [])
    monkeypatch.setattr(limit, "save", lambda name, result: Path(name))
    monkeypatch.setattr("sys.argv", ["limit.py", "--device", device])
    limit.main()
    assert asked == [rated, rated]


def test_every_graph_of_the_starter_set_is_counted_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing but what comes along.
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path))
    arguments = argparse.Namespace(
        presets=["starter"],
        device="cpu",
        precision="fp32",
        batches=[1, 2],
        size="192x128",
        persons=2,
        threads=1,
        tf32=False,
    )
    found = {(one.run.bundle, one.run.graph, one.run.batch): one.work for one in all_found(arguments)}
    graphs = {(bundle, graph) for bundle, graph, _ in found}
    assert {
        ("starter-detector", "detector"),
        ("starter-detector", "heads"),
        ("starter-generator", "generator"),
    } <= graphs
    assert all(work.unknown == {} for work in found.values())
    assert all(0 <= work.products <= work.operations and 0 < work.least <= work.moved for work in found.values())
    one, two = (found["starter-generator", "generator", batch].operations for batch in (1, 2))
    assert two == 2 * one


_BOTH = (("mapping", False), ("generator", False), ("generator", True))


@pytest.mark.parametrize(
    ("tf32", "runs", "kept"),
    [
        (True, _BOTH, [("mapping", False), ("generator", True)]),
        (False, _BOTH, [("mapping", False), ("generator", False)]),
        # Half precision knows no TF32.
        (True, (("mapping", False), ("generator_fp16", False)), [("mapping", False), ("generator_fp16", False)]),
        (False, (("mapping", None), ("generator", None)), [("mapping", None), ("generator", None)]),
    ],
)
def test_every_generator_is_counted_once_with_the_switch_as_asked_where_there_is_one(
    tf32: bool,
    runs: tuple[tuple[str, bool | None], ...],
    kept: list[tuple[str, bool | None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = open_bundle(Path("engines/starter/starter-generator"))
    made = [
        run(20).model_copy(update={"bundle": generator.manifest.name, "graph": name, "tf32": state})
        for name, state in runs
    ]
    monkeypatch.setattr(limit, "generator_runs", lambda *_: (tuple(made), ()))
    monkeypatch.setattr(limit, "example_feeds", lambda *_: {})
    monkeypatch.setattr(limit, "work_of", lambda *_: Work(1, 1, 1, 1))
    monkeypatch.setattr(type(generator), "graph", lambda *_: None)
    bundles = Bundles((), {"person-cse": generator})
    found = limit.generators(bundles, "cuda", "fp32", None, [1], tf32=tf32)
    assert [(one.run.graph, one.run.tf32) for one in found] == kept

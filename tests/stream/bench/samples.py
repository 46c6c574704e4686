"""Records of a benchmark, made up."""

from __future__ import annotations

from typing import Any

from stream.bench.records import (
    BundleNote,
    Case,
    Clip,
    Content,
    EngineRun,
    Figures,
    FlatOut,
    Histogram,
    Machine,
    Memory,
    Paced,
    Power,
    Record,
    Result,
    Settings,
    Share,
    Span,
    Spread,
    Stage,
    StartUp,
)
from stream.pipeline import STAGES


def spread(median: float, noise: float = 0.1, runs: int = 3) -> Spread:
    return Spread(median=median, lowest=median * (1 - noise), highest=median * (1 + noise), runs=runs)


def latency(median: float) -> dict[Share, Spread]:
    return {"p50": spread(median), "p95": spread(2 * median), "p99": spread(3 * median)}


def figures(rate: float = 30.0, *, noise: float = 0.1, runs: int = 3, **changes: Any) -> Figures:
    known = Figures(
        flat_out=FlatOut(
            rate=spread(rate, noise, runs),
            latency=latency(400),
            stages={name: Stage(latency=latency(20), busy=spread(0.5)) for name in STAGES},
            timeline=tuple(
                Span(stage=name, frame=frame, begin=10 * frame + 20 * place, end=10 * frame + 20 * place + 15)
                for frame in range(5)
                for place, name in enumerate(STAGES)
            ),
            frames=90,
        ),
        paced=Paced(rate=24, latency=latency(120), histogram=Histogram(low=100, width=10, counts=(2, 9, 4, 0, 1))),
        start_up=StartUp(process=1.5, engines=0.5, first_runs=0.25),
        memory=Memory(peak=512, resident=400),
        power=Power(),
        content=Content(persons=2, faces=0.5, plates=0, generated=1.5, withheld=0),
        providers={"tiny detector": "CPUExecutionProvider"},
        bundles=(BundleNote(name="tiny", digest="ab" * 32, weights="a test: code"),),
        lookahead=5,
        parallel=2,
        engines=(
            EngineRun(
                bundle="tiny",
                graph="generator",
                batch=1,
                inputs="1x3x24x16",
                milliseconds=spread(12),
                provider="CPUExecutionProvider",
            ),
        ),
    )
    return known.model_copy(update=changes)


def case(persons: int | None = None, **changes: Any) -> Case:
    return Case(preset="starter", device="cpu", precision="fp32", persons=persons).model_copy(update=changes)


def record(*results: Result, **changes: Any) -> Record:
    known = Record(
        made="2030-01-02T03:04:05+00:00",
        machine=Machine(
            processor="a processor",
            cores=2,
            all_cores=4,
            memory_gib=16,
            system="Linux x86_64",
            load=0.1,
            governor="a one",
        ),
        versions={"standin": "1.0", "numpy": "2.0"},
        clip=Clip(about="synthetic people who walk", width=640, height=360, rate=25, frames=150),
        settings=Settings(seconds=3, runs=3, encode=True),
        results=results or (Result(case=case(), figures=figures()),),
    )
    return known.model_copy(update=changes)

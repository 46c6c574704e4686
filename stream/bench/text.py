"""How a benchmark's figures are written for people, in tables and in reports."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from stream.bench.records import SHARES, Case, EngineRun, Figures, Machine, Record, Spread
from stream.pipeline import STAGES

NOT_MEASURED: Final = "not measured"
#: What the published file of a bundle is called where there was none, and weights were drawn.
SEEDED: Final = "seeded-random-weights"
#: Processes for each core that ran before a benchmark began, above which figures are doubtful.
BUSY: Final = 0.25
#: Frames of which one in twenty is a single one.
_FEW: Final = 40
#: Runs of a kind from which on their range says something of the noise.
KNOWN_FROM: Final = 3
Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a case.

    Attributes:
        name: what it is.
        unit: behind the number.
        better: which way is an improvement.
        value: None where it was not measured.
    """

    name: str
    unit: str
    better: Better
    value: Spread | None


def number(value: float) -> str:
    """Three digits that count; thousands are whole."""
    if not value:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 4)}f}"


def tick(value: float) -> str:
    """A round number on an axis."""
    return f"{value:,.6g}"


def cores(machine: Machine) -> str:
    """How many cores the process may use, of how many."""
    if machine.cores == machine.all_cores:
        return "1 core" if machine.cores == 1 else f"{machine.cores} cores"
    return f"{machine.cores} of {machine.all_cores} cores"


def spread(value: Spread | None, unit: str = "") -> str:
    """The median and, of several runs, the lowest and the highest."""
    if value is None:
        return NOT_MEASURED
    text = number(value.median) + (f" {unit}" if unit else "")
    return text if value.runs == 1 else f"{text} ({number(value.lowest)} to {number(value.highest)})"


def amount(value: float | None, unit: str) -> str:
    """A plain number with its unit."""
    return NOT_MEASURED if value is None else f"{number(value)} {unit}"


def persons(case: Case) -> str:
    """How many persons a case has."""
    return "as found" if case.persons is None else str(case.persons)


def series(case: Case) -> str:
    """What a case has in common with those of other numbers of persons."""
    return f"{case.preset}, {case.device}, {case.precision}"


def graph(run: EngineRun) -> str:
    """A graph by itself, without where it ran."""
    return f"{run.bundle} {run.graph}{', TF32' if run.tf32 else ''}"


def ran_on(run: EngineRun) -> str:
    """What really ran a graph, and what of it ran on the CPU all the same."""
    text = short(run.provider)
    if run.tf32 is not None:
        text += ", TF32" if run.tf32 else ", TF32 off"
    return text if run.nodes is None else f"{text}, {on_cpu(run)} nodes on the CPU"


def short(provider: str) -> str:
    """As ONNX Runtime calls it, without what all of its names end with."""
    return provider.removesuffix("ExecutionProvider")


def on_cpu(run: EngineRun) -> str:
    """How many nodes of a graph were on the CPU although it ran elsewhere, of how many; empty if that is not known."""
    return "" if run.nodes is None else f"{sum((run.on_cpu or {}).values())} of {run.nodes}"


def seeded_bundles(record: Record) -> tuple[str, ...]:
    """The bundles that had random weights."""
    return tuple(sorted({b.name for _, f in record.measured for b in f.bundles if b.weights.startswith(SEEDED)}))


def figures(found: Figures) -> tuple[Figure, ...]:
    """All figures that can be compared, in the order of a report."""

    def once(value: float | None) -> Spread | None:
        return None if value is None else Spread.of([value])

    made = [Figure("frames per second, flat out", "fps", "higher", found.flat_out.rate)]
    made += [Figure(f"latency at a pace, {s}", "ms", "lower", found.paced.latency.get(s)) for s in SHARES]
    made += [Figure(f"latency flat out, {s}", "ms", "lower", found.flat_out.latency.get(s)) for s in SHARES]
    for stage in STAGES:
        known = found.flat_out.stages.get(stage)
        made.append(Figure(f"{stage}, a frame", "ms", "lower", known.latency.get("p50") if known else None))
    made += [
        Figure("start-up", "s", "lower", once(found.start_up.total)),
        Figure("memory, peak", "MiB", "lower", once(found.memory.peak)),
        Figure("GPU memory, peak", "MiB", "lower", once(found.memory.gpu)),
        Figure("GPU power", "W", "lower", once(found.power.gpu)),
        Figure("processor power", "W", "lower", once(found.power.processor)),
    ]
    for run in found.engines:
        name = f"{graph(run)}, batch {run.batch}"
        made.append(Figure(name, "ms", "lower", run.milliseconds))
        if run.on_device is not None:
            made.append(Figure(f"{name}, without copies", "ms", "lower", run.on_device))
    return tuple(made)


def remarks(record: Record) -> tuple[str, ...]:
    """What a reader of the figures has to know."""
    return (*_of_machine(record), *_of_runs(record))


def _of_machine(record: Record) -> Iterator[str]:
    machine = record.machine
    if machine.load is not None and machine.load > BUSY * machine.cores:
        yield (
            f"The machine was busy: before the first case, {number(machine.load)} processes ran or waited on average, "
            f"on {cores(machine)}. Figures are worse than those of an idle machine, and scatter."
        )
    if machine.cores < machine.all_cores:
        yield f"The process may use {cores(machine)}."
    if machine.governor not in (None, "performance"):
        yield f"The cores' clock is chosen by the governor {machine.governor}; speed may vary with it."


def _of_runs(record: Record) -> Iterator[str]:
    if record.settings.runs < KNOWN_FROM:
        yield f"There were fewer than {KNOWN_FROM} runs of each kind, so that nothing is known of the noise."
    if few := [found.flat_out.frames for _, found in record.measured if found.flat_out.frames < _FEW]:
        yield (
            f"There were runs of {min(few)} frames only, so that p95 and p99 are about those of the slowest frame. "
            "Longer runs (--seconds) say more."
        )
    if any(case.persons is not None for case, _ in record.measured):
        yield (
            "Where a number of persons is given, they were put into what the detectors answered: the detectors ran on "
            "every frame, and everything after them worked on persons of one size at fixed places."
        )
    if seeded := seeded_bundles(record):
        yield (
            f"Seeded random weights: {', '.join(seeded)}. These are the published networks at full size, so that "
            "figures of speed hold; what they find and make means nothing."
        )
    yield from _of_gpus(record)
    for case, found in record.measured:
        if found.content.withheld:
            reasons = "; ".join(found.content.reasons)
            yield f"{case}: {found.content.withheld} frames were withheld, which costs less than work: {reasons}"


def _of_gpus(record: Record) -> Iterator[str]:
    on_gpu = [(case, found) for case, found in record.measured if case.device in ("cuda", "tensorrt")]
    if not on_gpu:
        return
    if record.machine.gpu is None:
        yield (
            "GPU memory and power could not be read: the package nvidia-ml-py is not installed, or the driver does not "
            "answer."
        )
    if any(run.tf32 for _, found in on_gpu for run in found.engines):
        yield (
            "TF32, which rounds the factors of float32 products to 10 bits, is off in whole runs on device cuda; "
            "graphs by themselves were measured with it as well, and say so. TensorRT's provider always uses it."
        )
    strays: dict[str, str] = {}
    for _, found in on_gpu:
        strays |= {graph(run): _named(run.on_cpu) for run in found.engines if run.on_cpu}
    for name, operators in sorted(strays.items()):
        yield f"{name}: nodes on the CPU, each with copies before and behind it: {operators}"
    if untold := sorted({graph(run) for _, found in on_gpu for run in found.engines if run.nodes is None}):
        yield f"Where their nodes are is not told: {', '.join(untold)}"


def _named(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def method(record: Record) -> tuple[str, ...]:
    """How it was measured."""
    settings = record.settings
    kept = (
        "encoded as a run does: flat out as for a file, at a pace as for a server" if settings.encode else "not encoded"
    )
    each = (
        "Each case ran in a process of its own: engines opened and run once, a second of frames that do not count, "
        f"then {'1 run' if settings.runs == 1 else f'{settings.runs} runs'} of about {number(settings.seconds)} s flat "
        "out and as many at a camera's pace. "
        f"Frames were decoded from the file in every run, and {kept}; nothing was kept. Every run begins with nobody "
        "known, so that what is made once for each new person counts: longer runs have less of it."
    )
    speeds = (
        "Flat out is how a file is anonymized: frames wait in queues, so that a frame's latency is mostly waiting. At "
        "a pace (the clip's, or 80 % of the speed flat out where that is less), latency is counted from the moment at "
        "which a camera would have sent the frame. It includes the frames of lookahead, which are waited for."
    )
    numbers = (
        "Figures are medians over runs; the lowest and the highest run stand in brackets. Start-up, memory and power "
        "are those of one process. A graph by itself was run on one frame, or on random numbers, with nothing beside "
        "it."
    )
    return each, speeds, numbers

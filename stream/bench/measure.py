"""One case of a benchmark, measured in this process: engines, warm-up, runs flat out, runs at a camera's pace."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from engines.errors import RuntimeFailedError, UsageError
from engines.store import Store, home
from stream.bench.encode import EncodedAway, FileEncoder
from stream.bench.engines import Eyes, Opened, generator_runs, has_tf32, opened_engines, opened_eyes
from stream.bench.frames import ClipSource, Stopwatch, TimedSink, clip_info
from stream.bench.machine import Gpu, Sampler
from stream.bench.records import (
    SHARES,
    Case,
    Content,
    EngineRun,
    Figures,
    FlatOut,
    Histogram,
    Paced,
    Settings,
    Share,
    Span,
    Spread,
    Stage,
    StartUp,
)
from stream.config import RunSettings, make_settings
from stream.metrics import percentiles
from stream.pipeline import STAGES, Pipeline, Summary
from stream.sources.base import StreamInfo
from stream.sources.video import VideoSource

#: Seconds of frames before anything counts.
_WARM_UP: Final = 1.0
#: Frames of a run, at least.
_FEWEST: Final = 4
_MOST: Final = 1_000_000
#: What comes at a camera's pace leaves some time free; else frames only queue.
_SHARE_OF_PACE: Final = 0.8
_TIMELINE_FRAMES: Final = 12
_CLASSES: Final = 24


class Job(BaseModel):
    """What a measuring process is to do.

    Attributes:
        case: what is measured.
        video: the clip.
        answer: the file for what was found.
        engine: folders of bundles, as in the settings of a run.
        settings: how it is measured.
        batches: crops in one run of a generator by itself; none are run if it is empty.
        started: seconds (of `time.monotonic`) at which the process was started.
        parent: the process that started it.
    """

    model_config = ConfigDict(frozen=True)

    case: Case
    video: Path
    answer: Path
    engine: dict[str, Path] = {}
    settings: Settings
    batches: tuple[int, ...] = ()
    started: float
    parent: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the pipeline."""

    summary: Summary
    watch: Stopwatch

    def times(self, stage: str) -> list[float]:
        """Seconds that a stage took for each frame."""
        return [end - began for began, end in self.watch.spans.get(stage, {}).values()]


def measure(job: Job, store: Store | None = None) -> Figures:
    """All figures of a case.

    Raises:
        StandinError: it cannot be measured here.
    """
    begun = time.monotonic()
    settings, info = settings_of(job), clip_info(job.video)
    aspect = info.width / info.height
    with Gpu.opened() as gpu, Sampler(gpu) as sampler:
        opening = opened_engines(settings, store or Store(home()), persons=job.case.persons, aspect=aspect)
        with opening as opened:
            ready = time.monotonic()
            if job.case.precision != "fp32" and not opened.bundles.generators:
                raise UsageError("precision is that of generators, and this preset runs none; see the case with fp32")
            opened.anonymizer.prepare(info.width, info.height)
            start_up = StartUp(
                process=max(0.0, begun - job.started), engines=ready - begun, first_runs=time.monotonic() - ready
            )
            runs, paced, pace = _Bench(job, info, opened).all_runs(sampler)
            memory, power = sampler.memory_now(), sampler.mean_power()
            engines = _detector_runs(job, opened.eyes)
        if has_tf32(job.case.device, job.case.precision):
            with opened_eyes(opened.bundles, settings, persons=job.case.persons, aspect=aspect, tf32=True) as eyes:
                engines += _detector_runs(job, eyes)
        generators = list(opened.bundles.generators.values()) if job.batches else []
        made, missing = generator_runs(
            generators, job.case.device, job.case.precision, job.settings.threads, job.batches
        )
    return Figures(
        flat_out=flat_out(runs),
        paced=at_pace(paced, pace),
        start_up=start_up,
        memory=memory,
        power=power,
        content=content([run.summary for run in runs]),
        providers={f"{run.bundle} {run.name}": run.provider for run in opened.eyes.runtimes}
        | {f"{run.bundle} {run.graph}": run.provider for run in made},
        bundles=opened.notes(),
        lookahead=settings.lookahead,
        parallel=opened.anonymizer.parallel,
        painting=opened.anonymizer.painting,
        encoder=FileEncoder(info, job.case.device).codec if job.settings.encode else None,
        engines=(*engines, *made),
        engines_missing=missing,
    )


def settings_of(job: Job) -> RunSettings:
    """The settings of a run with this preset, where nothing else is said.

    Raises:
        UsageError: they cannot be meant.
    """
    values = {
        "preset": job.case.preset,
        "device": job.case.device,
        "precision": job.case.precision,
        "detector_precision": job.settings.detector_precision,
        "tiles": job.settings.tiles,
    }
    given = {
        "detect_size": job.settings.detect_size,
        "threads": job.settings.threads,
        "engine": [f"{name}={folder}" for name, folder in job.engine.items()] or None,
    }
    return make_settings(RunSettings, values | {k: v for k, v in given.items() if v is not None})


class _Bench:
    """Runs of one case, one after the other, with the same engines."""

    def __init__(self, job: Job, info: StreamInfo, opened: Opened) -> None:
        self._job = job
        self._info = info
        self._anonymizer = opened.anonymizer

    def all_runs(self, sampler: Sampler) -> tuple[list[Run], list[Run], float]:
        """Warm-up; then runs flat out, and runs at a pace, which is given as well."""
        rate = self._run(_MOST, seconds=_WARM_UP).summary.rate
        runs = []
        with sampler.power():
            for _ in range(self._job.settings.runs):
                runs.append(self._run(self._planned(rate)))
                rate = runs[-1].summary.rate
        pace = _SHARE_OF_PACE * Spread.of([run.summary.rate for run in runs]).median
        pace = min(pace, float(self._info.rate or Fraction(25)))
        return runs, [self._run(self._planned(pace), pace=pace) for _ in range(self._job.settings.runs)], pace

    def _planned(self, rate: float) -> int:
        return max(_FEWEST, round(rate * self._job.settings.seconds))

    def _run(self, frames: int, *, seconds: float | None = None, pace: float | None = None) -> Run:
        watch = Stopwatch()
        self._anonymizer.watch = watch
        source = ClipSource(self._job.video, watch, frames=frames, seconds=seconds, pace=pace)
        # At a pace, as for a server: an encoder for files holds back what it has been given.
        device = self._job.case.device
        encoder = EncodedAway(self._info, live=pace is not None, device=device) if self._job.settings.encode else None
        sink = TimedSink(encoder, watch)
        summary = Pipeline(source, self._anonymizer, sink).run()
        if summary.stopped is not None:
            raise RuntimeFailedError(f"a run ended before its time: {summary.stopped}")
        return Run(summary, watch)


def _detector_runs(job: Job, eyes: Eyes) -> tuple[EngineRun, ...]:
    if not job.batches:
        return ()
    with contextlib.closing(VideoSource(job.video)) as source:
        return eyes.look(next(iter(source)))


def flat_out(runs: Sequence[Run]) -> FlatOut:
    """The figures of runs as fast as they go."""
    return FlatOut(
        rate=Spread.of([run.summary.rate for run in runs]),
        latency=_latency([run.watch.latencies() for run in runs]),
        stages={
            stage: Stage(
                latency=_latency([run.times(stage) for run in runs]),
                busy=Spread.of([run.summary.busy[stage] / run.summary.seconds for run in runs]),
            )
            for stage in STAGES
            if all(run.times(stage) for run in runs)
        },
        timeline=tuple(_timeline(runs[-1].watch)),
        frames=min(run.summary.frames for run in runs),
    )


def at_pace(runs: Sequence[Run], pace: float) -> Paced:
    """The figures of runs at a camera's pace, in frames per second."""
    latencies = [run.watch.latencies() for run in runs]
    together = [1000 * seconds for run in latencies for seconds in run]
    return Paced(rate=pace, latency=_latency(latencies), histogram=histogram(together))


def _latency(runs: Sequence[Sequence[float]]) -> dict[Share, Spread]:
    """Percentiles in milliseconds, each with its spread over runs."""
    found = [percentiles(run, (50, 95, 99)) for run in runs]
    shares = list(zip(*(each for each in found if each is not None), strict=True))
    return {name: Spread.of([1000 * v for v in values]) for name, values in zip(SHARES, shares, strict=True)}


def histogram(values: Sequence[float]) -> Histogram:
    """At least one value, in classes of the same width."""
    low, high = min(values), max(values)
    width = nice((high - low or abs(high) or 1.0) / _CLASSES)
    first = math.floor(low / width)
    counts = [0] * (math.floor(high / width) - first + 1)
    for value in values:
        counts[math.floor(value / width) - first] += 1
    return Histogram(low=first * width, width=width, counts=tuple(counts))


def nice(least: float) -> float:
    """The lowest of 1, 2, 5, 10, 20, ... (and 0.5, 0.2, ...) that is no less."""
    power: float = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least * (1 - 1e-9))


def _timeline(watch: Stopwatch) -> Iterator[Span]:
    """The spans of some frames in the middle."""
    order = sorted(watch.written)
    middle = order[max(0, (len(order) - _TIMELINE_FRAMES) // 2) :][:_TIMELINE_FRAMES]
    shown = [
        (stage, frame, *watch.spans[stage][pts])
        for stage in STAGES
        for frame, pts in enumerate(middle)
        if stage in watch.spans and pts in watch.spans[stage]
    ]
    zero = min(span[2] for span in shown)
    for stage, frame, began, end in shown:
        yield Span(stage=stage, frame=frame, begin=1000 * (began - zero), end=1000 * (end - zero))


def content(summaries: Sequence[Summary]) -> Content:
    """What was in the frames of all runs."""
    frames = sum(summary.frames for summary in summaries)

    def mean(counts: Iterator[int]) -> float:
        return sum(counts) / frames

    def found(kind: str) -> float:
        return mean(summary.regions.get(kind, 0) for summary in summaries)

    return Content(
        persons=found("person"),
        faces=found("face"),
        plates=found("plate"),
        generated=mean(summary.generated for summary in summaries),
        withheld=sum(summary.withheld for summary in summaries),
        reasons=tuple(sorted({reason for summary in summaries for reason in summary.reasons})[:3]),
    )

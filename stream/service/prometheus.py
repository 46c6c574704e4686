"""Metrics for Prometheus: what `stream.control.Overview` holds, under names that do not change."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator
from typing import Final, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from stream.metrics import LATENCY_BOUNDS, Latencies, Outcome, Snapshot
from stream.regions import Kind
from stream.service.control import GOING_OUT, EngineStatus, Overview, StreamState, StreamStatus

#: Series that are there from the first frame on, so that a rate over them has no gap at its first event.
_OUTCOMES: Final[tuple[str, ...]] = get_args(Outcome)
_KINDS: Final = tuple(kind.label for kind in Kind)
_STATES: Final[tuple[str, ...]] = get_args(StreamState)
_ENDS: Final = ("source", "sink")


class OverviewCollector(Collector):
    """One moment as metric families. It holds numbers, names of streams and devices, and no address.

    Args:
        overview: of that moment.
    """

    def __init__(self, overview: Overview) -> None:
        self._overview = overview

    def collect(self) -> Iterator[Metric]:
        """All families, those without series too."""
        yield _build()
        yield from _of_streams(self._overview.streams)
        begun = [(stream, stream.snapshot) for stream in self._overview.streams if stream.snapshot is not None]
        yield from _of_counts([(stream.name, snapshot) for stream, snapshot in begun])
        now = [(stream.name, snapshot) for stream, snapshot in begun if stream.state in GOING_OUT]
        yield from _of_now(now)
        yield from _of_sinks([(stream.name, snapshot) for stream, snapshot in begun], now)
        yield from _of_engines(self._overview.engines)


def metrics_text(overview: Overview, accept: str = "") -> tuple[bytes, str]:
    """What a scrape gets.

    Args:
        overview: what there is now.
        accept: the request's header of that name: Prometheus' own text format, or OpenMetrics.

    Returns:
        The text in UTF-8, and its content type.
    """
    registry = CollectorRegistry()
    registry.register(OverviewCollector(overview))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _build() -> Metric:
    family = GaugeMetricFamily("standin_build_info", "Which release runs; always 1.", labels=["version"])
    try:
        version = importlib.metadata.version("standin")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    family.add_metric([version], 1)
    return family


def _of_streams(streams: Iterable[StreamStatus]) -> Iterator[Metric]:
    up = GaugeMetricFamily("standin_stream_up", "1 while a stream is running, else 0.", labels=["stream"])
    state = GaugeMetricFamily("standin_stream_state", "1 for the state a stream is in.", labels=["stream", "state"])
    since = GaugeMetricFamily(
        "standin_stream_state_since_seconds", "Unix time at which a stream came into its state.", labels=["stream"]
    )
    restarts = CounterMetricFamily("standin_restarts", "Starts of a stream's process after it died.", labels=["stream"])
    for stream in streams:
        up.add_metric([stream.name], stream.state == "running")
        since.add_metric([stream.name], stream.since)
        restarts.add_metric([stream.name], stream.restarts)
        for name in _STATES:
            state.add_metric([stream.name, name], stream.state == name)
    yield from (up, state, since, restarts)


def _of_counts(streams: Iterable[tuple[str, Snapshot]]) -> Iterator[Metric]:
    """What only grows; it begins anew with the stream's process, as Prometheus expects of counters."""
    frames = CounterMetricFamily("standin_frames", "Frames by what became of them.", labels=["stream", "outcome"])
    stages = CounterMetricFamily(
        "standin_stage_seconds", "Seconds that a stage worked; waiting is not in it.", labels=["stream", "stage"]
    )
    reconnects = CounterMetricFamily("standin_reconnects", "Connections after a loss.", labels=["stream", "end"])
    latency = HistogramMetricFamily(
        "standin_latency_seconds", "From the arrival of a frame's packet to its encoded frame.", labels=["stream"]
    )
    for name, snapshot in streams:
        outcomes = {str(outcome): count for outcome, count in snapshot.frames.items()}
        for outcome, count in _filled(_OUTCOMES, outcomes).items():
            frames.add_metric([name, outcome], count)
        for stage, seconds in snapshot.stage_seconds.items():
            stages.add_metric([name, stage], seconds)
        for end, count in _filled(_ENDS, snapshot.reconnects).items():
            reconnects.add_metric([name, end], count)
        latency.add_metric([name], buckets=_buckets(snapshot.latency), sum_value=snapshot.latency.total)
    yield from (frames, stages, reconnects, latency)


def _of_now(streams: Iterable[tuple[str, Snapshot]]) -> Iterator[Metric]:
    rate = GaugeMetricFamily("standin_frames_per_second", "Frames written in the last seconds.", labels=["stream"])
    regions = GaugeMetricFamily("standin_regions", "Regions in the last frame.", labels=["stream", "kind"])
    queues = GaugeMetricFamily("standin_queue_frames", "Frames that wait in a queue.", labels=["stream", "queue"])
    uptime = GaugeMetricFamily("standin_stream_uptime_seconds", "Seconds since a stream began.", labels=["stream"])
    for name, snapshot in streams:
        rate.add_metric([name], snapshot.rate)
        uptime.add_metric([name], snapshot.seconds)
        for kind, count in _filled(_KINDS, snapshot.regions).items():
            regions.add_metric([name, kind], count)
        for queue, waiting in snapshot.waiting.items():
            queues.add_metric([name, queue], waiting)
    yield from (rate, regions, queues, uptime)


def _of_sinks(begun: Iterable[tuple[str, Snapshot]], now: Iterable[tuple[str, Snapshot]]) -> Iterator[Metric]:
    """Outputs by their number, the first of a stream being 1: their addresses are in no metric."""
    labels = ["stream", "sink"]
    up = GaugeMetricFamily("standin_sink_up", "1 while an output takes the stream, 0 while it is away.", labels=labels)
    queue = GaugeMetricFamily("standin_sink_queue_frames", "Frames that wait for an output.", labels=labels)
    dropped = CounterMetricFamily("standin_sink_dropped_frames", "Frames that an output did not get.", labels=labels)
    for name, snapshot in now:
        for number, sink in enumerate(snapshot.sinks, 1):
            if sink.there is not None:
                up.add_metric([name, str(number)], sink.there)
            if sink.waiting is not None:
                queue.add_metric([name, str(number)], sink.waiting)
    for name, snapshot in begun:
        for number, sink in enumerate(snapshot.sinks, 1):
            if sink.dropped is not None:
                dropped.add_metric([name, str(number)], sink.dropped)
    yield from (up, queue, dropped)


def _of_engines(engines: Iterable[EngineStatus]) -> Iterator[Metric]:
    up = GaugeMetricFamily("standin_engine_up", "1 while an engine process answers, else 0.", labels=["device"])
    restarts = CounterMetricFamily("standin_engine_restarts", "Starts after it died or hung.", labels=["device"])
    runs = CounterMetricFamily("standin_engine_runs", "Engine runs.", labels=["device"])
    rows = CounterMetricFamily("standin_engine_rows", "Rows of the batches of all runs.", labels=["device"])
    for engine in engines:
        up.add_metric([engine.device], engine.running)
        restarts.add_metric([engine.device], engine.restarts)
        runs.add_metric([engine.device], engine.runs)
        rows.add_metric([engine.device], engine.rows)
    yield from (up, restarts, runs, rows)


def _filled(names: tuple[str, ...], counts: dict[str, int]) -> dict[str, int]:
    return {**dict.fromkeys(names, 0), **counts}


def _buckets(latency: Latencies) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound; the last class has none."""
    found, frames = [], 0
    for bound, count in zip((*map(str, LATENCY_BOUNDS), "+Inf"), latency.counts, strict=True):
        frames += count
        found.append((bound, float(frames)))
    return found

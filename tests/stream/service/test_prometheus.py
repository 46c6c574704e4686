from __future__ import annotations

import pytest

pytest.importorskip("prometheus_client", reason='needs pip install "standin[serve]"')

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from stream.metrics import LATENCY_BOUNDS, Latencies, SinkState, Snapshot
from stream.service.control import EngineStatus, Overview, StreamStatus
from stream.service.prometheus import metrics_text

COUNTS = tuple(range(1, len(LATENCY_BOUNDS) + 2))
SNAPSHOT = Snapshot(
    seconds=61.5,
    frames={"anonymized": 100, "withheld": 3},
    regions={"face": 2},
    rate=24.75,
    latency=Latencies(counts=COUNTS, total=12.5, recent=(0.1, 0.2, 0.3)),
    stage_seconds={"detect": 4.5},
    waiting={"looked": 1},
    reconnects={"source": 5},
    sinks=(
        SinkState(name="rtsp://***@server/x", there=False, dropped=9, waiting=6, error="rtsp://server refuses"),
        SinkState(name="/dev/null"),
    ),
)
DOOR = StreamStatus(
    name="door", source="rtsp://***@door", sinks=(), state="running", since=1e9, restarts=4, snapshot=SNAPSHOT
)
NEW = StreamStatus(name="new", source="/dev/video0", sinks=(), state="starting", since=1e9)
OVERVIEW = Overview(
    streams=(DOOR, NEW), engines=(EngineStatus(device="cuda", running=True, restarts=1, runs=7, rows=21),)
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(overview: Overview) -> Samples:
    """What Prometheus' own parser reads, by name and labels."""
    text, _ = metrics_text(overview)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_every_figure_has_its_name_and_labels() -> None:
    found = samples(OVERVIEW)
    assert value(found, "standin_frames_total", stream="door", outcome="anonymized") == 100
    assert value(found, "standin_frames_total", stream="door", outcome="withheld") == 3
    assert value(found, "standin_stage_seconds_total", stream="door", stage="detect") == 4.5
    assert value(found, "standin_frames_per_second", stream="door") == 24.75
    assert value(found, "standin_stream_up", stream="door") == 1
    assert value(found, "standin_stream_state", stream="door", state="running") == 1
    assert value(found, "standin_stream_state", stream="door", state="away") == 0
    assert value(found, "standin_stream_state_since_seconds", stream="door") == 1e9
    assert value(found, "standin_reconnects_total", stream="door", end="source") == 5
    assert value(found, "standin_restarts_total", stream="door") == 4
    assert value(found, "standin_regions", stream="door", kind="face") == 2
    assert value(found, "standin_queue_frames", stream="door", queue="looked") == 1
    assert value(found, "standin_stream_uptime_seconds", stream="door") == 61.5
    assert value(found, "standin_engine_up", device="cuda") == 1
    assert value(found, "standin_engine_restarts_total", device="cuda") == 1
    assert value(found, "standin_engine_runs_total", device="cuda") == 7
    assert value(found, "standin_engine_rows_total", device="cuda") == 21


def test_an_output_that_is_away_shows_by_its_number() -> None:
    found = samples(OVERVIEW)
    assert value(found, "standin_sink_up", stream="door", sink="1") == 0
    assert value(found, "standin_sink_dropped_frames_total", stream="door", sink="1") == 9
    assert value(found, "standin_sink_queue_frames", stream="door", sink="1") == 6
    # A file cannot be away.
    assert not [name for name, labels in found if name.startswith("standin_sink") and ("sink", "2") in labels]
    there = SNAPSHOT.model_copy(update={"sinks": (SNAPSHOT.sinks[0].model_copy(update={"there": True}),)})
    found = samples(Overview(streams=(DOOR.model_copy(update={"snapshot": there}),)))
    assert value(found, "standin_sink_up", stream="door", sink="1") == 1


def test_what_has_not_happened_yet_counts_as_zero() -> None:
    found = samples(OVERVIEW)
    assert value(found, "standin_frames_total", stream="door", outcome="dropped") == 0
    assert value(found, "standin_reconnects_total", stream="door", end="sink") == 0
    assert value(found, "standin_regions", stream="door", kind="person") == 0


def test_latencies_are_a_cumulative_histogram() -> None:
    found = samples(OVERVIEW)
    assert value(found, "standin_latency_seconds_bucket", stream="door", le="0.01") == COUNTS[0]
    assert value(found, "standin_latency_seconds_bucket", stream="door", le="0.02") == sum(COUNTS[:2])
    assert value(found, "standin_latency_seconds_bucket", stream="door", le="10.0") == sum(COUNTS[:-1])
    assert value(found, "standin_latency_seconds_bucket", stream="door", le="+Inf") == sum(COUNTS)
    assert value(found, "standin_latency_seconds_count", stream="door") == sum(COUNTS)
    assert value(found, "standin_latency_seconds_sum", stream="door") == 12.5


def test_a_stream_without_frames_has_a_state_and_no_frames() -> None:
    found = samples(OVERVIEW)
    assert value(found, "standin_stream_up", stream="new") == 0
    assert value(found, "standin_stream_state", stream="new", state="starting") == 1
    assert not [name for name, labels in found if name == "standin_frames_total" and ("stream", "new") in labels]


def test_a_paused_stream_keeps_its_counts_and_shows_nothing_as_of_now() -> None:
    found = samples(Overview(streams=(DOOR.model_copy(update={"state": "paused"}),)))
    assert value(found, "standin_frames_total", stream="door", outcome="anonymized") == 100
    assert {name for name, _ in found}.isdisjoint(
        {
            "standin_sink_up",
            "standin_frames_per_second",
            "standin_regions",
            "standin_queue_frames",
            "standin_stream_uptime_seconds",
        }
    )


def test_nothing_at_all_is_still_valid() -> None:
    assert {name for name, _ in samples(Overview())} == {"standin_build_info"}


def test_addresses_are_in_no_metric() -> None:
    text, _ = metrics_text(OVERVIEW)
    assert b"rtsp" not in text
    assert b"/dev/" not in text


def test_odd_names_stay_one_label() -> None:
    odd = 'a"b\\c\nd{x="y"}'
    found = samples(Overview(streams=(DOOR.model_copy(update={"name": odd}),)))
    assert value(found, "standin_stream_up", stream=odd) == 1


def test_openmetrics_is_given_where_it_is_asked_for() -> None:
    text, content_type = metrics_text(OVERVIEW, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    names = {family.name for family in openmetrics_families(text.decode())}  # type: ignore[no-untyped-call]
    assert {"standin_frames", "standin_latency_seconds"} <= names
    assert metrics_text(OVERVIEW)[1].startswith("text/plain; version=0.0.4")


def test_two_scrapes_do_not_share_anything() -> None:
    first = metrics_text(OVERVIEW)
    assert samples(Overview()) != samples(OVERVIEW)
    assert metrics_text(OVERVIEW) == first

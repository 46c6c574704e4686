from __future__ import annotations

from stream.anonymizer import Anonymizer
from stream.metrics import Meter, SinkState, SourceState
from stream.pipeline import STAGES, Pipeline
from stream.watch import Watch
from tests.fakes import FILLS, FixedDetector, MemorySink, MemorySource, finishes_within, flat_settings, frames, noise


class LostTwice(MemorySource):
    dropped = 7
    reconnects = 2


class LostOnce(MemorySink):
    dropped = 1
    reconnects = 1


def test_a_snapshot_puts_together_what_the_ends_the_pipeline_and_the_meter_know() -> None:
    source, sinks = LostTwice(frames(noise(9))), [LostOnce(), MemorySink(), LostOnce()]
    meter = Meter()
    covering = Anonymizer([FixedDetector((20, 10, 40, 34))], FILLS, flat_settings())
    pipeline = Pipeline(source, covering, sinks[0], observers=[meter])
    watch = Watch(source, sinks, pipeline, meter)
    assert watch.snapshot().frames == {"anonymized": 0, "withheld": 0, "dropped": 7}
    finishes_within(20, pipeline.run)
    snapshot = watch.snapshot()
    assert snapshot.frames == {"anonymized": 9, "withheld": 0, "dropped": 7}
    assert snapshot.reconnects == {"source": 2, "sink": 2}
    assert snapshot.regions == {"face": 1}
    assert set(snapshot.stage_seconds) == set(STAGES)
    assert snapshot.stage_seconds["detect"] > 0
    assert snapshot.waiting == {"detect": 0, "anonymize": 0, "encode": 0}


class Server(MemorySink):
    """A sink that says of itself what one to a server does."""

    there = False
    dropped = 3
    waiting = 5
    reconnects = 1
    last_error = "rtsp://me:geheim@server/x: Connection refused"


class Pipe(MemorySink):
    dropped = 2


def test_every_output_says_whether_it_is_there_as_far_as_it_knows() -> None:
    now = [100.0]
    source, server = MemorySource(frames(noise(2))), Server()
    sinks = [MemorySink(), server, Pipe()]
    covering = Anonymizer([FixedDetector((20, 10, 40, 34))], FILLS, flat_settings())
    pipeline = Pipeline(source, covering, sinks[0])
    names = ["out.mkv", "rtsp://me:geheim@server/x"]
    watch = Watch(source, sinks, pipeline, Meter(), names=names, clock=lambda: now[0])
    watch.snapshot()
    now[0] += 12
    file, away, pipe = watch.snapshot().sinks
    assert file == SinkState(name="out.mkv")
    assert away == SinkState(
        name="rtsp://***@server/x",
        there=False,
        away=12,
        dropped=3,
        waiting=5,
        reconnects=1,
        error="rtsp://***@server/x: Connection refused",
    )
    assert away.trouble == "rtsp://***@server/x is away: rtsp://***@server/x: Connection refused"
    assert pipe == SinkState(name="output 3", dropped=2)
    assert file.trouble is pipe.trouble is None
    server.there = True
    back = watch.snapshot().sinks[1]
    assert (back.there, back.away, back.error, back.trouble) == (True, None, None, None)
    # Another absence begins anew.
    server.there = False
    assert watch.snapshot().sinks[1].away == 0


class Camera(MemorySource):
    there = False
    last_error = "rtsp://me:geheim@camera/x: 401 Unauthorized"


def test_a_live_source_says_why_it_is_away_and_for_how_long() -> None:
    now = [100.0]
    source, sink = Camera(frames(noise(2))), MemorySink()
    covering = Anonymizer([FixedDetector((20, 10, 40, 34))], FILLS, flat_settings())
    watch = Watch(source, [sink], Pipeline(source, covering, sink), Meter(), clock=lambda: now[0])
    watch.snapshot()
    now[0] += 7
    away = watch.snapshot().source
    assert away == SourceState(there=False, away=7, error="rtsp://***@camera/x: 401 Unauthorized")
    assert away.trouble == "the source is away: rtsp://***@camera/x: 401 Unauthorized"
    source.there = True
    back = watch.snapshot().source
    assert back == SourceState(there=True)
    assert back.trouble is None


class Full(Camera):
    """One that sends more than is looked at, and whose thread hangs."""

    waiting = 30
    hangs = True


def test_what_waits_in_a_live_source_is_counted_with_the_other_queues() -> None:
    sink, covering = MemorySink(), Anonymizer([FixedDetector((20, 10, 40, 34))], FILLS, flat_settings())
    source = Full(frames(noise(2)))
    watch = Watch(source, [sink], Pipeline(source, covering, sink), Meter())
    assert watch.snapshot().waiting == {"source": 30, "detect": 0, "anonymize": 0, "encode": 0}


def test_a_source_may_say_that_it_hangs() -> None:
    sink, covering = MemorySink(), Anonymizer([FixedDetector((20, 10, 40, 34))], FILLS, flat_settings())
    for kind in (Full, Camera, MemorySource):
        source = kind(frames(noise(2)))
        assert Watch(source, [sink], Pipeline(source, covering, sink), Meter()).hangs == (kind is Full)


def test_files_cannot_be_lost() -> None:
    source, sink = MemorySource(frames(noise(2))), MemorySink()
    covering = Anonymizer([FixedDetector((20, 10, 40, 34))], FILLS, flat_settings())
    watch = Watch(source, [sink], Pipeline(source, covering, sink), Meter())
    assert watch.snapshot().reconnects == {"source": 0, "sink": 0}
    assert watch.snapshot().frames["dropped"] == 0
    assert watch.snapshot().source is None

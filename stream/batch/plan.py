"""The plan: what results depend on, how long files are, and how long it will take."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import av
import av.error

from engines.bundle import Bundle
from engines.errors import SourceError, UsageError
from stream.anonymizer import Anonymized, Anonymizer
from stream.batch.inputs import is_image
from stream.batch.manifest import Entry, Manifest
from stream.batch.remote import fetched, is_remote
from stream.config import RunSettings
from stream.pipeline import Pipeline
from stream.run import run
from stream.sources.base import StreamInfo, file_url

#: Seconds that a look at files may take; those that were not looked at are judged by their size.
_SECONDS_TO_LOOK: Final = 0.3
#: Of a file that is worked on for the estimate.
_SAMPLE_FRAMES: Final = 100
_SAMPLE_SECONDS: Final = 10.0
#: Settings on which no result depends, or that say what is known otherwise (bundles by their content).
_WITHOUT_EFFECT: Final = frozenset({
    "threads", "device", "engine_server", "overwrite", "report", "contact_sheet", "detections", "detector", "engine",
    "when_lost", "reconnect_attempts", "connect_timeout", "read_timeout", "latency_budget", "rtsp_transport",
    "sink_timeout", "insecure", "when_slow", "backend", "raw", "segment", "retain", "spool", "report_rotate",
    "certificate", "private_key",
})  # fmt: skip
#: Settings that are files, whose content counts.
_FILES: Final = ("regions", "ignore_zones", "only_zones")


def settings_key(settings: RunSettings, bundles: Iterable[Bundle], **others: Any) -> str:
    """sha256 over all that results depend on beside their inputs, as hex digits.

    Args:
        settings: of the runs.
        bundles: that they use.
        **others: whatever else counts.

    Raises:
        UsageError: a file that settings name cannot be read.
    """
    values = settings.model_dump(mode="json", exclude=set(_WITHOUT_EFFECT))
    for name in _FILES:
        if (path := getattr(settings, name)) is not None:
            values[name] = _digest(path)
    facts = {"settings": values, "bundles": [[b.manifest.name, b.digest] for b in bundles], **others}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def anywhere(settings: RunSettings) -> RunSettings:
    """The same settings with absolute paths: workers begin in other folders."""
    changes: dict[str, Any] = {
        name: Path(os.path.abspath(path)) for name in _FILES if (path := getattr(settings, name)) is not None
    }
    changes["engine"] = {name: Path(os.path.abspath(folder)) for name, folder in settings.engine.items()}
    # A name without a folder is looked for in the store.
    changes["detector"] = tuple(os.path.abspath(text) if "/" in text else text for text in settings.detector)
    return settings.model_copy(update=changes)


def look_at_lengths(manifest: Manifest, seconds: float = _SECONDS_TO_LOOK) -> None:
    """Note how long files are, the largest first, for so long; the others are judged by their size."""
    until = time.monotonic() + seconds
    known: dict[str, float] = {}
    for name, at in manifest.unknown():
        if time.monotonic() > until:
            break
        if not is_remote(at) and (frames := count_frames(Path(at))) is not None:
            known[name] = frames
    manifest.line_up(known)


def count_frames(path: Path) -> float | None:
    """How many frames a file has, as its container says; None where it does not."""
    if is_image(path.name):
        return 1.0
    try:
        with av.open(file_url(path), metadata_errors="replace") as container:
            if not container.streams.video:
                return None
            stream = container.streams.video[0]
            if stream.frames:
                return float(stream.frames)
            if container.duration and stream.average_rate:
                return float(container.duration / av.time_base * stream.average_rate)
    except (av.error.FFmpegError, ValueError):
        # Whoever works on it will say so.
        return None
    return None


def sample_speed(entry: Entry, settings: RunSettings) -> float:
    """Frames per second of a worker, measured on the beginning of a file.

    Args:
        entry: the file.
        settings: of the run, with the worker's threads.

    Raises:
        SourceError: the file cannot be read.
        StandinError: the engines cannot be opened, or the file cannot be worked on.
    """
    pipelines: list[Pipeline] = []
    moments: list[float] = []

    def begin(_: StreamInfo, pipeline: Pipeline) -> None:
        pipelines.append(pipeline)

    def count(_: Anonymized) -> None:
        moments.append(time.monotonic())
        if len(moments) > _SAMPLE_FRAMES or moments[-1] - moments[0] > _SAMPLE_SECONDS:
            pipelines[0].stop()

    with Anonymizer.from_settings(settings, offline=True) as anonymizer, tempfile.TemporaryDirectory() as folder:
        output = Path(folder, Path(entry.name).name)
        if is_remote(entry.at):
            with fetched(entry.at) as (path, _):
                run(path, output, settings, on_start=begin, on_frame=count, anonymizer=anonymizer)
        else:
            run(Path(entry.at), output, settings, on_start=begin, on_frame=count, anonymizer=anonymizer)
    if not moments:
        raise SourceError(f"{entry.at}: no frame was written")
    return (len(moments) - 1) / (moments[-1] - moments[0]) if len(moments) > 1 else 1.0


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error

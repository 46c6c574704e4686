"""Report: what was covered in every frame, so that somebody can check it later. No identity is in it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import IO, Any

from engines.errors import SinkError
from stream import geometry
from stream.anonymizer import Anonymized, Anonymizer
from stream.config import AnonymizerSettings, RunSettings
from stream.metrics import Snapshot
from stream.pipeline import Summary
from stream.regions import Kind, Origin
from stream.sinks.target import Target
from stream.sources.base import StreamInfo
from stream.stitch import covered_boxes

SCHEMA_VERSION = 1
#: Percentiles of the last frames' latencies.
_LATENCIES = ("median", "p95", "p99")
_PACKAGES = ("standin", "numpy", "av", "opencv-python-headless", "onnxruntime", "openvino", "onnxruntime-gpu", "lap")


class ReportWriter:
    """Writes the report frame by frame, so that a run of any length needs the same memory.

    One JSON object: settings, versions and bundles first, then `frames`, one a line, then `summary`.

    Args:
        path: of the report.
        settings: of the run.
        info: of the input.
        anonymizer: whose bundles are named, and whose margin and shape say what was covered.

    Raises:
        SinkError: the report cannot be created.
    """

    def __init__(self, path: Path, settings: RunSettings, info: StreamInfo, anonymizer: Anonymizer) -> None:
        self._covering = anonymizer.settings
        self._name = info.name
        self._target = Target(path, overwrite=settings.overwrite)
        self._file: IO[str] = self._target.temporary.open("w", encoding="utf-8")
        head = report_head(settings, info, anonymizer)
        self._write(json.dumps(head, indent=1)[:-2] + ',\n "frames": [')
        self._first = True

    def add(self, item: Anonymized) -> None:
        """Write one frame's entry.

        Raises:
            SinkError: it cannot be written.
        """
        self._write(("\n  " if self._first else ",\n  ") + json.dumps(report_entry(item, self._covering, self._name)))
        self._first = False

    def close(
        self, summary: Summary, problems: tuple[str, ...], dropped: tuple[str, ...], last: Snapshot | None = None
    ) -> None:
        """Write the summary and put the report in its place.

        Raises:
            SinkError: it cannot be finished.
        """
        tail = report_tail(summary, problems, dropped, last)
        self._write(f'\n ],\n "summary": {json.dumps(tail)}\n}}\n')
        try:
            self._file.close()
        except OSError as error:
            raise self._failed(error) from error
        self._target.commit()

    def abort(self) -> None:
        """Leave nothing behind; harmless after `close`."""
        # What it still holds back cannot be written for the very reason for which it is given up.
        with contextlib.suppress(OSError):
            self._file.close()
        self._target.discard()

    def _write(self, text: str) -> None:
        try:
            self._file.write(text)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> SinkError:
        return SinkError(f"cannot write the report {self._target.path}: {error.strerror or error}")


def report_head(settings: RunSettings, info: StreamInfo, anonymizer: Anonymizer) -> dict[str, Any]:
    """What a report says before its first frame.

    Args:
        settings: of the run.
        info: of the input.
        anonymizer: whose bundles are named.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "input": _describe_input(info),
        "settings": _settings(settings),
        "versions": versions(),
        "bundles": [
            {"name": b.manifest.name, "sha256": b.digest, "licence": b.manifest.licence} for b in anonymizer.bundles
        ],
    }


def _settings(settings: RunSettings) -> dict[str, Any]:
    """Every setting, files by their names alone: a report goes to others, whom it does not concern where files are."""
    written = settings.model_dump(mode="json", exclude={"report"})
    written |= {name: value.name for name, value in settings if isinstance(value, Path) and name in written}
    written["detector"] = [Path(one).name for one in settings.detector]
    written["engine"] = {name: folder.name for name, folder in settings.engine.items()}
    return written


def report_entry(item: Anonymized, covering: AnonymizerSettings, name: str) -> dict[str, Any]:
    """What a report says of one frame.

    Args:
        item: the frame.
        covering: settings that say how far beyond a region was covered.
        name: of the input; frames from elsewhere say where they come from.
    """
    frame, regions = item.frame, item.regions
    grown = covered_boxes(regions, covering.margin, covering.shape)
    boxes = geometry.to_pixels(grown, frame.width, frame.height)
    entry: dict[str, Any] = {
        "pts": frame.pts,
        "time": round(frame.time, 6),
        "size": [frame.width, frame.height],
        "detected": regions.count(Origin.DETECTED),
        "held": regions.count(Origin.HELD),
        "looked_ahead": regions.count(Origin.LOOKED_AHEAD),
        "manual": regions.count(Origin.MANUAL),
        "ignored": item.ignored,
        "generated": item.generated,
        "withheld": item.withheld,
        "regions": [
            {
                "kind": Kind(int(kind)).label,
                "origin": Origin(int(origin)).label,
                "score": round(float(score), 4),
                "box": [int(v) for v in box],
            }
            for kind, origin, score, box in zip(regions.kinds, regions.origins, regions.scores, boxes, strict=True)
        ],
    }
    if frame.source != name:
        entry["source"] = frame.source
    return entry


def report_tail(
    summary: Summary, problems: tuple[str, ...], dropped: tuple[str, ...], last: Snapshot | None = None
) -> dict[str, Any]:
    """What a report says when the run has ended.

    Args:
        summary: counts and times.
        problems: what could not be read.
        dropped: what was in the input and did not go on.
        last: what was measured on the way, None where nothing was.
    """
    last = last or Snapshot()
    recent = last.latency.recent
    return {
        "frames": summary.frames,
        "detected": summary.regions,
        "held": summary.held,
        "looked_ahead": summary.looked_ahead,
        "manual": summary.manual,
        "ignored": summary.ignored,
        "generated": summary.generated,
        "withheld": summary.withheld,
        "withheld_reasons": summary.reasons,
        "superseded": summary.superseded,
        "late": _late(summary, last),
        "not_sent": [sink.dropped for sink in last.sinks],
        "latency": recent and {name: round(value, 4) for name, value in zip(_LATENCIES, recent, strict=True)},
        "tracks": summary.tracks,
        "seconds": round(summary.seconds, 3),
        "stage_seconds": {name: round(value, 3) for name, value in summary.busy.items()},
        "stopped": summary.stopped,
        "interrupted": summary.interrupted,
        "problems": list(problems),
        "dropped": list(dropped),
    }


def summary_line(summary: Summary, last: Snapshot | None = None) -> str:
    """What is said of a run that has ended where there is one line for it.

    Args:
        summary: counts and times.
        last: what was measured on the way, None where nothing was.
    """
    last = last or Snapshot()
    parts = [f"{summary.frames} frames, {summary.withheld} of them withheld"]
    if last.latency.recent is not None:
        parts.append(f"{_late(summary, last)} pictures came too late to be looked at")
    if unsent := [sink.dropped for sink in last.sinks if sink.dropped is not None]:
        parts.append(f"{sum(unsent)} did not reach an output")
    if last.latency.recent is not None:
        median, most, nearly_all = (f"{1000 * value:.0f} ms" for value in last.latency.recent)
        parts.append(f"latency {median} at the median, {most} at 95 %, {nearly_all} at 99 % of the last frames")
    return "; ".join(parts)


def versions() -> dict[str, str]:
    """What is installed, by package name."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _late(summary: Summary, last: Snapshot) -> int:
    """Pictures that nobody looked at, since they came too late."""
    return max(0, last.frames.get("dropped", 0) - summary.superseded)


def _describe_input(info: StreamInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "width": info.width,
        "height": info.height,
        "time_base": str(info.time_base),
        "frame_rate": None if info.rate is None else str(info.rate),
        "pixel_format": info.pix_fmt,
    }

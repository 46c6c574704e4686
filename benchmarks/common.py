"""What the benchmarks share: the machine, looped clips, CenterFace's reference boxes, coverage."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from engines.machine import processor
from engines.runtime import open_runtime
from engines.store import Store, home
from stream.anonymizer import Anonymized, Anonymizer
from stream.detectors.single_stage import SingleStageDetector
from stream.frame import Frame
from stream.report import versions
from stream.sources.video import VideoSource

RESULTS = Path(__file__).parent / "results"
Boxes = npt.NDArray[np.float32]


def machine() -> dict[str, Any]:
    """The processor and its cores, as this process may use them."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def save(name: str, result: dict[str, Any]) -> Path:
    """Write a result with the machine, the versions, the date and the command that repeats it."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    head = {
        "command": f"python {shlex.join([Path(sys.argv[0]).name, *(Path(a).name for a in sys.argv[1:])])}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
    }
    path.write_text(json.dumps(head | result, indent=1) + "\n")
    return path


def before_after(frames: Iterable[Frame], count: int, anonymizer: Anonymizer) -> Iterator[tuple[Frame, Anonymized]]:
    """Each frame as decoded, with what leaves an anonymizer for it.

    Args:
        frames: of a clip, from the beginning.
        count: how many there are.
        anonymizer: is closed in the end.

    Raises:
        RuntimeError: frames were lost, or came in another order.
    """
    waiting = deque[Frame]()
    came = 0

    def remembered() -> Iterator[Frame]:
        for frame in frames:
            waiting.append(frame)
            # Compared with what was decoded, whatever happens to the frame on its way.
            yield frame.with_image(frame.image.copy())

    with anonymizer:
        for after in anonymizer.iterate(remembered()):
            before = waiting.popleft()
            if before.pts != after.frame.pts:
                raise RuntimeError(f"frame {came} came out of order")
            came += 1
            yield before, after
    if waiting or came != count:
        raise RuntimeError(f"{count} frames went in, {came} came out")


def loop_clip(path: Path, target: Path, frames: int) -> Path:
    """Copy a clip's video packets over and over, without coding, until there are at least so many frames."""
    with av.open(str(path)) as probe:
        video = probe.streams.video[0]
        shown = [packet.pts for packet in probe.demux(video) if packet.pts is not None]
        time_base, rate = video.time_base, video.average_rate or Fraction(25)
    if time_base is None:
        raise ValueError(f"{path} has no time base")
    # Matroska leaves decoding times out: the order of showing, early enough for every packet.
    coded = sorted(shown)
    early = max(due - pts for due, pts in zip(coded, shown, strict=True))
    length = round(len(shown) / rate / time_base)
    with av.open(str(path)) as first, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(first.streams.video[0])
        for turn in range(-(-frames // len(shown))):
            with av.open(str(path)) as source:
                packets = (p for p in source.demux(source.streams.video[0]) if p.pts is not None)
                for packet, due in zip(packets, coded, strict=True):
                    packet.pts = (packet.pts or 0) + turn * length
                    packet.dts = due - early + turn * length
                    packet.stream = stream
                    out.mux(packet)
    return target


def face_detector(*, longest: int, threshold: float, threads: int | None = None) -> SingleStageDetector:
    """CenterFace from the user's store."""
    bundle = Store(home()).pull("centerface")
    runtime = open_runtime(bundle, "detector", device="cpu", threads=threads)
    return SingleStageDetector(bundle, runtime, longest=longest, threshold=threshold)


def reference_boxes(path: Path) -> list[Boxes]:
    """CenterFace at full resolution, threshold 0.5, on every frame of the original; the part inside the frame."""
    detector = face_detector(longest=100_000, threshold=0.5)
    try:
        return [_inside(detector.detect(frame).boxes, frame) for frame in VideoSource(path)]
    finally:
        detector.close()


def _inside(boxes: Boxes, frame: Frame) -> Boxes:
    limits = np.array([frame.width, frame.height] * 2, np.float32)
    return np.clip(boxes, 0, limits)


def frames_of(path: Path) -> list[Frame]:
    """All frames of a clip."""
    return list(VideoSource(path))


def covered_share(box: npt.ArrayLike, covers: Sequence[npt.ArrayLike], *, ellipse: bool = False) -> float:
    """Which share of a box's area lies under boxes, or under the ellipses inscribed in them.

    Args:
        box: (4,) `xyxy`.
        covers: of (4,) each.
        ellipse: whether only the inscribed ellipses cover.
    """
    x0, y0, x1, y1 = np.asarray(box, np.float64)
    steps = (np.arange(64) + 0.5) / 64
    xs, ys = (x0 + steps * (x1 - x0))[None], (y0 + steps * (y1 - y0))[:, None]
    hidden = np.zeros((64, 64), bool)
    for cover in covers:
        a0, b0, a1, b1 = np.asarray(cover, np.float64)
        if a1 <= a0 or b1 <= b0:
            continue
        if ellipse:
            across = (xs - (a0 + a1) / 2) / ((a1 - a0) / 2)
            down = (ys - (b0 + b1) / 2) / ((b1 - b0) / 2)
            hidden |= across**2 + down**2 <= 1
        else:
            hidden |= (xs >= a0) & (xs < a1) & (ys >= b0) & (ys < b1)
    return float(hidden.mean())

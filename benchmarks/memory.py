"""Memory: peak and growth of `standin run` over a ten-minute clip, in a process of its own.

python benchmarks/memory.py CLIP [--minutes 10]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import frames_of, loop_clip, save
from stream.sources.video import VideoSource


def main() -> None:
    """Measure and write `results/memory.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        info = VideoSource(options.clip).info
        rate = float(info.rate or 25)
        frames = round(options.minutes * 60 * rate)
        looped = loop_clip(options.clip, Path(name) / f"looped{options.clip.suffix}", frames)
        samples, seconds = _watch([str(looped), str(Path(name) / "out.mp4")])
    # The clip's own second and tenth minute, wherever the run's speed puts them.
    share = 2 / options.minutes
    early = [rss for at, rss in samples if share <= at / seconds <= share + 0.05]
    late = [rss for at, rss in samples if at / seconds >= 0.95 and at < seconds - 1]
    result = {
        "clip": options.clip.name,
        "minutes": options.minutes,
        "frames": frames,
        "size": [info.width, info.height],
        "clip_frames": len(frames_of(options.clip)),
        "seconds": round(seconds, 1),
        "peak_mib": round(max(rss for _, rss in samples) / 2**20, 1),
        "minute_2_mib": round(statistics.median(early) / 2**20, 2),
        "minute_10_mib": round(statistics.median(late) / 2**20, 2),
        "growth": round(statistics.median(late) / statistics.median(early) - 1, 5),
    }
    print(result)
    print(save("memory", result))


def _watch(arguments: list[str]) -> tuple[list[tuple[float, int]], float]:
    """Resident memory of a run every 100 ms, in bytes, and its duration in seconds."""
    process = subprocess.Popen([sys.executable, "-m", "stream.cli", "run", "--preset", "faces", *arguments, "--quiet"])
    began, samples = time.monotonic(), []
    while process.poll() is None:
        try:
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            break
        samples.append((time.monotonic() - began, pages * 4096))
        time.sleep(0.1)
    if process.wait():
        raise SystemExit(f"the run failed with exit code {process.returncode}")
    return samples, time.monotonic() - began


if __name__ == "__main__":
    main()

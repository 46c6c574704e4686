"""The picture of the status page in the README: streams that do not run, with pictures that Standin anonymized.

    python benchmarks/status_screenshot.py [--output docs/images/status.png] [--size 1280x1010] [--dark]

Needs Chromium. The people in the previews are those of the rendered clip that comes with the project; nobody is real.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from engines.errors import UsageError
from stream.anonymizer import Anonymizer
from stream.config import RunSettings, make_settings
from stream.metrics import Latencies, Snapshot
from stream.service.control import EngineStatus, Overview, StreamStatus, UnknownStreamError
from stream.service.status import StatusServer
from stream.sources.video import VideoSource

_STREAM = Path(__file__).resolve().parents[1] / "stream"
CLIP = _STREAM / "media" / "walkers.mp4"
PAGES = _STREAM / "service" / "pages"
_SEED = 7
#: Seconds of the page's own, fast clock: enough to fill its charts.
_WATCH = 200
_PREVIEW_WIDTH = 400


@dataclass(frozen=True, slots=True)
class Demo:
    """A stream as the picture shows it.

    Attributes:
        status: all that does not change.
        rate: frames per second, None for a stream that does not run.
        latency: median in seconds.
        look: settings of its preview, and the frame of the clip that it shows.
    """

    status: StreamStatus
    rate: float | None
    latency: float
    look: tuple[dict[str, Any], int]


def demos() -> list[Demo]:
    """Four streams in four states."""
    now = time.time()

    def status(name: str, state: Any, hours: float, **more: Any) -> StreamStatus:
        where = f"rtsp://***@10.0.4.{20 + len(name)}/main"
        return StreamStatus(
            name=name,
            source=where,
            sinks=(f"rtsp://media.local/{name}",),
            state=state,
            since=now - 3600 * hours,
            **more,
        )

    lost = "rtsp://***@10.0.4.25/main: nothing came for 5 s; connecting again"
    return [
        Demo(status("entrance", "running", 78.2), 25.0, 0.118, ({}, 20)),
        Demo(status("loading-bay", "running", 31.7, restarts=1), 14.9, 0.176, ({"person": "pixelate"}, 60)),
        Demo(status("yard", "away", 0.01, last_error=lost), 5.0, 0.21, ({"person": "blur"}, 90)),
    ]


class DemoControl:
    """Streams whose numbers go on by a second whenever somebody looks.

    Args:
        streams: to be shown.
        previews: a JPEG of each, by name.
    """

    def __init__(self, streams: list[Demo], previews: Mapping[str, bytes]) -> None:
        self._streams = streams
        self._previews = previews
        self._rng = np.random.default_rng(_SEED)
        self._wander = np.zeros(len(streams))
        self._looks = 0

    def overview(self) -> Overview:
        """One second later than the last."""
        self._looks += 1
        self._wander = 0.93 * self._wander + self._rng.normal(0, 0.05, len(self._streams))
        streams = [self._at(demo, float(w)) for demo, w in zip(self._streams, self._wander, strict=True)]
        runs = 1_254_300 + 40 * self._looks
        return Overview(
            streams=tuple(streams),
            engines=(EngineStatus(device="cuda", running=True, restarts=1, runs=runs, rows=int(1.6 * runs)),),
        )

    def stood_still(self) -> float:
        """Never."""
        return 0.0

    def preview(self, name: str) -> bytes | None:
        """Always the same picture."""
        if name not in self._previews:
            raise UnknownStreamError(f"there is no stream {name!r}")
        return self._previews[name]

    def add(self, name: str, values: Mapping[str, Any]) -> None:
        """Refused."""
        raise UsageError(f"{name} with {len(values)} values: this is a picture")

    def pause(self, name: str) -> None:
        """Refused."""
        raise UsageError(f"{name}: this is a picture")

    resume = remove = pause

    def _at(self, demo: Demo, wander: float) -> StreamStatus:
        status, rate = demo.status, demo.rate
        if rate is None:
            return status
        latency = demo.latency * float(np.exp(wander))
        frames = int(rate * (time.time() - status.since)) + int(rate) * self._looks
        away = status.state == "away"
        snapshot = Snapshot(
            seconds=time.time() - status.since,
            frames={"anonymized": frames, "withheld": 41 + 5 * self._looks if away else 2, "dropped": frames // 90_000},
            regions={} if away else {"person": 2, "face": 1},
            rate=rate + 0.05 * wander,
            latency=Latencies(recent=(latency, latency * 1.32 + 0.004 * abs(wander), latency * 1.6)),
            reconnects={"source": 3 if away else 0, "sink": 1},
        )
        return status.model_copy(update={"snapshot": snapshot})


def previews(streams: list[Demo]) -> Iterator[tuple[str, bytes]]:
    """A small anonymized frame of the clip for each stream."""
    for demo in streams:
        values, index = demo.look
        settings = make_settings(RunSettings, {"seed": _SEED, "lookahead": 0, **values})
        source = VideoSource(CLIP)
        try:
            frames = [frame for place, frame in enumerate(source) if index - 8 <= place <= index]
        finally:
            source.close()
        with Anonymizer.from_settings(settings, offline=True) as anonymizer:
            *_, last = anonymizer.iterate(frames)
        picture = Image.fromarray(last.image)
        picture.thumbnail((_PREVIEW_WIDTH, _PREVIEW_WIDTH))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=80)
        yield demo.status.name, file.getvalue()


def screenshot(url: str, output: Path, size: str, *, dark: bool) -> None:
    """What a browser shows after a few minutes, in 256 colours."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise UsageError("Chromium is not installed; on Debian: apt install chromium")
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "page.png"
        command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += ["--blink-settings=preferredColorScheme=0"] if dark else []
        command += [f"--user-data-dir={folder}/profile", f"--window-size={size.replace('x', ',')}"]
        command += [f"--virtual-time-budget={_WATCH * 1000}", f"--screenshot={raw}", url]
        subprocess.run(command, check=True, timeout=300, stderr=subprocess.DEVNULL)
        with Image.open(raw) as page:
            few_colours(page.convert("RGB"), dark=dark).save(output, optimize=True)


def few_colours(page: Image.Image, *, dark: bool) -> Image.Image:
    """In 256 colours, with those of the page itself as they are: pictures would take all of them."""
    schemes = re.findall(r":root \{(.*?)\}", (PAGES / "status.css").read_text(encoding="utf-8"), re.DOTALL)
    own = [bytes.fromhex(code) for code in dict.fromkeys(re.findall(r"#([0-9a-f]{6})\b", schemes[dark]))]
    found = page.quantize(256 - len(own)).getpalette() or []
    palette = np.array([*found[: 3 * (256 - len(own))], *b"".join(own)], np.int32).reshape(-1, 3)
    # Pillow's own search takes a near colour for the nearest, which tints what is white.
    colours, places = np.unique(np.asarray(page, np.int32).reshape(-1, 3), axis=0, return_inverse=True)
    nearest = np.array([((palette - colour) ** 2).sum(axis=1).argmin() for colour in colours], np.uint8)
    flat = Image.fromarray(nearest[places.reshape(-1)].reshape(page.height, page.width), "P")
    flat.putpalette(palette.astype(np.uint8).tobytes())
    return flat


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/images/status.png"))
    parser.add_argument("--size", default="1280x1010", help="of the window")
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    streams = demos()
    with StatusServer(DemoControl(streams, dict(previews(streams))), port=0) as server:
        screenshot(server.url, options.output, options.size, dark=options.dark)
    print(f"{options.output}: {options.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

"""The first minute: `make demo` anonymizes a short clip with a real face, or a clip of the user's.

The clip is made from a public-domain photograph (a NASA portrait of Eileen Collins that scikit-image ships), panned and
zoomed, so that nothing but the detector has to be downloaded.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import av
import cv2
import numpy as np
import typer
from rich.console import Console

from engines.errors import StandinError, UsageError
from stream.frame import Image

_WIDTH, _HEIGHT, _RATE, _FRAMES = 640, 480, 25, 100


def main() -> None:
    """Entry point of `python -m stream.demo`."""
    try:
        typer.run(_demo)
    except StandinError as error:
        Console(stderr=True, soft_wrap=True).print(f"standin: {error}", markup=False)
        sys.exit(error.exit_code)


def _demo(
    output: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("demo"),
    input_path: Annotated[Path | None, typer.Option("--input", help="Your own clip instead of ours.")] = None,
) -> None:
    """Pull the detector, anonymize a clip, and leave the result, a report and a contact sheet."""
    console = Console()
    output.mkdir(parents=True, exist_ok=True)
    own = input_path is not None
    source = input_path or write_clip(output / "input.mp4")
    result = output / f"anonymized{source.suffix or ''}"
    _standin("engines", "pull", "centerface")
    code = _standin(
        "run", str(source), str(result), "--overwrite",
        "--report", str(output / "report.json"),
        "--contact-sheet", str(output / "contact-sheet.png"),
        check=False,
    )  # fmt: skip
    if code:
        raise typer.Exit(code)
    made = [result, output / "report.json", output / "contact-sheet.png"]
    if not own:
        made.append(write_before_after(source, result, output / "before-after.png"))
    console.print("made:", *(f"\n  {path}" for path in made))


def _standin(*arguments: str, check: bool = True) -> int:
    """The same command line that users have."""
    code = subprocess.run([sys.executable, "-m", "stream", *arguments], check=False).returncode
    if check and code:
        raise typer.Exit(code)
    return code


def demo_frames() -> Iterator[Image]:
    """The demo clip's pictures, uint8 RGB (480, 640, 3): a slow pan and zoom over the photograph.

    Raises:
        UsageError: scikit-image, which ships the photograph, is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise UsageError('the demo clip needs scikit-image: pip install "standin[demo]"') from error
    photograph = np.ascontiguousarray(data.astronaut())  # type: ignore[no-untyped-call]
    for index in range(_FRAMES):
        phase = index / (_FRAMES - 1)
        height = 420 - 180 * np.sin(np.pi * phase)
        width = height * _WIDTH / _HEIGHT
        x = (512 - width) * (0.5 + 0.35 * np.cos(2 * np.pi * phase)) if width < 512 else (512 - width) / 2
        y = 10 + 30 * np.sin(2 * np.pi * phase) ** 2
        corners = np.array([[x, y], [x + width, y], [x, y + height]], np.float32)
        target = np.array([[0, 0], [_WIDTH, 0], [0, _HEIGHT]], np.float32)
        yield np.asarray(
            cv2.warpAffine(
                photograph,
                cv2.getAffineTransform(corners, target),
                (_WIDTH, _HEIGHT),
                flags=cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REFLECT,
            ),
            np.uint8,
        )


def write_clip(path: Path) -> Path:
    """Write the demo clip as H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_RATE, options={"crf": "16", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        for index, picture in enumerate(demo_frames()):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, _RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_before_after(source: Path, result: Path, target: Path) -> Path:
    """Three moments of the demo clip above, the same moments of the result below, as PNG.

    Only for the demo's own clip: its photograph is public, other raw pictures never go to disk.
    """
    moments = (0, _FRAMES // 2, _FRAMES - 10)
    rows = []
    for path in (source, result):
        pictures = _pictures(path)
        rows.append(np.concatenate([pictures[index] for index in moments], axis=1))
    sheet = cv2.resize(np.concatenate(rows), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(target), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    return target


def _pictures(path: Path) -> list[Image]:
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]


if __name__ == "__main__":
    main()

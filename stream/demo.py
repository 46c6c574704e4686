"""The first minute: `make demo` anonymizes two short clips of ours, or a clip of the user's.

The first shows synthetic people who walk; `python -m export.starter clip` drew it, and it comes with the package. The
second is made of a public-domain photograph (a NASA portrait of Eileen Collins that scikit-image ships), panned and
zoomed. Nothing is downloaded unless the preset needs it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import av
import cv2
import numpy as np
import typer
from rich.console import Console

from engines.errors import StandinError, UsageError
from engines.store import Store, home
from stream.frame import Image
from stream.presets import DEFAULT_PRESET, find_preset

#: People who walk.
WALKERS = Path(__file__).parent / "media" / "walkers.mp4"
_WIDTH, _HEIGHT, _RATE, _FRAMES = 640, 480, 25, 100
#: Of the comparison, as shares of the clip.
_MOMENTS = (0.0, 0.5, 0.9)


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
    preset: Annotated[str, typer.Option(help="Which engines run.")] = DEFAULT_PRESET,
) -> None:
    """Anonymize a clip, and leave the result, a report and a contact sheet."""
    console = Console()
    output.mkdir(parents=True, exist_ok=True)
    _pull(preset)
    made: list[Path] = []
    if input_path is not None:
        made += _anonymize(input_path, output, "", preset)
    else:
        for name, source in own_clips(output).items():
            made += _anonymize(source, output, name, preset)
            made.append(write_before_after(source, made[-3], output / f"before-after{name}.png"))
    console.print("made:", *(f"\n  {path}" for path in made))


def _pull(preset: str) -> None:
    """Fetch what the preset lacks and what can be fetched; the run says what else is missing."""
    store, wanted = Store(home()), find_preset(preset)
    there = store.available()
    for name in (*wanted.detectors, *wanted.generators.values()):
        if name in store.known and name not in there:
            _standin("engines", "pull", name)


def own_clips(output: Path, walkers: Path = WALKERS) -> dict[str, Path]:
    """Our clips, in a folder, by what is added to the names of all that is made of them.

    Args:
        output: the folder.
        walkers: the clip that comes with the package.

    Raises:
        UsageError: that clip is not there.
    """
    if not walkers.is_file():
        raise UsageError(f"the demo's clip is not there ({walkers}); install Standin again, or give one with --input")
    clips = {"": Path(shutil.copyfile(walkers, output / "input.mp4"))}
    if find_spec("skimage") is not None:
        clips["-face"] = write_clip(output / "input-face.mp4")
    return clips


def _anonymize(source: Path, output: Path, name: str, preset: str) -> list[Path]:
    """Run the command on a clip; the result, the report and the contact sheet that it leaves."""
    made = [
        output / f"anonymized{name}{source.suffix}",
        output / f"report{name}.json",
        output / f"contact-sheet{name}.png",
    ]
    result, report, sheet = map(str, made)
    extras = ("--report", report, "--contact-sheet", sheet)
    _standin("run", str(source), result, "--overwrite", "--preset", preset, *extras)
    return made


def _standin(*arguments: str) -> None:
    """The same command line that users have.

    Raises:
        typer.Exit: it failed; with its exit code.
    """
    code = subprocess.run([sys.executable, "-m", "stream", *arguments], check=False).returncode
    if code:
        raise typer.Exit(code)


def demo_frames() -> Iterator[Image]:
    """The portrait clip's pictures, uint8 RGB (480, 640, 3): a slow pan and zoom over the photograph.

    Raises:
        UsageError: scikit-image, which ships the photograph, is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise UsageError('the portrait clip needs scikit-image: pip install "standin[demo]"') from error
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
    """Write the portrait clip as H.264.

    Raises:
        UsageError: scikit-image is not installed.
    """
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
    """Three moments of one of our own clips above, the same moments of the result below, as PNG.

    Only for the demo's own clips: who is in them is made up or public, other raw pictures never go to disk.
    """
    rows = []
    for path in (source, result):
        pictures = _pictures(path)
        rows.append(np.concatenate([pictures[int(moment * len(pictures))] for moment in _MOMENTS], axis=1))
    sheet = cv2.resize(np.concatenate(rows), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(target), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    return target


def _pictures(path: Path) -> list[Image]:
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]


if __name__ == "__main__":
    main()

"""`standin engines quantize`: a detector in 8-bit integers, for processors."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from engines.store import Store, home
from stream.config import AnonymizerSettings
from stream.frame import Frame


def quantize_command(
    which: Annotated[
        str, typer.Argument(metavar="PATH_OR_NAME", help="A detector's folder, or the name of an installed one.")
    ],
    pictures: Annotated[
        Path,
        typer.Option(
            readable=False, help="A folder of pictures of what the detector will see, with people in them; some dozens."
        ),
    ],
    output: Annotated[Path, typer.Option(readable=False, help="A new folder for the bundle.")],
    threshold: Annotated[
        float, typer.Option(help="Score with which regions have to be found again; what runs ask for.")
    ] = 0.3,
    sure: Annotated[float, typer.Option(help="Score of the regions in floating point that have to be found.")] = 0.5,
    most_lost: Annotated[float, typer.Option(help="The part of them that may be lost.")] = 0.01,
    detect_size: Annotated[
        int | None, typer.Option(min=32, help="Longer side of the pictures that it looks at. (default: as in a run)")
    ] = None,
) -> None:
    """Make a bundle whose detector computes in 8-bit integers on processors: up to twice as fast.

    Half of the pictures give the ranges of numbers; on the others, people whom the detector was sure of must be found
    again, else nothing is written. Runs on a CPU take the integers by themselves; --detector-precision fp32 does not.
    """
    # Imported here: exporting is none of the other commands' business.
    from export.quantize import Limits, quantize_detector
    from stream.assemble import open_one
    from stream.evaluate.pictures import list_pictures, read_picture

    console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
    bundle = Store(home()).find(which)
    names = list_pictures(pictures)
    settings = AnonymizerSettings(detector_precision="fp32", threshold=threshold)
    if detect_size is not None:
        settings = settings.model_copy(update={"detect_size": detect_size})
    detector = open_one(bundle, settings, None)

    def inputs(name: str) -> dict[str, Any]:
        return detector.inputs(Frame(read_picture(pictures, name)))

    def say(text: str) -> None:
        console.print(text, markup=False)

    limits = Limits(sure=sure, threshold=threshold, most_lost=most_lost)
    with contextlib.closing(detector):
        made = quantize_detector(bundle, [partial(inputs, name) for name in names], output, limits, progress=say)
    Console(soft_wrap=True, highlight=False, emoji=False).print(str(made.path), markup=False)

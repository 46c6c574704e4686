"""`standin engines quantize`: a detector in 8-bit integers, for processors."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from engines.store import Store, home
from stream.config import AnonymizerSettings, make_settings
from stream.frame import Frame


def quantize_command(
    which: Annotated[
        str, typer.Argument(metavar="PATH_OR_NAME", help="A detector's folder, or the name of an installed one.")
    ],
    pictures: Annotated[
        Path,
        typer.Option(readable=False, help="A folder of a hundred pictures or more of what it will see, with people."),
    ],
    output: Annotated[Path, typer.Option(readable=False, help="A new folder for the bundle.")],
    threshold: Annotated[
        float,
        typer.Option(
            min=0.01, max=0.99, help="Score with which regions have to be found again: that of your runs, or more."
        ),
    ] = 0.3,
    sure: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Score of the regions in floating point that have to be found.")
    ] = 0.5,
    most_lost: Annotated[float, typer.Option(min=0, max=0.99, help="The part of them that may be lost.")] = 0.01,
    detect_size: Annotated[
        int | None, typer.Option(min=32, help="Longer side of the pictures that it looks at. (default: as in a run)")
    ] = None,
) -> None:
    """Make a bundle whose detector computes in 8-bit integers on processors: up to twice as fast.

    Half of the pictures give the ranges of numbers; on the others, people whom the detector was sure of must be found
    again, with nearly all of their masks, else nothing is written. Runs on a CPU take the integers by themselves;
    --detector-precision fp32 does not.
    """
    # Imported here: exporting is none of the other commands' business.
    from export.quantize import check_bundle, quantize_detector
    from export.quantize_compare import Limits
    from stream.assemble import open_one
    from stream.evaluate.pictures import list_pictures, read_picture

    console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
    bundle = Store(home()).find(which)
    check_bundle(bundle)
    names = list_pictures(pictures)
    given = {} if detect_size is None else {"detect_size": detect_size}
    settings = make_settings(AnonymizerSettings, {"detector_precision": "fp32", "threshold": threshold, **given})
    detector = open_one(bundle, settings, None)

    def inputs(name: str, scale: float) -> dict[str, Any]:
        return detector.inputs(Frame(read_picture(pictures, name)), scale)

    def say(text: str) -> None:
        console.print(text, markup=False)

    limits = Limits(sure=sure, threshold=threshold, most_lost=most_lost)
    with contextlib.closing(detector):
        looks = [[partial(inputs, name, scale) for scale in detector.scales] for name in names]
        made = quantize_detector(bundle, looks, output, limits, progress=say)
    Console(soft_wrap=True, highlight=False, emoji=False).print(str(made.path), markup=False)

"""The starter set: its detector and generator on synthetic people that no training saw, and the preset on real clips.

Everything goes through the bundles, at the settings of the preset. What is measured, and how, stands in
`starter_detector.py`, `starter_generator.py` and `starter_clips.py`. Parts that lack what they need are left out, with
a line that says so.

    python benchmarks/starter.py [--detector DIR] [--generator DIR] [--body FILE] [--scenes 400] [--portraits 200]
        [--clips CLIP...] [--empty CLIP...] [--frames 500] [--preset starter]
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import starter_clips, starter_detector, starter_generator
from benchmarks.common import save
from engines.bundle import Bundle, open_bundle
from engines.errors import BundleMissingError, ExportError, StandinError, UsageError
from engines.store import Store, home
from export.starter.body import Body, load_body
from export.starter.coarse_surface import fits, vertices_of
from export.starter.detector_surface import Template
from export.starter.stages import BODY
from stream import assemble
from stream.anonymizer import Anonymizer
from stream.config import AnonymizerSettings, make_settings
from stream.detectors.base import Detector
from stream.presets import find_preset
from stream.surface import Surface

Row = dict[str, Any]

#: Of scenes and portraits; far from those that trainings are given.
_SEED = 77_000_001


def main() -> int:
    """Measure and write `results/starter.json`; gives the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options, console = _options(), Console(width=None if sys.stdout.isatty() else 140)
    try:
        result = measure(options, console)
    except StandinError as error:
        console.print(str(error), markup=False)
        return error.exit_code
    _print(result, console)
    print(save("starter", result))
    return 0


def measure(options: argparse.Namespace, console: Console) -> Row:
    """All parts that there is something for.

    Raises:
        UsageError: nothing can be measured, or no such preset.
        BundleError: a bundle that was given is none.
    """
    detector = _bundle(options.detector, find_preset(options.preset).detectors[0])
    names = find_preset(options.preset).generators
    generator = _bundle(options.generator, names.get("person-cse", ""))
    settings = _settings(options.preset, detector, generator)
    # Looked for first: hours of measuring must not end with what is missing.
    reference = _reference(options.reference) if options.clips else None
    body = _body(options.body, detector, console)
    result: Row = {
        "preset": options.preset,
        "bundles": {part.manifest.name: part.digest for part in (detector, generator) if part is not None},
        "settings": settings.model_dump(
            mode="json", include={"threshold", "detect_size", "hold", "lookahead", "margin"}
        ),
        "seed": _SEED,
    }
    if detector is None:
        console.print("there is no detector: its part is left out")
    elif body is not None and options.scenes and _drawn(console):
        result["detector"] = _detector(options, detector, settings, body)
    if generator is None:
        console.print("there is no generator: its part is left out, and persons in clips are masked")
    elif body is not None and options.portraits and _drawn(console):
        result["generator"] = starter_generator.measure_with(
            generator,
            options.body,
            Template.of(body).head,
            options.portraits,
            seed=_SEED,
            workers=options.workers,
            threads=options.threads,
        )
    if options.clips or options.empty:
        result["clips"] = _clips(options, settings, reference, console)
    if not {"detector", "generator", "clips"} & result.keys():
        raise UsageError("nothing could be measured; give --detector, --generator, --body or --clips")
    return result


def _bundle(given: Path | None, name: str) -> Bundle | None:
    """The one that was given, else the preset's, None where that is not there."""
    if given is not None:
        return open_bundle(given)
    try:
        return Store(home()).find(name) if name else None
    except (BundleMissingError, UsageError):
        return None


def _settings(preset: str, detector: Bundle | None, generator: Bundle | None) -> AnonymizerSettings:
    """The preset's, with the bundles at hand."""
    chosen = find_preset(preset)
    engines = {}
    if detector is not None:
        engines[chosen.detectors[0]] = detector.path
    values: Row = {"preset": preset}
    if generator is not None:
        engines["person-cse"] = generator.path
    elif chosen.settings.get("person") == "realistic":
        values["person"] = "mask"
    return make_settings(AnonymizerSettings, {**values, "engine": engines})


def _body(path: Path, detector: Bundle | None, console: Console) -> Body | None:
    if not path.exists():
        console.print(f"{path} does not exist: nothing is measured on synthetic people; give --body")
        return None
    body = load_body(path)
    if detector is not None and not fits(detector, len(body.canonical)):
        raise UsageError(f"{path} is not the body that {detector.manifest.name} was trained with")
    return body


def _drawn(console: Console) -> bool:
    """Whether scenes can be drawn here."""
    try:
        from export.starter.render import open_context

        open_context().release()
    except (ExportError, ImportError) as error:
        console.print(f"nothing can be drawn here ({error}): nothing is measured on synthetic people", markup=False)
        return False
    return True


def _detector(options: argparse.Namespace, bundle: Bundle, settings: AnonymizerSettings, body: Body) -> Row:
    opened = starter_detector.open_lowest(bundle, settings)
    try:
        return starter_detector.measure(
            opened.detect,
            starter_detector.held_out(
                options.body, options.scenes, seed=_SEED, size=options.size, workers=options.workers
            ),
            Template.of(body),
            Surface(np.asarray(bundle.array("vertex_embeddings"), np.float32)),
            vertices_of(bundle),
            preset_threshold=settings.threshold,
        )
    finally:
        opened.close()


def _reference(name: str) -> Callable[[], Detector]:
    """Opens the detector whose confident boxes count.

    Raises:
        BundleError: it is missing; the message says how to come by it.
    """
    values = {"detector": [name], "threshold": starter_clips.CONFIDENT}
    settings = make_settings(AnonymizerSettings, values)
    bundles = assemble.find_bundles(settings, Store(home()))
    return lambda: assemble.open_detector(bundles, settings, None)


def _clips(
    options: argparse.Namespace,
    settings: AnonymizerSettings,
    reference: Callable[[], Detector] | None,
    console: Console,
) -> list[Row]:
    rows = []
    with contextlib.ExitStack() as opened:
        sees = None
        if reference is not None:
            sees = reference()
            opened.callback(sees.close)
        for path, detector in [(path, sees) for path in options.clips] + [(path, None) for path in options.empty]:
            console.print(f"{path.name} ...")
            anonymizer = Anonymizer.from_settings(settings, offline=True)
            rows.append(starter_clips.measure_file(path, detector, anonymizer, frames=options.frames))
    return rows


def _print(result: Row, console: Console) -> None:
    if "detector" in result:
        table = Table(*starter_detector.HEAD, title=f"{result['detector']['scenes']} synthetic scenes")
        for line in starter_detector.lines(result["detector"]):
            table.add_row(*line)
        console.print(table)
    if "generator" in result:
        table = Table("generator", "")
        for pair in starter_generator.lines(result["generator"]):
            table.add_row(*pair)
        console.print(table)
    if "clips" in result:
        table = Table(*starter_clips.HEAD, title="against FastestDet's confident boxes (their middle ellipse, a proxy)")
        for cells in starter_clips.lines(result["clips"]):
            table.add_row(*cells)
        console.print(table)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give it as 512x288")
    return int(width), int(height)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="starter")
    parser.add_argument("--detector", type=Path, metavar="DIR", help="its bundle (default: the preset's)")
    parser.add_argument("--generator", type=Path, metavar="DIR", help="its bundle (default: the preset's)")
    parser.add_argument("--body", type=Path, metavar="FILE", default=BODY, help="of the people in scenes")
    parser.add_argument("--scenes", type=int, default=400, help="that the detector looks at; 0 for none")
    parser.add_argument("--portraits", type=int, default=200, help="that crops are cut from; 0 for none")
    parser.add_argument("--size", type=_size, default=(512, 288), metavar="WxH", help="of scenes")
    parser.add_argument("--clips", type=Path, nargs="+", default=[], metavar="CLIP")
    parser.add_argument("--empty", type=Path, nargs="+", default=[], metavar="CLIP", help="clips that show nobody")
    parser.add_argument("--frames", type=int, help="of each clip, at most")
    parser.add_argument("--reference", default="fastestdet", help="detector whose confident boxes count")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="that the generator is timed with")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that draw")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""The papers' table for the starter preset: mask-out, pixelate, blur and the generator, on rendered people and stills.

    python benchmarks/papers_table.py --fastestdet FastestDet.onnx --clips CLIP...

Two tables. One of rendered scenes and a rendered set for re-identification, whose boxes and people are exact; one of
stills of clips, whose annotations are FastestDet's own confident boxes. The networks are those of
`benchmarks/papers_networks.py`: **no figure can be compared with one that was published**. The detector is FastestDet
as a bundle (`--detector`, `standin engines pull fastestdet`).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from stream.networks import parse_network

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import save
from benchmarks.papers_networks import write_networks
from benchmarks.papers_sets import write_market, write_scenes, write_stills
from engines.errors import StandinError
from engines.store import Store, home
from export.measures import frechet_distance
from export.starter.stages import BODY
from stream.assemble import find_bundles, open_detector
from stream.config import AnonymizerSettings, make_settings
from stream.evaluate.compare import CompareSettings, Row, compare
from stream.evaluate.judge import LOWEST
from stream.evaluate.methods import CLASSICAL, MethodSettings
from stream.evaluate.table import markdown
from stream.regions import Kind
from stream.verify.people import LookSettings

_SEED: Final = 77_000_002
#: Score from which FastestDet's boxes count as annotations, and the size at which it looks.
_SURE, _DETECT_SIZE = 0.5, 352


def main() -> int:
    """Measures and saves; the exit code."""
    options = _options()
    console = Console(stderr=True, highlight=False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            tables = _measure(options, Path(folder), console)
    except StandinError as error:
        console.print(f"papers_table: {error}", markup=False)
        return error.exit_code
    path = save("papers-table", {"seed": _SEED, "tables": {name: _plain(rows) for name, rows in tables.items()}})
    for name, rows in tables.items():
        print(f"## {name}\n\n{markdown(rows)}")
    console.print(str(path), markup=False)
    return 0


def _measure(options: argparse.Namespace, folder: Path, console: Console) -> Mapping[str, list[Row]]:
    networks = write_networks(options.fastestdet, folder / "networks")
    tables = {}
    if options.scenes:
        console.print("drawing ...")
        annotations = write_scenes(folder / "scenes", options.body, options.scenes, seed=_SEED, workers=options.workers)
        market = write_market(folder / "market", options.body, options.people, seed=_SEED)
        tables["rendered people"] = _table(options, networks, annotations, market, console)
    if options.clips:
        annotations = _stills(options, folder / "stills")
        tables["stills of clips"] = _table(options, networks, annotations, None, console)
    return tables


def _table(
    options: argparse.Namespace, networks: Mapping[str, str], annotations: Path, market: Path | None, console: Console
) -> list[Row]:
    chosen = {name: parse_network(text, f"--{name}") for name, text in networks.items()}
    settings = CompareSettings(
        presets=tuple(options.preset),
        classical=tuple(CLASSICAL),
        methods=MethodSettings(seed=0),
        images=annotations.parent / "images",
        annotations=annotations,
        market=market,
        features=chosen["features"],
        perceptual=chosen["perceptual"],
        identity=None if market is None else chosen["identity"],
        look=LookSettings((options.detector,), (Kind.PERSON,), LOWEST, _DETECT_SIZE),
    )

    def tell(what: str, done: int, count: int) -> None:
        if done % 25 == 0 or done == count:
            console.print(f"{what}: {done} of {count}", markup=False)

    return compare(settings, Store(home()), lambda: frechet_distance, progress=tell)


def _stills(options: argparse.Namespace, folder: Path) -> Path:
    settings = make_settings(
        AnonymizerSettings, {"detector": [options.detector], "threshold": _SURE, "detect_size": _DETECT_SIZE}
    )
    detector = open_detector(find_bundles(settings, Store(home())), settings, None)
    try:
        return write_stills(folder, options.clips, options.every, detector, _SURE)
    finally:
        detector.close()


def _plain(rows: list[Row]) -> list[dict[str, Any]]:
    return [
        {
            "method": row.method,
            "regions": row.regions,
            "generated": row.generated,
            "figures": {name: figure.to_json() for name, figure in row.figures.items()},
        }
        for row in rows
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fastestdet", type=Path, required=True, metavar="FILE", help="networks are cut out of it")
    parser.add_argument("--preset", nargs="+", default=["starter"])
    parser.add_argument("--detector", default="fastestdet", help="bundle whose average precision is measured")
    parser.add_argument("--body", type=Path, default=BODY, metavar="FILE", help="of the rendered people")
    parser.add_argument("--scenes", type=int, default=150, help="that are rendered; 0 for none")
    parser.add_argument("--people", type=int, default=20, help="for re-identification")
    parser.add_argument("--clips", type=Path, nargs="+", default=[], metavar="CLIP")
    parser.add_argument("--every", type=int, default=10, help="of so many frames of a clip one is taken")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that draw")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

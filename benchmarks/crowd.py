"""Crowds: what 0, 1, 12 and 60 persons in one 4K frame cost, in time and in memory, for each generator.

Generators at full size with seeded random weights, through `StandIns` as a run uses it; masks and dense poses are made
up, people are of one size in all cases (`--places`), and stand close enough for their crops to overlap. Each case runs
in a process of its own, whose peak of resident memory (VmHWM) is taken; it holds PyTorch as well, which a run does not.
`growth` compares milliseconds for each generated person with the case before: at most 1 means no more than linear.
SG-GAN's tables have a budget: `generated` says for how many of the tracks they were there, the others are covered
classically.

    python benchmarks/crowd.py [--persons 0 1 12 60] [--size 3840x2160] [--device cpu] [--batch 8] [--small]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Read once, when numpy is imported; see benchmarks/frame.py.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import machine, save
from benchmarks.generator_ways import VERTICES
from benchmarks.vertex_search import smooth_surface
from engines.bundle import open_bundle
from engines.runtime import DEVICES
from export.configs import configs
from export.generators import export_generator
from export.seeded import published_spec, random_network
from stream.compose import boxes
from stream.compose.parts import Painters
from stream.generators import classical
from stream.generators.open import open_generator
from stream.outline import BodySurface, Box, Outline, PixelMask
from stream.regions import Kind, Regions
from stream.roles import Role, Style
from stream.stand_ins import StandIns
from stream.surface import Surface

#: What each case needs: the bundle's config, the role that it plays, and whose rules hold.
CASES: dict[str, tuple[Role, Style]] = {
    "dp2-person": ("person", "deepprivacy2"),
    "dp2-person-cse": ("person-cse", "deepprivacy2"),
    "sg-gan": ("person-cse", "sg-gan"),
}
_MAP = 112
#: What a result says of how it was made.
_OPTIONS = ("size", "device", "threads", "batch")


def crowd(
    count: int,
    size: tuple[int, int],
    vertices: np.ndarray[Any, np.dtype[np.float32]] | None,
    *,
    places: int | None = None,
) -> Regions:
    """Persons in rows over the frame, each as a mask, with a dense pose where there are vertices.

    Args:
        count: how many.
        size: height and width of the frame.
        vertices: (K, C) embeddings of the surface.
        places: how many the frame would hold, None for as many as there are: the fewer, the larger each of them.
    """
    height, width = size
    room = max(count, places or 0)
    columns = max(1, math.ceil(math.sqrt(room * width / height * 2)))
    rows = max(1, math.ceil(room / columns))
    tall = min(round(height / rows * 1.1), height)
    wide = min(round(tall / 2.4), width)
    y, x = (np.mgrid[0:_MAP, 0:_MAP] + 0.5) / _MAP - 0.5
    body = np.asarray(x**2 + y**2 < 0.24)
    outlines: list[Outline | None] = []
    corners: list[Box] = []
    for number in range(count):
        row, column = divmod(number, columns)
        x0 = round(column * (width - wide) / max(1, columns - 1)) if columns > 1 else (width - wide) // 2
        y0 = round(row * (height - tall) / max(1, rows - 1)) if rows > 1 else (height - tall) // 2
        box = (x0, y0, x0 + wide, y0 + tall)
        place = np.clip(np.round((y + 0.5) * 40) * 60 + np.round((x + 0.5) * 20), 0, None).astype(int)
        embedding = (
            np.zeros((1, _MAP, _MAP), np.float32)
            if vertices is None
            else vertices[place % len(vertices)].transpose(2, 0, 1)
        )
        surface = BodySurface(box, body, np.ascontiguousarray(embedding, np.float32))
        mask: PixelMask = surface.nearest_mask()
        outlines.append(Outline(mask, surface if vertices is not None else None))
        corners.append(box)
    return Regions.of(
        np.array(corners, np.float32).reshape(-1, 4), Kind.PERSON, track_ids=np.arange(count), outlines=outlines
    )


def measure(
    folder: Path,
    name: str,
    count: int,
    size: tuple[int, int],
    device: Any,
    threads: int,
    *,
    places: int | None = None,
    batch: int | None = None,
) -> dict[str, Any]:
    """One case, in this process."""
    bundle = open_bundle(folder)
    role, style = CASES[name]
    vertices = smooth_surface(VERTICES, 0) if role == "person-cse" else None
    generator = open_generator(bundle, device=device, threads=threads, most=batch, embeddings=vertices)
    fills = dict.fromkeys(Kind, classical.blur(0.25))
    surface = None if vertices is None else Surface(vertices)
    stand_ins = StandIns(Painters({role: generator}, fills, surface, style=style), patience=600)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    regions = crowd(count, size, vertices, places=places)
    stand_ins.prepare()
    stand_ins.follow(regions)
    stand_ins.paint(image, regions)
    stand_ins.follow(regions)
    began = time.perf_counter()
    composed = stand_ins.paint(image, regions)
    taken = time.perf_counter() - began
    capacity = generator.capacity
    stand_ins.close()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return {
        "generator": name,
        "persons": count,
        "generated": int(composed.generated.sum()),
        "capacity": capacity,
        "megapixels": round(_area(regions, size, generator.size) / 1e6, 3),
        "frame_ms": round(1000 * taken, 1),
        "peak_mib": round(int(status.partition("VmHWM:")[2].split()[0]) / 1024),
    }


def _area(regions: Regions, size: tuple[int, int], crop: tuple[int, int]) -> int:
    """Pixels of all crops together."""
    total = 0
    for index in range(len(regions)):
        outline = regions.outline(index)
        if outline is not None and outline.mask is not None:
            x0, y0, x1, y1 = boxes.person_box(outline.mask.tight().box, outline.mask.area, size, crop)
            total += (x1 - x0) * (y1 - y0)
    return total


def with_growth(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row with its cost per generated region, and how that compares with the row before of the same generator."""
    made: list[dict[str, Any]] = []
    for row in rows:
        each = row["frame_ms"] / row["generated"] if row["generated"] else None
        before = next((r["ms_each"] for r in reversed(made) if r["generator"] == row["generator"]), None)
        growth = round(each / before, 2) if each and before else None
        made.append({**row, "ms_each": round(each, 1) if each else None, "growth": growth})
    return made


def _export(folder: Path, name: str, *, small: bool) -> Path:
    """A bundle with random weights."""
    config = configs()[name]
    network = random_network(published_spec(config, width=8, widest=64) if small else published_spec(config))
    checkpoint = folder / f"{name}.ckpt"
    torch.save({"EMA_generator": network.state_dict()}, checkpoint)
    del network
    return export_generator(name, checkpoint, folder / name, precision="fp32", config=name).path


def main() -> None:
    """Measure, print, and write `results/crowd.json` unless told not to."""
    options = _options()
    height, width = (int(side) for side in reversed(options.size.lower().split("x")))
    if options.child:
        name, folder, count = options.child
        device, threads = options.device, options.threads
        row = measure(
            Path(folder), name, int(count), (height, width), device, threads, places=options.places, batch=options.batch
        )
        Console(soft_wrap=True).print(json.dumps(row), markup=False, highlight=False)
        return
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for name in options.generators:
            folder = Path(options.bundles) / name if options.bundles else _export(Path(work), name, small=options.small)
            rows += [_in_own_process(options, name, folder, count) for count in options.persons]
    rows = with_growth(rows)
    table = Table(
        *rows[0], title=f"{options.size}, {machine()['processor']}, {options.threads} threads, {options.device}"
    )
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console = Console()
    console.print(table)
    if not options.no_result and not options.small:
        console.print(save("crowd", {name: getattr(options, name) for name in _OPTIONS} | {"rows": rows}))


def _in_own_process(options: argparse.Namespace, name: str, folder: Path, count: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", name, str(folder), str(count), "--size", options.size]
    command += ["--device", options.device, "--threads", str(options.threads)]
    # As small in every case as where there are most: what a frame costs is compared with what is covered of it.
    command += ["--places", str(options.places or max(options.persons))]
    command += [] if options.batch is None else ["--batch", str(options.batch)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{name} with {count} persons failed: {result.stderr.strip()}")
    row: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return row


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, nargs="+", default=[0, 1, 12, 60])
    parser.add_argument("--size", default="3840x2160", help="width x height of the frame")
    parser.add_argument("--generators", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, help="crops in a run of the graph (default: by device)")
    parser.add_argument("--places", type=int, help="how many people the frame would hold (default: the most)")
    parser.add_argument("--bundles", help="folder with bundles by these names, instead of exporting random ones")
    parser.add_argument("--small", action="store_true", help="narrow networks, to try the script")
    parser.add_argument("--no-result", action="store_true", help="write no file")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""One 1080p frame from given detections to pixels: 3 persons with a dense pose and 2 others, and each step's share.

DeepPrivacy2's generators at full size with seeded random weights, through `compose` as a run uses it; masks and dense
poses are made up, on a smooth surface with as many vertices as SMPL has. Steps are timed by their functions (cProfile),
in the last of the rounds; the total is the median of rounds that are not profiled. The published code took 10.4 s for
such a frame on 2 cores: 7.1 s for regions and vertices, 3.3 s for generation and pasting. `processor_ms` is the
least time of all cores together. The BLAS library takes one thread unless OPENBLAS_NUM_THREADS says otherwise, as in
the command `standin`.

    python benchmarks/frame.py [--rounds 5] [--context private] [--device cpu] [--threads 2] [--small]
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

# Read once, when numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import machine, save
from benchmarks.generator_ways import VERTICES
from benchmarks.vertex_search import MAP, smooth_map, smooth_surface
from engines.runtime import DEVICES, Device
from export.configs import configs
from export.generators import export_generator
from export.seeded import published_spec, random_network
from stream.compose import boxes, composer, crops, masks, parts, surfaces
from stream.compose.composer import compose
from stream.compose.parts import Painters
from stream.detectors import ensemble
from stream.frame import Image
from stream.generators import classical
from stream.generators.base import Generator
from stream.generators.open import open_generator
from stream.generators.unet import UnetGenerator
from stream.latents import Latents
from stream.outline import BodySurface, Box, Outline, PixelMask
from stream.regions import Kind, Regions
from stream.roles import Context, Role
from stream.surface import Surface

#: Seconds that the published code took, on 2 cores.
PUBLISHED = 10.4
HEIGHT, WIDTH = 1080, 1920

#: Persons with a dense pose, and others: apart, overlapping, and cut by the frame's edge.
POSED: tuple[Box, ...] = ((150, 180, 480, 980), (420, 240, 730, 1000), (1500, 60, 1920, 1080))
PLAIN: tuple[Box, ...] = ((900, 400, 1080, 860), (1180, 380, 1400, 960))

#: Functions of each step. None of them calls one of another step.
STEPS: Mapping[str, Sequence[Callable[..., object]]] = {
    "matching": (ensemble.unite,),
    "boxes": (boxes.person_box, boxes.surface_box, boxes.face_box, boxes.dilated_box),
    "masks": (parts._pixels, masks.cut, masks.touched, masks.dilate_person, masks.covers),
    "embeddings into crops": (surfaces.place_whole,),
    "vertex search": (Surface.nearest,),
    "hidden pixels": (composer._Canvas._hidden,),
    "crops": (crops.cut_image,),
    "generators": (UnetGenerator.generate,),
    "pasting": (composer._Canvas._paste,),
}


@dataclass(frozen=True)
class Scene:
    """A frame and what detectors say about it."""

    image: Image
    persons: list[PixelMask]
    poses: list[BodySurface]


def make_scene(posed: Sequence[Box] = POSED, plain: Sequence[Box] = PLAIN, seed: int = 0) -> Scene:
    """Noise, with persons in these boxes."""
    draw = np.random.default_rng(seed)
    image = draw.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    y, x = np.meshgrid(np.linspace(-1, 1, MAP), np.linspace(-1, 1, MAP), indexing="ij")
    body = np.asarray(np.hypot(x / 0.8, y / 0.95) < 1)
    poses = []
    for number, box in enumerate(posed):
        planes = smooth_map(0.01, seed, number).transpose(1, 2, 0)
        rows, columns = (np.linspace(0, side - 1, MAP).astype(int) for side in planes.shape[:2])
        poses.append(BodySurface(box, body, np.ascontiguousarray(planes[rows][:, columns].transpose(2, 0, 1))))
    persons = [BodySurface(box, body, poses[0].embedding).nearest_mask() for box in (*posed, *plain)]
    return Scene(image, persons, poses)


def regions_of(scene: Scene) -> Regions:
    """The matched detections, one track each."""
    masked: list[Outline | None] = [Outline(mask) for mask in scene.persons]
    posed: list[Outline | None] = [Outline(surface=pose) for pose in scene.poses]
    parts = [
        Regions.of([mask.tight().box for mask in scene.persons], Kind.PERSON, outlines=masked),
        Regions.of([pose.box for pose in scene.poses], Kind.PERSON, outlines=posed),
    ]
    regions = ensemble.unite(parts)
    return replace(regions, track_ids=np.arange(len(regions)))


def open_generators(folder: Path, *, device: Device, threads: int, small: bool) -> dict[Role, Generator]:
    """Both generators for persons, exported with random weights."""
    made: dict[Role, Generator] = {}
    latents = Latents(seed=0)
    roles: dict[Role, str] = {"person-cse": "dp2-person-cse", "person": "dp2-person"}
    for role, name in roles.items():
        config = configs()[name]
        network = random_network(published_spec(config, width=8, widest=64) if small else published_spec(config))
        checkpoint = folder / f"{name}.ckpt"
        torch.save({"EMA_generator": network.state_dict()}, checkpoint)
        bundle = export_generator(name, checkpoint, folder / name, precision="fp32", config=name)
        embeddings = smooth_surface(VERTICES, 0) if role == "person-cse" else None
        made[role] = open_generator(bundle, device=device, threads=threads, latents=latents, embeddings=embeddings)
    return made


def measure(scene: Scene, painters: Painters, context: Context, rounds: int) -> dict[str, Any]:
    """Milliseconds for the frame, and for each step."""

    def frame() -> None:
        made = compose(scene.image, regions_of(scene), painters, context=context)
        if not made.generated.all():
            raise RuntimeError("a region was not generated, so that the time means nothing")

    frame()
    taken, busy = [], []
    for _ in range(rounds):
        began, worked = time.perf_counter(), time.process_time()
        frame()
        taken.append(1000 * (time.perf_counter() - began))
        busy.append(1000 * (time.process_time() - worked))
    profile = cProfile.Profile()
    profile.runcall(frame)
    found = pstats.Stats(profile)
    total = 1000 * found.total_tt  # type: ignore[attr-defined]
    steps = {name: 1000 * sum(_cumulative(found, function) for function in step) for name, step in STEPS.items()}
    steps["everything else"] = total - sum(steps.values())
    median = statistics.median(taken)
    return {
        "context": context,
        "frame_ms": round(median, 1),
        "best_ms": round(min(taken), 1),
        "processor_ms": round(min(busy), 1),
        "times_published": round(1000 * PUBLISHED / median, 2),
        "without_generators_ms": round(total - steps["generators"], 1),
        "steps": [
            {"step": name, "ms": round(value, 1), "share": round(value / total, 3)} for name, value in steps.items()
        ],
    }


def _cumulative(found: pstats.Stats, function: Callable[..., object]) -> float:
    """Seconds in a function and what it calls."""
    code = function.__code__
    row = found.stats.get((code.co_filename, code.co_firstlineno, code.co_name))  # type: ignore[attr-defined]
    return float(row[3]) if row else 0.0


def main() -> None:
    """Measure, print, and write `results/frame.json` unless told not to."""
    options = _options()
    torch.set_num_threads(options.threads)
    scene, surface = make_scene(), Surface(smooth_surface(VERTICES, 0))
    fills = dict.fromkeys(Kind, classical.blur(0.25))
    with tempfile.TemporaryDirectory() as folder:
        generators = open_generators(Path(folder), device=options.device, threads=options.threads, small=options.small)
        painters = Painters(generators, fills, surface)
        rows = [measure(scene, painters, context, options.rounds) for context in options.context]
        for generator in generators.values():
            generator.close()
    console = Console()
    for row in rows:
        title = f"{row['context']}: {row['frame_ms']} ms a frame, {row['times_published']} times the published speed"
        title += f"; {row['processor_ms']} ms of processor time"
        where = f"{machine()['processor']}, {options.threads} threads, {options.device}"
        table = Table("step", "ms", "share", title=f"{title}\n{where}")
        for step in row["steps"]:
            table.add_row(step["step"], str(step["ms"]), f"{step['share']:.1%}")
        console.print(table)
    if not options.no_result and not options.small:
        console.print(
            save(
                "frame",
                {"device": options.device, "threads": options.threads, "published_ms": 1000 * PUBLISHED, "rows": rows},
            )
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--context", nargs="+", choices=get_args(Context), default=list(get_args(Context)))
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="narrow networks, to try the script")
    parser.add_argument("--no-result", action="store_true", help="write no file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

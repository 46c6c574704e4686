"""The starter set's generator on crops of synthetic people whom no training saw, through its bundle as a run uses it.

`l1_levels` asks for the very person that is hidden: z is what the person was drawn from, without truncation. The
distances of looks compare histograms of the clothes' colours (all of the body but the head): between crops of one z in
other poses, and between other z in the same poses. `looks` takes the poses from people who have nothing to do with each
other, in other light, before other backgrounds; `tracks` from one person who walks through a room, as a track does.

`features` is a Frechet distance, as in FID, but NOT of Inception's features: the well-kept libraries for those
(pytorch-fid, clean-fid, torcheval) want torchvision, and weights from the net. What is compared here are histograms of
colours and of gradients, which see colours and sharpness and nothing of what is shown. It says whether one generator
is nearer to the renderer than another one, and cannot be compared with any published FID. `features_floor` is the same
distance between two halves of the true crops.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from scipy import linalg

from engines.bundle import Bundle
from engines.errors import GenerationError
from export.starter.body import Body, load_body
from export.starter.clips import walking_clip
from export.starter.coarse_surface import nearest_of, vertices_of
from export.starter.crop_batches import PLAIN, Batch, make_batch
from export.starter.crops import CropSet, open_crops, write_crops
from export.starter.production import make_scenes
from export.starter.scenes import SceneSettings
from stream.frame import Image
from stream.generators.base import Crops, Generator
from stream.generators.open import open_generator
from stream.latents import Latent, Latents
from stream.presets import find_preset

Row = dict[str, Any]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Crops whose tables are built together.
_AT_ONCE: Final = 16
#: Looks and poses of the comparison of colours.
LOOKS, POSES = 12, 24
#: Clips of the tracks, frames of each, and from one that is looked at to the next.
TRACKS, _TRACK_FRAMES, _TRACK_STEP = 5, 100, 6
#: As the preset runs it.
_TRUNCATION: Final[float] = find_preset("starter").settings["truncation"]
#: Bins of each channel of a colour, of a channel alone, and of a gradient's direction.
_JOINT, _ALONE, _DIRECTIONS = 4, 8, 6
#: Gradients below this many levels a pixel are no edges.
_EDGE: Final = 8.0
#: Added to the diagonal of covariances: with few crops they have no inverse.
_SOFT: Final = 1e-6
_ROUNDS: Final = 20


class GivenLatents(Latents):
    """Latents that are given by track."""

    def __init__(self, z: Mapping[int, Floats], channels: int) -> None:
        super().__init__(seed=0, channels=channels)
        self._z = dict(z)

    def of(self, track_id: int) -> Latent:
        """The one of this track."""
        return Latent(self._z[track_id], track_id)


def held_out_crops(
    folder: Path, body: Path, count: int, image_size: tuple[int, int], *, seed: int, workers: int = 1
) -> CropSet:
    """People of scenes of so many portraits.

    Args:
        folder: for the crops.
        body: the body's file.
        count: of scenes.
        image_size: height and width of a crop.
        seed: that no training was given.
        workers: processes that draw.

    Raises:
        SourceError: nobody in them is large enough.
    """
    scenes = make_scenes(body, SceneSettings(views=("portrait",)), seed, count, workers=workers)
    write_crops(folder, scenes, image_size, seed=seed)
    return open_crops(folder)


def batch_of(crops: CropSet, chosen: Sequence[int], z_channels: int) -> Batch:
    """Crops masked as plainly as they come."""
    itself = np.zeros((1, 1), np.int16)
    return make_batch(crops, chosen, itself, PLAIN, z_channels, np.random.default_rng(chosen[0] if chosen else 0))


def on_bundle(bundle: Bundle, canonical: Floats, batch: Batch) -> Batch:
    """A batch with the bundle's vertices instead of those of the mesh; `canonical` (K, 3) is the mesh at rest."""
    nearest = nearest_of(canonical, vertices_of(bundle))
    return batch._replace(vertices=torch.from_numpy(nearest)[batch.vertices])


def as_crops(batch: Batch, tracks: Sequence[int]) -> Crops:
    """A batch of `on_bundle` as a run gives it to a generator."""
    body = batch.body[:, 0].numpy() > 0
    vertices = np.where(body, batch.vertices.numpy(), 0)
    return Crops(
        images=pixels(batch.image.numpy()),
        known=batch.mask[:, 0].numpy() > 0,
        track_ids=np.array(tracks, np.int64),
        body=body,
        vertices=vertices,
    )


def pixels(images: Floats) -> npt.NDArray[np.uint8]:
    """(N,3,H,W) in [-1,1] to uint8 (N,H,W,3)."""
    levels = np.rint((images.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1))


def generate(
    bundle: Bundle, batch: Batch, z: Floats, *, truncation: float | None, threads: int | None = None
) -> npt.NDArray[np.uint8]:
    """Every crop of a batch with its own z, uint8 (N, H, W, 3).

    Args:
        bundle: of the generator.
        batch: of N crops, by `on_bundle`.
        z: (N, Z).
        truncation: None for the generator's default.
        threads: None for all cores.

    Raises:
        GenerationError: the tables of a track could not be built.
    """
    latents = GivenLatents(dict(enumerate(z)), z.shape[1])
    generator = open_generator(bundle, latents=latents, truncation=truncation, threads=threads)
    made = []
    at_once = min(_AT_ONCE, generator.capacity or _AT_ONCE)
    try:
        for first in range(0, len(z), at_once):
            tracks = np.arange(first, min(first + at_once, len(z)))
            generator.request(tracks)
            if not generator.wait(tracks).all():
                raise GenerationError(f"{bundle.manifest.name}: {generator.failure(int(tracks[0]))}")
            part = Batch(*(values[first : first + len(tracks)] for values in batch))
            made.append(generator.generate(as_crops(part, tracks.tolist())).images)
            for track in tracks.tolist():
                generator.forget(track)
    finally:
        generator.close()
    return np.concatenate(made)


def reconstruction(made: Image, batch: Batch) -> Row:
    """How far pictures are from the truth, where z tells it: the mean absolute difference in levels of 255."""
    gap = np.abs(made.astype(np.float64) - pixels(batch.image.numpy())).mean(axis=3)
    wanted = batch.wanted[:, 0].numpy() > 0
    each = [float(one[where].mean()) for one, where in zip(gap, wanted, strict=True) if where.any()]
    return {"crops": len(each), "l1_levels": round(float(np.mean(each)), 3)}


def colours(image: Image, where: Bools) -> Doubles:
    """The share of pixels of each colour, 4 levels a channel, (64,)."""
    shown = image[where].astype(np.int64) * _JOINT // 256
    number = (shown[:, 0] * _JOINT + shown[:, 1]) * _JOINT + shown[:, 2]
    return np.bincount(number, minlength=_JOINT**3) / max(1, len(number))


def apart(first: Doubles, second: Doubles) -> float:
    """The total variation between two histograms, 0 to 1."""
    return float(np.abs(first - second).sum() / 2)


def compare_looks(histograms: Sequence[Sequence[Doubles]]) -> Row:
    """Distances within a look and between looks.

    Args:
        histograms: of the clothes, for each look in each pose.
    """
    within = [apart(a, b) for look in histograms for a, b in itertools.combinations(look, 2)]
    between = [
        apart(a, b) for one, other in itertools.combinations(histograms, 2) for a, b in zip(one, other, strict=True)
    ]
    inner, outer = float(np.mean(within)), float(np.mean(between))
    return {
        "looks": len(histograms),
        "poses": len(histograms[0]),
        "within": round(inner, 4),
        "between": round(outer, 4),
        "ratio": round(inner / outer, 4) if outer else None,
    }


def features(image: Image, where: Bools) -> Doubles:
    """Shares of levels of each channel, and of the directions of edges in three stripes, (42,).

    Args:
        image: uint8 (H, W, 3).
        where: bool (H, W), the pixels that count.
    """
    shown = image[where]
    levels = [np.bincount(channel // (256 // _ALONE), minlength=_ALONE) for channel in shown.T]
    grey = image.astype(np.float64).mean(axis=2)
    down, across = np.gradient(grey)
    strength = np.hypot(down, across)
    direction = ((np.arctan2(down, across) % np.pi) / np.pi * _DIRECTIONS).astype(np.int64) % _DIRECTIONS
    edges = []
    for rows in np.array_split(np.arange(len(image)), 3):
        strong = where[rows] & (strength[rows] > _EDGE)
        edges.append(np.bincount(direction[rows][strong], minlength=_DIRECTIONS) / max(1, int(where[rows].sum())))
    return np.concatenate([*(level / max(1, len(shown)) for level in levels), *edges])


def frechet(first: Doubles, second: Doubles) -> float:
    """The Frechet distance of two sets of features as normal distributions, (N, F) and (M, F)."""
    means = first.mean(axis=0), second.mean(axis=0)
    spreads = [np.cov(part, rowvar=False) + _SOFT * np.eye(part.shape[1]) for part in (first, second)]
    # Both are positive definite, and so is this one: its root has no imaginary part.
    root = linalg.sqrtm(spreads[0])
    middle = linalg.sqrtm(root @ spreads[1] @ root)
    shift = float(((means[0] - means[1]) ** 2).sum())
    return shift + float(np.trace(spreads[0] + spreads[1] - 2 * np.real(middle)))


def latency(bundle: Bundle, batch: Batch, threads: int, *, rounds: int = _ROUNDS) -> Row:
    """Milliseconds of one person: until the tables are there, and for each frame from then on."""
    generator = open_generator(bundle, latents=_drawn(bundle), threads=threads)
    try:
        generator.prepare()
        crop = as_crops(Batch(*(values[:1] for values in batch)), [0])
        start = time.perf_counter()
        generator.request([0])
        generator.wait([0])
        first = time.perf_counter() - start
        generator.generate(crop)
        taken = [_timed(generator, crop) for _ in range(rounds)]
    finally:
        generator.close()
    return {
        "threads": threads,
        "tables_ms": round(1e3 * first, 2),
        "frame_ms": round(1e3 * statistics.median(taken), 2),
        "frame_best_ms": round(1e3 * min(taken), 2),
    }


def _timed(generator: Generator, crop: Crops) -> float:
    start = time.perf_counter()
    generator.generate(crop)
    return time.perf_counter() - start


def _drawn(bundle: Bundle) -> Latents:
    assert bundle.manifest.generation is not None
    return Latents(seed=0, channels=bundle.manifest.generation.z_channels)


def measure(bundle: Bundle, crops: CropSet, head: Bools, canonical: Floats, *, threads: Sequence[int] = (1, 2)) -> Row:
    """All figures of the generator.

    Args:
        bundle: of the generator.
        crops: of people whom it has not seen.
        head: (K,), the vertices of the mesh that are no clothes.
        canonical: (K, 3), the mesh at rest in metres.
        threads: that times are measured with.
    """
    generation = bundle.manifest.generation
    assert generation is not None
    on_mesh = batch_of(crops, range(len(crops)), generation.z_channels)
    clothes = (on_mesh.body[:, 0].numpy() > 0) & ~head[on_mesh.vertices.numpy()]
    batch = on_bundle(bundle, canonical, on_mesh)
    draw = np.random.default_rng(0)
    wanted = batch.wanted[:, 0].numpy() > 0
    true = pixels(batch.image.numpy())
    found = reconstruction(generate(bundle, batch, batch.z.numpy(), truncation=1.0), batch)
    others = draw.standard_normal((len(crops), generation.z_channels)).astype(np.float32)
    anybody = generate(bundle, batch, others, truncation=_TRUNCATION)
    real, made = (
        np.stack([features(image, where) for image, where in zip(images, wanted, strict=True)])
        for images in (true, anybody)
    )
    order = draw.permutation(len(real))
    half = len(real) // 2
    return {
        "image_size": list(generation.image_size),
        "megabytes": round(sum(p.stat().st_size for p in bundle.path.rglob("*") if p.is_file()) / 1e6, 2),
        **found,
        "features": round(frechet(real, made), 5),
        "features_floor": round(frechet(real[order[:half]], real[order[half:]]), 5),
        "looks": compare_looks(_histograms(bundle, batch, clothes)),
        "latency": [latency(bundle, batch, count) for count in threads],
    }


def _histograms(bundle: Bundle, batch: Batch, clothes: Bools) -> list[list[Doubles]]:
    """Of the clothes of several looks, each in the same poses."""
    poses = min(POSES, len(batch.z))
    part = Batch(*(values[:poses] for values in batch))
    z = np.random.default_rng(1).standard_normal((LOOKS, batch.z.shape[1])).astype(np.float32)
    whole = Batch(*(torch.cat([values] * LOOKS) for values in part))
    images = generate(bundle, whole, np.repeat(z, poses, axis=0), truncation=_TRUNCATION)
    return [
        [colours(image, where) for image, where in zip(images[first : first + poses], clothes[:poses], strict=True)]
        for first in range(0, len(images), poses)
    ]


def measure_with(
    bundle: Bundle, body: Path, head: Bools, count: int, *, seed: int, workers: int, threads: Sequence[int]
) -> Row:
    """As `measure`, on the people of so many portraits that are drawn for it."""
    assert bundle.manifest.generation is not None
    with tempfile.TemporaryDirectory() as folder:
        size = bundle.manifest.generation.image_size
        crops = held_out_crops(Path(folder), body, count, size, seed=seed, workers=workers)
        measured = measure(bundle, crops, head, load_body(body).canonical, threads=threads)
    return measured | {"tracks": tracks(bundle, load_body(body), head, seed=seed)}


def tracks(bundle: Bundle, body: Body, head: Bools, *, seed: int) -> Row:
    """Distances of looks along the tracks of people who walk: the means over several clips.

    Args:
        bundle: of the generator.
        body: whom to draw.
        head: (K,), the vertices of the mesh that are no clothes.
        seed: of the clips.
    """
    assert bundle.manifest.generation is not None
    rows = []
    for clip in range(TRACKS):
        scenes = walking_clip(body, seed + clip, _TRACK_FRAMES, people=1)
        with tempfile.TemporaryDirectory() as folder:
            seen = itertools.islice(scenes, 0, None, _TRACK_STEP)
            write_crops(Path(folder), seen, bundle.manifest.generation.image_size, seed=seed)
            crops = open_crops(Path(folder))
            on_mesh = batch_of(crops, range(len(crops)), bundle.manifest.generation.z_channels)
        clothes = (on_mesh.body[:, 0].numpy() > 0) & ~head[on_mesh.vertices.numpy()]
        rows.append(compare_looks(_histograms(bundle, on_bundle(bundle, body.canonical, on_mesh), clothes)))
    within, between = (float(np.mean([row[name] for row in rows])) for name in ("within", "between"))
    return {
        "clips": TRACKS,
        "frames": [row["poses"] for row in rows],
        "within": round(within, 4),
        "between": round(between, 4),
        "ratio": round(within / between, 4),
    }


def lines(result: Row) -> Iterator[tuple[str, str]]:
    """The cells of the table."""
    looks, along = result["looks"], result["tracks"]
    yield "crops of people not seen", str(result["crops"])
    yield "difference from the truth, levels of 255", f"{result['l1_levels']:.2f}"
    yield "distance of features (no FID)", f"{result['features']:.4f}, true halves {result['features_floor']:.4f}"
    yield "colours within a look, between looks", f"{looks['within']:.3f}, {looks['between']:.3f}"
    yield "the same along tracks", f"{along['within']:.3f}, {along['between']:.3f}"
    for row in result["latency"]:
        yield f"{row['threads']} threads", f"{row['frame_ms']:.1f} ms a frame, tables {row['tables_ms']:.0f} ms"

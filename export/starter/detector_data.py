"""From scenes to the detector's batches: packed once, then cropped, mirrored and coloured anew for every step."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from engines.errors import SourceError
from export.starter.detector import MULTIPLE
from export.starter.detector_surface import Template
from export.starter.detector_targets import Arrays, make_targets
from export.starter.samples import Scene, read_scenes

#: Of 0..255, every channel alike.
MEAN: Final = 0.45 * 255
STD: Final = 0.25 * 255
_FILES: Final = ("images.bin", "instances.bin", "vertices.bin")
#: More vertices than the type has room for would be stored as others.
_MOST_VERTICES: Final = np.iinfo(np.int16).max


@dataclass(frozen=True, slots=True, eq=False)
class PackedScenes:
    """Scenes of one size as three flat files, read where needed: there may be more of them than memory.

    Attributes:
        folder: where they are.
        images: uint8 (N, H, W, 3).
        instances: uint8 (N, H, W).
        vertices: int16 (N, H, W).
    """

    folder: Path
    images: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint8]
    vertices: npt.NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.images)

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process opens the files, where it would be sent all pictures otherwise.
        return open_packed, (self.folder,)


def pack_scenes(scenes: Path, packed: Path) -> PackedScenes:
    """Unpacks scenes into a folder, or opens that folder where they were unpacked before.

    Args:
        scenes: folder of `write_scenes`; all pictures must have one size.
        packed: folder for the flat files.

    Raises:
        SourceError: there are no scenes, or they differ in size.
    """
    if not packed.exists():
        packed.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{packed.name}.", dir=packed.parent))
        try:
            _unpack(read_scenes(scenes), work)
            work.rename(packed)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return open_packed(packed)


def _unpack(scenes: Iterator[Scene], folder: Path) -> None:
    size: tuple[int, ...] | None = None
    with (
        (folder / _FILES[0]).open("wb") as images,
        (folder / _FILES[1]).open("wb") as instances,
        (folder / _FILES[2]).open("wb") as vertices,
    ):
        for scene in scenes:
            size = size or scene.instances.shape
            if scene.instances.shape != size:
                raise SourceError(
                    f"scenes of {size[1]}x{size[0]} and {scene.instances.shape[1]}x{scene.instances.shape[0]} "
                    "pixels lie together; give scenes of one size"
                )
            if int(scene.vertices.max()) > _MOST_VERTICES:
                raise SourceError(f"a scene's surface has more than {_MOST_VERTICES} vertices; give a coarser body")
            images.write(np.ascontiguousarray(scene.image).data)
            instances.write(np.ascontiguousarray(scene.instances).data)
            vertices.write(scene.vertices.astype(np.int16).data)
    if size is None:
        raise SourceError("there are no scenes; make some first")
    (folder / "size.txt").write_text(f"{size[0]} {size[1]}\n", encoding="utf-8")


def open_packed(folder: Path) -> PackedScenes:
    """Opens what `pack_scenes` wrote.

    Raises:
        SourceError: it is not there, or not whole.
    """
    try:
        height, width = (int(side) for side in (folder / "size.txt").read_text(encoding="utf-8").split())
        images, instances, vertices = (
            np.memmap(folder / name, dtype, "r").reshape(-1, height, width, *channels)
            for name, dtype, channels in zip(_FILES, (np.uint8, np.uint8, np.int16), ((3,), (), ()), strict=True)
        )
    except (OSError, ValueError) as error:
        raise SourceError(f"{folder} has no packed scenes ({error}); remove it, and pack them again") from error
    if not len(images) == len(instances) == len(vertices):
        raise SourceError(f"{folder} is not whole; remove it, and pack the scenes again")
    return PackedScenes(folder, images, instances, vertices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How a scene is changed before it is learnt from; all False and 1 leaves it as it is.

    Attributes:
        zoom: From this to this, drawn evenly by the logarithm; below 1 there is nothing round the picture.
        stretch: One side of the view may be this much longer or shorter than it would be.
        mirror: Half of the pictures.
        colour: Exposure, contrast, gamma and tint; some are grey, blurred or noisy.
    """

    zoom: tuple[float, float] = (0.75, 2.0)
    stretch: float = 1.15
    mirror: bool = True
    colour: bool = True


PLAIN: Final = Augmentation(zoom=(1.0, 1.0), stretch=1.0, mirror=False, colour=False)


def draw_view(
    draw: np.random.Generator, size: tuple[int, int], shown: tuple[int, int], augmentation: Augmentation
) -> tuple[int, int, int, int]:
    """Which part of a scene is shown: x0, y0, x1, y1, which may reach outside.

    Args:
        draw: source of chance.
        size: height and width of the scene.
        shown: of the network's picture; the part has the same aspect ratio but for the stretch.
        augmentation: see there.
    """
    low, high = np.log(augmentation.zoom)
    zoom = float(np.exp(draw.uniform(low, high)))
    stretch = float(augmentation.stretch ** draw.uniform(-1, 1))
    # At a zoom of 1 and no stretch, the largest part that fits.
    scale = min(size[0] / shown[0], size[1] / shown[1]) / zoom
    height, width = max(1, round(shown[0] * scale)), max(1, round(shown[1] * scale * stretch))
    y0, x0 = (
        round(float(draw.uniform(*sorted((0, whole - part)))))
        for whole, part in zip(size, (height, width), strict=True)
    )
    return x0, y0, x0 + width, y0 + height


def cut(scene: Arrays, view: tuple[int, int, int, int], shown: tuple[int, int], fill: Sequence[int]) -> Arrays:
    """A part of a scene at another size.

    Args:
        scene: `image`, `instances` and `vertices`.
        view: x0, y0, x1, y1.
        shown: height and width of the result.
        fill: colour of what is outside the scene.
    """
    x0, y0, x1, y1 = view
    height, width = scene["instances"].shape
    inside = slice(max(0, y0), min(height, y1)), slice(max(0, x0), min(width, x1))
    edges = max(0, -y0), max(0, y1 - height), max(0, -x0), max(0, x1 - width)
    part = np.asarray(scene["image"][inside])
    padded = cv2.copyMakeBorder(part, *edges, cv2.BORDER_CONSTANT, value=[*fill])
    shrinks = (y1 - y0) * (x1 - x0) > shown[0] * shown[1]
    image = cv2.resize(padded, shown[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    rows, columns = (
        low + ((np.arange(count) + 0.5) * (high - low) / count).astype(np.int64)
        for low, high, count in ((y0, y1, shown[0]), (x0, x1, shown[1]))
    )
    outside = ((rows < 0) | (rows >= height))[:, None] | (columns < 0) | (columns >= width)
    places = rows.clip(0, height - 1)[:, None], columns.clip(0, width - 1)
    instances, vertices = scene["instances"][places], scene["vertices"][places].astype(np.int32)
    instances[outside], vertices[outside] = 0, -1
    return {"image": np.asarray(image, np.uint8), "instances": instances, "vertices": vertices}


def coloured(image: npt.NDArray[np.uint8], draw: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Another camera, another light: (H, W, 3) to the same."""
    values = image.astype(np.float32) / 255
    if draw.random() < 0.08:
        values = np.repeat(values.mean(axis=2, keepdims=True), 3, axis=2)
    values = values ** np.float32(np.exp(draw.normal(0, 0.2)))
    values = (values - 0.5) * np.float32(draw.uniform(0.7, 1.25)) + np.float32(0.5 + draw.normal(0, 0.06))
    values *= draw.normal(1, 0.06, 3).astype(np.float32)
    if draw.random() < 0.15:
        values = np.asarray(cv2.GaussianBlur(values, (0, 0), float(draw.uniform(0.4, 1.2))), np.float32)
    if draw.random() < 0.4:
        values += draw.normal(0, draw.uniform(0.005, 0.05), values.shape).astype(np.float32)
    return np.asarray(np.clip(values * 255 + 0.5, 0, 255), np.uint8)


def normalised(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What the network sees of (H, W, 3): (3, H, W)."""
    return np.ascontiguousarray((image.astype(np.float32) - MEAN).transpose(2, 0, 1) / STD, np.float32)


class Samples(Dataset[Arrays]):
    """Sample number i of a training: always the same one, whoever asks, and in whatever order.

    Args:
        scenes: see there.
        template: the surface that is seen.
        size: height and width of the network's pictures, multiples of 32.
        seed: of the training.
        augmentation: see there.
    """

    def __init__(
        self,
        scenes: PackedScenes,
        template: Template,
        size: tuple[int, int],
        seed: int,
        augmentation: Augmentation,
    ) -> None:
        if not len(scenes) or any(side % MULTIPLE for side in size):
            raise SourceError(
                f"size {size[1]}x{size[0]} is not made of multiples of {MULTIPLE}, or there are no scenes"
            )
        self._scenes, self._template, self._size = scenes, template, size
        self._seed, self._augmentation = seed, augmentation

    def __getitem__(self, number: int) -> Arrays:
        draw = np.random.default_rng((self._seed, number))
        index = int(draw.integers(len(self._scenes)))
        scene: Arrays = {
            "image": self._scenes.images[index],
            "instances": self._scenes.instances[index],
            "vertices": self._scenes.vertices[index],
        }
        how = self._augmentation
        view = draw_view(draw, scene["instances"].shape, self._size, how)
        made = cut(scene, view, self._size, draw.integers(0, 256, 3).tolist())
        if how.mirror and draw.random() < 0.5:
            made = {name: np.ascontiguousarray(values[:, ::-1]) for name, values in made.items()}
            there = made["vertices"] >= 0
            made["vertices"][there] = self._template.mirrored[made["vertices"][there]]
        image = coloured(made["image"], draw) if how.colour else made["image"]
        return {"image": normalised(image)} | make_targets(made["instances"], made["vertices"], self._template.head)


def stacked(samples: Sequence[Arrays]) -> dict[str, Tensor]:
    """Samples as a batch."""
    return {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0]}


def batches(samples: Samples, size: int, *, first: int, workers: int) -> Iterator[dict[str, Tensor]]:
    """Batches without an end, from batch number `first` on.

    Args:
        samples: see there.
        size: samples in a batch.
        first: number of the first batch.
        workers: processes that prepare them; 0 for this one.
    """
    # A range that no training sees the end of: the loader asks for its length.
    numbers: Any = range(first * size, first * size + (1 << 40))
    loader = DataLoader(
        samples,
        batch_size=size,
        sampler=numbers,
        collate_fn=stacked,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_alone if workers else None,
        multiprocessing_context="spawn" if workers else None,
    )
    return iter(loader)


def _alone(worker: int) -> None:
    """A worker is one of many: it keeps to one core."""
    del worker
    # An interrupted training takes its last step to the end, with the batches that it needs.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"
    cv2.setNumThreads(1)
    torch.set_num_threads(1)

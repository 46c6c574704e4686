"""Batches of crops as they come at run time: masks too large, surfaces coarse and a little off, neighbours hidden."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from export.starter.crops import BACKGROUND, OTHERS, CropSet

Bools = NDArray[np.bool_]
Labels = NDArray[np.int16]
_Made = TypeVar("_Made")

#: Radius of SG-GAN's dilation in pixels, of a body of so many.
RADIUS, BODY = 8, 256**2


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How crops differ from what the renderer knows; each a chance from 0 to 1 unless said otherwise.

    Attributes:
        dilation: least and largest radius that the body is grown by, relative to SG-GAN's own.
        box: that all of the person's box is unknown, as where a mask is not trusted.
        hide_others: that other people are unknown too.
        coarse: that body and vertices come on a grid of `cells`.
        cells: least and largest side of a cell in pixels.
        warp: that vertices are moved smoothly, as a detector errs.
        warp_by: the largest movement, relative to the crop's height.
        jitter: that each pixel takes one of the `neighbours` nearest vertices.
        neighbours: how many.
    """

    dilation: tuple[float, float] = (0.5, 3.0)
    box: float = 0.1
    hide_others: float = 0.7
    coarse: float = 0.6
    cells: tuple[int, int] = (2, 5)
    warp: float = 0.5
    warp_by: float = 0.03
    jitter: float = 0.3
    neighbours: int = 12


#: Nothing is left to chance, for measurements and sheets.
PLAIN = AugmentConfig(dilation=(1.0, 1.0), box=0.0, hide_others=1.0, coarse=0.0, warp=0.0, jitter=0.0)


class Planes(NamedTuple):
    """What is known of each pixel of a crop, (H, W) each.

    Attributes:
        known: bool; everything else is generated.
        body: bool, nowhere known.
        vertices: int64, 0 outside the body.
        wanted: bool, unknown pixels whose truth z tells: all but hidden neighbours.
    """

    known: Bools
    body: Bools
    vertices: NDArray[np.int64]
    wanted: Bools


class Batch(NamedTuple):
    """Crops as networks take them; see `Planes`.

    Attributes:
        image: (N,3,H,W) in [-1,1].
        mask: (N,1,H,W), 1 where known.
        body: (N,1,H,W).
        vertices: (N,H,W) int64.
        wanted: (N,1,H,W).
        z: (N, z_channels).
    """

    image: Tensor
    mask: Tensor
    body: Tensor
    vertices: Tensor
    wanted: Tensor
    z: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        return Batch(*(part.to(device, non_blocking=True) for part in self))


def nearest_vertices(canonical: NDArray[np.float32], count: int) -> NDArray[np.int16]:
    """The vertices nearest to each one of the body at rest, itself first: (K, count) from (K, 3) in metres."""
    _, nearest = cKDTree(canonical).query(canonical, k=min(count, len(canonical)))
    return np.asarray(nearest, np.int16).reshape(len(canonical), -1)


def planes_of(labels: Labels, near: NDArray[np.int16], config: AugmentConfig, draw: np.random.Generator) -> Planes:
    """Draws what a generator would be told of a crop.

    Args:
        labels: (H, W), as in `Crop`.
        near: (K, n) from `nearest_vertices`.
        config: what is drawn.
        draw: where from.
    """
    own, others = labels >= 0, labels == OTHERS
    seen = labels
    if draw.random() < config.warp:
        seen = _warped(seen, config.warp_by * labels.shape[0], draw)
    if draw.random() < config.coarse:
        seen = _coarse(seen, int(draw.integers(config.cells[0], config.cells[1] + 1)))
    body = seen >= 0
    vertices = np.where(body, seen, 0).astype(np.int64)
    if draw.random() < config.jitter:
        chosen = draw.integers(0, near.shape[1], labels.shape)
        vertices = np.where(body, near[vertices, chosen], 0).astype(np.int64)
    radius = RADIUS * math.sqrt(np.count_nonzero(own) / BODY) * draw.uniform(*config.dilation)
    # However the surface errs, what shows of the person is unknown.
    unknown = grown(own | body, max(1, math.ceil(radius)))
    if draw.random() < config.box:
        unknown |= _box_of(unknown)
    wanted = unknown & ~others
    if others.any() and draw.random() < config.hide_others:
        unknown = unknown | grown(others, 1)
    return Planes(~unknown, body, vertices, wanted)


def grown(mask: Bools, radius: int) -> Bools:
    """The pixels within a disk of any pixel of a mask."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = np.asarray(x**2 + y**2 <= radius**2, np.uint8)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disk) > 0)


def _box_of(mask: Bools) -> Bools:
    rows, columns = mask.any(axis=1), mask.any(axis=0)
    whole = np.zeros(mask.shape, np.bool_)
    if rows.any():
        down, across = np.flatnonzero(rows), np.flatnonzero(columns)
        whole[down[0] : down[-1] + 1, across[0] : across[-1] + 1] = True
    return whole


def _warped(labels: Labels, most: float, draw: np.random.Generator) -> Labels:
    """Each pixel of the body takes the label from a little way off, where that is body too."""
    height, width = labels.shape
    coarse = draw.uniform(-most, most, (2, 4, 3)).astype(np.float32)
    down, across = (cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC) for field in coarse)
    y, x = np.mgrid[:height, :width]
    rows = np.clip(np.rint(y + down), 0, height - 1).astype(np.intp)
    columns = np.clip(np.rint(x + across), 0, width - 1).astype(np.intp)
    moved = labels[rows, columns]
    return np.where((labels >= 0) & (moved >= 0), moved, labels)


def _coarse(labels: Labels, cell: int) -> Labels:
    """What the middle pixels of square cells show, everywhere in the cell."""
    rows, columns = (np.minimum(np.arange(length) // cell * cell + cell // 2, length - 1) for length in labels.shape)
    cells = labels[np.ix_(rows, columns)]
    # Where a cell's middle is beside the body, its pixels are no body either, though they may show some.
    return np.where(cells >= 0, cells, np.int16(BACKGROUND))


def padded(looks: NDArray[np.float32], channels: int, draw: np.random.Generator) -> NDArray[np.float32]:
    """Looks with noise behind them, so that z has its length: (N, Z) -> (N, channels).

    Raises:
        ValueError: looks are longer than z.
    """
    rest = channels - looks.shape[1]
    if rest < 0:
        raise ValueError(f"looks have {looks.shape[1]} channels, z has {channels}; give z at least as many")
    return np.concatenate([looks, draw.standard_normal((len(looks), rest), np.float32)], axis=1)


def make_batch(
    crops: CropSet,
    chosen: Sequence[int] | NDArray[np.int64],
    near: NDArray[np.int16],
    config: AugmentConfig,
    z_channels: int,
    draw: np.random.Generator,
) -> Batch:
    """The chosen crops, drawn as `planes_of` says."""
    planes = [planes_of(np.asarray(crops.labels[i]), near, config, draw) for i in chosen]
    images = np.stack([crops.images[i] for i in chosen])
    known, body, wanted = (
        torch.from_numpy(np.stack([getattr(part, name) for part in planes])).float()[:, None]
        for name in ("known", "body", "wanted")
    )
    looks = np.stack([crops.looks[i] for i in chosen])
    return Batch(
        image=torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1,
        mask=known,
        body=body,
        vertices=torch.from_numpy(np.stack([part.vertices for part in planes])),
        wanted=wanted,
        z=torch.from_numpy(padded(looks, z_channels, draw)),
    )


class Ahead(Generic[_Made]):
    """Makes what steps need in other threads while earlier steps run, in the order of steps.

    Args:
        make: from a step's number; must depend on nothing else.
        ahead: steps that are made before they are asked for.
        workers: threads; with none, each is made when it is asked for.
    """

    def __init__(self, make: Callable[[int], _Made], *, ahead: int = 4, workers: int = 0) -> None:
        self._make, self._ahead = make, ahead
        self._pool = ThreadPoolExecutor(workers) if workers else None
        self._waiting: dict[int, Future[_Made]] = {}
        self._next = 0

    def begin(self, step: int) -> None:
        """The next one is this step's."""
        self._waiting.clear()
        self._next = step

    def take(self) -> _Made:
        """The next step's."""
        step = self._next
        self._next += 1
        if self._pool is None:
            return self._make(step)
        for number in range(step, step + self._ahead):
            if number not in self._waiting:
                self._waiting[number] = self._pool.submit(self._make, number)
        return self._waiting.pop(step).result()

    def close(self) -> None:
        """Ends the threads; what nobody took is dropped."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

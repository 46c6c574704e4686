"""What a generator takes and gives, and what all of them check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engines.errors import GenerationError
from engines.resident import Resident
from engines.runtime import Device, Runtime
from stream.regions import Kind

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

#: Crops in one run of a graph; more wait for the next run, so that a crowd does not exhaust the memory.
MOST_CROPS = 8


def most_crops(device: Device) -> int:
    """How many crops share a run of the graph if nothing else is asked for.

    One on the CPU: ONNX Runtime adds up some sums in another order when there are several (measured: 2e-7 between a
    batch of one and one of two, in ReduceMean over channels), so a stand-in would change with who else is in the frame,
    and there is little to gain where one crop occupies all cores.
    """
    return 1 if device in ("cpu", "openvino") else MOST_CROPS


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """Regions of one frame, cut out and resized for a generator, as parallel arrays.

    Attributes:
        images: uint8 RGB (N, H, W, 3). What it shows at unknown pixels never reaches a network.
        known: bool (N, H, W), True where the pixel stays, False where it is generated (the papers' M).
        track_ids: int64 (N,), `NO_TRACK` where there is no track.
        body: bool (N, H, W), True where the pixel belongs to the body and has a vertex (the papers' E_mask).
        vertices: int64 (N, H, W), the index of the vertex, 0 to K - 1; outside the body it is not looked at.

    Body and vertices come together or not at all. There is no place for an embedding as it was regressed, which would
    show who somebody is: generators look up that of the vertex.
    """

    images: npt.NDArray[np.uint8]
    known: Bools
    track_ids: Ints
    body: Bools | None = None
    vertices: Ints | None = None

    def __post_init__(self) -> None:
        _require("images", self.images, np.uint8, (None, None, None, 3))
        count, height, width = self.images.shape[:3]
        if not height or not width:
            raise ValueError(f"Crops.images must show something, got shape {self.images.shape}")
        plane = (count, height, width)
        _require("known", self.known, np.bool_, plane)
        _require("track_ids", self.track_ids, np.int64, (count,))
        if (self.body is None) != (self.vertices is None):
            raise ValueError("Crops.body and vertices come together; give what is missing")
        if self.body is not None:
            _require("body", self.body, np.bool_, plane)
            _require("vertices", self.vertices, np.int64, plane)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every crop in pixels."""
        return int(self.images.shape[1]), int(self.images.shape[2])

    def __getitem__(self, index: npt.ArrayLike | slice) -> Crops:
        """The crops at an index array, a boolean mask or a slice (never a single number)."""
        chosen = index if isinstance(index, slice) else np.asarray(index)
        parts: list[Any] = [getattr(self, name) for name in Crops.__slots__]
        cut: list[Any] = [None if part is None else part[chosen] for part in parts]
        return Crops(*cut)


def blank_crop(size: tuple[int, int], track_id: int) -> Crops:
    """One crop with a surface of which nothing is known, to try a generator with.

    Args:
        size: height and width of it.
        track_id: whose it is said to be.
    """
    plane = (1, *size)
    return Crops(
        images=np.zeros((*plane, 3), np.uint8),
        known=np.zeros(plane, np.bool_),
        track_ids=np.array([track_id], np.int64),
        body=np.zeros(plane, np.bool_),
        vertices=np.zeros(plane, np.int64),
    )


def _require(name: str, array: object, dtype: type[np.generic], shape: tuple[int | None, ...]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        found = str(array.dtype) if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"Crops.{name} must be an array of {np.dtype(dtype)}, got {found}")
    fits = array.ndim == len(shape) and all(
        expected in (None, side) for expected, side in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if side is None else str(side) for side in shape)
        raise ValueError(f"Crops.{name} must be ({wanted}), got {array.shape}")


@dataclass(frozen=True, slots=True, eq=False)
class Generated:
    """What a generator made of `Crops`.

    Attributes:
        output: float32 (N, 3, H, W) RGB, nominally in [-1, 1] but not clipped; 0 where not `done`.
        done: bool (N,); where False the caller covers the region classically.
    """

    output: Floats
    done: Bools

    def __post_init__(self) -> None:
        if self.output.dtype != np.float32 or self.output.ndim != 4 or self.output.shape[1] != 3:
            raise ValueError(
                f"Generated.output must be float32 (N, 3, H, W), got {self.output.dtype} {self.output.shape}"
            )
        if self.done.dtype != np.bool_ or self.done.shape != self.output.shape[:1]:
            raise ValueError(
                f"Generated.done must be bool ({len(self.output)},), got {self.done.dtype} {self.done.shape}"
            )

    @property
    def images(self) -> npt.NDArray[np.uint8]:
        """The output as pixels, uint8 RGB (N, H, W, 3), clipped and rounded."""
        levels = np.rint((self.output.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
        return np.ascontiguousarray(levels.transpose(0, 2, 3, 1))


class Generator(Protocol):
    """Replaces the unknown pixels of crops, the same way for the same track.

    A region without a track (`NO_TRACK`) is never `ready` and never `done`: a latent drawn for every frame would
    flicker, and one shared by all would make different people look alike. The caller covers it classically.

    All methods may be called from several threads at once, except `close`, which comes last.
    """

    @property
    def kind(self) -> Kind:
        """What it was made for."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a crop in pixels."""

    @property
    def needs_surface(self) -> bool:
        """Whether crops must come with body and vertices."""

    @property
    def capacity(self) -> int | None:
        """How many tracks it can serve at a time, None for any number."""

    def prepare(self) -> None:
        """Do what is done at the first run, and see that the bundle works here.

        Raises:
            StandinError: it does not.
        """

    def request(self, track_ids: Sequence[int] | Ints) -> None:
        """Say which tracks are live in the next frame: once a frame, with all of them.

        What they need and does not exist yet is built beside the caller; this returns at once.
        """

    def ready(self, track_ids: Sequence[int] | Ints) -> Bools:
        """Which of these tracks `generate` would do now, (N,)."""

    def wait(self, track_ids: Sequence[int] | Ints, timeout: float | None = None) -> Bools:
        """As `ready`, after waiting for what was requested. For files, where being late is fine.

        Args:
            track_ids: requested before; those beyond the capacity, or not requested, are not waited for.
            timeout: in seconds, None for as long as it takes.
        """

    def failure(self, track_id: int) -> str | None:
        """Why the track is covered classically for good, None if it is not."""

    def generate(self, crops: Crops) -> Generated:
        """The crops with their unknown pixels generated; several persons in one run of the graph, see `most_crops`.

        Raises:
            GenerationError: the crops do not fit the generator, or its answer cannot be trusted.
            StandinError: the graph could not be run.
        """

    def set_truncation(self, value: float) -> None:
        """Use another truncation from now on; what was built for tracks is dropped, their latents stay."""

    def forget(self, track_id: int) -> None:
        """Drop what the track owns. To be called in the order of frames, after the track's last one was generated."""

    def reset(self) -> None:
        """Drop what all tracks own: another stream begins, and counts its tracks anew."""

    def close(self) -> None:
        """Stop building and free the engines; may be called again."""


class AlwaysReady:
    """The part of a `Generator` that has nothing to build: any track is ready at once, for any number of them."""

    capacity: int | None = None

    def request(self, track_ids: Sequence[int] | Ints) -> None:
        """Nothing to build."""

    def ready(self, track_ids: Sequence[int] | Ints) -> Bools:
        """Every track is."""
        return np.asarray(np.asarray(track_ids, np.int64) >= 0)

    def wait(self, track_ids: Sequence[int] | Ints, timeout: float | None = None) -> Bools:  # noqa: ARG002
        """Every track is ready at once."""
        return self.ready(track_ids)

    def failure(self, track_id: int) -> str | None:  # noqa: ARG002
        """None: what fails is raised by `generate`."""
        return None


def check_crops(crops: Crops, size: tuple[int, int], vertices: int | None) -> None:
    """See that crops are what a generator was made for.

    Args:
        crops: that it is given.
        size: height and width that it takes.
        vertices: K, of its surface, None if it takes none.

    Raises:
        GenerationError: they have another size, or come without the surface, or a body pixel has no vertex of it. The
            graph would look up another one, or beyond them.
    """
    if crops.size != size:
        raise GenerationError(
            f"crops are {crops.size[0]}x{crops.size[1]} (height x width), the generator takes {size[0]}x{size[1]}"
        )
    if vertices is None:
        return
    if crops.body is None or crops.vertices is None:
        raise GenerationError("the generator needs the surface (body, vertices), the crops have none")
    used = crops.vertices[crops.body]
    if used.size and (used.min() < 0 or used.max() >= vertices):
        raise GenerationError(
            f"body pixels have vertices from {used.min()} to {used.max()}, the surface has 0 to {vertices - 1}; "
            "give the vertices of the surface that the bundle was made for"
        )


def open_pool(at_once: int) -> ThreadPoolExecutor | None:
    """Threads for runs side by side, None where there is one run at a time.

    They are kept as long as the generator: memory that a new thread takes for itself with every frame is never all
    given back.
    """
    return ThreadPoolExecutor(at_once, thread_name_prefix="standin-generate") if at_once > 1 else None


def close_pool(pool: ThreadPoolExecutor | None) -> None:
    """Let its threads end; one that hangs is not waited for."""
    if pool is not None:
        pool.shutdown(wait=False, cancel_futures=True)


def run_chosen(
    runtime: Runtime,
    crops: Crops,
    chosen: Bools,
    feeds_of: Callable[[Ints, Crops], Mapping[str, Array | Resident]],
    most: int,
    pool: ThreadPoolExecutor | None = None,
) -> Generated:
    """Runs a generator's graph on the chosen crops, as few times as `most` allows.

    Args:
        runtime: of the graph.
        crops: all of them.
        chosen: bool (N,), which are generated; the others come back as 0.
        feeds_of: gives the inputs for some crops, from their places in `crops` and the crops themselves.
        most: crops in one run.
        pool: does runs side by side; without one, they are done one after the other.

    Raises:
        GenerationError: the answer is not finite, or not of the shape of the input.
    """
    height, width = crops.size
    output = np.zeros((len(crops), 3, height, width), np.float32)
    places = np.flatnonzero(chosen).astype(np.int64)

    def run(part: Ints) -> None:
        answer = runtime.run(feeds_of(part, crops[part]))["output"]
        if answer.dtype != np.float32 or answer.shape != (len(part), 3, height, width):
            raise GenerationError(
                f"the generator gave {answer.dtype} {answer.shape}, expected float32 {(len(part), 3, height, width)}"
            )
        if not np.isfinite(answer).all():
            raise GenerationError("the generator's output is not finite; half precision may be too small for it")
        output[part] = answer

    parts = [places[start : start + most] for start in range(0, len(places), most)]
    if pool is not None and len(parts) > 1:
        runs = [pool.submit(run, part) for part in parts]
        # All of them, whatever one raises: what was lent for these runs is given back afterwards.
        wait(runs)
        for one in runs:
            one.result()
    else:
        for part in parts:
            run(part)
    return Generated(output, np.array(chosen, np.bool_))

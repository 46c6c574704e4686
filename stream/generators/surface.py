"""SG-GAN with V-SAM: tables per track, looked up by each pixel's vertex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from engines.errors import GenerationError
from engines.manifest import Normalisation
from engines.resident import Resident
from engines.runtime import Runtime
from stream.generators.base import (
    MOST_CROPS,
    Array,
    Bools,
    Crops,
    Generated,
    Ints,
    check_crops,
    close_pool,
    open_pool,
    run_chosen,
    to_network,
)
from stream.generators.tables import DEFAULT_BUDGET, LINGER, TableCache
from stream.latents import Latents, Truncation
from stream.regions import Kind

#: The track of the trial run; no tracker counts so far.
_TRIAL = 2**62


def graph_vertices(vertices: Ints, known: Bools, body: Bools, count: int) -> Ints:
    """The row of the tables that each pixel takes: its vertex, K for known pixels, K + 1 for border pixels.

    The three indicator planes of V-SAM (known, border, body) are one-hot, so that each pixel is one of K + 2 cases. A
    pixel that is both known and body counts as body.

    Args:
        vertices: int64 (..., H, W), 0 to K - 1 on the body; elsewhere it is not looked at.
        known: bool, same shape.
        body: bool, same shape.
        count: K, the vertices of the surface.

    Raises:
        GenerationError: a body pixel has no vertex of the surface. The graph would read another row, or beyond them.
    """
    used = vertices[body]
    if used.size and (used.min() < 0 or used.max() >= count):
        raise GenerationError(
            f"body pixels have vertices from {used.min()} to {used.max()}, the surface has 0 to {count - 1}; "
            "give the vertices of the surface that the bundle was made for"
        )
    return np.asarray(np.where(body, vertices, np.where(known, count, count + 1)), np.int64)


class SurfaceGenerator:
    """Keeps the tables of tracks and runs `generator` once per frame; see `Generator`.

    A track whose tables are not there yet, could not be built, or found no slot is not `done`.

    Args:
        mapping: graph (z, truncation) -> tables.
        generator: graph of the U-Net; the dtype of its tables is the one that they are kept in.
        kind: what it was made for.
        size: height and width of a crop in pixels.
        normalisation: of the image.
        vertices: K.
        truncation: plain; multi-modal is not known for surfaces.
        latents: of the tracks.
        budget: bytes for the tables of all tracks; there is room for one in any case.
        linger: frames for which a track that is not requested keeps its slot for certain.
        most: crops in one run of the graph.
        at_once: runs of the graph that may be under way together.

    Raises:
        BundleError: mapping and generator disagree about the tables.
    """

    def __init__(
        self,
        mapping: Runtime,
        generator: Runtime,
        *,
        kind: Kind,
        size: tuple[int, int],
        normalisation: Normalisation,
        vertices: int,
        truncation: Truncation,
        latents: Latents,
        budget: int = DEFAULT_BUDGET,
        linger: int = LINGER,
        most: int = MOST_CROPS,
        at_once: int = 1,
    ) -> None:
        self.kind = kind
        self.size = size
        self.needs_surface = True
        self._mapping = mapping
        self._generator = generator
        self._pool = open_pool(at_once)
        self._normalisation = normalisation
        self._vertices = vertices
        self._latents = latents
        self._most = most
        tables = [tensor for tensor in generator.inputs if tensor.name.startswith("table_")]
        self._tables = TableCache(
            mapping,
            tables,
            latents,
            truncation=truncation.clipped,
            budget=budget,
            linger=linger,
            most=min((generator.largest[t.name] for t in tables if t.name in generator.largest), default=None),
            hold=generator.hold if generator.has_memory else None,
        )
        self.capacity: int | None = self._tables.capacity

    def prepare(self) -> None:
        """Build the tables of a trial track and run the graph with them.

        Raises:
            GenerationError: the tables cannot be built, or the output cannot be trusted.
            StandinError: the graph could not be run.
        """
        height, width = self.size
        plane = (1, height, width)
        channels = next(int(t.shape[1]) for t in self._generator.inputs if t.name == "embedding")
        blank = Crops(
            images=np.zeros((*plane, 3), np.uint8),
            known=np.zeros(plane, np.bool_),
            track_ids=np.array([_TRIAL], np.int64),
            embedding=np.zeros((1, channels, height, width), np.float32),
            body=np.zeros(plane, np.bool_),
            vertices=np.zeros(plane, np.int64),
        )
        try:
            self.request([_TRIAL])
            self.wait([_TRIAL])
            if reason := self.failure(_TRIAL):
                raise GenerationError(f"the generator does not work here: {reason}")
            self.generate(blank)
        finally:
            self.forget(_TRIAL)

    def request(self, track_ids: Sequence[int] | Ints) -> None:
        """Say which tracks are live, and queue the tables that they lack.

        Raises:
            RuntimeFailedError: the generator is closed.
        """
        self._tables.request([int(track_id) for track_id in track_ids])

    def ready(self, track_ids: Sequence[int] | Ints) -> Bools:
        """Which tracks have their tables."""
        return self._tables.ready(track_ids)

    def wait(self, track_ids: Sequence[int] | Ints, timeout: float | None = None) -> Bools:
        """As `ready`, once their tables are built, could not be, or time is up."""
        return self._tables.wait(track_ids, timeout)

    def failure(self, track_id: int) -> str | None:
        """Why the track's tables could not be built."""
        return self._tables.failure(track_id)

    def generate(self, crops: Crops) -> Generated:
        """Generate the crops of tracks that have their tables.

        Raises:
            GenerationError: the crops do not fit, a vertex is none of the surface's, or the output is not finite.
            StandinError: the graph could not be run.
        """
        check_crops(crops, self.size, surface=True)
        rows = _rows(crops, self._vertices)
        with self._tables.lend(crops.track_ids) as slots:

            def feeds(places: Ints, part: Crops) -> Mapping[str, Array | Resident]:
                return self._feeds(part, rows[places], slots[places])

            return run_chosen(self._generator, crops, np.asarray(slots >= 0), feeds, self._most, self._pool)

    def set_truncation(self, value: float) -> None:
        """Drop all tables; those that are requested from now on are built with another truncation."""
        self._tables.restart(Truncation(value).clipped)

    def forget(self, track_id: int) -> None:
        """Drop what the track owns."""
        self._tables.forget(track_id)
        self._latents.drop(track_id)

    def reset(self) -> None:
        """Drop what all tracks own."""
        self._tables.restart()
        self._latents.clear()

    def close(self) -> None:
        """Stop building and free the engines."""
        self._tables.close()
        close_pool(self._pool)
        self._mapping.close()
        self._generator.close()

    def _feeds(self, crops: Crops, vertices: Ints, slots: Ints) -> dict[str, Array | Resident]:
        image, mask = to_network(crops, self._normalisation)
        # ONNX Runtime's TensorRT provider plans for shapes; the whole never changes its own. Elsewhere, TensorRT plans
        # included, tables that nobody needs stay where they are: that saves a device the way, and OpenVINO, which
        # converts halves of all that it is given, the conversion.
        first, tables = self._tables.arrays(slots, whole=self._generator.plans_for_shapes)
        feeds: dict[str, Array | Resident] = {"image": image, "mask": mask, "vertices": vertices, "slot": slots - first}
        if crops.embedding is not None:
            feeds["embedding"] = np.ascontiguousarray(crops.embedding)
        return {**feeds, **tables}


def _rows(crops: Crops, count: int) -> Ints:
    if crops.vertices is None or crops.body is None:
        raise GenerationError("the generator needs the vertices of the surface, the crops have none")
    return graph_vertices(crops.vertices, crops.known, crops.body, count)

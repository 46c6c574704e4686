"""SG-GAN with V-SAM: tables per track, looked up by each pixel's vertex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from engines.errors import GenerationError
from engines.resident import Resident
from engines.runtime import Runtime
from stream.generators.base import (
    MOST_CROPS,
    Array,
    Bools,
    Crops,
    Generated,
    Ints,
    blank_crop,
    check_crops,
    close_pool,
    open_pool,
    run_chosen,
)
from stream.generators.inputs import Inputs
from stream.generators.tables import DEFAULT_BUDGET, LINGER, TableCache
from stream.latents import Latents, Truncation
from stream.regions import Kind

#: The track of the trial run; no tracker counts so far.
_TRIAL = 2**62


class SurfaceGenerator:
    """Keeps the tables of tracks and runs `generator` once per frame; see `Generator`.

    A track whose tables are not there yet, could not be built, or found no slot is not `done`.

    Args:
        mapping: graph (z, truncation) -> tables.
        generator: graph of the U-Net; the dtype of its tables is the one that they are kept in.
        kind: what it was made for.
        size: height and width of a crop in pixels.
        inputs: make what shows the crops.
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
        inputs: Inputs,
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
        self._inputs = inputs
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
        blank = blank_crop(self.size, _TRIAL)
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
            GenerationError: the crops do not fit, or the output is not finite.
            StandinError: the graph could not be run.
        """
        check_crops(crops, self.size, self._inputs.vertices)
        with self._tables.lend(crops.track_ids) as slots:

            def feeds(places: Ints, part: Crops) -> Mapping[str, Array | Resident]:
                return self._feeds(part, slots[places])

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

    def _feeds(self, crops: Crops, slots: Ints) -> dict[str, Array | Resident]:
        # ONNX Runtime's TensorRT provider plans for shapes; the whole never changes its own. Elsewhere, TensorRT plans
        # included, tables that nobody needs stay where they are: that saves a device the way, and OpenVINO, which
        # converts halves of all that it is given, the conversion.
        first, tables = self._tables.arrays(slots, whole=self._generator.plans_for_shapes)
        return {**self._inputs.of(crops), "slot": slots - first, **tables}

"""DeepPrivacy2's style-based U-Net: one w per track, computed once."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engines.errors import GenerationError
from engines.runtime import Runtime
from stream.generators.base import (
    MOST_CROPS,
    AlwaysReady,
    Array,
    Crops,
    Floats,
    Generated,
    Ints,
    blank_crop,
    check_crops,
    close_pool,
    open_pool,
    run_chosen,
)
from stream.generators.inputs import Inputs
from stream.latents import Latent, Latents, Truncation, truncate_latent
from stream.regions import NO_TRACK, Kind


@dataclass(slots=True, eq=False)
class _Mapped:
    """A track's w, from the latent and the truncation that held when it was first asked for; None until it is there."""

    latent: Latent
    truncation: Truncation
    w: Floats | None = None


class UnetGenerator(AlwaysReady):
    """Runs `mapping` once per track and `generator` once per frame; see `Generator`. A w takes less than a frame.

    Args:
        mapping: graph z -> w.
        generator: graph of the U-Net.
        kind: what it was made for.
        size: height and width of a crop in pixels.
        inputs: make what shows the crops.
        truncation: of w; multi-modal only with centres.
        average: w_avg, float32 (C,).
        centres: w_centers, float32 (M, C), None where the bundle has none.
        latents: of the tracks.
        most: crops in one run of the graph.
        at_once: runs of the graph that may be under way together.
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
        average: Floats,
        centres: Floats | None,
        latents: Latents,
        most: int = MOST_CROPS,
        at_once: int = 1,
    ) -> None:
        self.kind = kind
        self.size = size
        self.needs_surface = inputs.vertices is not None
        self._mapping = mapping
        self._generator = generator
        self._pool = open_pool(at_once)
        self._inputs = inputs
        self._truncation = truncation
        self._average = average
        self._centres = centres
        self._latents = latents
        self._most = most
        # Never held while a graph runs: one that hangs would stop the frame loop, which no deadline guards.
        self._lock = threading.Lock()
        self._mapped: dict[int, _Mapped] = {}

    def prepare(self) -> None:
        """Run both graphs once.

        Raises:
            StandinError: one of them does not work here.
        """
        blank = blank_crop(self.size, NO_TRACK)
        w = self._map(np.ones(self._latents.channels, np.float32))
        run_chosen(self._generator, blank, np.ones(1, np.bool_), lambda _, part: self._feeds(part, w[None]), 1)

    def generate(self, crops: Crops) -> Generated:
        """Generate all crops that belong to a track.

        Raises:
            GenerationError: the crops do not fit, or w or the output is not finite.
            StandinError: a graph could not be run.
        """
        check_crops(crops, self.size, self._inputs.vertices)

        def feeds(_: Ints, part: Crops) -> Mapping[str, Array]:
            return self._feeds(part, np.stack([self._w_of(int(track_id)) for track_id in part.track_ids]))

        return run_chosen(self._generator, crops, self.ready(crops.track_ids), feeds, self._most, self._pool)

    def set_truncation(self, value: float) -> None:
        """Use another truncation from now on, towards the same averages."""
        with self._lock:
            self._truncation = Truncation(value, self._truncation.multi_modal)
            self._mapped.clear()

    def forget(self, track_id: int) -> None:
        """Drop what the track owns."""
        with self._lock:
            self._mapped.pop(track_id, None)
            self._latents.drop(track_id)

    def reset(self) -> None:
        """Drop what all tracks own."""
        with self._lock:
            self._mapped.clear()
            self._latents.clear()

    def close(self) -> None:
        """Free the engines."""
        close_pool(self._pool)
        self._mapping.close()
        self._generator.close()

    def _feeds(self, crops: Crops, w: Floats) -> dict[str, Array]:
        return {**self._inputs.of(crops), "w": w}

    def _w_of(self, track_id: int) -> Floats:
        with self._lock:
            latent = self._latents.of(track_id)
            mapped = self._mapped.get(track_id)
            # Another generator that shares the latents may have forgotten the track.
            if mapped is None or mapped.latent is not latent:
                mapped = self._mapped[track_id] = _Mapped(latent, self._truncation)
            if mapped.w is not None:
                return mapped.w
        w = truncate_latent(self._map(latent.z), latent, mapped.truncation, self._average, self._centres)
        with self._lock:
            # What was forgotten meanwhile is in no dictionary any more, so that a late answer changes nothing.
            if mapped.w is None:
                mapped.w = w
            return mapped.w

    def _map(self, z: Floats) -> Floats:
        # Always by itself: the result must not depend on who else is in the frame.
        w = self._mapping.run({"z": z[None]})["w"]
        if w.shape != (1, len(self._average)) or w.dtype != np.float32 or not np.isfinite(w).all():
            raise GenerationError(
                f"the mapping gave {w.dtype} {w.shape}, expected finite float32 (1, {len(self._average)})"
            )
        return np.asarray(w[0], np.float32)

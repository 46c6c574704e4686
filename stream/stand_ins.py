"""StandIns: the generators of a stream, the tracks they serve, and the frame with stand-ins in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from stream.compose.composer import Composed, compose
from stream.compose.parts import Painters
from stream.frame import Image
from stream.generators.base import Generator
from stream.regions import NO_TRACK, Kind, Regions
from stream.roles import Context, Role
from stream.union import one_for_each_track


class StandIns:
    """Replaces the regions of one stream at a time, in the order of its frames.

    Args:
        painters: generators and classical anonymizers.
        context: whether generators may see what is still raw; see `stream.compose.composer.compose`.
        linger: frames without a region after which a track has ended, and what generators keep of it is dropped; more
            than are painted at once, since those that are still being painted may show it.
        patience: seconds to wait, once, for each track that a generator is not ready for, 0 where a stream cannot wait:
            it is covered classically until then.
    """

    def __init__(
        self, painters: Painters, *, context: Context = "private", linger: int = 25, patience: float = 0.0
    ) -> None:
        self._painters = painters
        self._context = context
        self._linger = linger
        self._patience = patience
        self._frame = 0
        self._last_seen: dict[int, int] = {}
        #: Whom a generator was not ready for in time: nobody waits for them again.
        self._given_up: set[int] = set()

    @property
    def painters(self) -> Painters:
        """What replaces regions."""
        return self._painters

    def follow(self, regions: Regions) -> None:
        """Tell the generators which tracks are live in the next frame, and forget those that have ended.

        To be called once for each frame, withheld ones included, before `paint`. May take as long as patience allows.

        Raises:
            StandinError: a generator is closed.
        """
        self._frame += 1
        for track_id in np.unique(regions.track_ids[regions.track_ids != NO_TRACK]).tolist():
            self._last_seen[track_id] = self._frame
        for track_id in [t for t, last in self._last_seen.items() if self._frame - last > self._linger]:
            del self._last_seen[track_id]
            self._given_up.discard(track_id)
            for generator in self._generators:
                generator.forget(track_id)
        for role, generator in self._painters.generators.items():
            wanted = _wanted(regions, role)
            generator.request(wanted)
            if self._patience:
                self._wait(generator, wanted)

    def _wait(self, generator: Generator, wanted: npt.NDArray[np.int64]) -> None:
        waiting = [track for track in wanted[~generator.ready(wanted)].tolist() if track not in self._given_up]
        if waiting:
            ready = generator.wait(waiting, self._patience * len(waiting))
            self._given_up |= {track for track, done in zip(waiting, ready, strict=True) if not done}

    def paint(self, image: Image, regions: Regions, *, simple: bool = False) -> Composed:
        """The frame with every region replaced or covered, and how many were replaced. Any thread may call.

        Regions of one track are one person, and get one stand-in.

        Args:
            image: uint8 RGB, (height, width, 3); stays as it is.
            regions: what to replace.
            simple: cover all classically, as if no generator was ready.

        Raises:
            StandinError: a generator failed, or its answer cannot be trusted.
        """
        painters = replace(self._painters, generators={}) if simple else self._painters
        return compose(image, one_for_each_track(regions), painters, context=self._context)

    def prepare(self) -> None:
        """Do what engines do at their first run.

        Raises:
            StandinError: an engine does not work here.
        """
        for generator in self._generators:
            generator.prepare()
        if self._painters.surface is not None:
            self._painters.surface.prepare()

    def reset(self) -> None:
        """Forget all tracks: another stream begins, and counts its tracks anew."""
        self._last_seen.clear()
        self._given_up.clear()
        for generator in self._generators:
            generator.reset()

    def close(self) -> None:
        """Free the engines."""
        for generator in self._generators:
            generator.close()
        if self._painters.surface is not None:
            self._painters.surface.close()
        self._painters.resampler.close()

    @property
    def _generators(self) -> list[Generator]:
        return list(self._painters.generators.values())


def _wanted(regions: Regions, role: Role) -> npt.NDArray[np.int64]:
    """The tracks that a generator of that role may be asked for, (N,)."""
    kind = Kind.FACE if role == "face" else Kind.PERSON
    chosen = (regions.kinds == kind) & (regions.track_ids != NO_TRACK)
    if role == "person-cse":
        # What such a generator keeps of a track is large, and nobody without a pose is asked of it.
        outlines = [regions.outline(index) for index in range(len(regions))]
        chosen &= np.array([outline is not None and outline.surface is not None for outline in outlines], np.bool_)
    return np.unique(regions.track_ids[chosen])

"""Latents: what a track owns so that its stand-in stays the same, and truncation towards an average."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.errors import UsageError

Floats = npt.NDArray[np.float32]

#: Length of z in all published networks; of w as well.
CHANNELS = 512

#: Any number of centres divides numbers up to this so evenly that none is favoured.
_LARGEST_CENTRE = 2**62
_MULTI_MODAL = 0.5
_PLAIN = 0.7


@dataclass(frozen=True, slots=True, eq=False)
class Latent:
    """What a track draws once and owns as long as it lives.

    Attributes:
        z: float32 (channels,), standard normal, read-only.
        centre: a large number; modulo the number of centres that a bundle has, it is the index of the track's own.
    """

    z: Floats
    centre: int


class Latents:
    """The latents of all tracks of a stream. May be shared by generators, and asked from several threads.

    Args:
        seed: without one, latents come from the operating system's generator. With one, a track's latent is a
            function of the seed and the track's id alone: of no other track, no order, no thread.
        channels: length of z, which generators must agree on to share them.

    Raises:
        UsageError: the seed is negative.
    """

    def __init__(self, seed: int | None = None, channels: int = CHANNELS) -> None:
        if seed is not None and seed < 0:
            raise UsageError(f"seed is {seed}; expected a whole number of at least 0")
        self.channels = channels
        self._seed = seed
        self._lock = threading.Lock()
        self._owned: dict[int, Latent] = {}

    def of(self, track_id: int) -> Latent:
        """The track's latent, drawn when it is first asked for.

        Raises:
            ValueError: the id is negative. Regions without a track own no latent: one drawn for each frame would
                flicker, and one for all of them would make different people look alike.
        """
        if track_id < 0:
            raise ValueError(f"track id {track_id} is no track's; expected at least 0")
        with self._lock:
            if track_id not in self._owned:
                self._owned[track_id] = _draw(self._seed, track_id, self.channels)
            return self._owned[track_id]

    def drop(self, track_id: int) -> None:
        """Forget a track that has ended; nothing happens if it is not known."""
        with self._lock:
            self._owned.pop(track_id, None)

    def clear(self) -> None:
        """Forget all tracks: another stream begins, and counts its tracks anew."""
        with self._lock:
            self._owned.clear()

    @property
    def tracks(self) -> int:
        """How many tracks own a latent now."""
        with self._lock:
            return len(self._owned)


def _draw(seed: int | None, track_id: int, channels: int) -> Latent:
    if seed is None:
        sequence = np.random.SeedSequence(secrets.randbits(256))
    else:
        sequence = np.random.SeedSequence(seed, spawn_key=(track_id,))
    generator = np.random.Generator(np.random.PCG64(sequence))
    z = generator.standard_normal(channels, dtype=np.float32)
    z.flags.writeable = False
    return Latent(z, int(generator.integers(_LARGEST_CENTRE)))


@dataclass(frozen=True, slots=True)
class Truncation:
    """How far a latent w is drawn towards an average: less variety, fewer broken pictures.

    Attributes:
        value: 1 leaves w as it is, 0 gives the average (the same stand-in for all). Clipped to [0, 1] where used.
        multi_modal: towards the track's cluster centre rather than towards the one average.
    """

    value: float
    multi_modal: bool = False

    def __post_init__(self) -> None:
        if not np.isfinite(self.value):
            raise ValueError(f"Truncation.value must be finite, got {self.value}")

    @property
    def clipped(self) -> float:
        """The value as it is used, 0 to 1."""
        return min(1.0, max(0.0, self.value))


def choose_truncation(value: float | None, multi_modal: bool | None, *, centres: int) -> Truncation:
    """Fills in what was not asked for: multi-modal 0.5 where there are centres, plain 0.7 elsewhere.

    At 0 everyone would look the same where there are no centres, so that is never the default.

    Args:
        value: None for the default.
        multi_modal: None for multi-modal if there are centres.
        centres: how many the bundle has.

    Raises:
        UsageError: multi-modal truncation is asked for, and there are no centres.
    """
    if multi_modal and not centres:
        raise UsageError("multi-modal truncation needs cluster centres and this bundle has none; use plain truncation")
    chosen = bool(centres) if multi_modal is None else multi_modal
    if value is None:
        value = _MULTI_MODAL if chosen else _PLAIN
    return Truncation(value, chosen)


def truncate(w: Floats, average: Floats, truncation: float) -> Floats:
    """Draws latents towards an average: average + t (w - average).

    The truncation trick of StyleGAN (https://arxiv.org/abs/1812.04948, appendix B) as DeepPrivacy2 uses it; with a
    cluster centre as the average it is multi-modal truncation (https://arxiv.org/abs/2202.12211, section 3.2).

    Args:
        w: (..., C).
        average: w_avg or a centre, (C,).
        truncation: t, clipped to [0, 1].

    Raises:
        ValueError: the last dimensions differ.
    """
    if average.ndim != 1 or w.shape[-1:] != average.shape:
        raise ValueError(f"w is {w.shape} and its average {average.shape}; expected (..., C) and (C,)")
    t = np.float32(min(1.0, max(0.0, truncation)))
    return np.asarray(average + t * (w - average), np.float32)


def truncate_latent(
    w: Floats, latent: Latent, truncation: Truncation, average: Floats, centres: Floats | None
) -> Floats:
    """A track's w, (C,), truncated towards what the setting names.

    Args:
        w: (C,), not truncated.
        latent: of the track; says which centre is its own.
        truncation: the setting.
        average: w_avg, (C,).
        centres: w_centers, (M, C), None where the bundle has none.

    Raises:
        ValueError: multi-modal without centres.
    """
    if not truncation.multi_modal:
        return truncate(w, average, truncation.value)
    if centres is None or not len(centres):
        raise ValueError("multi-modal truncation needs at least one centre")
    return truncate(w, centres[latent.centre % len(centres)], truncation.value)

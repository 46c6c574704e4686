"""How frames and the threads of an engine share the processor's cores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from engines.bundle import Bundle
from stream.config import AnonymizerSettings

#: Longer side in pixels up to which a picture keeps no more than one core busy.
_SMALL_PICTURE: Final = 640
#: More frames side by side cost memory and delay, and gain nothing over threads that share a frame.
_MOST_PARALLEL: Final = 4


def share_cores(settings: AnonymizerSettings, detectors: Sequence[Bundle]) -> tuple[int, int | None]:
    """How many frames are looked at side by side, and how many threads each gets; None for all.

    Args:
        settings: of the run.
        detectors: that look at every frame.
    """
    if settings.device != "cpu" or any(map(_is_large, detectors)):
        # Large detectors keep all cores busy with one frame, and take a gigabyte for it.
        # A GPU has its own queue, and OpenVINO gives one run all threads: more frames wait longer, finish no sooner.
        return 1, settings.threads
    cores = settings.threads or len(os.sched_getaffinity(0))
    parallel = min(_MOST_PARALLEL, cores)
    return parallel, cores // parallel


def _is_large(detector: Bundle) -> bool:
    """Whether it looks in two stages at large pictures, as the published ones do."""
    detection = detector.manifest.detection
    return detection is not None and detection.max_size > _SMALL_PICTURE

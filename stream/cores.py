"""How frames, crops and the threads of an engine share the processor's cores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from engines.bundle import Bundle
from engines.runtime import Device

if TYPE_CHECKING:
    from stream.config import AnonymizerSettings

#: Longer side in pixels up to which a picture keeps no more than one core busy.
_SMALL_PICTURE: Final = 640
#: More frames side by side, in any stage, cost memory and delay, and gain nothing over threads that share a frame.
MOST_PARALLEL: Final = 4
#: Pixels of a crop that one thread generates by itself.
_SMALL_CROP: Final = 2**14


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
    parallel = min(MOST_PARALLEL, cores)
    return parallel, cores // parallel


def frames_painted_at_once(settings: AnonymizerSettings, generators: Sequence[Bundle]) -> int:
    """How many frames are painted side by side; regions of one frame wait for each other now and then.

    Args:
        settings: of the run.
        generators: of its stand-ins.
    """
    if settings.device not in ("cpu", "openvino"):
        # Cutting, pasting and masks take the processor tens of milliseconds of a large frame, beside a GPU that
        # generates meanwhile.
        return MOST_PARALLEL
    sizes = [bundle.manifest.generation.image_size for bundle in generators if bundle.manifest.generation]
    if any(height * width > _SMALL_CROP for height, width in sizes):
        # One crop keeps all cores busy, and takes much memory.
        return 1
    if settings.device == "openvino":
        # It gives one run all threads; another frame is cut and pasted meanwhile.
        return 2
    return min(MOST_PARALLEL, settings.threads or len(os.sched_getaffinity(0)))


def _is_large(detector: Bundle) -> bool:
    """Whether it looks in two stages at large pictures, as the published ones do."""
    detection = detector.manifest.detection
    return detection is not None and detection.max_size > _SMALL_PICTURE


def share_cores_of_crops(device: Device, threads: int | None, size: tuple[int, int]) -> tuple[int, int | None]:
    """How many crops of a frame are generated side by side, and how many threads each gets; None for all.

    Threads that share a small crop mostly wait for each other: at 144x80, two of them take 11.8 ms, one 15.8.

    Args:
        device: where the engine runs.
        threads: that it may use, None for one per core.
        size: height and width of a crop.
    """
    if device != "cpu" or size[0] * size[1] > _SMALL_CROP or (threads is not None and threads < 1):
        # What cannot be is said by whoever opens the engine.
        return 1, threads
    return threads or len(os.sched_getaffinity(0)), 1

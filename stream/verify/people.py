"""People: detectors other than those of the run, which look for faces and persons before and after."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engines.bundle import Bundle
from engines.errors import BundleError, DetectionError, UsageError
from engines.runtime import Device
from engines.store import Store
from stream import geometry
from stream.assemble import Bundles, open_detector
from stream.config import AnonymizerSettings
from stream.detectors.base import Detector
from stream.frame import Frame
from stream.presets import CLASSICAL_PRESET
from stream.regions import Kind, Regions

_log = logging.getLogger(__name__)

#: What is looked for.
KINDS: Final = (Kind.FACE, Kind.PERSON)
#: A region that was found again in the output overlaps the one in the original by so much.
_SAME_IOU: Final = 0.3
#: Of two faces, most of the smaller one must lie in the larger one to be the same: heads and faces.
_INSIDE: Final = 0.7


@dataclass(frozen=True, slots=True)
class LookSettings:
    """How is looked.

    Attributes:
        detectors: names or folders of detection bundles; empty for all that are there and were not in the run.
        kinds: what is looked for; empty for faces and persons, or with detectors of one's own for what these find.
        threshold: score from which a detection counts.
        detect_size: the longer side of the picture that detectors see, in pixels.
        device: where they run.
        threads: for the engines, None for one per core.
        tiles: overlapping parts of a picture in each direction that are looked at as well; 1 for none.
    """

    detectors: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = ()
    threshold: float = 0.5
    detect_size: int = 1280
    device: Device = "cpu"
    threads: int | None = None
    tiles: int = 1


def choose_detectors(settings: LookSettings, store: Store, of_the_run: Collection[str] = ()) -> tuple[Bundle, ...]:
    """The bundles that look.

    Args:
        settings: which are wanted.
        store: where they are.
        of_the_run: names of the run's own bundles, which do not look at their own work.

    Raises:
        UsageError: none is left for a kind that is looked for, one is no detector, or it finds none of these kinds.
        BundleError: one that was named is missing, or not what its manifest says.
    """
    if settings.detectors:
        named = tuple(store.find(name) for name in settings.detectors)
        for bundle in named:
            if not _suits(bundle, settings.kinds or KINDS):
                wanted = _names(settings.kinds or KINDS)
                raise UsageError(f"{bundle.manifest.name} finds no {wanted}; choose another --detector")
        _check_kinds(named, settings.kinds, store, of_the_run)
        return named
    found = []
    for name in store.available():
        if name in of_the_run:
            continue
        try:
            bundle = store.open(name)
        except BundleError as error:
            _log.warning("%s", error)
            continue
        if _suits(bundle, settings.kinds or KINDS):
            found.append(bundle)
    _check_kinds(found, settings.kinds or KINDS, store, of_the_run)
    return tuple(found)


def _check_kinds(bundles: Sequence[Bundle], kinds: Sequence[Kind], store: Store, of_the_run: Collection[str]) -> None:
    """See that somebody looks for each kind: what nobody looks for is not found to be raw either."""
    found = {label for bundle in bundles for label in bundle.manifest.kinds}
    missing = [kind for kind in kinds if kind.label not in found]
    if not missing:
        return
    used = f" beside those of the run ({', '.join(sorted(of_the_run))})" if of_the_run else ""
    labels = {kind.label for kind in missing}
    others = [name for name, artefact in store.known.items() if name not in of_the_run and labels & set(artefact.kinds)]
    get = f", or get one: standin engines pull {others[0]}" if others else ""
    rest = [kind for kind in kinds if kind not in missing]
    fewer = f", or look for {_names(rest)} alone: {' '.join(f'--kind {kind.label}' for kind in rest)}" if rest else ""
    raise UsageError(f"there is no detector for {_names(missing)} here{used}; name one with --detector{get}{fewer}")


class Lookout:
    """Detectors that look at frames of originals and outputs, all as one.

    Args:
        bundles: that look.
        settings: how.

    Attributes:
        kinds: what is looked for.

    Raises:
        BundleError: a bundle is not what its manifest says.
        RuntimeUnavailableError: the device that was asked for cannot be used here.
    """

    def __init__(self, bundles: Sequence[Bundle], settings: LookSettings) -> None:
        chosen = AnonymizerSettings(
            preset=CLASSICAL_PRESET,
            threshold=settings.threshold,
            detect_size=settings.detect_size,
            tiles=settings.tiles,
            device=settings.device,
            threads=settings.threads,
            # Whoever judges looks as exactly as can be.
            detector_precision="fp32",
        )
        labels = {label for bundle in bundles for label in bundle.manifest.kinds}
        self.kinds = settings.kinds or tuple(kind for kind in KINDS if kind.label in labels)
        self._kinds = np.array([int(kind) for kind in self.kinds], np.uint8)
        self._detector: Detector = open_detector(Bundles(tuple(bundles), {}), chosen, settings.threads)

    def look(self, frame: Frame) -> Regions | None:
        """The faces and persons of a frame, each once; None where the detectors' answer cannot be trusted."""
        try:
            found = self._detector.detect(frame)
        except DetectionError as error:
            _log.warning("a frame at %.3f s could not be looked at: %s", frame.time, error)
            return None
        found = found[np.isin(found.kinds, self._kinds)]
        return found[_apart(found)]

    def reset(self) -> None:
        """The next frame belongs to another clip."""
        self._detector.reset()

    def close(self) -> None:
        """Release the engines."""
        self._detector.close()


def found_again(before: Regions, after: Regions) -> npt.NDArray[np.bool_]:
    """Which regions of the original have one of the same kind at the same place in the output, (N,)."""
    if not len(before) or not len(after):
        return np.zeros(len(before), np.bool_)
    same = (geometry.iou(before.boxes, after.boxes) >= _SAME_IOU) & (before.kinds[:, None] == after.kinds[None])
    return np.asarray(same.any(axis=1))


def seen_in_either(before: Regions, after: Regions) -> Regions:
    """What detectors find in the original, and after that what they find in the output alone.

    A face that is missed in the original by a little may be raw as well.
    """
    return Regions.concatenate([before, after[~found_again(after, before)]])


def _apart(regions: Regions) -> npt.NDArray[np.bool_]:
    """Without faces that hold another detector's face: the smaller one is the face, the larger one the head."""
    kept = np.ones(len(regions), np.bool_)
    areas = geometry.area(regions.boxes)
    faces = np.flatnonzero(regions.kinds == Kind.FACE)
    for large in faces:
        for small in faces:
            if small == large or not kept[small] or areas[small] >= areas[large]:
                continue
            low = np.maximum(regions.boxes[small, :2], regions.boxes[large, :2])
            high = np.minimum(regions.boxes[small, 2:], regions.boxes[large, 2:])
            if float(np.maximum(high - low, 0).prod()) >= _INSIDE * float(areas[small]):
                kept[large] = False
    return kept


def _suits(bundle: Bundle, kinds: Sequence[Kind]) -> bool:
    return bundle.manifest.task == "detection" and bool({kind.label for kind in kinds} & set(bundle.manifest.kinds))


def _names(kinds: Sequence[Kind]) -> str:
    return " and ".join(f"{kind.label}s" for kind in kinds)

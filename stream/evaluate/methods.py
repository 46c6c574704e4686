"""The methods that are compared: mask-out, pixelate, blur, and presets with generators, on whole pictures.

All methods of a preset cover what its detectors found, so that they differ in nothing else. Every picture is by itself:
nobody is held or carried, and no two people share a stand-in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from engines.errors import DetectionError, UsageError
from engines.runtime import Device
from engines.store import Store
from stream import assemble
from stream.anonymizer import Anonymized, Anonymizer
from stream.assemble import Bundles
from stream.config import AnonymizerSettings, make_settings
from stream.detectors.base import Detector
from stream.follow import Look
from stream.frame import Frame, Image
from stream.presets import did_you_mean
from stream.regions import Kind, Regions

ORIGINAL: Final = "original"
#: Covering without a network, and the settings of it; the papers' grey is 0 in [-1, 1].
CLASSICAL: Final[Mapping[str, Mapping[str, Any]]] = {
    "mask-out": {"treatment": "mask", "mask_colour": "#7f7f7f"},
    "pixelate-8": {"treatment": "pixelate", "cells": 8},
    "pixelate-16": {"treatment": "pixelate", "cells": 16},
    "blur": {"treatment": "blur"},
}
#: What makes every picture a stream of its own, and an evaluation that withholds anything an error.
_ALONE: Final[Mapping[str, Any]] = {"hold": 0, "remember": 0, "lookahead": 0, "mask_frames": 0, "on_failure": "stop"}


@dataclass(frozen=True, slots=True)
class MethodSettings:
    """What methods have in common.

    Attributes:
        engine: folders of bundles by name, as `standin run --engine`.
        device: where engines run.
        threads: for engines, None for one per core.
        seed: of latents.
    """

    engine: Mapping[str, Path] = field(default_factory=dict)
    device: Device = "cpu"
    threads: int | None = None
    seed: int = 0

    def of_preset(self, preset: str, **more: Any) -> AnonymizerSettings:
        """The settings of a preset's own method.

        Args:
            preset: its name.
            **more: further settings, by name.

        Raises:
            UsageError: no such preset, or a setting that cannot be.
        """
        own = {"engine": self.engine, "device": self.device, "threads": self.threads, "seed": self.seed}
        return make_settings(AnonymizerSettings, {"preset": preset, **own, **more, **_ALONE})

    def of_classical(self, name: str, preset: str) -> AnonymizerSettings:
        """The settings of a classical method, on what a preset's detectors find."""
        own = dict(CLASSICAL[name])
        covered = dict.fromkeys(("person", "face", "plate", "fallback"), own.pop("treatment"))
        return self.of_preset(preset, **covered, **own)


def check_classical(names: Sequence[str]) -> tuple[str, ...]:
    """Names of classical methods, each once.

    Raises:
        UsageError: one is none of them.
    """
    for name in names:
        if name not in CLASSICAL:
            raise UsageError(f"no method {name!r}: {did_you_mean(name, CLASSICAL)}")
    return tuple(dict.fromkeys(names))


class Methods:
    """The methods of one preset, opened: its detectors look once, and each method covers.

    Args:
        bundles: of the preset.
        detector: all its detectors as one.
        settings: of the preset's own method.
        anonymizers: by method; those for whom `detector` is not closed by others.
    """

    def __init__(
        self,
        bundles: Bundles,
        detector: Detector,
        settings: AnonymizerSettings,
        anonymizers: Mapping[str, Anonymizer],
    ) -> None:
        self.bundles = bundles
        self.settings = settings
        self._detector = detector
        self._anonymizers = dict(anonymizers)

    @classmethod
    def open(cls, preset: str, classical: Sequence[str], settings: MethodSettings, store: Store) -> Methods:
        """Loads engines.

        Args:
            preset: whose detectors look; it is a method itself if it has generators.
            classical: names of classical methods.
            settings: of all of them.
            store: where bundles are.

        Raises:
            UsageError: an unknown name, or settings that do not go together.
            BundleError: a bundle is missing, or is not what its manifest says.
            RuntimeUnavailableError: the device that was asked for cannot be used here.
        """
        own = settings.of_preset(preset)
        bundles = assemble.find_bundles(own, store)
        chosen = {name: settings.of_classical(name, preset) for name in classical}
        with contextlib.ExitStack() as stack:
            detector = assemble.open_detector(bundles, own, own.threads)
            stack.callback(detector.close)
            stand_ins = assemble.open_stand_ins(bundles, own, patient=True)
            made: dict[str, Anonymizer] = {}
            for name, its in chosen.items():
                made[name] = Anonymizer([detector], assemble.make_fills(its), its, bundles=bundles.all)
            if stand_ins is not None:
                stack.callback(stand_ins.close)
                fills = assemble.make_fills(own)
                made[preset] = Anonymizer([detector], fills, own, stand_ins=stand_ins, bundles=bundles.all)
            if not made:
                raise UsageError(f"the preset {preset} has no generator, and no classical method is asked for")
            stack.pop_all()
        return cls(bundles, detector, own, made)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the methods."""
        return tuple(self._anonymizers)

    def look(self, image: Image, name: str) -> Look:
        """What the preset's detectors see in a picture.

        Args:
            image: uint8 RGB (height, width, 3).
            name: of the picture, another one for each.

        Raises:
            DetectionError: their answer cannot be trusted.
        """
        first = next(iter(self._anonymizers.values()))
        look = first.look(Frame(image, source=name))
        if look.failure is not None:
            raise DetectionError(f"{name}: {look.failure}")
        return look

    def cover(self, method: str, look: Look) -> Anonymized:
        """The picture as a method leaves it.

        Raises:
            StreamStoppedError: it could not be covered.
        """
        anonymizer = self._anonymizers[method]
        (followed,) = anonymizer.follow(look)
        return anonymizer.cover(followed)

    def close(self) -> None:
        """Free the engines; may be called again."""
        for anonymizer in self._anonymizers.values():
            anonymizer.close()


def or_whole(look: Look, kind: Kind) -> tuple[Look, bool]:
    """What was seen, and where nobody of a kind was seen, all of the picture as one of that kind.

    Args:
        look: at a picture that is known to show somebody.
        kind: whom it shows.

    Returns:
        The look, and whether the picture is covered as a whole.
    """
    if (look.detections.kinds == kind).any():
        return look, False
    whole = Regions.of([[0, 0, look.frame.width, look.frame.height]], kind)
    return replace(look, detections=Regions.concatenate([look.detections, whole])), True

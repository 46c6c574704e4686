"""Perceptual consistency: whether stand-ins change from frame to frame as much as the people they stand for.

tLP is the difference between two perceptual distances: of a frame of the output from the one before, and of the same
two frames of the original (Chu et al. 2020, https://arxiv.org/abs/1811.09393). Here the pictures are
those of one face or person, cut out at the place where detectors find it in the original: a stand-in that flickers
moves more than its original, one that is frozen moves less, and little of what surrounds them counts.

The distance is that of a network of the user's own: LPIPS' weights cannot come with the project.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from stream.frame import Image
from stream.networks import Floats, NetworkSettings, fit
from stream.perception import PerceptualNetwork, perceptual_distance
from stream.verify.crop import cut
from stream.verify.record import FrameRecord, RegionRecord
from stream.verify.tracks import follows

#: Of the pictures, where the network takes any size.
SIDE: Final = 128


@dataclass(frozen=True, slots=True)
class PerceptualStep:
    """How far a region looks from the same track's before, in the original and in the output.

    Attributes:
        index: of the frame, in the original.
        track: which.
        seconds: since the frame that it is compared with.
        original: distance of the two pictures of the original.
        output: of the two of the output.
    """

    index: int
    track: int
    seconds: float
    original: float
    output: float

    @property
    def difference(self) -> float:
        """By how much the stand-in changed more, or less, than the original."""
        return abs(self.output - self.original)


@dataclass(frozen=True, slots=True)
class PerceptualResult:
    """Means over the steps of all tracks.

    Attributes:
        steps: how many were measured.
        tlp: mean difference between the steps of output and original.
        worst: the largest of them.
        worst_at: index of its frame, in the original.
        output: mean step of the output.
        original: mean step of the original.
    """

    steps: int
    tlp: float
    worst: float
    worst_at: int
    output: float
    original: float


class PerceptualLook:
    """A user's perceptual network, looking at faces and persons.

    Args:
        settings: which, and what it takes.

    Raises:
        UsageError: there is no such file, or its pictures have another size than was given.
        BundleError: it is not an ONNX file of such a network.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        self._network = PerceptualNetwork(settings)

    @property
    def name(self) -> str:
        """The file's name and the beginning of its hash."""
        return self._network.name

    def maps(self, image: Image, region: RegionRecord) -> list[Floats]:
        """What the network sees of a region.

        Raises:
            BundleError: the network fails.
        """
        picture = cut(image, region.box, region.kind)
        return self._network.maps(fit(picture, (SIDE, SIDE)) if self._network.any_size else picture)


@dataclass(slots=True)
class PerceptualSteps:
    """Collects the steps of one clip's tracks.

    Args:
        look: at their pictures.
    """

    look: PerceptualLook
    found: list[PerceptualStep] = field(default_factory=list)
    _last: dict[int, tuple[float, list[Floats], list[Floats]]] = field(default_factory=dict)

    def add(self, frame: FrameRecord, before: Image, after: Image) -> None:
        """Looks at a frame's stand-ins; what is flat or raw is none, and its track begins anew.

        Args:
            frame: with its regions.
            before: of the original, uint8 RGB (height, width, 3).
            after: of the output, of the same size.

        Raises:
            BundleError: the network fails, or its maps have no distance.
        """
        last, self._last = self._last, {}
        for region in frame.regions:
            if frame.flat or region.share or region.only_after:
                continue
            maps = self.look.maps(before, region), self.look.maps(after, region)
            self._last[region.track] = (frame.time, *maps)
            if region.track in last:
                time, *earlier = last[region.track]
                original, output = (perceptual_distance(a, b) for a, b in zip(earlier, maps, strict=True))
                self.found.append(PerceptualStep(frame.index, region.track, frame.time - time, original, output))

    def result(self, step: float) -> PerceptualResult | None:
        """What came out, None where no stand-in was seen twice in a row.

        Args:
            step: seconds from one compared frame to the next, as a rule.
        """
        return summed_up([one for one in self.found if follows(one.seconds, step)])


def weighted(results: Sequence[PerceptualResult], value: Callable[[PerceptualResult], float]) -> float:
    """The mean of a value over the steps of several clips, one at least."""
    return sum(value(one) * one.steps for one in results) / sum(one.steps for one in results)


def summed_up(steps: Sequence[PerceptualStep]) -> PerceptualResult | None:
    """Means over steps; None of none."""
    if not steps:
        return None
    worst = max(steps, key=lambda one: one.difference)
    return PerceptualResult(
        steps=len(steps),
        tlp=float(np.mean([one.difference for one in steps])),
        worst=worst.difference,
        worst_at=worst.index,
        output=float(np.mean([one.output for one in steps])),
        original=float(np.mean([one.original for one in steps])),
    )

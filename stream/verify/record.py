"""What was seen: plain records of one file, made frame by frame, from which everything else is worked out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stream.frame import Image
from stream.regions import Kind
from stream.verify.pairs import FramePairs
from stream.verify.raw import BY_CHANCE, RAW_REGION, RawShare

if TYPE_CHECKING:
    from stream.verify.identity import IdentityResult
    from stream.verify.perceptual import PerceptualResult
    from stream.verify.tracks import Steadiness

Looks = npt.NDArray[np.float32]


@dataclass(slots=True)
class RegionRecord:
    """A face or person that detectors found in a frame of the original.

    Attributes:
        kind: which of them.
        box: `xyxy` in pixels of the frame.
        score: of the detection.
        track: its name over time, counted from 0.
        raw: what is left of it.
        again: whether detectors find one at the same place of the output.
        only_after: whether detectors find it in the output alone, and not in the original.
        reported: whether the run's report has it; None without a report.
        looks_before: colours of its core in the original, as `tracks.looks` gives them, while they are needed.
        looks_after: in the output.
    """

    kind: Kind
    box: tuple[float, float, float, float]
    score: float
    track: int
    raw: RawShare
    again: bool = False
    only_after: bool = False
    reported: bool | None = None
    looks_before: Looks | None = None
    looks_after: Looks | None = None

    @property
    def share(self) -> float:
        """Of its telling pixels, how many are raw; what may be by chance is none."""
        return self.raw.share if self.raw.share >= BY_CHANCE else 0.0

    @property
    def is_raw(self) -> bool:
        """Whether it was left raw."""
        return self.raw.share >= RAW_REGION


@dataclass(slots=True)
class FrameRecord:
    """A frame of the original and of the output that were compared.

    Attributes:
        index: its place in the original.
        time: seconds, in the original.
        regions: what was found in the original.
        found: how many faces and persons detectors find in the output, wherever they are.
        flat: whether the output is of one colour.
        noise: median difference in levels between both pictures where nobody is.
        looked: whether detectors could look at it, before and after.
        foreign: whether the output shows another place than the original, or too little of its own to tell.
        damaged: why the original could not be decoded, None if it could.
        lost: why the output could not be decoded, None if it could.
        repeated: whether it shows the picture of the frame before, which in the original is another one.
    """

    index: int
    time: float
    regions: list[RegionRecord] = field(default_factory=list)
    found: int = 0
    flat: bool = False
    noise: float = 0.0
    looked: bool = True
    foreign: bool = False
    damaged: str | None = None
    lost: str | None = None
    repeated: bool = False

    @property
    def raw(self) -> list[RegionRecord]:
        """Regions that were left raw."""
        return [region for region in self.regions if region.is_raw]

    @property
    def area(self) -> float:
        """Pixels of all cores that could be judged."""
        return float(sum(region.raw.area for region in self.regions if region.raw.judged))

    @property
    def raw_area(self) -> float:
        """Of these, how many are raw."""
        return float(sum(region.share * region.raw.area for region in self.regions if region.raw.judged))

    @property
    def raw_share(self) -> float:
        """Share of the area that is raw, 0 where nobody is."""
        return self.raw_area / self.area if self.area else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One of the worst cases, to be shown.

    Attributes:
        index: of the frame.
        time: in seconds.
        region: what was left raw.
        before: the region and what is round it in the original, uint8 RGB (h, w, 3).
        after: the same place in the output.
        raw: bool (h, w), which of its pixels look raw.
        box: of the region in these pictures, `xyxy`.
    """

    index: int
    time: float
    region: RegionRecord
    before: Image
    after: Image
    raw: npt.NDArray[np.bool_]
    box: tuple[int, int, int, int]

    @property
    def badness(self) -> float:
        """Pixels of the frame that are raw."""
        return self.region.share * self.region.raw.area


@dataclass(frozen=True, slots=True)
class Claim:
    """What the run's report says and is not so.

    Attributes:
        what: for people.
        frames: places of the frames in the original, as far as it is about frames.
    """

    what: str
    frames: tuple[int, ...] = ()


@dataclass(slots=True)
class FileRecord:
    """Everything that was seen of one file and its result.

    Attributes:
        name: as reports call it.
        size: width and height of the upright pictures.
        times: how many frames original and output have.
        step: seconds from one compared frame to the next, as a rule.
        frames: those that were compared.
        pairing: which frames belong together.
        streams: what else is in the output.
        metadata: what the output says about itself.
        claims: of the run's report, what it says and is not so.
        unreported: places of frames with regions that the run's report does not have.
        unread: what of either file could not be read.
        cases: the worst, the worst first.
        moved: whether the output's pictures had to be brought back to their places.
        seen_through: kinds that were blurred or pixelated, so that no stand-in of theirs can become another.
        identity: similarity between people and their stand-ins, None where no network was given.
        perceptual: how stand-ins change beside their originals, None without a network, or where nobody is seen twice.
        steady: what colours say of stand-ins, once that was worked out.
        error: why the file could not be compared, None if it could.
    """

    name: str
    size: tuple[int, int] = (0, 0)
    times: tuple[int, int] = (0, 0)
    step: float = 0.0
    frames: list[FrameRecord] = field(default_factory=list)
    pairing: FramePairs = field(default_factory=lambda: FramePairs(()))
    streams: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    claims: list[Claim] = field(default_factory=list)
    unreported: list[int] = field(default_factory=list)
    unread: tuple[str, ...] = ()
    cases: list[Case] = field(default_factory=list)
    moved: bool = False
    seen_through: frozenset[Kind] = frozenset()
    identity: IdentityResult | None = None
    perceptual: PerceptualResult | None = None
    steady: Steadiness | None = None
    error: str | None = None

    @property
    def regions(self) -> Iterator[tuple[FrameRecord, RegionRecord]]:
        """Every region with its frame."""
        return ((frame, region) for frame in self.frames for region in frame.regions)

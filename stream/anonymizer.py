"""Anonymizer: frames in, anonymized frames out, no I/O. Detect, follow, stitch; and withhold what failed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np

from engines.bundle import Bundle
from engines.errors import StreamStoppedError, UsageError
from engines.store import Store, home
from stream import assemble, geometry
from stream.complaints import Complaints
from stream.config import AnonymizerSettings, make_settings
from stream.cores import frames_painted_at_once, share_cores
from stream.deadline import DeadlineRunner, HungError
from stream.detectors.base import Detector, check_detections
from stream.detectors.cached import CachedDetector, Counts
from stream.detectors.ensemble import unite
from stream.follow import Followed, Follower, Look, one_line
from stream.frame import AWAY, Frame, Image, flat_image
from stream.generators.classical import Fill
from stream.manual import ManualRegions, read_manual_regions
from stream.presets import DEFAULT_PRESET
from stream.regions import Kind, Origin, Regions
from stream.stand_ins import StandIns
from stream.stitch import covered_boxes, stitch
from stream.tracker import Tracker
from stream.zones import Zones, read_zones

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Arranged:
    """A frame of which it is settled what is covered, in the order of frames; when it is painted does not matter.

    Attributes:
        followed: the frame with all its regions.
        regions: what is covered.
        ignored: how many regions stay as they are because the user wants it so.
        failure: why the frame is withheld, None if it is not.
    """

    followed: Followed
    regions: Regions
    ignored: int = 0
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Anonymized:
    """A frame that may leave the process. Sinks take nothing else.

    Attributes:
        frame: with the anonymized picture; place and time are those of the input frame.
        regions: what was covered.
        withheld: why the picture was replaced by a flat one, None if it was not.
        ignored: how many regions stay as they are because the user wants it so, by kind or by place.
        generated: how many regions were replaced by a generator's stand-in; the others are covered classically.
    """

    frame: Frame
    regions: Regions
    withheld: str | None = None
    ignored: int = 0
    generated: int = 0

    @property
    def image(self) -> Image:
        """The anonymized picture, uint8 RGB (height, width, 3)."""
        return self.frame.image


class Anonymizer:
    """Covers the people of one stream at a time.

    Use `open` for the published presets; the constructor takes any detectors and anonymizers, for tests and for
    pipelines of your own.

    Args:
        detectors: all of them look at every frame; their regions are united.
        fills: the anonymizer of each kind.
        settings: margins, hold, lookahead and the like.
        stand_ins: replaces regions by what generators make; without it all are covered classically.
        manual: regions given by hand.
        zones: where regions may stay raw.
        bundles: the bundles that detectors and generators run.
        make_tracker: gives a tracker that holds and remembers for so many frames.
        parallel: how many frames `look` may be called for at once; a pipeline does.
        painting: the same for `paint`.

    Raises:
        UsageError: nothing would find a region, or a kind that will be found or is given by hand has no anonymizer.
    """

    def __init__(
        self,
        detectors: Sequence[Detector],
        fills: Mapping[Kind, Fill],
        settings: AnonymizerSettings | None = None,
        *,
        stand_ins: StandIns | None = None,
        manual: ManualRegions | None = None,
        zones: Zones | None = None,
        bundles: Sequence[Bundle] = (),
        make_tracker: Callable[[int, int], Tracker] = Tracker,
        parallel: int = 1,
        painting: int = 1,
    ) -> None:
        self.settings = settings or AnonymizerSettings()
        self.bundles = tuple(bundles)
        self.parallel = parallel
        self.painting = painting
        self._detectors = tuple(detectors)
        self._fills = dict(fills)
        self._stand_ins = stand_ins
        self.manual = manual
        #: Asked before each frame: whether there is no time for stand-ins, so that all is covered classically.
        self.in_haste: Callable[[], bool] = lambda: False
        self._zones = zones
        self._kept = [kind for kind in Kind if self.settings.treatment(kind) == "keep"]
        self._make_tracker = make_tracker
        if not self._detectors and manual is None:
            raise UsageError(
                "an anonymizer needs a detector, or regions given by hand: else every frame would pass raw"
            )
        found = {Kind.of(name) for bundle in self.bundles for name in bundle.manifest.kinds}
        if missing := (found | (manual.kinds if manual else set())) - set(self._fills):
            names = ", ".join(kind.label for kind in sorted(missing))
            raise UsageError(f"no anonymizer is set for regions of these kinds: {names}")
        self._detect_runner = DeadlineRunner("detection", self.settings.deadline)
        self._cover_runner = DeadlineRunner("anonymization", self.settings.deadline)
        self._complaints = Complaints()
        self._tracks_of_earlier_streams = 0
        self._follower = self._new_follower()
        self._caution = assemble.make_caution(self.settings, stand_ins)

    @classmethod
    def open(cls, preset: str = DEFAULT_PRESET, *, store: Store | None = None, **settings: Any) -> Anonymizer:
        """An anonymizer for a preset, with its engines loaded.

        Args:
            preset: its name (`stream.presets.PRESETS`).
            store: where bundles are, None for the user's own.
            **settings: fields of `AnonymizerSettings`.

        Raises:
            UsageError: an unknown preset or setting.
            BundleError: a bundle is missing or is not what its manifest says.
            RuntimeUnavailableError: the device that was asked for cannot be used here.
        """
        chosen = make_settings(AnonymizerSettings, {"preset": preset, **settings})
        return cls.from_settings(chosen, store=store)

    @classmethod
    def from_settings(
        cls, settings: AnonymizerSettings, *, store: Store | None = None, offline: bool = False
    ) -> Anonymizer:
        """As `open`, from settings that are already checked.

        Args:
            settings: of the run.
            store: where bundles are, None for the user's own.
            offline: whether frames come from a file, so that each of them may come later: cores look at several at
                once rather than share one (threads need not wait for each other), and a frame waits until generators
                are ready for its tracks.

        Raises:
            UsageError: settings that do not go together.
            BundleError: a bundle is missing (the message says how to come by it), or is not what its manifest says.
            RuntimeUnavailableError: the device that was asked for cannot be used here.
        """
        manual = read_manual_regions(settings.regions) if settings.regions else None
        zones = _read_zones(settings)
        bundles = assemble.find_bundles(settings, store or Store(home()))
        parallel, threads = share_cores(settings, bundles.detectors) if offline else (1, settings.threads)
        if kept := [kind.label for kind in Kind if settings.treatment(kind) == "keep"]:
            _log.warning("as asked for, these stay raw wherever they are found: %s", ", ".join(kept))
        if settings.context == "published":
            _log.warning(
                "with --context published, generators see pixels of people who are still raw, and may copy them"
            )
        with contextlib.ExitStack() as stack:
            detector = assemble.open_detector(bundles, settings, threads)
            stack.callback(detector.close)
            stand_ins = assemble.open_stand_ins(bundles, settings, patient=offline)
            if stand_ins is not None:
                stack.callback(stand_ins.close)
            made = cls(
                [detector],
                assemble.make_fills(settings),
                settings,
                stand_ins=stand_ins,
                manual=manual,
                zones=zones,
                bundles=bundles.all,
                parallel=parallel,
                painting=frames_painted_at_once(settings, list(bundles.generators.values())),
            )
            stack.pop_all()
            return made

    @property
    def tracks_begun(self) -> int:
        """How many tracks there were so far, over all streams."""
        return self._tracks_of_earlier_streams + self._follower.tracks_begun

    @property
    def detections(self) -> Counts | None:
        """How many frames' detections were read from a file and how many made, None where there is no file."""
        return next((d.counts for d in self._detectors if isinstance(d, CachedDetector)), None)

    def anonymize(self, frame: Frame) -> Anonymized:
        """Anonymize the next frame of a stream at once.

        Raises:
            UsageError: `lookahead` is set: no frame can be given out before later ones are known (use `iterate`).
            StreamStoppedError: the frame failed and `on_failure` is `stop`.
            HungError: a stage has stopped answering for good.
        """
        if self.settings.lookahead:
            raise UsageError(
                "anonymize() gives every frame out at once, so it needs lookahead=0; use iterate() to look ahead"
            )
        (followed,) = self.follow(self.look(frame))
        return self.cover(followed)

    def iterate(self, frames: Iterable[Frame]) -> Iterator[Anonymized]:
        """Anonymize a whole stream; frames come back in order, with `lookahead` set that many and one more late.

        Raises:
            StreamStoppedError: a frame failed and `on_failure` is `stop`.
            HungError: a stage has stopped answering for good.
        """
        self.reset()
        for frame in frames:
            for followed in self.follow(self.look(frame)):
                yield self.cover(followed)
        for followed in self.finish():
            yield self.cover(followed)

    def look(self, frame: Frame) -> Look:
        """Stage 1: detect. A failure is noted, not raised: the frame is then withheld in stage 3."""
        if frame.damaged is not None:
            return Look(frame, Regions.empty(), failure=frame.damaged)
        try:
            return Look(frame, self._detect_runner.call(partial(self._detect, frame)))
        except HungError:
            raise
        except Exception as error:  # noqa: BLE001  whatever went wrong, the frame was not looked at
            return Look(frame, Regions.empty(), failure=f"detection failed: {one_line(error)}")

    def follow(self, look: Look) -> list[Followed]:
        """Stage 2: name, hold, look ahead. Gives the frames that are complete by now, in order.

        A failure is noted, not raised: the frames that it concerns are then withheld in stage 3.
        """
        return self._follower.push(look)

    def finish(self) -> list[Followed]:
        """Stage 2 at the end of a stream: the frames that were still waiting."""
        return self._follower.flush()

    def cover(self, followed: Followed) -> Anonymized:
        """Stages 3 and 4, for those who take one frame after the other; see there."""
        return self.paint(self.arrange(followed))

    def arrange(self, followed: Followed) -> Arranged:
        """Stage 3: settle what is covered, and tell the generators. One frame after the other, in their order.

        A failure is noted, not raised: the frame is then withheld in stage 4.
        """
        try:
            regions = self._covered(followed)
            ignored = len(followed.regions) - len(regions)
            if self._caution is not None:
                regions = self._caution.apply(regions, followed.frame.width, followed.frame.height)
            if self._stand_ins is not None:
                # Not within the deadline: a stream that can wait waits here for what is made once for each new track.
                self._stand_ins.follow(regions)
        except Exception as error:  # noqa: BLE001  whatever went wrong, tracks may be mixed up
            reason = followed.failure or f"anonymization failed: {one_line(error)}"
            return Arranged(followed, followed.regions, failure=reason)
        return Arranged(followed, regions, ignored, followed.failure)

    def paint(self, arranged: Arranged) -> Anonymized:
        """Stage 4: write the anonymized pixels, or withhold the frame. Several frames may be painted at once.

        Raises:
            StreamStoppedError: the frame has to be withheld and `on_failure` is `stop`.
            HungError: the stage has stopped answering for good.
        """
        frame, regions, reason = arranged.followed.frame, arranged.regions, arranged.failure
        if reason is None:
            try:
                image, generated = self._cover_runner.call(lambda: self._stitch(frame.image, regions))
                return Anonymized(frame.with_image(image), regions, ignored=arranged.ignored, generated=generated)
            except HungError:
                raise
            except Exception as error:  # noqa: BLE001  whatever went wrong, the picture may be raw
                reason = f"anonymization failed: {one_line(error)}"
        self._complain(reason)
        if self.settings.on_failure == "stop":
            raise StreamStoppedError(f"stopped at {frame.time:.3f} s: {reason}")
        flat = frame.with_image(flat_image(frame.image.shape))
        return Anonymized(flat, arranged.followed.regions, withheld=reason)

    def reset(self) -> None:
        """Forget the stream so far: the next frame begins another one."""
        self._tracks_of_earlier_streams += self._follower.tracks_begun
        self._follower = self._new_follower()
        if self._caution is not None:
            self._caution.reset()
        for detector in self._detectors:
            detector.reset()
        if self._stand_ins is not None:
            self._stand_ins.reset()

    def prepare(self, width: int, height: int) -> None:
        """Let the engines do what they do at their first run, before a stream of frames of this size begins.

        Raises:
            StandinError: an engine cannot run on such frames.
        """
        for detector in self._detectors:
            detector.prepare(width, height, self.parallel)
        if self._stand_ins is not None:
            self._stand_ins.prepare()

    def close(self) -> None:
        """Release the engines."""
        self._detect_runner.close()
        self._cover_runner.close()
        for detector in self._detectors:
            detector.close()
        if self._stand_ins is not None:
            self._stand_ins.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _detect(self, frame: Frame) -> Regions:
        """All detectors within one deadline; an answer that none of them can mean counts as none."""
        regions = unite([detector.detect(frame) for detector in self._detectors])
        check_detections(regions.boxes, regions.scores, frame.width, frame.height)
        return regions

    def _covered(self, followed: Followed) -> Regions:
        """Without those that the user wants kept as they are, by kind or by place; those by hand always count."""
        regions, frame = followed.regions, followed.frame
        if self._kept:
            regions = regions[~np.isin(regions.kinds, self._kept) | (regions.origins == Origin.MANUAL)]
        if self._zones is None:
            return regions
        grown = covered_boxes(regions, self.settings.margin, self.settings.shape)
        # What lies outside the frame is in no picture: a zone that ends at the frame's edge holds all that is in it.
        return regions[
            self._zones.covered(regions, geometry.to_pixels(grown, frame.width, frame.height).astype(np.float32))
        ]

    def _stitch(self, image: Image, regions: Regions) -> tuple[Image, int]:
        """The covered picture, and how many regions were replaced by stand-ins."""
        if self._stand_ins is None:
            return stitch(image, regions, self._fills, margin=self.settings.margin, shape=self.settings.shape), 0
        composed = self._stand_ins.paint(image, regions, simple=self.in_haste())
        return composed.image, int(composed.generated.sum())

    def _new_follower(self) -> Follower:
        return Follower(
            hold=self.settings.hold,
            remember=self.settings.remember,
            lookahead=self.settings.lookahead,
            manual=self.manual,
            make_tracker=self._make_tracker,
        )

    def _complain(self, reason: str) -> None:
        # Sources tell by themselves that they are away, and when they are back.
        if reason != AWAY and (suppressed := self._complaints.due(reason)):
            more = f" ({suppressed - 1} more since the last message)" if suppressed > 1 else ""
            _log.warning("frame withheld: %s%s", reason, more)


def _read_zones(settings: AnonymizerSettings) -> Zones | None:
    if settings.ignore_zones is None and settings.only_zones is None:
        return None
    ignore = () if settings.ignore_zones is None else read_zones(settings.ignore_zones)
    return Zones(ignore, None if settings.only_zones is None else read_zones(settings.only_zones))

"""Guards switched off, one each, for controls: where a run without its guard looks no worse, its test proves nothing.

Nothing here is of any use but to show that the checks of the tests would notice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from stream.anonymizer import Anonymized, Anonymizer, Arranged
from stream.deadline import DeadlineRunner
from stream.follow import Followed, Follower, Look
from stream.frame import Frame
from stream.regions import Regions
from stream.sinks.target import Target
from stream.sources.decoder import Lost, Picture
from stream.sources.pictures import FrameMaker
from stream.sources.video import VideoSource
from tests.fakes import FailingTracker

T = TypeVar("T")


class FailedLookPasses(Anonymizer):
    """A look that failed, or that was not there in time, counts as one that found nothing."""

    def look(self, frame: Frame) -> Look:
        look = super().look(frame)
        return look if look.failure is None else Look(look.frame, Regions.empty())


class FailedCoverPasses(Anonymizer):
    """Where covering fails, the picture leaves as it came."""

    def paint(self, arranged: Arranged) -> Anonymized:
        painted = super().paint(arranged)
        return painted if painted.withheld is None else Anonymized(arranged.followed.frame, Regions.empty())


class UncheckedAnswers(FailedLookPasses, FailedCoverPasses):
    """Detectors may answer anything, and what cannot be covered for that reason leaves as it came."""

    def _detect(self, frame: Frame) -> Regions:
        return Regions.concatenate([detector.detect(frame) for detector in self._detectors])

    def arrange(self, followed: Followed) -> Arranged:
        return super().arrange(replace(followed, failure=None))


class PatientRunner(DeadlineRunner):
    """Waits for as long as it takes."""

    def call(self, function: Callable[[], T]) -> T:
        return function()


class NoDeadlines(Anonymizer):
    """Waits for every stage for as long as it takes."""

    def look(self, frame: Frame) -> Look:
        self._detect_runner = PatientRunner("detection", 0)
        return super().look(frame)

    def paint(self, arranged: Arranged) -> Anonymized:
        self._cover_runner = PatientRunner("anonymization", 0)
        return super().paint(arranged)


class UnguardedFollower(Follower):
    """A frame for which following fails goes on without regions."""

    def push(self, look: Look) -> list[Followed]:
        followed = super().push(look)
        return [Followed(f.frame, f.regions if f.failure is None else Regions.empty(), None) for f in followed]


class UnguardedTracking(Anonymizer):
    """The tracker fails in its eleventh step, and nobody minds."""

    def _new_follower(self) -> Follower:
        return UnguardedFollower(hold=0, lookahead=0, make_tracker=partial(FailingTracker, at=10))


class TrustingMaker(FrameMaker):
    """Takes every picture as whole."""

    def make(self, item: Picture | Lost, pts: int, duration: int = 0, arrived: float | None = None) -> Frame:
        whole = replace(item, damaged=None) if isinstance(item, Picture) else item
        return replace(super().make(whole, pts, duration, arrived), damaged=None)


class TrustingSource(VideoSource):
    """Takes every picture as whole."""

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path, **options)
        self._frames = TrustingMaker(self.info)


class DirectTarget(Target):
    """Writes under the final name from the start, and leaves there what it has."""

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.path = self.temporary = path
        path.parent.mkdir(exist_ok=True)
        path.touch()

    def commit(self) -> None:
        pass

    def discard(self) -> None:
        pass


def anything_goes(path: Path, *, overwrite: bool, inputs: tuple[Path, ...] = ()) -> None:
    """In the place of `check_target`."""

"""From what a decoder gives to frames: upright, RGB, with what else a picture carries noted and left behind."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av
import av.error
import numpy as np
from av.sidedata.sidedata import Type as SideDataType

from stream.colour import ColourTags, ToRgb
from stream.frame import Frame, flat_image
from stream.orientation import Orientation
from stream.sources.base import StreamInfo
from stream.sources.decoder import Lost, Picture
from stream.sources.describe import display_matrix, side_data, stored_size

#: Why a picture is withheld that is taller where the others are wider.
TURNED = "the picture is turned, and the output is not"
_SIDE_EXITS_EVERY = 250
_SIDE_EXITS = {
    SideDataType.A53_CC: "closed captions",
    SideDataType.SEI_UNREGISTERED: "SEI user data",
    SideDataType.S12M_TIMECODE: "time code",
    SideDataType.GOP_TIMECODE: "time code",
}


class FrameMaker:
    """Makes the frames of one stream.

    Args:
        info: of the stream.
        time_base: of the frames, where it is not the stream's.
        begin: time stamp at which the frames begin, where it is not the stream's.
    """

    def __init__(self, info: StreamInfo, *, time_base: Fraction | None = None, begin: int | None = None) -> None:
        self._info = info
        self._time_base = time_base or info.time_base
        self._begin = info.start_pts if begin is None else begin
        self._to_rgb = ToRgb(*stored_size(info))
        self._exits: dict[str, None] = {}
        self._shown = 0

    @property
    def side_exits(self) -> tuple[str, ...]:
        """What pictures carried so far beside themselves."""
        return tuple(self._exits)

    def make(self, item: Picture | Lost, pts: int, duration: int = 0, arrived: float | None = None) -> Frame:
        """The frame of a picture, or a damaged one in its place.

        Args:
            item: what the decoder gave.
            pts: of the frame, in units of the frames' time base.
            duration: in the same unit, 0 where unknown.
            arrived: when its packet came, for live sources (see `Frame`).
        """
        image, damaged, light = None, item.damaged, self._info.tags.light
        if isinstance(item, Picture):
            light = ColourTags.of(item.frame).light
            self._note_side_exits(item.frame)
            if damaged is None:
                try:
                    image = self._orientation(item.frame).apply(self._to_rgb(item.frame))
                    if image.shape[:2] != (self._info.height, self._info.width):
                        image, damaged = None, TURNED
                except (av.error.FFmpegError, ValueError) as error:
                    damaged = f"its colours cannot be converted: {error}"
        if image is None:
            return replace(self.missing(damaged or "", pts, duration), arrived=arrived)
        aspect = self._info.pixel_aspect or Fraction(1)
        return Frame(
            image=np.asarray(image, np.uint8),
            pts=pts,
            begin=self._begin,
            time_base=self._time_base,
            source=self._info.name,
            duration=duration,
            pixel_aspect=1 / aspect if self._info.orientation.transpose else aspect,
            transfer=light,
            arrived=arrived,
        )

    def missing(self, reason: str, pts: int, duration: int = 0) -> Frame:
        """A frame of which there is no picture; it will be withheld.

        Args:
            reason: why there is none.
            pts: of the frame, in units of the frames' time base.
            duration: in the same unit, 0 where unknown.
        """
        return Frame(
            image=flat_image((self._info.height, self._info.width, 3)),
            pts=pts,
            begin=self._begin,
            time_base=self._time_base,
            source=self._info.name,
            duration=duration,
            transfer=self._info.tags.light,
            damaged=reason,
        )

    def _orientation(self, frame: av.VideoFrame) -> Orientation:
        """Of one picture: streams may turn theirs whenever they like."""
        matrix = display_matrix(frame)
        if matrix == self._info.display_matrix:
            # Also where a source knows by other means how its pictures lie.
            return self._info.orientation
        return Orientation.from_matrix(matrix) if matrix else Orientation()

    def _note_side_exits(self, frame: av.VideoFrame) -> None:
        """What frames carry beside their picture; it goes no further in any case, so now and then is often enough."""
        self._shown += 1
        if (self._shown - 1) % _SIDE_EXITS_EVERY < 2:
            for data in side_data(frame):
                if label := _SIDE_EXITS.get(data.type):
                    self._exits[label] = None

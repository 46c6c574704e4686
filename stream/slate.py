"""What is shown while a source is away and the last picture is to stay."""

from __future__ import annotations

from dataclasses import replace

from stream.anonymizer import Anonymized
from stream.frame import AWAY, Image


class LastPicture:
    """Shows the last anonymized picture in frames that have none because the source is away.

    Frames that are withheld for any other reason stay flat: what failed once must be seen.
    """

    def __init__(self) -> None:
        self._last: Image | None = None

    def __call__(self, item: Anonymized) -> Anonymized:
        """The frame as it is to be shown."""
        if item.withheld is None:
            self._last = item.image
        elif item.withheld == AWAY and self._last is not None and self._last.shape == item.image.shape:
            return replace(item, frame=item.frame.with_image(self._last))
        return item

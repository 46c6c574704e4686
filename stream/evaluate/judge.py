"""The detector that judges pictures by how much it finds in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engines.bundle import Bundle
from engines.errors import DetectionError
from stream.evaluate.average_precision import Precision
from stream.evaluate.coco import CocoSet
from stream.frame import Frame, Image
from stream.regions import Regions
from stream.verify.people import Lookout, LookSettings

#: Score from which a detection counts for average precision, which wants nearly all: the lowest that detectors take.
LOWEST: Final = 0.02


class Judge:
    """Detectors as one, and what must be known of them.

    Args:
        bundles: of the detectors.
        settings: how they look.

    Attributes:
        name: their names, each with the beginning of its hash.

    Raises:
        BundleError: a bundle is not what its manifest says.
        RuntimeUnavailableError: the device that was asked for cannot be used here.
    """

    def __init__(self, bundles: Sequence[Bundle], settings: LookSettings) -> None:
        self.name = ", ".join(f"{bundle.manifest.name} (sha256 {bundle.digest[:12]})" for bundle in bundles)
        self._settings = settings
        self._lookout = Lookout(bundles, settings)

    def precision(self, truth: CocoSet) -> Precision:
        """Collects what is found in one method's pictures."""
        resize = f"longer side at most {self._settings.detect_size}"
        return Precision(truth, self.name, resize, (f"detections from a score of {self._settings.threshold:g}",))

    def find(self, image: Image) -> Regions:
        """Who is in a picture, uint8 RGB (height, width, 3).

        Raises:
            DetectionError: the answer cannot be trusted.
        """
        found = self._lookout.look(Frame(image))
        if found is None:
            raise DetectionError(f"the answer of {self.name} cannot be trusted; choose another --detector")
        return found

    def close(self) -> None:
        """Free the engines."""
        self._lookout.close()

"""At run time: frames in, anonymized frames out. Never imports torch.

from stream import Anonymizer, Frame

with Anonymizer.open(preset="faces", lookahead=0) as anonymizer:
result = anonymizer.anonymize(Frame(image, pts=0))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream.anonymizer import Anonymized, Anonymizer
    from stream.frame import Frame
    from stream.regions import Kind, Origin, Regions

__all__ = ["Anonymized", "Anonymizer", "Frame", "Kind", "Origin", "Regions"]

_PLACES = {
    "Anonymized": "stream.anonymizer",
    "Anonymizer": "stream.anonymizer",
    "Frame": "stream.frame",
    "Kind": "stream.regions",
    "Origin": "stream.regions",
    "Regions": "stream.regions",
}


def __getattr__(name: str) -> Any:
    # Loaded when first asked for: the entry point must be there before the libraries that take a second.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)

"""At run time: frames in, anonymized frames out. Never imports torch.

from stream import Anonymizer, Frame

with Anonymizer.open(preset="faces", lookahead=0) as anonymizer:
    result = anonymizer.anonymize(Frame(image, pts=0))
"""

from stream.anonymizer import Anonymized, Anonymizer
from stream.frame import Frame
from stream.regions import Kind, Origin, Regions

__all__ = ["Anonymized", "Anonymizer", "Frame", "Kind", "Origin", "Regions"]

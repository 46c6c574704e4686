"""What a generator replaces and by whose rules, as presets, settings and stitching name it."""

from __future__ import annotations

from typing import Literal

#: What a generator replaces.
Role = Literal["face", "person", "person-cse"]
#: Whether pixels of other regions that are still raw may be seen in a crop.
Context = Literal["private", "published"]
#: Whose rules cut and stitch persons with a surface.
Style = Literal["deepprivacy2", "sg-gan"]

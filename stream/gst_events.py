"""Which of a GStreamer stream's events go on, and with what: when pictures are due and how to show them, no more.

Tags may hold cover pictures and places, as may tables of contents, streams' descriptions and events of anybody's own;
muxers write them into their files. So what is not listed here stays behind.
"""

from __future__ import annotations

from typing import Any, Final

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GObject, Gst  # noqa: E402  version first

from stream.gst_pixels import ORIENTATIONS  # noqa: E402
from stream.orientation import Orientation  # noqa: E402

#: They hold times at most.
_AS_THEY_ARE: Final = frozenset(
    {
        Gst.EventType.FLUSH_START,
        Gst.EventType.FLUSH_STOP,
        Gst.EventType.SEGMENT,
        Gst.EventType.SEGMENT_DONE,
        Gst.EventType.STREAM_GROUP_DONE,
        Gst.EventType.GAP,
        Gst.EventType.EOS,
    }
)
_ORIENTATION: Final = "image-orientation"
#: What caps say of raw pictures.
_FIELDS: Final = frozenset({
    "format", "width", "height", "framerate", "max-framerate", "pixel-aspect-ratio", "colorimetry", "chroma-site",
    "interlace-mode", "field-order", "multiview-mode", "multiview-flags", "views", "mastering-display-info",
    "content-light-level",
})  # fmt: skip


def passed_on(event: Any) -> Any | None:
    """What goes on in the place of a GstEvent that came down the stream, None where nothing does."""
    if event.type in _AS_THEY_ARE:
        return event
    made = None
    if event.type == Gst.EventType.CAPS:
        made = Gst.Event.new_caps(picture_caps(event.parse_caps()))
    elif event.type == Gst.EventType.STREAM_START:
        made = _stream_start(event)
    elif (name := _orientation_name(event)) is not None:
        made = Gst.Event.new_tag(_tag(name))
    if made is not None:
        made.set_seqnum(event.get_seqnum())
    return made


def picture_caps(caps: Any) -> Any:
    """GstCaps that say what the given ones say of the pictures, and nothing else."""
    structure = caps.get_structure(0).copy()
    for name in [structure.nth_field_name(number) for number in range(structure.n_fields())]:
        if name not in _FIELDS:
            structure.remove_field(name)
    made = Gst.Caps.new_empty()
    made.append_structure(structure)
    return made


def is_here(features: Any | None) -> bool:
    """Whether GstCapsFeatures say that pictures are in the system's memory, and nothing else."""
    return features is None or bool(features.is_equal(Gst.CapsFeatures.from_string("memory:SystemMemory")))


def elsewhere(caps: Any) -> Any:
    """The part of some GstCaps whose pictures are in memory of another kind, or are not whole ones."""
    made = Gst.Caps.new_empty()
    for number in range(caps.get_size()):
        features = caps.get_features(number)
        if not is_here(features) and not features.is_any():
            made.append_structure_full(caps.get_structure(number).copy(), features.copy())
    return made


def orientation_of(event: Any) -> Orientation | None:
    """How a stream's pictures are made upright from now on, None where a GstEvent does not say."""
    name = _orientation_name(event)
    return None if name is None else ORIENTATIONS[name]


def _orientation_name(event: Any) -> str | None:
    if event.type != Gst.EventType.TAG:
        return None
    known, name = event.parse_tag().get_string(_ORIENTATION)
    return name if known and name in ORIENTATIONS else None


def _tag(name: str) -> Any:
    tags = Gst.TagList.new_empty()
    tags.set_scope(Gst.TagScope.STREAM)
    tags.add_value(Gst.TagMergeMode.REPLACE, _ORIENTATION, GObject.Value(str, name))
    return tags


def _stream_start(event: Any) -> Any:
    """Without the GstStream that may come with it, which has tags of its own."""
    made = Gst.Event.new_stream_start(event.parse_stream_start())
    made.set_stream_flags(event.parse_stream_flags())
    known, group = event.parse_group_id()
    if known:
        made.set_group_id(group)
    return made

"""The GStreamer element `standin`: raw video in, anonymized video out, in any pipeline.

It pushes buffers that it made itself from anonymized pictures and no others, so that an exception anywhere can lose a
picture but never let one through. (GstBaseTransform's Python bindings push the input on when a virtual method of an
in-place transform raises.) Pads have functions of their own; each of them is wrapped.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from typing import Any, ClassVar, Final

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import GObject, Gst, GstVideo  # noqa: E402  versions first

from engines.errors import StandinError  # noqa: E402
from stream.anonymizer import Anonymizer  # noqa: E402
from stream.config import AnonymizerSettings, make_settings  # noqa: E402
from stream.follow import Followed  # noqa: E402
from stream.frame import Frame, Image, flat_image  # noqa: E402
from stream.gst_pixels import FORMATS, Layout, Pixels, tags_of  # noqa: E402

_log = logging.getLogger(__name__)

Gst.init(None)

_NANOSECONDS: Final = Fraction(1, 10**9)
_STATISTICS_EVERY: Final = 1.0
#: Any kind of memory is accepted by the template, so that a wrong one is refused with a message that says what to do.
_CAPS: Final = f"video/x-raw(ANY), format=(string){{{', '.join(FORMATS)}}}, width=[1, 16384], height=[1, 16384]"
#: Settings of which there may be several, with commas between them.
_LISTS: Final = ("detector", "engine")
#: Settings read numbers and switches from text, so that every property is a string.
_FLAGS: Final = GObject.ParamFlags.READWRITE


def _properties() -> dict[str, tuple[Any, ...]]:
    """A string property for every setting of the anonymizer, in kebab-case."""
    made: dict[str, tuple[Any, ...]] = {}
    for name, field in AnonymizerSettings.model_fields.items():
        about = f"as standin run --{name.replace('_', '-')}; default {field.default}, or as the preset has it"
        made[name.replace("_", "-")] = (str, name, about, "", _FLAGS)
    return made


class StandinElement(Gst.Element):  # type: ignore[misc]
    """See the module."""

    __gtype_name__ = "GstStandin"
    __gstmetadata__: ClassVar = (
        "Standin",
        "Filter/Effect/Video",
        "Replaces the people in video with synthetic stand-ins, and fails closed",
        "The Standin developers",
    )
    __gsttemplates__: ClassVar = (
        Gst.PadTemplate.new("sink", Gst.PadDirection.SINK, Gst.PadPresence.ALWAYS, Gst.Caps.from_string(_CAPS)),
        Gst.PadTemplate.new("src", Gst.PadDirection.SRC, Gst.PadPresence.ALWAYS, Gst.Caps.from_string(_CAPS)),
    )
    __gproperties__: ClassVar = _properties()

    def __init__(self) -> None:
        super().__init__()
        self._given: dict[str, str] = {}
        self._anonymizer: Anonymizer | None = None
        self._pixels: Pixels | None = None
        self._rate: Fraction | None = None
        #: Presentation time, duration and offset of the buffers whose frames are under way.
        self._waiting: deque[tuple[int, int]] = deque()
        self._taken = 0
        self._late_until = 0
        self._segment = Gst.Segment()
        self._counts = {"frames": 0, "withheld": 0, "dropped": 0}
        self._reported = time.monotonic()
        templates = {template.direction: template for template in self.__gsttemplates__}
        self.sink = Gst.Pad.new_from_template(templates[Gst.PadDirection.SINK], "sink")
        self.sink.set_chain_function_full(self._guarded(self._chain))
        self.sink.set_event_function_full(self._sink_event)
        self.sink.set_query_function_full(self._sink_query)
        self.source = Gst.Pad.new_from_template(templates[Gst.PadDirection.SRC], "src")
        self.source.set_event_function_full(self._source_event)
        self.source.set_query_function_full(self._source_query)
        for pad in (self.sink, self.source):
            self.add_pad(pad)

    def do_get_property(self, property: Any) -> str:  # noqa: A002  GObject's name
        """The text that was given, empty where there was none."""
        return self._given.get(property.name.replace("-", "_"), "")

    def do_set_property(self, property: Any, value: str) -> None:  # noqa: A002
        """Takes effect when the element starts."""
        name = property.name.replace("-", "_")
        if value:
            self._given[name] = value
        else:
            self._given.pop(name, None)

    def do_change_state(self, transition: Gst.StateChange) -> Gst.StateChangeReturn:
        """Engines are opened on the way up, so that a wrong setting stops the pipeline before its first buffer."""
        try:
            if transition == Gst.StateChange.READY_TO_PAUSED:
                self._open()
            result = Gst.Element.do_change_state(self, transition)
            if transition == Gst.StateChange.PAUSED_TO_READY:
                self._close()
        except StandinError as error:
            self._post_error(str(error))
            return Gst.StateChangeReturn.FAILURE
        return result

    def _open(self) -> None:
        values = {name: text.split(",") if name in _LISTS else text for name, text in self._given.items()}
        settings = make_settings(AnonymizerSettings, values, origin="properties")
        self._anonymizer = Anonymizer.from_settings(settings)

    def _close(self) -> None:
        anonymizer, self._anonymizer = self._anonymizer, None
        self._pixels = None
        self._waiting.clear()
        if anonymizer is not None:
            anonymizer.close()

    def _guarded(self, chain: Callable[[Gst.Buffer], Gst.FlowReturn]) -> Callable[..., Gst.FlowReturn]:
        """A chain function that ends the flow on whatever is raised: nothing is pushed then."""

        def call(_pad: Gst.Pad, _parent: Gst.Object, buffer: Gst.Buffer) -> Gst.FlowReturn:
            try:
                return chain(buffer)
            except BaseException as error:  # noqa: BLE001  the bindings would take it for a success
                self._post_error(f"{type(error).__name__}: {error}")
                return Gst.FlowReturn.ERROR

        return call

    def _chain(self, buffer: Gst.Buffer) -> Gst.FlowReturn:
        anonymizer, pixels = self._anonymizer, self._pixels
        if anonymizer is None or pixels is None:
            return Gst.FlowReturn.NOT_NEGOTIATED
        if self._is_late(buffer):
            self._counts["dropped"] += 1
            return Gst.FlowReturn.OK
        frame = self._frame(buffer, pixels)
        self._waiting.append((buffer.pts, buffer.duration))
        return self._push(anonymizer, pixels, anonymizer.follow(anonymizer.look(frame)))

    def _frame(self, buffer: Gst.Buffer, pixels: Pixels) -> Frame:
        pts = buffer.pts if buffer.pts != Gst.CLOCK_TIME_NONE else self._taken
        self._taken = max(self._taken + 1, pts + 1)
        damaged: str | None = None
        try:
            if buffer.has_flags(Gst.BufferFlags.CORRUPTED):
                raise ValueError("it is marked as corrupted")
            image = pixels.read(buffer.extract_dup(0, buffer.get_size()), _layout_of(buffer, pixels.layout))
        except (ValueError, OSError) as error:
            damaged = f"its buffer cannot be read: {error}"
            image = self._flat(pixels)
        return Frame(image, pts=pts, time_base=_NANOSECONDS, source="gstreamer", damaged=damaged)

    def _flat(self, pixels: Pixels) -> Image:
        return flat_image((pixels.layout.height, pixels.layout.width, 3))

    def _push(self, anonymizer: Anonymizer, pixels: Pixels, complete: list[Followed]) -> Gst.FlowReturn:
        flow = Gst.FlowReturn.OK
        for followed in complete:
            item = anonymizer.cover(followed)
            self._counts["frames"] += 1
            self._counts["withheld"] += item.withheld is not None
            made = Gst.Buffer.new_wrapped(pixels.write(item.image))
            made.pts, made.duration = self._waiting.popleft()
            flow = self.source.push(made)
            if flow != Gst.FlowReturn.OK:
                return flow
        self._report()
        return flow

    def _is_late(self, buffer: Gst.Buffer) -> bool:
        """Whether the sink would have no use for this picture any more (QoS)."""
        if not self._late_until or buffer.pts == Gst.CLOCK_TIME_NONE:
            return False
        running = self._segment.to_running_time(Gst.Format.TIME, buffer.pts)
        return bool(running != Gst.CLOCK_TIME_NONE and running < self._late_until)

    def _sink_event(self, _pad: Gst.Pad, parent: Gst.Object, event: Gst.Event) -> bool:
        try:
            return self._take_event(parent, event)
        except BaseException as error:  # noqa: BLE001  see _guarded
            self._post_error(f"{type(error).__name__}: {error}")
            return False

    def _take_event(self, parent: Gst.Object, event: Gst.Event) -> bool:
        if event.type == Gst.EventType.CAPS:
            self._drain()
            # What comes out looks like what goes in; by default caps would end here.
            return self._negotiate(event.parse_caps()) and bool(self.source.push_event(event))
        if event.type == Gst.EventType.SEGMENT:
            self._drain()
            event.copy_segment(self._segment)
        elif event.type == Gst.EventType.EOS:
            self._drain()
            self._report(force=True)
        elif event.type == Gst.EventType.FLUSH_STOP:
            self._waiting.clear()
            self._late_until = 0
            if self._anonymizer is not None:
                self._anonymizer.reset()
        return bool(self.sink.event_default(parent, event))

    def _negotiate(self, caps: Gst.Caps) -> bool:
        features = caps.get_features(0)
        if features is not None and not features.is_equal(Gst.CapsFeatures.from_string("memory:SystemMemory")):
            self._post_error(
                f"{features.to_string()} is not system memory; put a converter before standin "
                "(nvvideoconvert, cudadownload, gldownload)"
            )
            return False
        info = GstVideo.VideoInfo.new_from_caps(caps)
        if info is None or self._anonymizer is None:
            return False
        layout = Layout(
            info.finfo.name,
            info.width,
            info.height,
            tuple(info.offset[: info.finfo.n_planes]),
            tuple(info.stride[: info.finfo.n_planes]),
            info.size,
        )
        colour = info.colorimetry
        self._pixels = Pixels(layout, tags_of(int(colour.matrix), int(colour.range)))
        self._rate = Fraction(info.fps_n, info.fps_d) if info.fps_n and info.fps_d else None
        self._anonymizer.reset()
        self._anonymizer.prepare(info.width, info.height)
        self.post_message(Gst.Message.new_latency(self))
        return True

    def _drain(self) -> None:
        """Push what still waits for later frames."""
        if self._anonymizer is not None and self._pixels is not None and self._waiting:
            self._push(self._anonymizer, self._pixels, self._anonymizer.finish())
            self._anonymizer.reset()

    def _source_event(self, pad: Gst.Pad, parent: Gst.Object, event: Gst.Event) -> bool:
        if event.type == Gst.EventType.QOS:
            _, _, difference, stamp = event.parse_qos()
            if stamp != Gst.CLOCK_TIME_NONE:
                self._late_until = max(0, stamp + 2 * difference) if difference > 0 else max(0, stamp + difference)
        return bool(pad.event_default(parent, event))

    def _sink_query(self, pad: Gst.Pad, parent: Gst.Object, query: Gst.Query) -> bool:
        if query.type == Gst.QueryType.CAPS:
            return self._answer_caps(query, pad, self.source)
        if query.type == Gst.QueryType.ALLOCATION:
            # Buffers of a sink's memory are of no use here: ours are made anew.
            return False
        return bool(pad.query_default(parent, query))

    def _answer_caps(self, query: Gst.Query, pad: Gst.Pad, other: Gst.Pad) -> bool:
        """What the other side takes, as far as we do."""
        wanted, ours = query.parse_caps(), pad.get_pad_template_caps()
        theirs = other.peer_query_caps(ours)
        found = ours.intersect(theirs) if other.is_linked() else ours
        query.set_caps_result(found if wanted is None else found.intersect(wanted))
        return True

    def _source_query(self, pad: Gst.Pad, parent: Gst.Object, query: Gst.Query) -> bool:
        if query.type == Gst.QueryType.CAPS:
            return self._answer_caps(query, pad, self.sink)
        if query.type != Gst.QueryType.LATENCY:
            return bool(pad.query_default(parent, query))
        if not self.sink.peer_query(query):
            return False
        live, least, most = query.parse_latency()
        own = self._latency()
        query.set_latency(live, least + own, most + own if most != Gst.CLOCK_TIME_NONE else most)
        return True

    def _latency(self) -> int:
        """Nanoseconds: a frame's time for looking at it, and as much for each that it waits for."""
        waits = (
            self._anonymizer.settings.lookahead + 1 if self._anonymizer and self._anonymizer.settings.lookahead else 0
        )
        return int((waits + 1) * 10**9 / (self._rate or Fraction(25)))

    def _report(self, *, force: bool = False) -> None:
        """Counts, as an element message, once a second."""
        if not force and time.monotonic() - self._reported < _STATISTICS_EVERY:
            return
        self._reported = time.monotonic()
        text = ", ".join(f"{name}=(int){count}" for name, count in self._counts.items())
        structure, _ = Gst.Structure.from_string(f"standin-statistics, {text};")
        self.post_message(Gst.Message.new_element(self, structure))

    def _post_error(self, text: str) -> None:
        _log.error("%s", text)
        error = GObject.GError.new_literal(Gst.stream_error_quark(), text, Gst.StreamError.FAILED)
        self.post_message(Gst.Message.new_error(self, error, text))


def _layout_of(buffer: Gst.Buffer, usual: Layout) -> Layout:
    """Where a buffer says by a meta that its rows lie elsewhere than usual."""
    meta = GstVideo.buffer_get_video_meta(buffer)
    if meta is None:
        return usual
    planes = len(usual.offsets)
    return Layout(
        usual.format, meta.width, meta.height, tuple(meta.offset[:planes]), tuple(meta.stride[:planes]), usual.size
    )


GObject.type_register(StandinElement)
__gstelementfactory__ = ("standin", Gst.Rank.NONE, StandinElement)

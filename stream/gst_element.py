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
from typing import Any, ClassVar, Final, TypeVar

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import GObject, Gst, GstVideo  # noqa: E402  versions first

from engines.errors import StandinError, StreamStoppedError  # noqa: E402
from stream.anonymizer import Anonymizer  # noqa: E402
from stream.config import AnonymizerSettings, make_settings  # noqa: E402
from stream.deadline import HungError  # noqa: E402
from stream.follow import Followed, one_line  # noqa: E402
from stream.frame import Frame, flat_image  # noqa: E402
from stream.gst_events import elsewhere, is_here, orientation_of, passed_on  # noqa: E402
from stream.gst_layout import layout_from, layout_of  # noqa: E402
from stream.gst_pixels import FORMATS, Pixels, tags_of  # noqa: E402
from stream.orientation import Orientation  # noqa: E402

_log = logging.getLogger(__name__)

T = TypeVar("T")

Gst.init(None)

_NANOSECONDS: Final = Fraction(1, 10**9)
_STATISTICS_EVERY: Final = 1.0
_PICTURES: Final = f"format=(string){{{', '.join(FORMATS)}}}, width=[1, 16384], height=[1, 16384]"
_HERE: Final = Gst.Caps.from_string(f"video/x-raw, {_PICTURES}")
#: Any kind of memory may come as far as here, so that a wrong one is refused with a message that says what to do.
_ANYWHERE: Final = Gst.Caps.from_string(f"video/x-raw(ANY), {_PICTURES}")
#: Settings of which there may be several, with commas between them.
_LISTS: Final = ("detector", "engine")
#: Settings read numbers and switches from text, so that every property is a string.
_FLAGS: Final = GObject.ParamFlags.READWRITE
#: Before them comes all that waits for later frames, since what comes after them is another stream or its end.
_DRAINING: Final = frozenset({
    Gst.EventType.STREAM_START, Gst.EventType.CAPS, Gst.EventType.SEGMENT, Gst.EventType.SEGMENT_DONE,
    Gst.EventType.EOS,
})  # fmt: skip


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
        Gst.PadTemplate.new("sink", Gst.PadDirection.SINK, Gst.PadPresence.ALWAYS, _ANYWHERE),
        Gst.PadTemplate.new("src", Gst.PadDirection.SRC, Gst.PadPresence.ALWAYS, _HERE),
    )
    __gproperties__: ClassVar = _properties()

    def __init__(self) -> None:
        super().__init__()
        self._given: dict[str, str] = {}
        #: Whether all that was given was understood: without one setting another stream would go out than was meant.
        self._whole = True
        self._anonymizer: Anonymizer | None = None
        self._pixels: Pixels | None = None
        self._rate: Fraction | None = None
        self._format = GstVideo.VideoFormat.UNKNOWN
        self._aspect = Fraction(1)
        self._orientation = Orientation()
        #: What a picture is replaced by that may not go out.
        self._flat = b""
        #: Presentation time and duration of the buffers whose frames are under way.
        self._waiting: deque[tuple[int, int]] = deque()
        self._taken = 0
        self._late_until = 0
        self._segment = Gst.Segment()
        self._counts = {"frames": 0, "withheld": 0, "dropped": 0, "dropped-events": 0}
        #: Why pictures were withheld since the last report.
        self._trouble: str | None = None
        self._reported = time.monotonic()
        templates = {template.direction: template for template in self.__gsttemplates__}
        self.sink = Gst.Pad.new_from_template(templates[Gst.PadDirection.SINK], "sink")
        self.sink.set_chain_function_full(self._guarded(self._chain, Gst.FlowReturn.ERROR))
        self.sink.set_event_function_full(self._guarded(self._sink_event, False))
        self.sink.set_query_function_full(self._guarded(self._sink_query, False))
        self.source = Gst.Pad.new_from_template(templates[Gst.PadDirection.SRC], "src")
        self.source.set_event_function_full(self._guarded(self._source_event, False))
        self.source.set_query_function_full(self._guarded(self._source_query, False))
        for pad in (self.sink, self.source):
            self.add_pad(pad)

    def do_get_property(self, property: Any) -> str:  # noqa: A002  GObject's name
        """The text that was given, empty where there was none."""
        return self._guarded(self._get_property, "")(property)

    def _get_property(self, property: Any) -> str:  # noqa: A002
        return self._given.get(property.name.replace("-", "_"), "")

    def do_set_property(self, property: Any, value: str) -> None:  # noqa: A002
        """Takes effect when the element starts, which it does not if this fails."""
        self._whole &= self._guarded(self._set_property, False)(property, value)

    def _set_property(self, property: Any, value: str) -> bool:  # noqa: A002
        name = property.name.replace("-", "_")
        if value:
            self._given[name] = value
        else:
            self._given.pop(name, None)
        return True

    def do_change_state(self, transition: Gst.StateChange) -> Gst.StateChangeReturn:
        """Engines are opened on the way up, so that a wrong setting stops the pipeline before its first buffer."""
        return self._guarded(self._change_state, Gst.StateChangeReturn.FAILURE)(transition)

    def _change_state(self, transition: Gst.StateChange) -> Gst.StateChangeReturn:
        up = transition == Gst.StateChange.READY_TO_PAUSED
        if up:
            self._open()
        result = Gst.Element.do_change_state(self, transition)
        if transition == Gst.StateChange.PAUSED_TO_READY or (up and result == Gst.StateChangeReturn.FAILURE):
            self._close()
        return result

    def _open(self) -> None:
        if not self._whole:
            raise StandinError("a property could not be set")
        values = {name: text.split(",") if name in _LISTS else text for name, text in self._given.items()}
        settings = make_settings(AnonymizerSettings, values, origin="properties")
        self._anonymizer = Anonymizer.from_settings(settings)

    def _close(self) -> None:
        anonymizer, self._anonymizer = self._anonymizer, None
        self._pixels = None
        self._waiting.clear()
        self._orientation, self._late_until = Orientation(), 0
        if anonymizer is not None:
            anonymizer.close()

    def _guarded(self, function: Callable[..., T], failed: T) -> Callable[..., T]:
        """A function for GStreamer to call, which gives `failed` on whatever is raised: nothing is pushed then."""

        def call(*arguments: Any) -> T:
            try:
                return function(*arguments)
            except BaseException as error:  # noqa: BLE001  the bindings would take it for a success
                self._post_error(str(error) if isinstance(error, StandinError) else f"{type(error).__name__}: {error}")
                return failed

        return call

    def _chain(self, _pad: Gst.Pad, _parent: Gst.Object, buffer: Gst.Buffer) -> Gst.FlowReturn:
        anonymizer, pixels = self._anonymizer, self._pixels
        if anonymizer is None or pixels is None:
            return Gst.FlowReturn.NOT_NEGOTIATED
        try:
            if self._is_late(buffer):
                self._counts["dropped"] += 1
                return Gst.FlowReturn.OK
            frame = self._frame(buffer, pixels)
        except Exception as error:  # noqa: BLE001  whatever went wrong, there is no picture
            width, height = self._upright(pixels)
            damaged = f"its buffer cannot be read: {one_line(error)}"
            frame = Frame(flat_image((height, width, 3)), pts=self._taken, time_base=_NANOSECONDS, damaged=damaged)
        self._waiting.append((buffer.pts, buffer.duration))
        return self._push(anonymizer, pixels, lambda: anonymizer.follow(anonymizer.look(frame)))

    def _frame(self, buffer: Gst.Buffer, pixels: Pixels) -> Frame:
        pts = buffer.pts if buffer.pts != Gst.CLOCK_TIME_NONE else self._taken
        self._taken = max(self._taken + 1, pts + 1)
        if buffer.has_flags(Gst.BufferFlags.CORRUPTED):
            raise ValueError("it is marked as corrupted")
        meta = GstVideo.buffer_get_video_meta(buffer)
        if meta is not None and meta.format != self._format:
            raise ValueError("it says itself that its format is another one than its stream's")
        image = pixels.read(buffer.extract_dup(0, buffer.get_size()), layout_of(buffer, pixels.layout))
        return Frame(
            self._orientation.apply(image),
            pts=pts,
            time_base=_NANOSECONDS,
            source="gstreamer",
            pixel_aspect=1 / self._aspect if self._orientation.transpose else self._aspect,
            transfer=pixels.tags.light,
        )

    def _upright(self, pixels: Pixels) -> tuple[int, int]:
        """Width and height of a picture as it is shown."""
        width, height = pixels.layout.width, pixels.layout.height
        return (height, width) if self._orientation.transpose else (width, height)

    def _push(self, anonymizer: Anonymizer, pixels: Pixels, step: Callable[[], list[Followed]]) -> Gst.FlowReturn:
        """Push what a step of the anonymizer completes; if it fails, flat pictures for all that wait."""
        ready: list[tuple[tuple[int, int], Followed | None]]
        try:
            # Taken from the queue at once: what comes after an error still gets its own time.
            ready = [(self._waiting.popleft(), followed) for followed in step()]
        except Exception as error:  # noqa: BLE001  whatever went wrong, tracks may be mixed up
            ready = [(times, None) for times in self._waiting]
            self._waiting.clear()
            anonymizer.reset()
            self._withhold(anonymizer, error)
        flow = Gst.FlowReturn.OK
        for times, followed in ready:
            if flow == Gst.FlowReturn.OK:
                made = Gst.Buffer.new_wrapped(self._content(anonymizer, pixels, followed))
                made.pts, made.duration = times
                flow = self.source.push(made)
            self._counts["frames" if flow == Gst.FlowReturn.OK else "dropped"] += 1
        self._report()
        return flow

    def _content(self, anonymizer: Anonymizer, pixels: Pixels, followed: Followed | None) -> bytes:
        """Of the buffer that is pushed."""
        if followed is not None:
            try:
                item = anonymizer.cover(followed)
                content = pixels.write(self._orientation.undo(item.image))
            except Exception as error:  # noqa: BLE001  whatever went wrong, the picture may be raw
                self._withhold(anonymizer, error)
            else:
                self._counts["withheld"] += item.withheld is not None
                return content
        self._counts["withheld"] += 1
        return self._flat

    def _withhold(self, anonymizer: Anonymizer, error: Exception) -> None:
        """Note why a flat picture is sent, or end the flow where that was asked for or nothing will come any more."""
        if isinstance(error, StreamStoppedError | HungError) or anonymizer.settings.on_failure == "stop":
            raise error
        self._trouble = one_line(error)

    def _is_late(self, buffer: Gst.Buffer) -> bool:
        """Whether the sink would have no use for this picture any more (QoS)."""
        if not self._late_until or buffer.pts == Gst.CLOCK_TIME_NONE:
            return False
        running = self._segment.to_running_time(Gst.Format.TIME, buffer.pts)
        return bool(running != Gst.CLOCK_TIME_NONE and running < self._late_until)

    def _sink_event(self, _pad: Gst.Pad, _parent: Gst.Object, event: Gst.Event) -> bool:
        if event.type in _DRAINING:
            self._drain()
        made = passed_on(event)
        self._counts["dropped-events"] += made is None
        if event.type == Gst.EventType.CAPS and not self._negotiate(event.parse_caps()):
            return False
        if event.type == Gst.EventType.STREAM_START:
            self._turn(Orientation())
        elif event.type == Gst.EventType.TAG:
            self._turn(orientation_of(event) or self._orientation)
        elif event.type == Gst.EventType.SEGMENT:
            event.copy_segment(self._segment)
        elif event.type == Gst.EventType.EOS:
            self._report(force=True)
        elif event.type == Gst.EventType.FLUSH_STOP:
            self._counts["dropped"] += len(self._waiting)
            self._waiting.clear()
            self._late_until = 0
            if self._anonymizer is not None:
                self._anonymizer.reset()
        return made is None or bool(self.source.push_event(made))

    def _turn(self, orientation: Orientation) -> None:
        """From the next picture on."""
        if orientation == self._orientation:
            return
        self._drain()
        self._orientation = orientation
        if self._anonymizer is not None and self._pixels is not None:
            self._anonymizer.reset()
            self._anonymizer.prepare(*self._upright(self._pixels))

    def _negotiate(self, caps: Gst.Caps) -> bool:
        self._pixels = None
        features = caps.get_features(0)
        if not is_here(features):
            self._post_error(
                f"{features.to_string()} is not system memory; put a converter before standin "
                "(nvvideoconvert, cudadownload, gldownload)"
            )
            return False
        info = GstVideo.VideoInfo.new_from_caps(caps)
        if info is None or self._anonymizer is None:
            return False
        colour = info.colorimetry
        tags = tags_of(int(colour.matrix), int(colour.range), int(colour.transfer), int(colour.primaries))
        pixels = Pixels(layout_from(info), tags)
        # Made now, so that it is there whatever fails later.
        self._flat = pixels.write(flat_image((info.height, info.width, 3)))
        self._format = info.finfo.format
        self._aspect = Fraction(info.par_n, info.par_d) if info.par_n and info.par_d else Fraction(1)
        self._rate = Fraction(info.fps_n, info.fps_d) if info.fps_n and info.fps_d else None
        self._anonymizer.reset()
        self._anonymizer.prepare(*self._upright(pixels))
        self._pixels = pixels
        self.post_message(Gst.Message.new_latency(self))
        return True

    def _drain(self) -> None:
        """Push what still waits for later frames."""
        if self._anonymizer is not None and self._pixels is not None and self._waiting:
            try:
                self._push(self._anonymizer, self._pixels, self._anonymizer.finish)
            finally:
                self._waiting.clear()
                self._anonymizer.reset()

    def _source_event(self, pad: Gst.Pad, parent: Gst.Object, event: Gst.Event) -> bool:
        if event.type == Gst.EventType.QOS:
            _, _, difference, stamp = event.parse_qos()
            if stamp != Gst.CLOCK_TIME_NONE:
                self._late_until = max(0, stamp + 2 * difference) if difference > 0 else max(0, stamp + difference)
        return bool(pad.event_default(parent, event))

    def _sink_query(self, pad: Gst.Pad, parent: Gst.Object, query: Gst.Query) -> bool:
        if query.type == Gst.QueryType.CAPS:
            return self._answer_caps(query, self.source)
        if query.type == Gst.QueryType.ALLOCATION:
            # Buffers of a sink's memory are of no use here: ours are made anew.
            return False
        return bool(pad.query_default(parent, query))

    def _answer_caps(self, query: Gst.Query, other: Gst.Pad) -> bool:
        """What the other side takes, as far as we do; what comes in also in memory that `_negotiate` refuses."""
        wanted = query.parse_caps()
        found = _HERE.intersect(other.peer_query_caps(_HERE)) if other.is_linked() else _HERE
        if other == self.sink:
            # Where nothing is in our memory, the message about it matters more than what comes next.
            found = _HERE if found.is_empty() else found
            query.set_caps_result(found if wanted is None else found.intersect(wanted))
            return True
        if wanted is None:
            query.set_caps_result(Gst.Caps.merge(found.copy(), _ANYWHERE.copy()))
            return True
        usable = found.intersect(wanted)
        query.set_caps_result(elsewhere(wanted) if usable.is_empty() else usable)
        return True

    def _source_query(self, pad: Gst.Pad, parent: Gst.Object, query: Gst.Query) -> bool:
        if query.type == Gst.QueryType.CAPS:
            return self._answer_caps(query, self.sink)
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
        if self._trouble is not None:
            _log.warning("frame withheld: %s", self._trouble)
            self._trouble = None
        text = ", ".join(f"{name}=(int){count}" for name, count in self._counts.items())
        structure, _ = Gst.Structure.from_string(f"standin-statistics, {text};")
        self.post_message(Gst.Message.new_element(self, structure))

    def _post_error(self, text: str) -> None:
        _log.error("%s", text)
        error = GObject.GError.new_literal(Gst.stream_error_quark(), text, Gst.StreamError.FAILED)
        self.post_message(Gst.Message.new_error(self, error, text))


GObject.type_register(StandinElement)
__gstelementfactory__ = ("standin", Gst.Rank.NONE, StandinElement)

"""Live sources through GStreamer: pictures that a pipeline has decoded, and bytes that a pipeline has fetched.

A description gets our converter and our appsink; a URL becomes a description. Where GStreamer only fetches, as for
SRT, FFmpeg takes the stream apart and decodes it, by the same rules as any other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from fractions import Fraction
from typing import Any, Final

from engines.errors import SourceError
from stream.address import Address, Place
from stream.colour import ColourTags
from stream.gst import ENDED, NANOSECONDS, Running, bindings, parse, require, trouble, verify_peer
from stream.gst_layout import layout_from, layout_of
from stream.gst_pixels import FORMATS, ORIENTATIONS, Layout, tags_of, video_frame
from stream.orientation import Orientation
from stream.sources.base import StreamInfo
from stream.sources.connection import Peer
from stream.sources.decoder import CONCEALED, Lost, Picture
from stream.sources.gst_guard import Guard

_OUT: Final = "standin_out"
_PEER: Final = "standin_peer"
_TIME_BASE: Final = Fraction(1, NANOSECONDS)
#: Of raw pictures; those with more bits than eight are reduced by the converter.
_RAW: Final = f"video/x-raw, format=(string){{ {', '.join(FORMATS)} }}"
#: Pictures are taken at once; a few may wait while one is.
_TAIL: Final = f'videoconvert ! appsink name={_OUT} sync=false max-buffers=4 caps="{_RAW}"'
#: Only what becomes pictures is decoded.
_URL: Final = f'uridecodebin name={_PEER} expose-all-streams=false caps="video/x-raw(ANY)"'
#: By scheme: what fetches an MPEG transport stream.
_FETCHED: Final = {"srt": "srtsrc", "udp": "udpsrc"}
#: Milliseconds that RTP packets over UDP may wait for those that were overtaken; over TCP none are.
_JITTER: Final = {"udp": 100, "tcp": 0}
#: Nanoseconds that a call may wait: so long is an error not seen.
_SLICE: Final = NANOSECONDS // 10
#: Bytes that may wait to be taken apart.
_MOST_BYTES: Final = 4 * 2**20
_SECONDS_TO_END: Final = 1.0


def fetched(address: Address) -> bool:
    """Whether GStreamer only fetches what FFmpeg is to take apart."""
    return address.scheme in _FETCHED


class _Outlet:
    """What comes out of a pipeline's appsink, or the reason why nothing does any more.

    Args:
        name: of the source, as it may be shown.
        pipeline: with our appsink in it.
        peer: time-outs.
    """

    def __init__(self, name: str, pipeline: Any, peer: Peer) -> None:
        self._name = name
        self._patience = peer.read_timeout
        self._due = time.monotonic() + peer.connect_timeout
        self._running = Running(pipeline)
        self.sink = pipeline.get_by_name(_OUT)
        self.pipeline = pipeline

    def next(self) -> Any:
        """The next sample, None if none came in a moment.

        Raises:
            EOFError: none will come.
            SourceError: the pipeline failed, or nothing came in time.
        """
        begun = self._running.begun.wait(_SLICE / NANOSECONDS)
        if begun and (sample := self.sink.try_pull_sample(_SLICE)) is not None:
            self.took()
            return sample
        if (reason := trouble(self._running.bus)) not in (None, ENDED):
            raise SourceError(f"{self._name} cannot be read: {reason}")
        if self._running.failed:
            raise SourceError(f"{self._name} cannot be read: the pipeline does not start")
        if begun and self.sink.is_eos():
            raise EOFError
        if time.monotonic() > self._due:
            raise SourceError(f"{self._name} cannot be read: nothing came in time")
        return None

    def took(self) -> None:
        """Whoever takes samples may have been busy: waiting begins now."""
        self._due = time.monotonic() + self._patience

    def close(self) -> None:
        self._running.stop(_SECONDS_TO_END)


class GstConnection:
    """One connection to a source whose pictures GStreamer decodes. Used by one thread.

    Args:
        address: a description, or a URL that GStreamer is to read.
        peer: how to talk to it.

    Raises:
        UsageError: the description cannot be meant.
        RuntimeUnavailableError: GStreamer or an element is missing.
    """

    def __init__(self, address: Address, peer: Peer) -> None:
        self._name = str(address)
        self._described = address.place is Place.PIPELINE
        text = address.description if self._described else _URL
        pipeline = parse(f"{text} ! {_TAIL}", name=self._name)
        if not self._described:
            _call(pipeline, address, peer)
        self._guard = Guard(pipeline)
        self._layouts: dict[str, tuple[Layout, ColourTags, Any]] = {}
        self._live: bool | None = None
        self._caps = ""
        #: Of pictures that wait in our sink, in their order, and of the one that was taken last.
        self._orientations: deque[Orientation] = deque()
        self._orientation = Orientation()
        pad = pipeline.get_by_name(_OUT).get_static_pad("sink")
        pad.add_probe(bindings().gst.PadProbeType.BUFFER, self._note_orientation)
        self._outlet = _Outlet(self._name, pipeline, peer)

    @property
    def ends(self) -> bool:
        """Whether its end is no loss: a pipeline that waits for us, a URL that says how long it is."""
        return self._live is False

    @property
    def waits(self) -> bool:
        """Whether nothing is lost if nobody takes pictures for a while."""
        return self._live is False

    def pictures(self, *, strict: bool, beat: Callable[[], None] = lambda: None) -> Iterator[Picture | Lost]:
        """Pictures in order of presentation.

        Args:
            strict: whether pictures count as damaged that depend on something that was lost on the way.
            beat: called as long as the pipeline is looked after: that has time-outs of its own.

        Raises:
            SourceError: nothing came in time, or the pipeline failed.
        """
        self._guard.strict = strict
        kept = 0
        while True:
            beat()
            try:
                sample = self._outlet.next()
            except EOFError:
                yield from self._guard.lost(None)
                return
            if sample is None:
                if self._guard.kept > kept:
                    # Something comes; the next key frame may be far away.
                    kept = self._guard.kept
                    self._outlet.took()
                yield from self._guard.lost(None)
                continue
            if self._live is None:
                self._live = self._is_live()
            if self._orientations:
                self._orientation = self._orientations.popleft()
            item = self._picture(sample)
            yield from self._guard.lost(item.pts)
            yield item
            self._outlet.took()

    def arrived(self, item: Picture | Lost) -> float | None:
        """None: pictures come here decoded."""
        del item
        return None

    def shape(self, picture: Picture) -> Hashable:
        """What the picture that has just come is like in any respect, and how it lies."""
        del picture
        return self._caps, self._orientation

    def describe(self, picture: Picture) -> StreamInfo:
        """What is known with the picture that has just come."""
        layout, tags, video = self._layouts[self._caps]
        orientation = self._orientation
        width, height = layout.width, layout.height
        if orientation.transpose:
            width, height = height, width
        return StreamInfo(
            name=self._name,
            width=width,
            height=height,
            time_base=_TIME_BASE,
            rate=Fraction(video.fps_n, video.fps_d) if video.fps_n and video.fps_d else None,
            start_pts=picture.pts or 0,
            pixel_aspect=Fraction(video.par_n, video.par_d) if video.par_n and video.par_d else None,
            orientation=orientation,
            pix_fmt=FORMATS[layout.format],
            tags=tags,
            interlaced=int(video.interlace_mode) != 0,
        )

    def close(self) -> None:
        """End the pipeline, or leave it behind if it does not end."""
        self._outlet.close()

    def _is_live(self) -> bool:
        """Whether the pipeline goes by a clock of its own, or may not be held up for another reason."""
        gst, pipeline = bindings().gst, self._outlet.pipeline
        query = gst.Query.new_latency()
        # Asked before our sink, which is never live, since it does not wait for a picture's time.
        if self._outlet.sink.get_static_pad("sink").peer_query(query) and query.parse_latency()[0]:
            return True
        if self._described or pipeline.query_duration(gst.Format.TIME)[0]:
            return False
        # A stream without an end that comes in pieces, such as HLS: its pictures are taken when they are due.
        self._outlet.sink.set_property("sync", True)
        return True

    def _picture(self, sample: Any) -> Picture | Lost:
        gst = bindings().gst
        buffer = sample.get_buffer()
        none = gst.CLOCK_TIME_NONE
        pts = None if buffer.pts == none else int(buffer.pts)
        duration = 0 if buffer.duration == none else int(buffer.duration)
        usual, tags, _ = self._layout(sample.get_caps())
        damaged = None
        if buffer.has_flags(gst.BufferFlags.CORRUPTED):
            damaged = CONCEALED
        elif buffer.has_flags(gst.BufferFlags.GAP):
            damaged = "the picture only fills a gap"
        try:
            content = buffer.extract_dup(0, buffer.get_size())
            frame = video_frame(content, layout_of(buffer, usual), tags)
        except ValueError as error:
            return Lost(pts or 0, duration, f"its buffer cannot be read: {error}")
        frame.pts, frame.time_base, frame.duration = pts, _TIME_BASE, duration
        return Picture(frame, self._guard.judge(pts or 0, damaged))

    def _layout(self, caps: Any) -> tuple[Layout, ColourTags, Any]:
        self._caps = caps.to_string()
        if self._caps not in self._layouts:
            video = bindings().video.VideoInfo.new_from_caps(caps)
            colour = video.colorimetry
            tags = tags_of(int(colour.matrix), int(colour.range), int(colour.transfer), int(colour.primaries))
            self._layouts = {self._caps: (layout_from(video), tags, video)}
        return self._layouts[self._caps]

    def _note_orientation(self, pad: Any, _info: Any) -> Any:
        """A picture comes to our sink, where it may wait: how it lies is known now."""
        gst = bindings().gst
        found, number = Orientation(), 0
        while (event := pad.get_sticky_event(gst.EventType.TAG, number)) is not None:
            known, text = event.parse_tag().get_string("image-orientation")
            if known:
                found = ORIENTATIONS.get(text, Orientation())
                break
            number += 1
        self._orientations.append(found)
        return gst.PadProbeReturn.OK


class FetchedStream:
    """A stream of bytes that GStreamer fetches, as a file that FFmpeg can read. Used by one thread.

    Args:
        address: of the source.
        peer: how to talk to it.

    Raises:
        RuntimeUnavailableError: GStreamer or its element is missing.
    """

    def __init__(self, address: Address, peer: Peer) -> None:
        pipeline = parse(f"{_FETCHED[address.scheme]} name={_PEER} ! appsink name={_OUT} sync=false")
        pipeline.get_by_name(_PEER).set_property("uri", address.text)
        pipeline.get_by_name(_OUT).set_property("max-buffers", _MOST_BYTES // 1316)
        self._outlet = _Outlet(str(address), pipeline, peer)
        self._rest = b""
        #: Why it has ended, None if it simply has. FFmpeg cannot carry an error of Python's.
        self.error: SourceError | None = None

    def read(self, size: int) -> bytes:
        """Some bytes, at most so many; none at the end, also where that is one of another kind (`error`)."""
        while not self._rest:
            try:
                sample = self._outlet.next() if self.error is None else None
            except SourceError as error:
                self.error = error
            except EOFError:
                return b""
            if self.error is not None:
                return b""
            if sample is not None:
                buffer = sample.get_buffer()
                self._rest = buffer.extract_dup(0, buffer.get_size())
        some, self._rest = self._rest[:size], self._rest[size:]
        return some

    def close(self) -> None:
        """Hang up."""
        self._outlet.close()


def _call(pipeline: Any, address: Address, peer: Peer) -> None:
    """Tell a pipeline for a URL whom to call, and how."""
    if address.scheme in ("rtsp", "rtsps"):
        require("rtspsrc")
    decoder = pipeline.get_by_name(_PEER)
    decoder.set_property("uri", address.text)
    decoder.connect("source-setup", lambda _decoder, source: _set_up(source, peer))
    pipeline.connect("deep-element-added", lambda _pipeline, _bin, element: _hurry(element))


def _hurry(element: Any) -> None:
    """Motion JPEG: it would wait for further streams, which never come."""
    factory = element.get_factory()
    if factory is not None and factory.get_name() == "multipartdemux":
        element.set_property("single-stream", True)


def _set_up(source: Any, peer: Peer) -> None:
    found = bindings()
    name = source.get_factory().get_name()
    verify_peer(source, insecure=peer.insecure)
    if name == "rtspsrc":
        found.gst.util_set_object_arg(source, "protocols", peer.rtsp_transport)
        source.set_property("latency", _JITTER[peer.rtsp_transport])
        source.set_property("tcp-timeout", round(peer.connect_timeout * 1_000_000))
    elif name == "souphttpsrc":
        source.set_property("timeout", max(1, round(peer.read_timeout)))

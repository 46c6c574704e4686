"""The peers of `live_faults.py`, processes that can be killed: an RTSP camera, and a server that takes RTSP and looks.

    python -m benchmarks.live_peers camera --port 8554 --pictures packets.bin
    python -m benchmarks.live_peers server --port 8555

Both print JSON lines; times are of the monotonic clock, which all processes of a machine share. The camera is
GStreamer's RTSP server (Debian: gir1.2-gst-rtsp-server-1.0), the server FFmpeg's.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.packet import Packet

from benchmarks.live_scene import RATE, Scene, decoded, encode

#: Seconds without a packet after which the server listens for the next client.
_SILENCE = 20.0


def write_packets(path: Path, packets: Sequence[Packet[av.VideoStream]]) -> None:
    """Keeps packets for a camera: each with its length before it."""
    path.write_bytes(b"".join(struct.pack("<I", packet.size) + bytes(packet) for packet in packets))


def read_packets(path: Path) -> list[bytes]:
    """What `write_packets` kept."""
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        (size,) = struct.unpack_from("<I", content, at)
        found.append(content[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def camera(port: int, pictures: Path) -> None:
    """Serves the pictures over and over, at their rate, to any number of clients."""
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    packets = read_packets(pictures)

    def configure(_: Any, media: Any) -> None:
        source = media.get_element().get_by_name("source")

        def push() -> None:
            number, due = 0, time.monotonic()
            while (
                source.emit("push-buffer", Gst.Buffer.new_wrapped(packets[number % len(packets)])) == Gst.FlowReturn.OK
            ):
                number, due = number + 1, due + 1 / RATE
                time.sleep(max(0.0, due - time.monotonic()))

        threading.Thread(target=push, daemon=True).start()

    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(port))
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        "( appsrc name=source is-live=true format=time do-timestamp=true "
        "caps=video/x-h264,stream-format=byte-stream,alignment=au "
        "! h264parse config-interval=-1 ! rtph264pay name=pay0 pt=96 )"
    )
    factory.set_shared(True)
    factory.connect("media-configure", configure)
    server.get_mount_points().add_factory("/camera", factory)
    if not server.attach(None):
        raise SystemExit(f"port {port} of loopback is taken")
    _say(listening=time.monotonic())
    GLib.MainLoop().run()


def server(port: int) -> None:
    """Takes one client after the other, and says of each frame what became of the face in it."""
    scene = Scene()
    originals = decoded(encode(scene))
    _say(listening=time.monotonic())
    while True:
        try:
            _serve(port, scene, originals)
        except (av.error.FFmpegError, OSError) as error:
            _say(hung_up=time.monotonic(), why=str(getattr(error, "strerror", None) or error))


def _serve(port: int, scene: Scene, originals: dict[int, Any]) -> None:
    options = {"rtsp_flags": "listen", "listen_timeout": "3600", "analyzeduration": "100000", "fflags": "nobuffer"}
    with av.open(f"rtsp://127.0.0.1:{port}/out", options=options, timeout=(3600, _SILENCE)) as container:
        container.streams.video[0].thread_count = 1
        for frame in container.decode(video=0):
            found = scene.check(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), originals)
            _say(
                frame=time.monotonic(), verdict=found.verdict, number=found.number, unchanged=round(found.unchanged, 3)
            )


def _say(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Be one of the peers until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("camera", "server"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args(arguments)
    if options.what == "camera":
        camera(options.port, options.pictures)
    else:
        server(options.port)


if __name__ == "__main__":
    main()

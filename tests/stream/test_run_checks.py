"""What can be meant together. Each case says what is given and what somebody is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines.errors import UsageError
from stream.address import Address, input_address, output_address
from stream.config import RunSettings, make_settings
from stream.run_checks import check_run, check_settings, for_stills, is_recording, is_still
from stream.sources.describe import can_demux


def settings(**values: Any) -> RunSettings:
    return make_settings(RunSettings, {"preset": "faces", **values})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a clip, a picture and a folder of pictures in it, in which the test runs."""
    (tmp_path / "clip.mp4").write_bytes(b"a clip")
    (tmp_path / "photo.png").write_bytes(b"a photo")
    (tmp_path / "photos").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


CAMERA = "rtsp://camera.local/1"
SERVER = "rtmp://server.local/live"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("source", "outputs", "given"),
    [
        ("clip.mp4", ["out.mp4"], {}),
        ("clip.mp4", ["out.mp4", "there/out.mkv"], {"audio": "keep"}),
        ("clip.mp4", ["-"], {}),
        ("-", ["out.mkv"], {"raw": "64x48@25"}),
        ("-", ["-"], {}),
        ("photo.png", ["out.jpg"], {}),
        ("photos", ["out"], {}),
        (CAMERA, ["out.mkv", SERVER, "rtsp-server://127.0.0.1:8554/x", "gst:fakesink", "-"], {}),
        (CAMERA, ["recordings"], {"segment": "10min", "retain": "7d,20GB"}),
        (CAMERA, ["there/"], {}),
        (CAMERA, ["recordings", "out.mkv", "there/live.m3u8"], {"segment": "1h"}),
        (CAMERA, ["there/live.m3u8"], {"report": Path("there/report.jsonl")}),
        ("gst:videotestsrc", ["out.mp4"], {}),
        (CAMERA, [SERVER, "out.mkv"], {"spool": "100MB"}),
        (CAMERA, ["rtmps://server.local/live/x"], {"backend": "gst"}),
        (CAMERA, ["rtmps://server.local/live/x"], {"insecure": True}),
        ("https://server.local/live.m3u8", ["out.mp4"], {"backend": "gst"}),
        ("https://server.local/live.m3u8", ["out.mp4"], {"insecure": True}),
        ("http://server.local/live.m3u8", ["out.mp4"], {}),
        ("https://server.local/live.mp4?x=.m3u8", ["out.mp4"], {}),
        ("http://server.local/live.mpd", ["out.mp4"], {"backend": "gst"}),
        ("gst:uridecodebin uri=https://server.local/live.mpd", ["out.mp4"], {}),
        ("http://server.local/live.mp4?x=.mpd", ["out.mp4"], {}),
        (CAMERA, ["out.mp4"], {"video_stream": "1"}),
        (CAMERA, ["out.mp4"], {"decoder": "cuda", "decoding": "lenient"}),
        ("srt://camera.local:9000", ["out.mp4"], {"decoder": "cuda", "decoding": "lenient", "backend": "gst"}),
        ("-", ["out.mp4"], {"decoder": "cuda", "decoding": "lenient"}),
        ("srt://camera.local:9000", ["out.mp4"], {"video_stream": "1", "backend": "gst"}),
        ("clip.mp4", ["gst:fakesink"], {"video_stream": "1", "backend": "gst"}),
        (CAMERA, ["out.mp4", "gst:fakesink"], {"codec": "libx264", "crf": 20, "speed": "fast"}),
        (CAMERA, ["rtsps-server://:8555/x"], {"certificate": Path("c"), "private_key": Path("k")}),
        (CAMERA, ["rtsp-server://:8555/x", "rtsp-server://:8556/x", "rtsp-server://h/x"], {}),
    ],
)
def test_what_goes_together(source: str, outputs: list[str], given: dict[str, Any]) -> None:
    addresses = [output_address(output) for output in outputs]
    at = input_address(source)
    still = not at.live and source != "-" and is_still(at.path)
    check_run(at, addresses, settings(**given), still=still)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("source", "outputs", "given", "message"),
    [
        ("clip.mp4", [], {}, "no output"),
        ("clip.mp4", ["out.mp4"], {"decoder": "cuda"}, "--decoding lenient as well"),
        (CAMERA, ["out.mp4"], {"decoder": "cuda", "decoding": "strict"}, "conceals damaged pictures"),
        (CAMERA, ["out.mp4"], {"decoder": "cuda", "decoding": "lenient", "backend": "gst"}, "GStreamer chooses"),
        ("gst:videotestsrc", ["out.mp4"], {"decoder": "cuda", "decoding": "lenient"}, "GStreamer chooses"),
        ("-", ["out.mkv"], {"decoder": "cuda", "decoding": "lenient", "raw": "64x48@25"}, "nothing to decode"),
        ("clip.mp4", ["clip.mp4"], {"overwrite": True}, "is the input"),
        ("clip.mp4", ["photo.png"], {"overwrite": True}, "must be one too"),
        ("clip.mp4", ["out.png"], {}, "must be one too"),
        ("clip.mp4", ["out.mp4", "out.mp4"], {}, "two outputs are the same"),
        ("clip.mp4", ["out.mp4", "there/../out.mp4"], {}, "two outputs are the same"),
        ("clip.mp4", ["-", "-"], {}, "standard output can be one output only"),
        ("clip.mp4", ["there"], {}, "is a folder; a file is expected"),
        ("clip.mp4", ["gone/out.mp4"], {}, "does not exist"),
        ("clip.mp4", ["out.mp4"], {"segment": "10min"}, "are for recordings"),
        ("clip.mp4", ["there/"], {"audio": "keep"}, "no sound is kept in segments"),
        ("clip.mp4", ["out.mp4"], {"retain": "7d"}, "are for recordings"),
        ("clip.mp4", ["out.mp4"], {"raw": "64x48@25"}, "the input must be -"),
        ("clip.mp4", [SERVER], {"audio": "keep"}, "no sound is sent"),
        ("clip.mp4", ["out.mp4"], {"report": Path("out.mp4")}, "--report and the output are the same"),
        ("clip.mp4", ["out.mp4"], {"report": Path("clip.mp4"), "overwrite": True}, "is the input"),
        ("clip.mp4", ["out.mp4"], {"contact_sheet": Path("sheet.jpg")}, "must end in .png"),
        ("clip.mp4", ["out.mp4"], {"detections": Path("out.mp4")}, "is the input or an output"),
        ("photo.png", ["out.mp4"], {}, "must be one too"),
        ("photo.png", ["-"], {}, "images cannot be sent to the pipe"),
        ("photos", ["out.mp4"], {}, "must be one too"),
        ("photos", ["one", "two"], {}, "images have one output"),
        (CAMERA, ["out.mp4"], {"start": 1}, "a live source begins now"),
        (CAMERA, ["out.mp4"], {"audio": "keep"}, "the sound of a live source is dropped"),
        (CAMERA, ["out.mp4"], {"detections": Path("found.db")}, "never comes again"),
        ("-", ["out.mp4"], {"end": 1}, "a pipe begins now"),
        (CAMERA, ["udp://127.0.0.1:5000"], {"spool": "100MB"}, "--spool is for servers"),
        (CAMERA, [SERVER], {"spool": "100MB", "backend": "gst"}, "--spool is for servers"),
        (CAMERA, ["rtmps://u:p@server.local/live/x"], {}, r"\*\*\*@server.local/live/\*\*\*: .*use --backend gst"),
        ("https://server.local/live.M3U8?x", ["out.mp4"], {}, "does not verify .* segments; use --backend gst"),
        ("gst:videotestsrc", ["out.mp4"], {"video_stream": "1"}, "--video-stream is for what FFmpeg reads"),
        (CAMERA, ["out.mp4"], {"video_stream": "1", "backend": "gst"}, "--video-stream is for what FFmpeg reads"),
        (CAMERA, ["gst:fakesink"], {"codec": "libx264"}, "^--codec: gst: outputs get bare pictures"),
        (CAMERA, ["gst:fakesink", "gst:x"], {"crf": 20, "speed": "fast"}, "^--crf, --speed: gst: outputs"),
        (CAMERA, ["rtsp-server://:8555/x"], {"certificate": Path("c"), "private_key": Path("k")}, "for rtsps-server"),
        (CAMERA, ["rtsp-server://:8555/x", "rtsps-server://:8555/y"], {}, "each needs its own port"),
        (CAMERA, ["rtsp-server://127.0.0.1/x", "rtsp-server://127.0.0.1:8554/y"], {}, "each needs its own port"),
    ],
)
def test_what_does_not(source: str, outputs: list[str], given: dict[str, Any], message: str) -> None:
    addresses = [output_address(output) for output in outputs]
    at = input_address(source)
    still = not at.live and source != "-" and is_still(at.path)
    with pytest.raises(UsageError, match=message):
        check_run(at, addresses, settings(**given), still=still)


@pytest.mark.parametrize("source", ["http://server.local/live.mpd", "http://server.local/live.MPD?x=1"])
def test_dash_that_ffmpeg_was_built_without_is_said_at_once(source: str) -> None:
    def check() -> None:
        check_settings(input_address(source), [output_address("out.mp4")], settings())

    if can_demux("dash"):
        check()
        return
    with pytest.raises(UsageError, match="built without; --backend gst"):
        check()


def test_settings_are_compared_without_a_look_at_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = [output_address("gone/out.mp4"), output_address("gone/in/")]
    given = settings(report=Path("gone/report.json"), contact_sheet=Path("gone/sheet.png"))
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as closed:
        for name in ("stat", "resolve", "is_dir", "exists", "is_file"):
            closed.delattr(Path, name)
        check_settings(input_address("gone.mp4"), outputs, given)
        with pytest.raises(UsageError, match="two outputs are the same"):
            check_settings(input_address("gone.mp4"), [outputs[0], outputs[0]], given)
    with pytest.raises(UsageError, match="does not exist"):
        check_run(input_address("gone.mp4"), outputs, given, still=False)


def test_what_is_not_there_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        is_still(tmp_path / "gone.mp4")


@pytest.mark.parametrize(
    ("output", "given", "expected"),
    [
        ("out", {}, False),
        ("out/", {}, True),
        ("out", {"segment": "1h"}, True),
        ("out.mp4", {"segment": "1h"}, False),
        (SERVER, {"segment": "1h"}, False),
    ],
)
def test_which_outputs_are_recordings(output: str, given: dict[str, Any], expected: bool) -> None:
    address: Address = output_address(output)
    assert is_recording(address, settings(**given)) is expected


def test_pictures_of_a_folder_have_nothing_to_do_with_each_other_unless_somebody_says_so() -> None:
    assert (for_stills(settings()).hold, for_stills(settings()).lookahead) == (0, 0)
    assert for_stills(settings()).remember == 0
    assert for_stills(settings(hold=3)).hold == 3
    assert for_stills(settings(hold=3)).remember == 0
    assert for_stills(settings(hold=3, remember=9)).remember == 9
    # A batch has both; who decodes video makes no difference to images.
    assert for_stills(settings(decoder="cuda", decoding="lenient")).decoder == "cpu"
    with pytest.raises(UsageError, match="are for video"):
        for_stills(settings(start=1))

from __future__ import annotations

from pathlib import Path

import pytest

from engines.errors import UsageError
from stream.address import output_address
from stream.config import RunSettings
from stream.quantities import Extent
from stream.service.written import check_lasting, going_on, places
from stream.sinks.hls import HlsOptions, HlsSink
from tests.stream.sinks.recordings import INFO, RATE, numbered

LIST = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n{}\n#EXT-X-ENDLIST\n"
OURS = "live-20260102T030405000006Z-00001.ts"


@pytest.mark.parametrize("output", ["rec/", "live.m3u8", "rtsp://server/x", "udp://239.0.0.1:5000", "gst:fakesink"])
def test_what_goes_on_after_a_restart_is_taken(output: str) -> None:
    check_lasting([output_address(output)], RunSettings(report=Path("r.jsonl")))


def test_a_folder_is_told_by_the_segments_as_well() -> None:
    check_lasting([output_address("rec")], RunSettings(segment=Extent(seconds=60)))
    with pytest.raises(UsageError):
        check_lasting([output_address("rec")], RunSettings())


@pytest.mark.parametrize(
    ("output", "settings", "message"),
    [
        ("front.mkv", {}, r"front.mkv is a single file.*\(front/\).*\(front.m3u8\).*server.*overwrite = true"),
        ("rec/", {"report": Path("r.json")}, r"the report r.json.*r\.jsonl.*overwrite = true"),
        ("rec/", {"contact_sheet": Path("c.png")}, r"the contact sheet c.png.*leave it out.*overwrite = true"),
    ],
)
def test_what_is_written_once_needs_leave_to_be_replaced(output: str, settings: dict[str, Path], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_lasting([output_address(output)], RunSettings.model_validate(settings))
    check_lasting([output_address(output)], RunSettings.model_validate({**settings, "overwrite": True}))


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        (None, True),
        ("", True),
        (LIST.format(OURS), True),
        (LIST.format(OURS).replace("\n", "\r\n"), True),
        (LIST.format("holiday.ts"), False),
        (LIST.format(OURS.replace("live", "other")), False),
        (LIST.format(f"{OURS}\nfilm.mkv"), False),
    ],
)
def test_only_playlists_of_ours_are_replaced(text: str | None, replaced: bool, tmp_path: Path) -> None:
    playlist = tmp_path / "live.m3u8"
    if text is not None:
        playlist.write_text(text)
    outputs = [output_address(str(playlist)), output_address("rtsp://server/x")]
    assert going_on(outputs, RunSettings()).overwrite == replaced


@pytest.mark.parametrize("options", [HlsOptions(seconds=1), HlsOptions(seconds=1, kind="fmp4")], ids=["ts", "fmp4"])
def test_what_an_earlier_run_has_left_is_replaced(options: HlsOptions, tmp_path: Path) -> None:
    playlist = tmp_path / "live.m3u8"
    sink = HlsSink(playlist, INFO, options)
    for index in range(2 * RATE):
        sink.write(numbered(index))
    left = {path.name for path in tmp_path.iterdir()}
    # Without leave it would not even begin.
    with pytest.raises(UsageError, match="exists"):
        HlsSink(playlist, INFO, options)
    settings = going_on([output_address(str(playlist))], RunSettings())
    again = HlsSink(playlist, INFO, options, overwrite=settings.overwrite)
    again.write(numbered(0))
    again.close()
    # Nothing of the first run is left, but for what it has opened itself.
    assert not (left - {playlist.name}) & {path.name for path in tmp_path.iterdir()}
    sink.abort()


def test_what_has_no_playlist_stays_as_it_is() -> None:
    for settings in (RunSettings(), RunSettings(overwrite=True)):
        assert going_on([output_address("rec/"), output_address("rtsp://server/x")], settings) is settings


def test_places_tell_what_would_collide(tmp_path: Path) -> None:
    outputs = [
        output_address(text)
        for text in (
            f"{tmp_path}/x/../rec/",
            "rtsp://me:secret@Server.local/a/",
            "rtsp-server://127.0.0.1/a",
            "srt://server:9000?streamid=a",
            "udp://239.0.0.1:5000?ttl=3",
        )
    ]
    assert places(outputs, RunSettings(report=Path("/r/./a.jsonl"))) == (
        f"{tmp_path}/rec",
        "rtsp://server.local:554/a?",
        "port 8554",
        "srt://server:9000/?streamid=a",
        "udp://239.0.0.1:5000/?",
        "/r/a.jsonl",
    )

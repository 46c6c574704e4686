from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines.errors import UsageError
from stream.service.api_values import allowed_paths, check_values


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    folder.mkdir()
    return folder


def refused(values: dict[str, Any], *allowed: Path) -> str:
    with pytest.raises(UsageError) as caught:
        check_values(values, allowed_paths(allowed))
    return str(caught.value)


def test_streams_between_servers_go_on_as_they_are() -> None:
    values = {
        "input": "rtsp://user:secret@camera.local/stream",
        "output": ["rtmp://server.local/live/key", "srt://server.local:9000?passphrase=secret"],
        "face": "mask",
        "lookahead": 8,
        "latency_budget": 200,
    }
    assert check_values(values, ()) == values


def test_dashes_count_as_underscores() -> None:
    assert check_values({"latency-budget": 200}, ()) == {"latency_budget": 200}
    assert "ignore_zones" in refused({"ignore-zones": "zones.json"})


@pytest.mark.parametrize(
    "address",
    [
        "-",
        "gst:videotestsrc",
        "GST:videotestsrc",
        "gst:filesrc location=/etc/passwd",
        "gst://x",
        "concat:/a|/b",
        "a.mp4",
    ],
)
def test_addresses_that_reach_into_the_machine_are_refused(address: str, allowed: Path) -> None:
    refused({"input": address}, allowed)
    refused({"output": address}, allowed)
    refused({"output": ["rtsp://server.local/x", address]}, allowed)


@pytest.mark.parametrize("path", ["/etc/passwd", "file:///etc/passwd", "/dev/video0", "/proc/self/environ", "/dev/mem"])
def test_files_and_cameras_outside_the_allow_list_are_refused(path: str, allowed: Path) -> None:
    assert "allow-list" in refused({"input": path}, allowed)
    assert "allow-list" in refused({"input": path})


def test_a_recording_can_be_added(allowed: Path) -> None:
    values = {
        "input": "rtsp://camera.local/stream",
        "output": [f"{allowed}/x/../yard/", "rtsp://server.local/yard"],
        "segment": "10min",
        "retain": "20GB",
        "spool": "500MB",
        "video_stream": "largest",
        "report": f"{allowed}/yard.jsonl",
        "report-rotate": "64MB",
    }
    checked = check_values(values, allowed_paths([allowed]))
    # The slash says that it is a folder.
    assert checked["output"] == [f"{allowed}/yard/", "rtsp://server.local/yard"]
    unchanged = {"input", "segment", "retain", "spool", "video_stream", "report"}
    assert {name: checked[name] for name in unchanged} == {name: values[name] for name in unchanged}
    assert checked["report_rotate"] == "64MB"
    assert "allow-list" in refused({"output": f"{allowed}/../other/"}, allowed)


def test_files_inside_the_allow_list_go_on_resolved(allowed: Path) -> None:
    values = {"input": f"{allowed}/x/../in.mp4", "output": f"file://{allowed}/out.mkv", "report": f"{allowed}/r.json"}
    assert check_values(values, allowed_paths([allowed])) == {
        "input": f"{allowed}/in.mp4",
        "output": f"{allowed}/out.mkv",
        "report": f"{allowed}/r.json",
    }


def test_a_relative_path_is_refused_as_it_was_sent() -> None:
    assert refused({"output": "recordings/x/"}) == (
        "output: recordings/x/ is no URL, and over the API a path must be absolute"
    )


def test_a_camera_may_be_allowed_by_its_name() -> None:
    camera = Path("/dev/video7")
    assert check_values({"input": "/dev/video7"}, allowed_paths([camera])) == {"input": "/dev/video7"}
    refused({"input": "/dev/video8"}, camera)


@pytest.mark.parametrize("field", ["input", "output", "report", "contact_sheet", "regions"])
def test_no_way_leads_out_of_the_allow_list(field: str, allowed: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (allowed / "link").symlink_to(outside)
    (allowed / "file.mkv").symlink_to(outside / "file.mkv")
    for path in ("../outside/x.mkv", "link/x.mkv", "file.mkv", "link/../outside/x.mkv"):
        assert "allow-list" in refused({field: f"{allowed}/{path}"}, allowed)
    assert "allow-list" in refused({field: f"{allowed}-more/x.mkv"}, allowed)


def test_an_allow_list_that_is_a_link_allows_what_it_leads_to(allowed: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(allowed)
    found = check_values({"input": f"{tmp_path}/link/in.mp4"}, allowed_paths([tmp_path / "link"]))
    assert found == {"input": f"{allowed}/in.mp4"}


def test_the_root_folder_is_no_allow_list() -> None:
    with pytest.raises(UsageError, match="root"):
        allowed_paths([Path("/")])


@pytest.mark.parametrize(
    "field",
    [
        "engine",
        "ignore_zones",
        "only_zones",
        "detections",
        "overwrite",
        "insecure",
        "context",
        "decoder",
        "decoding",
        "nonsense",
        "",
    ],
)
def test_fields_that_execute_overwrite_or_leave_raw_are_refused(field: str, allowed: Path) -> None:
    assert "config file" in refused({field: f"{allowed}/x"}, allowed)


def test_nothing_is_left_raw() -> None:
    for kind in ("face", "person", "plate"):
        assert "raw" in refused({kind: "keep"})
        assert check_values({kind: "blur"}, ()) == {kind: "blur"}


def test_detectors_are_installed_ones(allowed: Path) -> None:
    assert check_values({"detector": ["centerface"]}, ()) == {"detector": ["centerface"]}
    assert check_values({"detector": "centerface"}, ()) == {"detector": ["centerface"]}
    for folder in (str(allowed), "./mine", "a/b", ".."):
        assert "installed" in refused({"detector": [folder]}, allowed)


@pytest.mark.parametrize(
    "value", [None, 3, {}, [None], [["rtsp://a/b"]], "", [""], " rtsp://a/b", "rtsp://a/b\n", "/x\x00"]
)
def test_addresses_are_texts_and_nothing_else(value: Any, allowed: Path) -> None:
    refused({"input": value}, allowed)


def test_messages_keep_secrets() -> None:
    assert "secret" not in refused({"input": "ftp://user:secret@camera.local/x?key=secret"})

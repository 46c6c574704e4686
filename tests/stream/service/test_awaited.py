from __future__ import annotations

from pathlib import Path

import pytest

from stream.address import input_address, output_address
from stream.config import RunSettings, make_settings
from stream.service.awaited import awaited

CAMERA, SERVER = "rtsp://camera.local/1", "rtsp://server.local/1"


def missing(folder: Path, source: str, *outputs: str, **settings: object) -> str | None:
    """What is not there, below the folder."""
    found = awaited(
        input_address(source.format(folder)),
        [output_address(output.format(folder)) for output in outputs],
        make_settings(RunSettings, {k: v.format(folder) if isinstance(v, str) else v for k, v in settings.items()}),
    )
    return None if found is None else str(found.relative_to(folder))


def test_servers_and_what_is_there_are_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "in.mkv").touch()
    assert missing(tmp_path, CAMERA, SERVER) is None
    assert missing(tmp_path, "{0}/in.mkv", "{0}/out.mkv", "{0}/rec/", SERVER, report="{0}/r.jsonl") is None
    assert missing(tmp_path, CAMERA, SERVER, detector=["centerface"]) is None


@pytest.mark.parametrize(
    ("output", "settings", "expected"),
    [
        ("{0}/disk/out.m3u8", {}, "disk"),
        ("{0}/disk/rec/", {}, "disk"),
        (SERVER, {"report": "{0}/disk/r.jsonl"}, "disk"),
        (SERVER, {"contact_sheet": "{0}/disk/s.png"}, "disk"),
        (SERVER, {"regions": "{0}/r.csv"}, "r.csv"),
        (SERVER, {"ignore_zones": "{0}/z.json"}, "z.json"),
        (SERVER, {"only_zones": "{0}/z.json"}, "z.json"),
    ],
)
def test_what_is_read_and_folders_that_are_written_to_are_waited_for(
    tmp_path: Path, output: str, settings: dict[str, object], expected: str
) -> None:
    assert missing(tmp_path, CAMERA, output, **settings) == expected
    (tmp_path / expected).mkdir()
    assert missing(tmp_path, CAMERA, output, **settings) is None


def test_bundles_in_folders_and_a_file_to_read_are_waited_for(tmp_path: Path) -> None:
    assert missing(tmp_path, "{0}/in.mkv", SERVER) == "in.mkv"
    assert missing(tmp_path, CAMERA, SERVER, detector=[f"{tmp_path}/mine"]) == "mine"
    assert missing(tmp_path, CAMERA, SERVER, engine=[f"centerface={tmp_path}/mine"]) == "mine"

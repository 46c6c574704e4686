from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stream import doctor_live
from stream.doctor import exit_code


def test_without_gstreamer_only_what_needs_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (check,) = doctor_live.check_gstreamer()
    assert check.status == "missing"
    assert "apt install" in check.todo
    assert exit_code([check]) == 0


def test_parts_that_are_missing_are_named_with_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = {check.name: check for check in doctor_live.check_gstreamer_parts()}
    assert checks["GStreamer srtsrc"].status == "missing"
    assert checks["GStreamer srtsrc"].todo == "only for srt://: apt install gstreamer1.0-plugins-bad"


@pytest.mark.skipif(shutil.which("gst-inspect-1.0") is None, reason="GStreamer's tools are not installed")
def test_parts_are_found_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_live, "_ELEMENTS", {"anything": ("identity", "gstreamer1.0"), "no": ("nosuch", "x")})
    checks = {check.name: check.status for check in doctor_live.check_gstreamer_parts()}
    assert checks["GStreamer identity"] == "ok"
    assert checks["GStreamer nosuch"] == "missing"

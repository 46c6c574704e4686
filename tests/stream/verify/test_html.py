from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from stream.regions import Kind
from stream.verify.findings import DEFAULT_LIMITS, find, measure, passed
from stream.verify.html import page
from stream.verify.identity import IdentityResult
from stream.verify.look import Verification, VerifySettings
from stream.verify.people import LookSettings
from stream.verify.plots import Line, Plot, draw, thinned
from stream.verify.raw import RawShare
from stream.verify.record import Case, FileRecord, FrameRecord, RegionRecord
from stream.verify.thumbs import blurred, thumbnails
from tests.stream.browser import Browser, chromium
from tests.stream.verify.clips import astronaut

EVIL = '<script>alert(1)</script>&".mp4'


def case(index: int, region: RegionRecord) -> Case:
    picture = astronaut(120, 150)
    raw = np.zeros(picture.shape[:2], np.bool_)
    raw[40:110, 30:90] = True
    return Case(index, 0.04 * index, region, picture, picture, raw, (20, 20, 100, 130))


def record(name: str, *, raw: int = 100) -> FileRecord:
    frames = []
    for index in range(30):
        share = raw if 10 <= index < 14 else 0
        frames.append(
            FrameRecord(index, 0.04 * index, [RegionRecord(Kind.FACE, (1, 1, 9, 9), 0.9, 0, RawShare(100, 100, share))])
        )
    cases = [case(10, frames[10].regions[0])] if raw else []
    identity = IdentityResult(8, 2, 0.1, 0.2, 0.5, 0.6, 0.5, 1.0)
    return FileRecord(
        name,
        (64, 48),
        (30, 30),
        0.04,
        frames,
        metadata=("place: <b>x</b> (container)",) if raw else (),
        cases=cases,
        identity=identity,
    )


def result(*files: FileRecord, **changes: Any) -> Verification:
    values = measure(files, len(changes.get("missing", ())))
    given: dict[str, Any] = {
        "original": Path("folder") / EVIL,
        "anonymized": Path("out.mp4"),
        "settings": VerifySettings(),
        "detectors": ("<i>other</i>",),
        "of_the_run": (),
        "files": files,
        "missing": (),
        "extra": (),
        "kinds": (Kind.FACE,),
        "networks": {"perceptual": "maps.onnx (sha256 0123)"},
        "measures": values,
        "findings": tuple(finding for file in files for finding in find(file)),
        "faults": passed(values, DEFAULT_LIMITS),
    }
    return Verification(**(given | changes))


class Checker(HTMLParser):
    """Every element that is opened is closed, and nothing is fetched or run."""

    VOID = ("meta", "img", "br", "path", "rect", "circle")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            assert name != "href"
            assert name != "src" or (value or "").startswith("data:image/")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    return checker


@pytest.mark.parametrize("show", [False, True])
def test_a_page_is_whole_and_escaped_and_needs_nothing_else(show: bool) -> None:
    files = record(EVIL), record("b.mp4"), FileRecord("c.mp4", error="c.mp4 <cannot> be read")
    text = page(result(*files, missing=("<d>",), extra=("<e>",)), show=show)
    seen = check(text).seen
    assert "script" not in seen
    assert {"b", "i", "d", "e"} & set(seen) <= {"b", "i"}
    assert "&lt;script&gt;alert(1)" in text
    assert "&lt;d&gt;" in text
    assert "&lt;i&gt;other" in text
    assert not re.search(r"https?://", text)


def test_a_clean_page_says_so() -> None:
    clean = page(result(record("a.mp4", raw=0)))
    check(clean)
    assert "Nothing over its limit" in clean
    assert "Over the limit" not in clean
    assert "Worst cases" not in clean
    assert "rank-1 50%" in clean


@pytest.mark.parametrize(("tiles", "said"), [(1, "640 pixels at most<"), (3, "640 pixels at most, and 3 x 3 parts<")])
def test_a_page_says_how_closely_was_looked(tiles: int, said: str) -> None:
    settings = VerifySettings(look=LookSettings(detect_size=640, tiles=tiles))
    assert f"<dt>Looked at</dt><dd>{said}" in page(result(record("a.mp4"), settings=settings))


def test_a_page_of_nothing_is_a_page() -> None:
    check(page(result(FileRecord("a.mp4"))))
    check(page(result()))


def pictures(text: str) -> list[np.ndarray[Any, Any]]:
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    coded = [np.frombuffer(base64.b64decode(data), np.uint8) for data in found]
    return [np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)) for data in coded]


def sharpness(picture: np.ndarray[Any, Any]) -> float:
    return float(cv2.Laplacian(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.CV_32F).std())


def test_nobody_can_be_recognised_unless_asked_for() -> None:
    hidden, shown = pictures(page(result(record("a.mp4")))), pictures(page(result(record("a.mp4")), show=True))
    assert (len(hidden), len(shown)) == (1, 2)
    # The control: shown, the original is there.
    original = cv2.resize(astronaut(120, 150), (shown[0].shape[1], shown[0].shape[0]), interpolation=cv2.INTER_CUBIC)
    assert np.abs(shown[0].astype(int) - original[..., ::-1]).mean() < 6
    few = blurred(astronaut(120, 150))
    small = cv2.resize(few, (6, 8), interpolation=cv2.INTER_AREA)
    back = cv2.resize(small, (120, 150), interpolation=cv2.INTER_LINEAR)
    assert np.abs(back.astype(int) - few).mean() < 12, "there is no more in it than a few dozen pixels"
    assert sharpness(few[..., ::-1].copy()) < sharpness(astronaut(120, 150)[..., ::-1].copy()) / 3


def test_thumbnails_have_captions() -> None:
    made = case(1, RegionRecord(Kind.FACE, (1, 1, 9, 9), 0.9, 0, RawShare(1, 1, 1)))
    assert [caption for caption, _ in thumbnails(made, show=False)] == ["output, blurred"]
    assert [caption for caption, _ in thumbnails(made, show=True)] == ["original", "output"]


def test_a_plot_is_drawn_of_any_number_of_points() -> None:
    for count in (0, 1, 2, 5000):
        points = [(0.04 * index, float(index % 7)) for index in range(count)]
        plot = draw(Plot("x < y", [Line("a & b", "high", points, True, count % 2 == 0)], bands=[(0.0, 0.1)], limit=3))
        assert bool(plot) is bool(count)
        assert len(plot) < 40_000
        check(plot)
        assert "nan" not in plot


def test_thinning_keeps_a_single_peak() -> None:
    points = [(float(index), 1.0 if index == 4321 else 0.0) for index in range(10_000)]
    kept = thinned(points, 500)
    assert len(kept) <= 500
    assert (4321.0, 1.0) in kept


@pytest.mark.skipif(chromium() is None, reason="no Chromium here")
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1200, False)])
def test_a_browser_shows_the_page_without_complaint_and_without_scrolling_aside(
    tmp_path: Path, width: int, dark: bool
) -> None:
    path = tmp_path / "page.html"
    path.write_text(page(result(record("a" * 80 + ".mp4"), record("b.mp4"))), encoding="utf-8")
    with Browser(tmp_path / "profile", width, 800, dark=dark) as browser:
        browser.open(path.as_uri())
        browser.wait_for("document.images.length && [...document.images].every(i => i.complete && i.naturalWidth)")
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert "Over the limit" in browser.text()
        ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(14, 18, 20)" if dark else "rgb(244, 246, 247)")
        assert browser.complaints == []
        assert [url for url in browser.requests if not url.startswith("data:")] == [path.as_uri()]

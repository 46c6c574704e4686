"""The pages in a real browser: what they show, on a desk and on a phone, and when the server is gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason='needs pip install "standin[serve]"')
pytest.importorskip("uvicorn", reason='needs pip install "standin[serve]"')

from stream.metrics import SinkState
from stream.service.control import EngineStatus
from stream.service.status import StatusServer
from tests.stream.browser import Browser, chromium
from tests.stream.service.fake_control import SNAPSHOT, TOKEN, FakeControl, stream

pytestmark = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed")

DESK, PHONE = (1280, 900), (390, 844)
MARKUP = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
#: An en dash.
NOTHING = "\u2013"
ENGINES = (EngineStatus(device="cuda:0", running=True, restarts=2, runs=100, rows=250),)


@pytest.fixture
def control() -> FakeControl:
    return FakeControl(
        stream("entrance", since=1e9),
        stream("yard", state="away", last_error=f"lost {MARKUP}", source=f"rtsp://{MARKUP}", restarts=4),
        stream("new", state="starting", snapshot=None, sinks=()),
        engines=ENGINES,
    )


@pytest.fixture(scope="module")
def browsers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[int, int], Browser]]:
    """A browser of each size for all tests, since starting one takes seconds."""
    with (
        Browser(tmp_path_factory.mktemp("desk"), *DESK) as desk,
        Browser(tmp_path_factory.mktemp("phone"), *PHONE, dark=True) as phone,
    ):
        yield {DESK: desk, PHONE: phone}


def fields(browser: Browser, name: str) -> dict[str, str]:
    """What a tile shows."""
    browser.wait_for(f"document.querySelector('[data-name=\"{name}\"]')")
    return dict(
        browser.evaluate(
            f"""[...document.querySelectorAll('[data-name="{name}"] [data-field]')]
            .map((field) => [field.dataset.field, field.textContent])"""
        )
    )


def opened(browser: Browser, url: str) -> Browser:
    # What an earlier page asks of a server that has gone is no matter of this one.
    browser.open("about:blank")
    browser.wait_for("location.href === 'about:blank'")
    browser.requests.clear()
    browser.complaints.clear()
    browser.open(url)
    return browser


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_every_stream_has_a_tile_with_its_numbers(
    control: FakeControl, browsers: dict[tuple[int, int], Browser], size: tuple[int, int]
) -> None:
    with StatusServer(control, port=0) as server:
        page = opened(browsers[size], server.url)
        assert fields(page, "entrance") | {"age": ""} == {
            "name": "entrance",
            "state": "running",
            "age": "",
            "source": "rtsp://camera/door",
            "sinks": "rtsp://server/door",
            "rate": "24.8",
            "latency": "182",
            "span": "3 min ago",
            "persons": "4",
            "faces": "2",
            "withheld": "3",
            "dropped": "17",
            "reconnects": "5 / 1",
            "restarts": "0",
            "away": "",
            "lost": "",
            "withheld-for": "",
            "error": "",
        }
        assert fields(page, "yard")["state"] == "away"
        assert fields(page, "new")["withheld"] == NOTHING
        page.wait_for("document.querySelector('[data-name=entrance] img').naturalWidth === 64")
        table = page.evaluate("document.querySelector('#engines tbody').innerText")
        assert table.split()[:2] == ["cuda:0", "answers"]
        assert table.split()[-2:] == ["2.5", "2"]
        assert "1 of 3" in page.text()
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert page.evaluate("document.querySelector('[data-name=entrance] h2').getBoundingClientRect().width") > 100


def test_texts_from_outside_are_never_markup(control: FakeControl, browsers: dict[tuple[int, int], Browser]) -> None:
    with StatusServer(control, port=0) as server:
        page = opened(browsers[DESK], server.url)
        assert fields(page, "yard")["error"] == f"lost {MARKUP}"
        assert "onerror" in fields(page, "yard")["source"]
        assert page.evaluate("document.querySelectorAll('img[src=x], article script').length") == 0
        assert "broken" not in page.evaluate("document.title")
        # As markup it would have been found.
        page.evaluate(f"document.querySelector('article').insertAdjacentHTML('beforeend', {json.dumps(MARKUP)})")
        assert page.evaluate("document.querySelectorAll('img[src=x], article script').length") == 2


def test_pages_ask_nobody_else_and_break_no_rule(
    control: FakeControl, browsers: dict[tuple[int, int], Browser]
) -> None:
    with StatusServer(control, port=0) as server:
        page = opened(browsers[DESK], server.url)
        page.wait_for("!document.querySelector('[data-name=entrance] img').hidden")
        page.open(f"{server.url}docs")
        page.wait_for("document.querySelectorAll('details').length > 8")
        assert len(page.requests) > 8
        assert [url for url in page.requests if not url.startswith((server.url, f"blob:{server.url}"))] == []
        assert page.complaints == []


def test_numbers_and_pictures_follow_the_streams(
    control: FakeControl, browsers: dict[tuple[int, int], Browser]
) -> None:
    with StatusServer(control, port=0) as server:
        page = opened(browsers[DESK], server.url)
        page.wait_for("!document.querySelector('[data-name=entrance] img').hidden")
        first = page.evaluate("document.querySelector('[data-name=entrance] img').src")
        snapshot = SNAPSHOT.model_copy(update={"frames": {"anonymized": 1, "withheld": 1234, "dropped": 17}})
        control.streams["entrance"] = stream("entrance", snapshot=snapshot)
        del control.streams["new"]
        page.wait_for("document.querySelector('[data-name=entrance] [data-field=withheld]').textContent === '1,234'")
        page.wait_for("document.querySelector('[data-name=entrance] [data-mark=withheld][data-grew]')")
        page.wait_for("!document.querySelector('[data-name=new]')")
        page.wait_for(f"document.querySelector('[data-name=entrance] img').src !== {json.dumps(first)}")
        page.wait_for("document.querySelector('[data-name=entrance] path.high').getAttribute('d').includes('L')")
        assert "182 ms now" in page.evaluate("document.querySelector('[data-name=entrance] .plot').ariaLabel")


def test_a_server_that_is_gone_is_seen_at_once_and_comes_back(
    control: FakeControl, browsers: dict[tuple[int, int], Browser]
) -> None:
    with StatusServer(control, port=0) as server:
        page = opened(browsers[PHONE], server.url)
        fields(page, "entrance")
        assert page.evaluate("document.getElementById('gone').hidden")
    page.wait_for("!document.getElementById('gone').hidden")
    assert "No answer from the server since" in page.text()
    assert "No answer" in page.evaluate("document.title")
    with StatusServer(control, port=server.port):
        page.wait_for("document.getElementById('gone').hidden")


def test_a_server_that_cannot_say_anything_is_told_from_one_that_is_gone(
    control: FakeControl, browsers: dict[tuple[int, int], Browser]
) -> None:
    with StatusServer(control, port=0) as server:
        page = opened(browsers[DESK], server.url)
        fields(page, "entrance")
        control.streams["entrance"] = None  # type: ignore[assignment]
        page.wait_for("!document.getElementById('gone').hidden")
        assert "The server only answers 500" in page.text()


def test_a_protected_page_asks_for_the_token(control: FakeControl, browsers: dict[tuple[int, int], Browser]) -> None:
    with StatusServer(control, port=0, token=TOKEN, protect_reads=True) as server:
        page = opened(browsers[PHONE], server.url)
        page.wait_for("!document.getElementById('unlock').hidden")
        assert page.evaluate("document.querySelectorAll('article').length") == 0
        for token, expected in (("wrong", "!!document.getElementById('unlock-error').textContent"), (TOKEN, "true")):
            page.evaluate(f"document.getElementById('token').value = '{token}'")
            page.evaluate("document.querySelector('#unlock button').click()")
            page.wait_for(expected)
        assert fields(page, "entrance")["rate"] == "24.8"
        page.wait_for("document.querySelector('[data-name=entrance] img').naturalWidth === 64")


def test_the_description_of_the_api_can_be_read(control: FakeControl, browsers: dict[tuple[int, int], Browser]) -> None:
    with StatusServer(control, port=0) as server:
        page = opened(browsers[PHONE], f"{server.url}docs")
        page.wait_for("document.querySelectorAll('details').length > 8")
        text = page.text()
        for path in ("/api/v1/streams", "/api/v1/streams/{name}/preview.jpg", "/metrics", "DELETE"):
            assert path in text
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_without_streams_the_page_says_so(browsers: dict[tuple[int, int], Browser]) -> None:
    with StatusServer(FakeControl(), port=0) as server:
        page = opened(browsers[DESK], server.url)
        page.wait_for("!document.getElementById('empty').hidden")
        assert "no streams" in page.text()


def test_pages_can_be_seen(tmp_path: Path, control: FakeControl, browsers: dict[tuple[int, int], Browser]) -> None:
    """A page that is there but covered, or white on white, would pass all the others."""
    from PIL import Image

    with StatusServer(control, port=0) as server:
        for size in (DESK, PHONE):
            page = opened(browsers[size], server.url)
            page.wait_for("!document.querySelector('[data-name=entrance] img').hidden")
            page.screenshot(tmp_path / "page.png")
            with Image.open(tmp_path / "page.png") as picture:
                colours = picture.convert("RGB").getcolors(1 << 20)
            assert colours is not None
            assert len(colours) > 50


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_an_output_that_is_away_is_shown_with_its_reason(
    control: FakeControl, browsers: dict[tuple[int, int], Browser], size: tuple[int, int]
) -> None:
    sinks = (
        SinkState(name="recordings/yard/"),
        SinkState(name="rtsp://server/a", there=False, away=75.2, dropped=40, error=f"refused {MARKUP}"),
        SinkState(name="rtsp://server/b", there=True, dropped=2),
    )
    control.streams = {
        "door": stream("door", snapshot=SNAPSHOT.model_copy(update={"sinks": sinks})),
        # What was is no news of a stream that is paused.
        "paused": stream("paused", state="paused", snapshot=SNAPSHOT.model_copy(update={"sinks": sinks})),
    }
    with StatusServer(control, port=0) as server:
        page = opened(browsers[size], server.url)
        shown = fields(page, "door")
        assert shown["state"] == "running"
        assert shown["away"] == f"rtsp://server/a for 1 min 15 s: refused {MARKUP}"
        assert shown["dropped"] == "17 / 42"
        assert fields(page, "paused")["away"] == ""
        hidden = "[...document.querySelectorAll('.away')].map((line) => line.hidden)"
        assert page.evaluate(hidden) == [False, True]
        assert page.evaluate("document.querySelector('#summary').textContent").endswith(", 1 output away")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_why_a_source_is_away_and_that_everything_is_withheld_is_shown(
    control: FakeControl, browsers: dict[tuple[int, int], Browser]
) -> None:
    control.streams = {
        "locked": stream("locked", state="starting", snapshot=None, source_error=f"rtsp://a: 401 {MARKUP}"),
        "grey": stream("grey", withheld_for=75.2, snapshot=SNAPSHOT.model_copy(update={"last_error": "too slow"})),
        "fine": stream("fine"),
    }
    with StatusServer(control, port=0) as server:
        page = opened(browsers[PHONE], server.url)
        assert fields(page, "locked")["lost"] == f"rtsp://a: 401 {MARKUP}"
        assert fields(page, "grey")["withheld-for"] == "for 1 min 15 s: too slow"
        for line, expected in ((".lost", [False, True, True]), (".hidden-frames", [True, False, True])):
            assert page.evaluate(f"[...document.querySelectorAll('{line}')].map((line) => line.hidden)") == expected
        assert page.evaluate("document.querySelector('#summary').textContent").endswith(", 1 withheld")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

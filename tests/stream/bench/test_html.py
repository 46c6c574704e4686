from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stream.bench.html import render_html
from stream.bench.records import BundleNote, Figures, Record, Result
from tests.stream.bench.samples import case, figures, record, spread
from tests.stream.browser import Browser, chromium

DESK, PHONE = (1280, 900), (390, 844)
MARKUP = "</title></style><img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
#: What HTML never closes.
EMPTY = {"meta", "br"}


def full() -> Record:
    """Something of everything, with texts that are markup where texts come from outside."""
    known = record()
    notes = (BundleNote(name=MARKUP, digest="ab" * 32, weights=MARKUP),)
    results = [Result(case=case(n), figures=figures(40 / (1 + n))) for n in (0, 1, 2, 8)]
    results.append(Result(case=case(preset=MARKUP), figures=figures(bundles=notes)))
    results.append(Result(case=case(device="tensorrt"), reason=f"no library {MARKUP}"))
    machine = known.machine.model_copy(update={"processor": MARKUP, "load": 2.0, "gpu": MARKUP})
    clip = known.clip.model_copy(update={"about": MARKUP})
    return record(*results, machine=machine, clip=clip)


class Balance(HTMLParser):
    """Every element is closed where it has to be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_elements_are_closed_and_nothing_is_loaded() -> None:
    page = render_html(full())
    balance = Balance()
    balance.feed(page)
    balance.close()
    assert balance.open == []
    assert not balance.seen & {"script", "img", "link", "iframe", "object"}
    assert "<script" not in page
    assert "url(" not in page
    assert "@import" not in page
    for word in ("src=", "href="):
        assert f" {word}" not in page.replace(" src=x", "")


def test_without_a_case_the_page_says_why() -> None:
    page = render_html(record(Result(case=case(), reason="the detector is missing")))
    assert "No case could be measured" in page
    assert "the detector is missing" in page


def test_without_several_numbers_of_persons_there_is_no_line() -> None:
    page = render_html(record(Result(case=case(4), figures=figures())))
    assert "ask for several numbers" in page
    assert 'class="path' not in page


def batches(*sizes: int, **changes: Any) -> Figures:
    known = figures().engines[0]
    runs = [known.model_copy(update={"batch": size, "milliseconds": spread(5 + size)} | changes) for size in sizes]
    return figures(engines=tuple(runs))


def test_several_batches_are_a_line_of_crops_per_second() -> None:
    page = render_html(record(Result(case=case(4), figures=batches(1, 2, 8)), Result(case=case(8), figures=batches(1))))
    assert "Crops per second against batch" in page
    assert page.count('class="path') == 2 + 1  # between three batches, and two numbers of persons
    assert "Crops per second against batch" not in render_html(record(Result(case=case(4), figures=batches(4))))


def test_random_weights_are_named_at_the_top_of_the_page() -> None:
    note = BundleNote(name="sg-gan", digest="ab" * 32, weights="seeded-random-weights-sg-gan.pth: a local file")
    page = render_html(record(Result(case=case(4), figures=figures(bundles=(note,)))))
    assert "Random weights, not trained ones: sg-gan" in page[: page.index("<main>")]
    assert "Random weights" not in render_html(record())


def test_graphs_on_a_gpu_say_how_they_ran() -> None:
    changes = {"provider": "CUDAExecutionProvider", "nodes": 40, "on_cpu": {"Resize": 2}, "tf32": True}
    page = render_html(record(Result(case=case(4, device="cuda"), figures=batches(1, **changes))))
    assert "tiny generator, TF32" in page
    assert "nodes on the CPU</th>" in page
    assert "2 of 40" in page
    assert "nodes on the CPU</th>" not in render_html(record())
    assert "tiny generator, TF32: nodes on the CPU" in page


def test_what_was_not_measured_says_so() -> None:
    page = render_html(record())
    assert page.count("not measured") >= 4
    assert "0 W" not in page


@pytest.fixture(scope="module")
def browsers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[int, int], Browser]]:
    if chromium() is None:
        pytest.skip("Chromium is not installed")
    with (
        Browser(tmp_path_factory.mktemp("desk"), *DESK) as desk,
        Browser(tmp_path_factory.mktemp("phone"), *PHONE, dark=True) as phone,
    ):
        yield {DESK: desk, PHONE: phone}


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_the_page_can_be_seen(tmp_path: Path, browsers: dict[tuple[int, int], Browser], size: tuple[int, int]) -> None:
    page, browser = tmp_path / "report.html", browsers[size]
    page.write_text(render_html(full()), encoding="utf-8")
    browser.requests.clear()
    browser.complaints.clear()
    browser.open(page.as_uri())
    browser.wait_for("document.readyState === 'complete' && document.querySelectorAll('footer').length === 1")
    assert browser.complaints == []
    assert browser.requests == [page.as_uri()]
    assert browser.evaluate("document.title") == "Standin bench, 2030-01-02"
    assert browser.evaluate("document.documentElement.scrollWidth") <= size[0]
    text = browser.text()
    for part in ("Frames per second against persons", "Not measured", "How it was measured", MARKUP):
        assert part in text
    # Nothing sticks out of its card but what can be scrolled.
    assert browser.evaluate(
        "[...document.querySelectorAll('.plot')].every((p) => p.getBoundingClientRect().right <= innerWidth)"
    )
    background = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
    assert (browser.evaluate(background) < 80) == (size == PHONE)
    browser.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        colours = picture.convert("RGB").getcolors(1 << 20)
    assert colours is not None
    assert len(colours) > 50


def test_dots_are_where_their_figures_are(tmp_path: Path, browsers: dict[tuple[int, int], Browser]) -> None:
    page, browser = tmp_path / "report.html", browsers[DESK]
    page.write_text(render_html(full()), encoding="utf-8")
    browser.open(page.as_uri())
    browser.wait_for("document.querySelectorAll('circle').length === 4")
    dots = browser.evaluate(
        """[...document.querySelectorAll('circle')].map((c) => {
        const at = c.getBoundingClientRect(), area = c.closest('svg').getBoundingClientRect();
        return [(at.x + at.width / 2 - area.x) / area.width, (area.bottom - at.y - at.height / 2) / area.height];
        })"""
    )
    assert [round(x, 2) for x, _ in dots] == [0, 0.12, 0.25, 1]
    heights = [y for _, y in dots]
    assert heights[0] / heights[1] == pytest.approx(2, rel=0.03)
    assert heights[0] / heights[3] == pytest.approx(9, rel=0.1)

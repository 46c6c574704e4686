from __future__ import annotations

import pytest

from stream.bench.markup import Markup, element, join

NASTY = "<script>alert('1')</script>\"&"


def test_text_is_escaped_and_markup_is_not() -> None:
    inner = element("b", NASTY)
    assert inner == "<b>&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&quot;&amp;</b>"
    assert element("p", "a < b ", inner) == f"<p>a &lt; b {inner}</p>"


def test_attributes_are_escaped_and_renamed() -> None:
    assert element("i", class_="a", aria_label='"><script>', x=1.5, title=None) == (
        '<i class="a" aria-label="&quot;&gt;&lt;script&gt;" x="1.5"></i>'
    )
    assert element("meta", name="viewport") == '<meta name="viewport">'


def test_what_is_put_together_by_hand_counts_as_text() -> None:
    by_hand = element("b", "x") + element("b", "y")
    assert not isinstance(by_hand, Markup)
    assert element("p", by_hand) == "<p>&lt;b&gt;x&lt;/b&gt;&lt;b&gt;y&lt;/b&gt;</p>"


@pytest.mark.parametrize("parts", [(), (None,), (None, None)])
def test_nothing_is_nothing(parts: tuple[None, ...]) -> None:
    assert join(*parts) == ""
    assert element("g", *parts) == "<g></g>"


def test_shapes_without_content_are_closed() -> None:
    assert element("rect", x=1) == '<rect x="1"/>'
    assert element("rect", element("title", "a"), x=1) == '<rect x="1"><title>a</title></rect>'

from __future__ import annotations

import pytest

from engines.importers.text import shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [("plain", "plain"), ("a\nb", "a\\nb"), ("\x1b[31mred", "\\x1b[31mred"), ("x" * 61, "x" * 60 + "..."), ("", "")],
)
def test_texts_stay_on_one_line_and_short(text: str, expected: str) -> None:
    assert shown(text) == expected

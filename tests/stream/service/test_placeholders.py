from __future__ import annotations

from pathlib import Path

import pytest

from engines.errors import UsageError
from stream.service.placeholders import Secrets


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    (tmp_path / "password").write_text("from%40file\n")
    (tmp_path / "empty").write_text("\n")
    return Secrets({"USER_": "me", "PASSWORD": "geheim", "LONGER": "geheimer", "NOTHING": ""}, tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://camera/1", "rtsp://camera/1"),
        ("rtsp://${USER_}:${PASSWORD}@camera/1", "rtsp://me:geheim@camera/1"),
        ("${file:password}", "from%40file"),
        ("gst:a $${PASSWORD} ! b", "gst:a ${PASSWORD} ! b"),
        ("a$b$$c", "a$b$$c"),
    ],
)
def test_placeholders_become_values(text: str, expected: str, secrets: Secrets) -> None:
    assert secrets.expand(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${PASWORD}", "not there"),
        ("${NOTHING}", "is empty"),
        ("${}", "is no placeholder"),
        ("${a b}", "is no placeholder"),
        ("${file:none}", "No such file"),
        ("${file:.}", "Is a directory"),
        ("${file:empty}", "is empty"),
    ],
)
def test_what_cannot_be_had_is_an_error_that_shows_no_value(text: str, message: str, secrets: Secrets) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        secrets.expand(text)
    assert "geheim" not in str(raised.value)


def test_values_are_taken_out_of_texts_again(secrets: Secrets) -> None:
    for text in ("${USER_}", "${PASSWORD}", "${LONGER}", "${file:password}"):
        secrets.expand(text)
    told = "geheimer and geheim; from%40file, or decoded from@file; me; rtsp://a:b@c/d?e=f"
    assert secrets.hide(told) == (
        "${LONGER} and ${PASSWORD}; ${file:password}, or decoded ${file:password}; me; rtsp://***@c/d?***"
    )


def test_what_was_not_used_is_not_looked_for(secrets: Secrets) -> None:
    assert secrets.hide("geheim") == "geheim"

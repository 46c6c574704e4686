from __future__ import annotations

from fractions import Fraction

import pytest

from stream.raw_video import RawVideo


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("640x360@25", RawVideo(640, 360, Fraction(25))),
        ("1280x720@30000/1001:yuv420p", RawVideo(1280, 720, Fraction(30000, 1001), "yuv420p")),
        ("64x48@12.5:nv12", RawVideo(64, 48, Fraction(25, 2), "nv12")),
    ],
)
def test_what_raw_frames_are_like(text: str, expected: RawVideo) -> None:
    assert RawVideo.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not say"),
        ("640x360", "does not say"),
        ("640x360@", "does not say"),
        ("640x360@25:RGB!", "does not say"),
        ("640x360@25/0", "divided by 0"),
        ("0x360@25", "above 0"),
        ("640x360@0", "above 0"),
        ("640x360@25:purple", "no pixel format 'purple'"),
    ],
)
def test_what_raw_frames_cannot_be_like(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RawVideo.parse(text)

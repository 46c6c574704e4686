"""Times and sizes mean what people write, and nothing else."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from engines.errors import UsageError
from stream.config import RunSettings, make_settings
from stream.quantities import Extent, Seconds, Size, TimeOrSize, parse_extent, parse_seconds, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60), ("90 sec", 90), ("10min", 600), ("10m", 600), ("2h", 7200), ("7d", 604_800), ("1w", 604_800),
        ("0.5s", 0.5), (".5h", 1800), (" 1MIN ", 60), (30, 30), (1.5, 1.5),
    ],
)  # fmt: skip
def test_times(text: object, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1B", 1), ("500MB", 500_000_000), ("20GB", 20 * 10**9), ("64MiB", 64 * 2**20), ("1.5kb", 1500),
        ("2TiB", 2**41), ("1 gib", 2**30), (4096, 4096),
    ],
)  # fmt: skip
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("value", "extent"),
    [
        ("10min", Extent(600)),
        ("500MB", Extent(None, 500_000_000)),
        ("7d,20GB", Extent(7 * 86_400, 20 * 10**9)),
        ("20GB, 7d", Extent(7 * 86_400, 20 * 10**9)),
        (["20GB", "7d"], Extent(7 * 86_400, 20 * 10**9)),
        (Extent(5), Extent(5)),
        ([60.0, None], Extent(60)),
        ([None, 5], Extent(None, 5)),
        ((None, None), Extent()),
        ([], Extent()),
    ],
)
def test_times_and_sizes_together(value: object, extent: Extent) -> None:
    assert parse_extent(value) == extent


@pytest.mark.parametrize(
    "text", ["", "10", "min", "-5s", "1e3s", "10 parsecs", "500MB", "inf", "nan", "0s", "٣s", None, 0, True]
)
def test_what_is_no_time_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"^expected a time like 60s|more than nothing"):
        parse_seconds(text)


@pytest.mark.parametrize("text", ["", "10", "MB", "-5MB", "10min", "5mbit", "0GB", "0.1B", [], -1])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"^expected a size like 500MB|more than nothing|at least one byte"):
        parse_size(text)


@pytest.mark.parametrize(
    "text", ["", "10", "5min,6min", "1MB,2MB", "5min;1MB", "a week", [0, None], [True, None], [{}, None], 600]
)
def test_what_is_neither_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"^expected a time|one time and one size|more than nothing"):
        parse_extent(text)


class _Settings(BaseModel):
    wait: Seconds = 1.0
    room: Size = 1
    keep: TimeOrSize | None = None


def test_settings_take_them_and_say_what_is_wrong() -> None:
    settings = _Settings.model_validate({"wait": "2min", "room": "1KiB", "keep": ["7d", "1GB"]})
    assert (settings.wait, settings.room, settings.keep) == (120, 1024, Extent(604_800, 10**9))
    assert _Settings().keep is None
    assert _Settings.model_validate_json(settings.model_dump_json()) == settings
    with pytest.raises(ValidationError, match="expected a time like 60s, 10min, 2h or 7d"):
        _Settings.model_validate({"wait": "soon"})


TIME = "a time like 60s, 10min, 2h or 7d"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("0s", "settings: segment: expected more than nothing, got '0s'"),
        ("soon", f"settings: segment: expected {TIME}, or a size like 500MB, 20GB or 64MiB, got 'soon'"),
        ("1s,2s", "settings: segment: expected one time and one size at most, got '1s,2s'"),
    ],
)  # fmt: skip
def test_what_was_given_is_said_once(given: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_settings(RunSettings, {"segment": given})
    assert str(caught.value) == message

"""Quantities: times and sizes as people write them, `10min`, `7d`, `500MB`, `64MiB`.

Messages say what was expected; whoever reports them knows what was given, and says that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, NamedTuple

from pydantic import BeforeValidator

_SECONDS: Final[Mapping[str, int]] = {
    "s": 1,
    "sec": 1,
    "m": 60,
    "min": 60,
    "h": 3600,
    "d": 86_400,
    "w": 7 * 86_400,
}
_BYTES: Final[Mapping[str, int]] = {
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
}
_WRITTEN: Final = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([A-Za-z]+)", re.ASCII)
_TIME_FORMS: Final = "a time like 60s, 10min, 2h or 7d"
_SIZE_FORMS: Final = "a size like 500MB, 20GB or 64MiB"


class Extent(NamedTuple):
    """So much time, so many bytes, or whichever is reached first.

    Attributes:
        seconds: None for any time.
        size: in bytes, None for any size.
    """

    seconds: float | None = None
    size: int | None = None


def parse_seconds(value: object) -> float:
    """Seconds of a text like `10min`; a number is seconds already.

    Raises:
        ValueError: it is no time, or not more than none.
    """
    if isinstance(value, str):
        return _parse(value, _SECONDS, _TIME_FORMS)
    return _plain(value, _TIME_FORMS)


def parse_size(value: object) -> int:
    """Bytes of a text like `500MB`; a number is bytes already. `MB` is a million, `MiB` is 2**20.

    Raises:
        ValueError: it is no size, or less than a byte.
    """
    size = _parse(value, _BYTES, _SIZE_FORMS) if isinstance(value, str) else _plain(value, _SIZE_FORMS)
    if size < 1:
        raise ValueError("expected at least one byte")
    return round(size)


def parse_extent(value: object) -> Extent:
    """A time, a size, or both with a comma between: `10min`, `500MB`, `7d,20GB`.

    A list counts as its texts in a row; an `Extent` that went through JSON is one again.

    Raises:
        ValueError: it is neither, or one of them is given twice.
    """
    given = value if isinstance(value, (list, tuple)) else [value]
    if len(given) == 2 and not any(isinstance(part, str) for part in given):
        seconds, size = given
        return Extent(None if seconds is None else parse_seconds(seconds), None if size is None else parse_size(size))
    return _parse_extent([str(part) for part in given])


#: Types of settings that are written so.
Seconds = Annotated[float, BeforeValidator(parse_seconds)]
Size = Annotated[int, BeforeValidator(parse_size)]
TimeOrSize = Annotated[Extent, BeforeValidator(parse_extent)]


def _parse_extent(parts: Sequence[str]) -> Extent:
    seconds: float | None = None
    size: int | None = None
    for text in (part.strip() for joined in parts for part in joined.split(",")):
        unit = text.lstrip("0123456789. ").lower()
        if unit in _BYTES and size is None:
            size = parse_size(text)
        elif unit in _SECONDS and seconds is None:
            seconds = parse_seconds(text)
        elif unit in _BYTES or unit in _SECONDS:
            raise ValueError("expected one time and one size at most")
        else:
            raise ValueError(f"expected {_TIME_FORMS}, or {_SIZE_FORMS}")
    return Extent(seconds, size)


def _parse(text: str, units: Mapping[str, int], forms: str) -> float:
    found = _WRITTEN.fullmatch(text.strip())
    if found is None or found.group(2).lower() not in units:
        raise ValueError(f"expected {forms}")
    return _positive(float(found.group(1)) * units[found.group(2).lower()])


def _plain(value: object, forms: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"expected {forms}")  # noqa: TRY004  pydantic tells users about ValueErrors alone
    return _positive(float(value))


def _positive(number: float) -> float:
    if not (math.isfinite(number) and number > 0):
        raise ValueError("expected more than nothing")
    return number

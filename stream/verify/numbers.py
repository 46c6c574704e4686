"""How measures are written for people."""

from __future__ import annotations

from typing import Final

#: Measures that are shares.
_SHARES: Final = frozenset({"raw_area", "flicker", "found_again", "unjudged", "rank1", "map"})
_FORMATS: Final = {"similarity": ".2f", "tlp": ".3g"}


def shown(name: str, value: float) -> str:
    """A measure's value: a share in percent, a count, or a plain number."""
    if name in _SHARES:
        return f"{100 * value:.{2 if 0 < value < 0.1 else 1}f} %"
    if name in _FORMATS:
        return format(value, _FORMATS[name])
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"

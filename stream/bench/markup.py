"""HTML and SVG from nested calls. Whatever is not made here is text, and is escaped."""

from __future__ import annotations

import html
from typing import Final

_EMPTY: Final = frozenset({"meta", "br", "rect", "line", "circle"})


class Markup(str):
    """Text that is markup already. Only `element` and `join` make it."""

    __slots__ = ()


def element(name: str, /, *children: str | None, **attributes: str | float | None) -> Markup:
    """An element.

    Args:
        name: of the element.
        *children: markup, or text, which is escaped; None is left out.
        **attributes: by name, with `_` for `-` and one at the end for names that Python has; None is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _EMPTY and not children:
        return Markup(f"<{name}{written}/>" if name != "meta" else f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*parts: str | None) -> Markup:
    """Parts one after the other; those that are no markup are escaped."""
    return Markup(
        "".join(part if isinstance(part, Markup) else html.escape(part) for part in parts if part is not None)
    )


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"

"""Texts from files that are not trusted, made fit for one line of a message."""

from __future__ import annotations


def shown(text: str, most: int = 60) -> str:
    """The text without line breaks and control characters, cut where it is long."""
    plain = text if text.isprintable() else text.encode("unicode_escape").decode()
    return plain if len(plain) <= most else f"{plain[:most]}..."

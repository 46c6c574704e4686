"""Rows of figures as a table in Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from engines.machine import processor
from stream.evaluate.compare import Row
from stream.evaluate.figures import MEASURES, Figure, head, shown
from stream.report import versions

SCHEMA_VERSION: Final = 1


def columns(rows: Sequence[Row]) -> list[str]:
    """The measures that any row has, in order."""
    return [name for name in MEASURES if any(name in row.figures for row in rows)]


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """The table's text: the head, and a line for each method."""
    names = columns(rows)
    return [
        ["method", *(head(name) for name in names)],
        *([row.method, *(shown(name, row.figures.get(name)) for name in names)] for row in rows),
    ]


def markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown, with what must be known of it below."""
    first, *rest = cells(rows)
    lines = [first, ["---", *("---:" for _ in first[1:])], *rest]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    abouts = [f"{MEASURES[name].title}: {MEASURES[name].about}" for name in columns(rows)]
    return "\n".join([table, "", *(f"- {line}" for line in (*abouts, *details(rows))), ""])


def details(rows: Sequence[Row]) -> list[str]:
    """Of how many, which network, which resize, and what else must be known: a line for measures that share it."""
    shared: dict[str, list[str]] = {}
    for name in columns(rows):
        having = {row.method: row.figures[name] for row in rows if name in row.figures}
        shared.setdefault(_details(having), []).append(MEASURES[name].title)
    return [f"{', '.join(titles)}: {text}" for text, titles in shared.items()]


def _details(having: Mapping[str, Figure]) -> str:
    """Of one measure, by method."""
    figure = next(iter(having.values()))
    counts = "/".join(map(str, sorted({one.count for one in having.values()})))
    parts = [f"{counts} {figure.of}"]
    parts += [f"network {figure.network}"] if figure.network else []
    parts += [f"resize: {figure.resize}"] if figure.resize else []
    notes: dict[str, list[str]] = {}
    for method, one in having.items():
        for note in one.notes:
            notes.setdefault(note, []).append(method)
    parts += [_whose(methods, list(having)) + note for note, methods in notes.items()]
    return "; ".join(parts)


def _whose(methods: Sequence[str], having: Sequence[str]) -> str:
    """Of whom a note is said, where it is not of all."""
    others = [method for method in having if method not in methods]
    if not others:
        return ""
    return f"all but {others[0]}: " if len(methods) > 1 == len(others) else f"{', '.join(methods)}: "


def to_json(rows: Sequence[Row], settings: Mapping[str, Any]) -> str:
    """Everything as JSON.

    Args:
        rows: of the table.
        settings: how it was measured, as plain containers.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "versions": versions(),
        "machine": processor(),
        "settings": dict(settings),
        "measures": {name: MEASURES[name].about for name in columns(rows)},
        "rows": [
            {
                "method": row.method,
                "regions": row.regions,
                "generated": row.generated,
                "figures": {name: figure.to_json() for name, figure in row.figures.items()},
            }
            for row in rows
        ],
    }
    return json.dumps(content, indent=1) + "\n"

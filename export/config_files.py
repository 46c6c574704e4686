"""The part of YAML that detectron2's configs are written in: nested mappings and lists of plain values.

Nothing in a file makes an object or runs. What is outside the part (anchors, tags, block texts) is refused, never
guessed.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, Final

from engines.errors import UsageError

#: A config names the one it is based on.
BASE: Final = "_BASE_"
_MOST_BASES = 16
_WORDS: Final = {"true": True, "false": False, "null": None, "~": None, "": None}
_KEY: Final = re.compile(r"""("[^"]*"|'[^']*'|[^\s"'\[\]{},#&*!|>%@`-][^:#\[\]{},]*?|_BASE_)\s*:(?:\s+|$)""")
_Line = tuple[int, str, int]


def read_config_file(path: Path) -> dict[str, Any]:
    """Reads a config with all that it is based on.

    Args:
        path: a YAML file of detectron2, with its `_BASE_` where that says, or the `config.yaml` that training wrote.

    Returns:
        Nested dicts; values of the file go before those of its base.

    Raises:
        UsageError: a file is not there, not understood, or based on itself.
    """
    return _merged(path, ())


def _merged(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen or len(seen) > _MOST_BASES:
        raise UsageError(f"{path} is based on itself ({BASE}); correct the config")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        based = f"; {seen[-1]} is based on it ({BASE})" if seen else ""
        raise UsageError(f"the config {path} cannot be read ({reason}){based}; give the file") from None
    try:
        own = parse(text)
    except ValueError as error:
        raise UsageError(f"the config {path} is not understood: {error}") from None
    base = own.pop(BASE, None)
    if base is None:
        return own
    if not isinstance(base, str) or re.match(r"\w+://", base):
        raise UsageError(f"the config {path} is based on {base!r}; expected a file beside it: download that one too")
    return _over(_merged(path.parent / base, (*seen, path.resolve())), own)


def _over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    made = dict(base)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(made.get(key), dict)
        made[key] = _over(made[key], value) if both else value
    return made


def parse(text: str) -> dict[str, Any]:
    """Parses one file.

    Raises:
        ValueError: it is no mapping, or written in a part of YAML that is not known here; with the line's number.
    """
    lines = _lines(text)
    if not lines:
        return {}
    found, end = _block(lines, 0)
    if end < len(lines):
        raise ValueError(f"line {lines[end][2]} is indented in a way that fits nothing before")
    if not isinstance(found, dict):
        raise ValueError(  # noqa: TRY004  it is the text that is wrong
            f"line {lines[0][2]} begins a list, expected KEY: value"
        )
    return found


def _lines(text: str) -> list[_Line]:
    """Indent, content without comment, and number of every line that has content; brackets are closed in one line."""
    made: list[_Line] = []
    open_brackets = 0
    for number, raw in enumerate(text.splitlines(), 1):
        content = _without_comment(raw).rstrip()
        if not content.strip() or content.strip() == "---":
            continue
        if "\t" in content[: len(content) - len(content.lstrip())]:
            raise ValueError(f"line {number} is indented by a tab")
        if open_brackets:
            indent, before, first = made[-1]
            made[-1] = (indent, f"{before} {content.strip()}", first)
        else:
            made.append((len(content) - len(content.lstrip()), content.strip(), number))
        bare = re.sub(r"\"[^\"]*\"|'[^']*'", "", content)
        open_brackets += sum(bare.count(c) for c in "[{(") - sum(bare.count(c) for c in "]})")
    if open_brackets:
        raise ValueError(f"a bracket of line {made[-1][2]} is not closed")
    return made


def _without_comment(line: str) -> str:
    quote = ""
    for i, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter == "#" and (i == 0 or line[i - 1].isspace()):
            return line[:i]
    return line


def _is_item(text: str) -> bool:
    return text == "-" or text.startswith("- ")


def _block(lines: list[_Line], at: int) -> tuple[Any, int]:
    """What begins at a line, and where it ends."""
    return _list(lines, at) if _is_item(lines[at][1]) else _mapping(lines, at)


def _mapping(lines: list[_Line], at: int) -> tuple[dict[str, Any], int]:
    indent, made = lines[at][0], {}
    while at < len(lines) and lines[at][0] == indent and not _is_item(lines[at][1]):
        _, text, number = lines[at]
        match = _KEY.match(text)
        if match is None:
            raise ValueError(f"line {number} is not KEY: value")
        key, rest = match[1].strip("\"'"), text[match.end() :]
        if key in made:
            raise ValueError(f"line {number} gives {key} a second time")
        at += 1
        # A list may begin where its key does.
        inside = at < len(lines) and (lines[at][0] > indent or (lines[at][0] == indent and _is_item(lines[at][1])))
        if rest or not inside:
            made[key] = _value(rest, number)
        else:
            made[key], at = _block(lines, at)
    return made, at


def _list(lines: list[_Line], at: int) -> tuple[list[Any], int]:
    indent, made = lines[at][0], []
    while at < len(lines) and lines[at][0] == indent and _is_item(lines[at][1]):
        _, text, number = lines[at]
        rest = text[1:].lstrip()
        if not rest or _is_item(rest) or _KEY.match(rest):
            # What follows the dash is a block of its own, indented by as much as it is away from the margin.
            lines[at] = (indent + len(text) - len(rest), rest, number)
            if not rest:
                raise ValueError(f"line {number} is an empty item")
            item, at = _block(lines, at)
        else:
            item, at = _value(rest, number), at + 1
        made.append(item)
    return made, at


def _value(text: str, number: int) -> Any:
    """A value in one line: a word, a number, a text in quotes, or a list, a tuple or a mapping of these."""
    if text[:1] in ("[", "{", "("):
        found, rest = _flow(text, number)
        if rest.strip():
            raise ValueError(f"line {number} has {rest.strip()!r} after its value")
        return found
    if text[:1] in ("&", "*", "!", "|", ">", "%", "@", "`"):
        raise ValueError(f"line {number} has {text[:20]!r}, which plain configs do not need")
    if text[:1] in ("'", '"') and text[-1:] == text[:1] and len(text) > 1:
        inner = text[1:-1]
        # yacs reads texts once more, so that "(640, 800)" is a tuple.
        return _literal(inner) if inner[:1] in ("(", "[") else inner
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    return _literal(text)


def _literal(text: str) -> Any:
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return found if isinstance(found, (bool, int, float, str, tuple, list)) else text


def _flow(text: str, number: int) -> tuple[Any, str]:
    """A value in brackets and what follows it."""
    opening, rest = text[0], text[1:].lstrip()
    closing = {"[": "]", "{": "}", "(": ")"}[opening]
    items: list[Any] = []
    pairs: dict[str, Any] = {}
    while not rest.startswith(closing):
        if opening == "{":
            match = _KEY.match(rest)
            if match is None:
                raise ValueError(f"line {number} has a mapping without KEY: value")
            rest = rest[match.end() :]
        if rest[:1] in ("[", "{", "("):
            found, rest = _flow(rest, number)
        else:
            part = re.match(r"""\s*("[^"]*"|'[^']*'|[^,\[\]{}()]*)""", rest)
            assert part is not None  # noqa: S101  it matches nothing too
            found, rest = _value(part[1].strip(), number), rest[part.end() :]
        if opening == "{":
            pairs[match[1].strip("\"'")] = found  # type: ignore[index]
        else:
            items.append(found)
        rest = rest.lstrip()
        if rest.startswith(","):
            rest = rest[1:].lstrip()
        elif not rest.startswith(closing):
            raise ValueError(f"line {number} has a bracket that is not closed")
    return (pairs if opening == "{" else items), rest[1:]

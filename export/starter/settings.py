"""Options of declared configs as words of a command line: `losses.r1=0`, `network.widths=16,32,64`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from engines.errors import UsageError

_Config = TypeVar("_Config")


def with_settings(config: _Config, settings: Iterable[str]) -> _Config:
    """The config with some of its options changed.

    Args:
        config: a dataclass, whose fields are numbers, switches, words, tuples of numbers, or dataclasses of such.
        settings: each `name=value`, with a dot before what belongs to a part.

    Raises:
        UsageError: no such option, or a value of another kind.
    """
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"{setting!r} is no setting; give it as name=value")
        config = _changed(config, name.split("."), text, name)
    return config


def _changed(config: Any, path: list[str], text: str, name: str) -> Any:
    there = [field.name for field in fields(config)]
    if path[0] not in there:
        raise UsageError(f"there is no setting {name!r}; there are: {', '.join(there)}")
    old = getattr(config, path[0])
    if is_dataclass(old) != (len(path) > 1):
        inner = "a part; give its settings one by one" if is_dataclass(old) else "no part"
        raise UsageError(f"{name!r} does not fit: {path[0]} is {inner}")
    new = _changed(old, path[1:], text, name) if len(path) > 1 else _value(old, text, name)
    return replace(config, **{path[0]: new})


def _value(old: object, text: str, name: str) -> object:
    """What a text means in the place of another value."""
    if isinstance(old, str):
        return text
    if isinstance(old, tuple):
        return tuple(_value(old[0], part, name) for part in text.split(","))
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(old, (int, float)):
            return type(old)(text)
    except (KeyError, ValueError):
        raise UsageError(f"{name}={text} does not fit; expected {type(old).__name__}, such as {old}") from None
    raise UsageError(f"{name} cannot be given as text; it is {old!r}")

"""detectron2's YAML files with what they are based on, read as its own reader (yacs) understands them.

Nothing in a file makes an object or runs. What plain configs do not need and what could hide something (tags, anchors,
keys that are given twice) is refused, never guessed.
"""

from __future__ import annotations

import ast
import re
import warnings
from pathlib import Path
from typing import Any, Final

import yaml
from yaml.constructor import ConstructorError

from engines.errors import UsageError

#: A config names the one it is based on.
BASE: Final = "_BASE_"
_MOST_BASES: Final = 16
#: Bytes of a file; with all of detectron2's settings written out it has about ten thousand.
_LARGEST: Final = 2**18
_TEXT: Final = "tag:yaml.org,2002:str"


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
        text = _read(path)
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


def _read(path: Path) -> str:
    with path.open("rb") as stream:
        content = stream.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise OSError(f"it is larger than {_LARGEST} bytes, as no config is")
    return content.decode("utf-8")


def _over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    made = dict(base)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(made.get(key), dict)
        made[key] = _over(made[key], value) if both else value
    return made


def parse(text: str) -> dict[str, Any]:
    """Parses one file.

    Returns:
        Nested dicts; texts are evaluated as yacs does, and tuples become lists.

    Raises:
        ValueError: it is no mapping, or holds what is not known here; in one line, with the number of the line.
    """
    try:
        found = yaml.load(text, _Loader)  # noqa: S506  a SafeLoader that takes less
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise ValueError(  # noqa: TRY004  it is the text that is wrong
                f"line 1 begins with {type(found).__name__}, expected KEY: value"
            )
        return {key: _plain(value) for key, value in found.items()}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise ValueError(where + " ".join(str(error.problem or error).split())) from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("its brackets or lists are nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """Refuses keys that are given twice, of which yacs would keep the last, and keys that are no text.

    Anchors and aliases are refused too: a few lines of them would stand for billions of values.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise ConstructorError(None, None, f"{sign}{anchor} is not needed in configs", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag != _TEXT:
                raise ConstructorError(None, None, "a mapping has a key that is no text", key.start_mark)
            if key.value in seen:
                raise ConstructorError(None, None, f"{key.value} is given a second time", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _literal(value) if isinstance(value, str) else value


def _literal(text: str) -> Any:
    """Evaluates a text once more as yacs does: "(640, 800)" is a tuple; 1e-3, to YAML 1.1 a text, is a number."""
    try:
        with warnings.catch_warnings():
            # Of a text that looks like Python but is none, Python would warn.
            warnings.simplefilter("ignore")
            found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    if isinstance(found, (list, tuple)):
        return _listed(found)
    return found if found is None or isinstance(found, (bool, int, float, str)) else text


def _listed(values: list[Any] | tuple[Any, ...]) -> list[Any]:
    return [_listed(value) if isinstance(value, (list, tuple)) else value for value in values]

"""Which classes of a network are which kind of region."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from engines.errors import UsageError
from engines.importers.text import shown

#: Words for kinds of region, as people call classes.
_KINDS = {
    "person": "person",
    "face": "face",
    "plate": "plate",
    "license-plate": "plate",
    "licence-plate": "plate",
    "number-plate": "plate",
}
#: In a list of all classes: this one is of no interest.
_SKIP = "-"


@dataclass(frozen=True)
class Classes:
    """What to take of a network's classes.

    Attributes:
        kinds: The kinds that the detector finds; `classes` in its answer is an index into them.
        groups: For each kind the network's classes that mean it.
    """

    kinds: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]


def kind_of(word: str) -> str | None:
    """The kind of region that a class name means by itself, None if it means none."""
    return _KINDS.get(_plain(word))


def assign_classes(text: str | None, names: tuple[str, ...] | None, count: int | None) -> Classes:
    """Assigns classes to kinds of region.

    Args:
        text: What the user gave: `person,face,license-plate`, or with kinds `pedestrian=person,rider=person`, or with
            numbers `0=person,5=plate`. Without class names in the file a list without numbers names all classes in
            their order, `-` for those of no interest. None takes every class whose name is a kind.
        names: The class names in the file.
        count: How many classes the network has, where that is known.

    Raises:
        UsageError: A class is not there, is no kind of region, or is given twice.
    """
    if names is not None and count is not None and len(names) != count:
        raise UsageError(f"the file names {len(names)} classes, its network has {count}; export it again")
    if text is None:
        pairs = _named_like_kinds(names)
    else:
        items = [item.strip() for item in text.split(",")]
        pairs = _in_order(items, count) if _names_all(items, names) else [_pair(item, names, count) for item in items]
    seen: dict[int, str] = {}
    for index, kind in pairs:
        if index in seen:
            raise UsageError(f"class {index} is given twice in --classes {text!r}; give each class once")
        seen[index] = kind
    kinds = tuple(dict.fromkeys(seen.values()))
    return Classes(kinds, tuple(tuple(i for i, kind in seen.items() if kind == wanted) for wanted in kinds))


def _plain(word: str) -> str:
    return word.strip().lower().replace("_", "-").replace(" ", "-")


def _named_like_kinds(names: tuple[str, ...] | None) -> list[tuple[int, str]]:
    pairs = [(index, kind) for index, name in enumerate(names or ()) if (kind := kind_of(name))]
    if not pairs:
        has = f"its classes are {_listed(names)}" if names else "it names no classes"
        raise UsageError(
            f"nothing in the file says which class is a {' or a '.join(_kinds())}: {has}; "
            "give --classes, such as 0=person"
        )
    return pairs


def _names_all(items: list[str], names: tuple[str, ...] | None) -> bool:
    return names is None and not any(item.partition("=")[0].strip().isdigit() for item in items)


def _in_order(items: list[str], count: int | None) -> list[tuple[int, str]]:
    if count is None or len(items) != count:
        has = "an unknown number of" if count is None else str(count)
        raise UsageError(
            f"the file names no classes and has {has} of them, --classes has {len(items)}; "
            "give all in order ('-' for those of no interest), or by number, such as 0=person"
        )
    pairs = [(index, _kind(item)) for index, item in enumerate(items) if item != _SKIP]
    if not pairs:
        raise UsageError("--classes leaves no class; name at least one")
    return pairs


def _pair(item: str, names: tuple[str, ...] | None, count: int | None) -> tuple[int, str]:
    word = item.partition("=")[0].strip()
    if word.isdigit():
        index = int(word)
        most = count if names is None else len(names)
        if most is not None and index >= most:
            raise UsageError(f"--classes has {item!r}, but the network has the classes 0 to {most - 1}")
        if "=" in item or names is None:
            return index, _kind(item)
        return index, _kind(names[index])
    known = {_plain(name): index for index, name in reversed(list(enumerate(names or ())))}
    if _plain(word) in known:
        return known[_plain(word)], _kind(item)
    alike = [index for index, name in enumerate(names or ()) if kind_of(word) and kind_of(name) == kind_of(word)]
    if len(alike) == 1:
        return alike[0], _kind(item)
    close = difflib.get_close_matches(_plain(word), known, n=1)
    hint = f"did you mean {shown(close[0])!r}?" if close else f"its classes are {_listed(names)}"
    raise UsageError(f"the network has no class {word!r}; {hint}")


def _kind(item: str) -> str:
    name, given, kind = item.partition("=")
    found = kind_of(kind) if given else kind_of(name)
    if found is None:
        wrong = (kind if given else name).strip()
        raise UsageError(
            f"{wrong!r} is no kind of region; expected {', '.join(_kinds())}, "
            f"or CLASS=KIND, such as {name.strip() or 'rider'}=person"
        )
    return found


def _kinds() -> list[str]:
    return sorted(set(_KINDS.values()))


def _listed(names: tuple[str, ...] | None) -> str:
    some = [shown(name) for name in names or ()]
    return ", ".join(some[:12]) + (f" and {len(some) - 12} more" if len(some) > 12 else "")

from __future__ import annotations

import pytest

from engines.errors import UsageError
from engines.importers.classes import Classes, assign_classes, kind_of


@pytest.mark.parametrize(
    ("text", "names", "count", "kinds", "groups"),
    [
        (None, ("person", "dog", "License_Plate"), 3, ("person", "plate"), ((0,), (2,))),
        ("face", ("person", "face"), 2, ("face",), ((1,),)),
        ("face,person", ("person", "face"), 2, ("face", "person"), ((1,), (0,))),
        ("license-plate", ("plate",), 1, ("plate",), ((0,),)),
        ("rider=person, walker=person", ("rider", "dog", "walker"), 3, ("person",), ((0, 2),)),
        ("head=face", ("head",), 1, ("face",), ((0,),)),
        ("person,face,license-plate", None, 3, ("person", "face", "plate"), ((0,), (1,), (2,))),
        ("-,face,-", None, 3, ("face",), ((1,),)),
        ("0=person,5=plate", None, None, ("person", "plate"), ((0,), (5,))),
        ("2=face", ("a", "b", "c"), 3, ("face",), ((2,),)),
        ("1", ("a", "face"), 2, ("face",), ((1,),)),
    ],
)
def test_classes_become_kinds(
    text: str | None,
    names: tuple[str, ...] | None,
    count: int | None,
    kinds: tuple[str, ...],
    groups: tuple[tuple[int, ...], ...],
) -> None:
    assert assign_classes(text, names, count) == Classes(kinds, groups)


@pytest.mark.parametrize(
    ("text", "names", "count", "says"),
    [
        (None, None, 80, "names no classes"),
        (None, ("cat", "dog"), 2, "cat, dog"),
        ("person", ("cat", "dog"), 2, "no class 'person'"),
        ("persn", ("person", "dog"), 2, "did you mean 'person'"),
        ("cat", ("cat", "dog"), 2, "'cat' is no kind"),
        ("cat=animal", ("cat", "dog"), 2, "'animal' is no kind"),
        ("person", None, 80, "has 80 of them, --classes has 1"),
        ("person", None, None, "unknown number"),
        ("-,-", None, 2, "leaves no class"),
        ("0=person,0=face", None, 3, "twice"),
        ("7=person", None, 3, "0 to 2"),
        ("7=person", ("a",), 1, "0 to 0"),
        ("5", None, 80, "'5' is no kind"),
        ("", ("person",), 1, "no class ''"),
        ("person", ("person", "face"), 3, "names 2 classes, its network has 3"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    text: str | None, names: tuple[str, ...] | None, count: int | None, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        assign_classes(text, names, count)


def test_kinds_have_several_names() -> None:
    assert [kind_of(word) for word in ("Person", "license plate", "number_plate", "dog")] == [
        "person",
        "plate",
        "plate",
        None,
    ]

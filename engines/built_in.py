"""The bundles that come with the project, as package data beside this file: nothing has to be fetched for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Where they are: a folder for each, by name.
FOLDER: Final = Path(__file__).parent / "starter"


@dataclass(frozen=True, kw_only=True)
class BuiltIn:
    """One bundle that comes with the project.

    Attributes:
        name: The bundle's name, and its folder's.
        about: One line for people.
        kinds: Which kinds of region it is about.
        licence: Of the weights.
    """

    name: str
    about: str
    kinds: tuple[str, ...]
    licence: str = "Apache-2.0"


_BUILT_IN: Final = (
    BuiltIn(
        name="starter-detector",
        about="our own, small: finds persons with their dense pose, and faces",
        kinds=("person", "face"),
    ),
    BuiltIn(
        name="starter-generator",
        about="our own, small: generates persons from their dense pose",
        kinds=("person",),
    ),
)


def built_in() -> dict[str, BuiltIn]:
    """Returns what comes with the project by name, whether this installation has it or not."""
    return {bundle.name: bundle for bundle in _BUILT_IN}

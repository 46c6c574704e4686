"""The documents: links lead somewhere, options are explained, and what is there to type is understood."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from stream.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/*.md"), *ROOT.glob("engines/**/*.md"))
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z0-9-]*)")
#: Fenced, with its language, or indented by four. Every fence is matched, lest the end of one begin another.
CODE = re.compile(r"^```([a-z]*)\n(.*?)^```|^((?: {4}[^\n]*\n)+)", re.MULTILINE | re.DOTALL)
#: Where the options of each command stand; those of others in the page that has the name of the first word.
EXPLAINED = {
    "batch": ["batch", "run"],
    "generate": ["export"],
    "export": ["export", "tensorrt"],
    "gst-path": ["gstreamer"],
    "engines pull": ["bundles"],
    "engines import": ["bundles"],
    "engines inspect": ["bundles"],
    "engines quantize": ["bundles"],
    "engines build": ["tensorrt"],
    "engines prune": ["tensorrt"],
}


def text(page: str | Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The names by which a page's headings can be linked to, as GitHub makes them."""
    bare = re.sub(r"```.*?```", "", text(page), flags=re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(bare)}


def commands(found: object, name: str = "") -> Iterator[tuple[str, list[TyperOption]]]:
    """Every command that has options, and those."""
    assert isinstance(found, TyperCommand | TyperGroup)
    options = [entry for entry in found.params if isinstance(entry, TyperOption) and entry.name != "help"]
    if name and options:
        yield name, options
    if isinstance(found, TyperGroup):
        context = typer.Context(found)
        for word in found.list_commands(context):
            yield from commands(found.get_command(context, word), f"{name} {word}".strip())


WHOLE = typer.main.get_command(app)
COMMANDS = dict(commands(WHOLE))


def typed(page: Path) -> Iterator[list[str]]:
    """What a page says to type after `standin`, a list of words for each time."""
    for language, fenced, indented in CODE.findall(text(page)):
        if language not in ("", "sh"):
            continue
        for line in (fenced or indented).replace("\\\n", " ").splitlines():
            if "standin " not in line or "`" in line:
                continue
            split = shlex.shlex(line.strip(), posix=True, punctuation_chars=True)
            split.whitespace_split = True
            words: list[str] = []
            for word in [*split, ";"]:
                if not set(word) <= set(";|&<>()"):
                    words.append(word)
                    continue
                if words and Path(words[0]).name == "standin":
                    yield words[1:]
                words = []


TYPED = [pytest.param(words, id=f"{page}: {' '.join(words)}") for page in PAGES for words in typed(page)]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in LINK.findall(text(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = (ROOT / page).parent / name if name else ROOT / page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there.relative_to(ROOT)), target


@pytest.mark.parametrize("page", sorted(path.stem for path in ROOT.glob("docs/*.md")))
def test_every_page_is_named_in_the_readme(page: str) -> None:
    assert f"(docs/{page}.md)" in text("README.md")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_explained(name: str) -> None:
    pages = EXPLAINED.get(name, [name.split()[0]])
    explained = {option for page in pages for option in OPTION.findall(text(f"docs/{page}.md"))}
    asked = {word for option in COMMANDS[name] for word in (*option.opts, *option.secondary_opts)}
    assert {word for word in asked if word.startswith("--")} - explained == set()


def test_options_of_a_run_stand_under_the_headings_of_its_help() -> None:
    sections = re.split(r"^## ", text("docs/run.md"), flags=re.MULTILINE)[1:]
    found = sorted(
        (option, heading)
        for heading, _, rows in (section.partition("\n") for section in sections)
        for row in rows.splitlines()
        if row.startswith("| `--")
        for option in OPTION.findall(row.split(" | ", maxsplit=1)[0])
    )
    panels = [
        (word, option.rich_help_panel or "The run as a whole")
        for option in COMMANDS["run"]
        for word in (*option.opts, *option.secondary_opts)
        if word.startswith("--")
    ]
    assert len({panel for _, panel in panels}) == len(sections)
    assert found == sorted(panels)


@pytest.mark.parametrize("words", TYPED)
def test_what_a_page_says_to_type_is_understood(words: list[str]) -> None:
    found: object = WHOLE
    while isinstance(found, TyperGroup) and words and not words[0].startswith("-"):
        word, *words = words
        found = found.get_command(typer.Context(found), word)
        assert found is not None, word
    assert isinstance(found, TyperCommand | TyperGroup)
    # Unknown options and missing values raise; values are not looked at, since files that they name are not there.
    found.make_parser(typer.Context(found)).parse_args(words)

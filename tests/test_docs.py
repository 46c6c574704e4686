"""The documents: links lead somewhere, and every option of every command is explained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup, TyperOption

from stream.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/*.md"), *ROOT.glob("engines/**/*.md"))
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z0-9-]*)")
#: Where the options of each command stand.
EXPLAINED = {
    "run": ["run"],
    "serve": ["serve"],
    "batch": ["batch", "run"],
    "verify": ["verify"],
    "generate": ["export"],
    "export": ["export", "tensorrt"],
    "bench": ["bench"],
    "engines build": ["tensorrt"],
    "engines prune": ["tensorrt"],
    "engines quantize": ["bundles"],
    "engines pull": ["bundles"],
    "engines import": ["bundles"],
}


def text(page: str | Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The names by which a page's headings can be linked to, as GitHub makes them."""
    bare = re.sub(r"```.*?```", "", text(page), flags=re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(bare)}


def options(name: str) -> list[TyperOption]:
    found = typer.main.get_command(app)
    for word in name.split():
        assert isinstance(found, TyperGroup)
        entry = found.get_command(typer.Context(found), word)
        assert entry is not None
        found = entry
    return [parameter for parameter in found.params if isinstance(parameter, TyperOption) and parameter.name != "help"]


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


@pytest.mark.parametrize("name", EXPLAINED)
def test_every_option_of_a_command_is_explained(name: str) -> None:
    explained = {option for page in EXPLAINED[name] for option in OPTION.findall(text(f"docs/{page}.md"))}
    asked = {option.opts[0] for option in options(name)}
    assert asked
    assert asked - explained == set()


def test_options_of_a_run_stand_under_the_headings_of_its_help() -> None:
    sections = re.split(r"^## ", text("docs/run.md"), flags=re.MULTILINE)[1:]
    found = {
        option: heading
        for heading, _, rows in (section.partition("\n") for section in sections)
        for row in rows.splitlines()
        if row.startswith("| `--")
        for option in OPTION.findall(row.split(" | ", maxsplit=1)[0])
    }
    panels = {option.opts[0]: option.rich_help_panel for option in options("run")}
    assert set(panels.values()) > {None}
    assert found == {option: panel or "The run as a whole" for option, panel in panels.items()} | {
        "--no-join-faces": "How people are covered"
    }

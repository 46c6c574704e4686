"""The project's structure: who may import whom, who may print, how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("engines", "stream", "export")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
LONGEST_FILE = 400
#: Scripts that are run, not imported: what they print is what they are for.
CLI = {
    "stream/cli.py", "stream/cli_engines.py", "stream/cli_generate.py", "stream/cli_gst.py", "stream/doctor.py",
    "stream/cli_bench.py", "stream/cli_run.py", "stream/cli_serve.py", "stream/cli_verify.py", "stream/demo.py",
}  # fmt: skip


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> Iterator[tuple[str, bool]]:
    """Top-level packages that a file imports in any way, and whether it does so inside a function's body."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in function.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)} imports relatively"
            modules = [node.module or ""]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"import_module", "importlib.import_module"}:
            argument = node.args[0]
            modules = [argument.value] if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else []
        for module in modules:
            yield module.partition(".")[0], id(node) in inside


def test_the_files_are_found() -> None:
    assert len(FILES) > 35
    assert {name(path) for path in FILES} >= {"engines/runtime.py", "stream/pipeline.py", "stream/detectors/view.py"}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    for module, in_function in imported(path):
        if package == "engines":
            assert module not in {"stream", "export", "torch"}
        if package == "export":
            assert module != "stream"
        if package == "stream":
            assert module != "torch"
            if module == "export":
                assert path.name.startswith("cli"), "only the command line reaches export"
                assert in_function, "export is imported only when its command runs"


@pytest.mark.parametrize("path", [p for p in FILES if name(p) not in CLI], ids=name)
def test_only_the_command_line_prints(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in {"print", "sys.stdout.write", "sys.stderr.write", "typer.echo"}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "export"}:
            raise AssertionError(f"{name} was imported")

sys.meta_path.insert(0, Refuse())
import engines, stream, stream.cli
assert stream.Anonymizer
print("fine")
"""


def test_what_runs_does_not_import_torch() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.stdout.strip() == "fine", ended.stderr


def test_the_packages_that_are_installed_are_those_on_disk() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    on_disk = {name(path.parent).replace("/", ".") for path in FILES if path.name == "__init__.py"}
    assert len(on_disk) >= 7
    assert set(declared) == on_disk
    assert len(declared) == len(set(declared))
    # GStreamer's loader reads files of a folder, not a package.
    folders = {path.parent for path in FILES} - {ROOT / "stream" / "gst_plugins" / "python"}
    assert all((folder / "__init__.py").exists() for folder in folders)

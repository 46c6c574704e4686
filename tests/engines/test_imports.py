"""Imports go one way, and none of them reaches torch."""

from __future__ import annotations

import subprocess
import sys

IMPORT_ALL = """
import importlib, pkgutil, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", *sys.argv[2:]}:
            raise AssertionError(f"{name} was imported")

sys.meta_path.insert(0, Refuse())
package = importlib.import_module(sys.argv[1])
names = [found.name for found in pkgutil.walk_packages(package.__path__, sys.argv[1] + ".")]
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        # PyGObject is optional and comes from the system.
        if error.name != "gi":
            raise
print(len(names))
"""


def imported(package: str, *refused: str) -> int:
    command = [sys.executable, "-c", IMPORT_ALL, package, *refused]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


def test_engines_import_neither_torch_nor_the_other_packages() -> None:
    assert imported("engines", "stream", "export") >= 10


def test_stream_imports_neither_torch_nor_export() -> None:
    assert imported("stream", "export") >= 2

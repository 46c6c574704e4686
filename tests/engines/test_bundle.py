from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from engines.bundle import Bundle, open_bundle, sha256_file, write_bundle
from engines.errors import BundleError, BundleMissingError, BundleSchemaError, BundleTamperedError
from tests.engines.helpers import doubler, tiny_draft


def test_a_written_bundle_opens_with_its_digest(tiny: Bundle) -> None:
    opened = open_bundle(tiny.path)
    assert opened == tiny
    assert opened.digest == hashlib.sha256((tiny.path / "bundle.json").read_bytes()).hexdigest()
    assert opened.manifest.files == {"detector.onnx": sha256_file(opened.file("detector.onnx"))}
    assert opened.size == sum(path.stat().st_size for path in tiny.path.iterdir())


def test_files_are_copied_from_paths_and_into_folders(tmp_path: Path) -> None:
    (tmp_path / "made").write_bytes(doubler())
    files: dict[str, bytes | Path] = {"detector.onnx": tmp_path / "made", "plans/x": b"1"}
    bundle = write_bundle(tmp_path / "bundle", tiny_draft(), files)
    assert bundle.file("plans/x").read_bytes() == b"1"


def test_a_missing_folder_or_manifest_is_a_missing_bundle(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(BundleMissingError) as caught:
            open_bundle(path)
        assert isinstance(caught.value, FileNotFoundError)


def test_a_changed_file_is_named(tiny: Bundle) -> None:
    path = tiny.file("detector.onnx")
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleTamperedError, match=r"detector\.onnx was changed"):
        open_bundle(tiny.path)
    with pytest.raises(BundleTamperedError):
        tiny.verify()


def test_a_missing_file_is_named(tiny: Bundle) -> None:
    tiny.file("detector.onnx").unlink()
    with pytest.raises(BundleTamperedError, match=r"detector\.onnx cannot be read"):
        open_bundle(tiny.path)


def test_a_newer_schema_is_told_before_anything_else(tiny: Bundle) -> None:
    where = tiny.path / "bundle.json"
    where.write_text(json.dumps({"schema_version": 99, "whatever": []}))
    with pytest.raises(BundleSchemaError, match="99"):
        open_bundle(tiny.path)


def test_a_name_that_leaves_the_folder_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="plain relative"):
        write_bundle(tmp_path / "a" / "bundle", tiny_draft(), {"detector.onnx": b"", "../x": b""})
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_never_written_over_another(tiny: Bundle) -> None:
    with pytest.raises(BundleError, match="already"):
        write_bundle(tiny.path, tiny_draft(), {"detector.onnx": doubler()})


def test_unknown_files_and_graphs_are_errors_that_name_the_known(tiny: Bundle) -> None:
    with pytest.raises(BundleError, match=r"detector\.onnx"):
        tiny.file("heads.onnx")
    with pytest.raises(BundleError, match="it has detector"):
        tiny.graph("heads")

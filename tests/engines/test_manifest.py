from __future__ import annotations

import json
from typing import Any

import pytest

from engines.errors import BundleError, BundleSchemaError
from engines.manifest import SCHEMA_VERSION, parse_manifest
from tests.engines.helpers import tiny_draft


def fields(**changes: Any) -> dict[str, Any]:
    made = tiny_draft().model_dump(mode="json") | {"files": {"detector.onnx": "a" * 64}}
    return made | changes


def message(raw: str | bytes) -> str:
    with pytest.raises(BundleError) as caught:
        parse_manifest(raw)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_manifest_survives_writing_and_reading() -> None:
    manifest = parse_manifest(json.dumps(fields()))
    assert parse_manifest(manifest.model_dump_json()) == manifest
    assert manifest.graphs["detector"].inputs[0].shape == ("N", 2, "w")


def test_a_newer_schema_is_named_and_asks_for_an_update() -> None:
    raw = json.dumps(fields(schema_version=SCHEMA_VERSION + 1, something_new=1))
    with pytest.raises(BundleSchemaError, match=f"schema version {SCHEMA_VERSION + 1}.*update standin"):
        parse_manifest(raw)


def test_an_older_schema_is_refused() -> None:
    with pytest.raises(BundleSchemaError, match="schema version 0"):
        parse_manifest(json.dumps(fields(schema_version=0)))


@pytest.mark.parametrize("version", [None, "1", True, 1.0])
def test_a_schema_version_that_is_no_whole_number_is_refused(version: object) -> None:
    assert "schema_version" in message(json.dumps(fields(schema_version=version)))


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", "[" * 100_000])
def test_what_is_not_json_is_a_bundle_error(raw: str | bytes) -> None:
    assert "not JSON" in message(raw)


def test_json_that_is_no_object_is_a_bundle_error() -> None:
    assert "schema_version" in message("[]")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"unknown": 1}, "unknown"),
        ({"licence": ""}, "licence"),
        ({"task": "guessing"}, "task"),
        ({"kinds": []}, "kinds"),
        ({"name": "../up"}, "name"),
        ({"files": {"detector.onnx": "A" * 64}}, "files"),
        ({"files": {"detector.onnx": "a" * 63}}, "files"),
        ({"files": {"other.onnx": "a" * 64}}, "detector.onnx"),
        ({"graphs": {}}, "graphs"),
    ],
)
def test_a_wrong_field_is_named_in_one_line(changes: dict[str, Any], field: str) -> None:
    assert field in message(json.dumps(fields(**changes)))


def quantized(**changes: Any) -> dict[str, Any]:
    """Two graphs of one shape, the second of which is the first in integers."""
    made = fields()
    measured = {"source": "detector", "pictures": 9, "sure": 0.5, "threshold": 0.3, "regions": 70, "found": 1.0}
    made["graphs"] |= {"small": made["graphs"]["detector"] | {"file": "small.onnx"}}
    made["files"] |= {"small.onnx": "b" * 64}
    return made | {"quantized": {"small": measured | changes}}


def test_what_integers_cost_is_kept() -> None:
    made = parse_manifest(json.dumps(quantized(found=0.99)))
    assert (made.quantized["small"].source, made.quantized["small"].found) == ("detector", 0.99)


def test_integers_stand_for_a_graph_that_is_there_and_looks_the_same() -> None:
    assert "'small' of 'heads', which are not both in graphs" in message(json.dumps(quantized(source="heads")))
    assert "found" in message(json.dumps(quantized(found=1.5)))
    other = quantized()
    small = other["graphs"]["small"]
    other["graphs"]["small"] = small | {"outputs": [small["outputs"][0] | {"shape": ["N", 3]}]}
    assert "graph 'small' takes or gives something else than 'detector'" in message(json.dumps(other))


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "a/../b",
        "a//b",
        "",
        ".",
        "..",
        ".hidden",
        "a\\..\\b",
        "C:x",
        "a\n",
        "bundle.json",
    ],
)
def test_a_file_name_that_could_leave_the_bundle_is_refused(name: str) -> None:
    files = {"detector.onnx": "a" * 64, name: "b" * 64}
    assert "files" in message(json.dumps(fields(files=files)))
    graphs = fields()["graphs"]
    graphs["detector"]["file"] = name
    assert "graphs.detector.file" in message(json.dumps(fields(graphs=graphs, files=files)))


def test_a_file_in_a_folder_of_the_bundle_is_accepted() -> None:
    files = {"detector.onnx": "a" * 64, "plans/a_b-1.plan": "b" * 64}
    assert "plans/a_b-1.plan" in parse_manifest(json.dumps(fields(files=files))).files


def test_a_tensor_declared_twice_is_refused() -> None:
    graphs = fields()["graphs"]
    graphs["detector"]["outputs"] *= 2
    assert "twice" in message(json.dumps(fields(graphs=graphs)))


DETECTION = {"architecture": "cse", "config": "c", "min_size": 800, "max_size": 1333, "threshold": 0.05, "most": 100}


def test_a_detector_with_heads_says_how_it_is_fed_and_others_need_not() -> None:
    assert parse_manifest(json.dumps(fields())).detection is None
    manifest = parse_manifest(json.dumps(fields(detection=DETECTION)))
    assert manifest.detection is not None
    assert manifest.detection.max_size == 1333
    assert parse_manifest(manifest.model_dump_json()) == manifest


@pytest.mark.parametrize(
    ("change", "field"),
    [({"architecture": "other"}, "architecture"), ({"threshold": 1.5}, "threshold"), ({"x": 1}, "x")],
)
def test_what_a_detector_says_is_checked(change: dict[str, Any], field: str) -> None:
    assert f"detection.{field}" in message(json.dumps(fields(detection=DETECTION | change)))

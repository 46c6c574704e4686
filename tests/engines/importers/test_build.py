from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from engines.runtime import open_runtime
from engines.store import Store
from tests.engines.importers.networks import answer, columns, fixed_answer, found, imported, segmentation, ultralytics

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engines.helpers import Site


def test_the_manifest_says_where_the_file_came_from_and_what_was_measured(tmp_path: Path) -> None:
    bundle = imported(segmentation(), tmp_path, "yolo-seg")
    manifest = bundle.manifest
    assert (manifest.name, manifest.family, manifest.licence) == ("mine", "yolo-seg", "unknown")
    assert manifest.provenance.source == str(tmp_path / "mine.onnx")
    assert {result.output for result in manifest.parity} == {"boxes", "scores", "masks"}
    with open_runtime(bundle) as runtime:
        assert [tensor.name for tensor in runtime.outputs][-1] == "masks"


@pytest.mark.parametrize("build", ["fastestdet", "ultraface"])
def test_known_detectors_are_pulled_and_built(tmp_path: Path, site: Site, build: str) -> None:
    scores = np.tile(np.array([1, 0], np.float32), (1, 10, 1))
    outputs = {
        "fastestdet": {"758": np.full((1, 7, 4, 6), 0.1, np.float32)},
        "ultraface": {"scores": scores, "boxes": np.zeros((1, 10, 4), np.float32)},
    }
    site.content = fixed_answer(outputs[build]).SerializeToString()
    artefact = site.artefact(name=build, build=build, kinds=("person",))
    bundle = Store(tmp_path / "store", known={build: artefact}).pull(build)
    manifest = bundle.manifest
    assert (manifest.name, manifest.family, manifest.licence) == (build, build, "MIT")
    assert manifest.kinds == (("person",) if build == "fastestdet" else ("face",))
    assert manifest.provenance.source == site.url
    assert manifest.provenance.sha256 == artefact.sha256
    assert len(site.requests) == 1
    (tmp_path / "published.onnx").write_bytes(site.content)
    again = Store(tmp_path / "other", known={build: artefact}).pull(build, source=str(tmp_path / "published.onnx"))
    assert again.manifest.files == manifest.files
    assert len(site.requests) == 1


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21])
def test_old_and_new_opsets_are_taken(tmp_path: Path, opset: int) -> None:
    model = fixed_answer({"o": columns([[20, 30, 10, 20, 0.9]])}, metadata=ultralytics(["face"]), opset=opset)
    assert found(answer(imported(model, tmp_path, "yolo"))) == [([15, 20, 25, 40], 0.9, 0)]

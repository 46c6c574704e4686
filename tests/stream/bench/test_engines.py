from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from engines.bundle import open_bundle
from engines.errors import BundleError
from engines.manifest import Graph
from engines.store import Store
from stream.assemble import Bundles
from stream.bench.engines import example_feeds, generator_runs, opened_engines
from stream.config import AnonymizerSettings, make_settings
from stream.frame import Frame
from tests.detector_bundles import install_presets
from tests.generator_bundles import tensor, write_surface, write_unet
from tests.media import picture


def settings(preset: str) -> AnonymizerSettings:
    return make_settings(AnonymizerSettings, {"preset": preset, "threads": 1})


def test_example_inputs_are_of_the_declared_types_and_sizes() -> None:
    inputs = (tensor("image", "N", 3, 8, 6), tensor("slot", "N", dtype="int64"), tensor("z", 1, 4))
    feeds = example_feeds(Graph(file="g.onnx", inputs=inputs, outputs=inputs), 5)
    assert {name: (value.shape, str(value.dtype)) for name, value in feeds.items()} == {
        "image": ((5, 3, 8, 6), "float32"),
        "slot": ((5,), "int64"),
        "z": ((1, 4), "float32"),
    }
    assert np.isfinite(feeds["image"]).all()


def test_rows_are_looked_up_all_over_the_tables() -> None:
    inputs = (
        tensor("vertices", "N", 8, 6, dtype="int64"), tensor("slot", "N", dtype="int64"), tensor("table_0", "S", 40, 4),
    )  # fmt: skip
    feeds = example_feeds(Graph(file="g.onnx", inputs=inputs, outputs=inputs), {"N": 50, "S": 3})
    assert set(feeds["slot"].tolist()) == {0, 1, 2}
    assert set(feeds["vertices"].ravel().tolist()) == set(range(40))


def test_inputs_of_a_type_that_no_generator_has_are_refused() -> None:
    inputs = (tensor("text", "N", dtype="bool"),)
    with pytest.raises(BundleError, match="text"):
        example_feeds(Graph(file="g.onnx", inputs=inputs, outputs=inputs), 1)


def test_a_generator_is_measured_for_each_batch(tmp_path: Path) -> None:
    bundles = [write_unet(tmp_path / "unet"), write_surface(tmp_path / "surface")]
    runs, missing = generator_runs(bundles, "cpu", "fp32", 1, (1, 3))
    assert missing == ()
    assert [(run.graph, run.batch) for run in runs] == 2 * [("mapping", 1), ("generator", 1), ("generator", 3)]
    assert all(run.milliseconds.runs >= 3 and run.milliseconds.lowest > 0 for run in runs)
    assert {run.provider for run in runs} == {"CPUExecutionProvider"}
    assert {(run.on_device, run.tf32, run.nodes) for run in runs} == {(None, None, None)}
    assert runs[2].inputs.startswith("3x")


def test_a_graph_that_is_not_there_is_named_and_the_others_are_measured(tmp_path: Path) -> None:
    bundle = write_unet(tmp_path / "unet")
    graphs = {name: graph for name, graph in bundle.manifest.graphs.items() if name != "generator_fp16"}
    without = type(bundle)(bundle.path, bundle.manifest.model_copy(update={"graphs": graphs}), bundle.digest)
    runs, missing = generator_runs([without], "cpu", "fp16", 1, (1,))
    assert [run.graph for run in runs] == ["mapping"]
    assert len(missing) == 1
    assert "generator_fp16" in missing[0]


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    runs, missing = generator_runs([write_unet(tmp_path / "unet")], "tensorrt", "fp32", 1, (1,))
    assert runs == ()
    assert all("Tensorrt" in text or "tensorrt" in text for text in missing)
    assert len(missing) == 2


@pytest.mark.parametrize(("precision", "graph"), [("auto", "detector_int8"), ("fp32", "detector")])
def test_a_detector_is_measured_in_what_it_is_asked_to_compute(tmp_path: Path, precision: str, graph: str) -> None:
    asked = settings("starter").model_copy(update={"detector_precision": precision})
    with opened_engines(asked, Store(tmp_path), persons=None, aspect=4 / 3) as opened:
        assert next(iter(opened.eyes.look(Frame(picture(128, 96))))).graph == graph


def test_detectors_graphs_are_timed_one_by_one(tmp_path: Path) -> None:
    install_presets(tmp_path)
    frame = Frame(picture(128, 96))
    with opened_engines(settings("deepprivacy2"), Store(tmp_path), persons=3, aspect=4 / 3) as opened:
        runs = {(run.bundle, run.graph): run for run in opened.eyes.look(frame)}
        names = {note.name for note in opened.notes()}
    assert set(runs) == {
        ("maskrcnn", "detector"), ("maskrcnn", "heads"), ("cse", "detector"), ("cse", "heads"), ("dsfd", "detector"),
    }  # fmt: skip
    assert runs["maskrcnn", "heads"].batch == 3
    assert runs["maskrcnn", "heads"].inputs.startswith("3 boxes")
    assert names == {"maskrcnn", "cse", "dsfd", "tiny-unet"}


def test_engines_are_opened_as_a_run_opens_them(tmp_path: Path) -> None:
    install_presets(tmp_path)
    frame = Frame(picture(128, 96))
    with opened_engines(settings("faces"), Store(tmp_path), persons=None, aspect=4 / 3) as opened:
        # What the bundle finds in every picture, and nobody who was put there.
        assert len(opened.eyes.detector.detect(frame)) == 2
        assert opened.anonymizer.parallel == 1


@pytest.mark.parametrize(("tiles", "looks"), [(1, 1), (2, 5)])
def test_detectors_look_at_every_part_of_a_frame_where_a_run_does(tiles: int, looks: int, tmp_path: Path) -> None:
    install_presets(tmp_path)
    asked = settings("faces").model_copy(update={"tiles": tiles, "detect_size": 64})
    with opened_engines(asked, Store(tmp_path), persons=None, aspect=4 / 3) as opened:
        opened.eyes.detector.detect(Frame(picture(128, 96)))
        (runtime,) = opened.eyes.runtimes
        assert len(runtime.seconds) == looks
        assert max(runtime.shape) == 64


def test_folders_of_whoever_exported_stay_out(tmp_path: Path) -> None:
    install_presets(tmp_path)
    folder = tmp_path / "bundles" / "centerface"
    bundle = open_bundle(folder)
    origin = bundle.manifest.provenance.model_copy(update={"source": "/home/somebody/a.pth"})
    with opened_engines(settings("faces"), Store(tmp_path), persons=None, aspect=1) as opened:
        manifest = bundle.manifest.model_copy(update={"provenance": origin})
        changed = dataclasses.replace(
            opened, bundles=Bundles((type(bundle)(bundle.path, manifest, bundle.digest),), {})
        )
        assert [note.weights for note in changed.notes()] == ["tiny: a local file"]
        assert [note.weights for note in opened.notes()] == ["tiny: code"]

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import helper, numpy_helper

from engines.errors import BundleError
from engines.importers.classes import Classes
from engines.importers.network import read_network
from engines.importers.recognise import recognise
from engines.importers.reference import measure_parity
from tests.engines.importers.networks import columns, fixed_answer, imported, save, ultralytics

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engines.importers.networks import Array


def test_scores_that_are_logits_are_refused(tmp_path: Path) -> None:
    model = fixed_answer({"o": columns([[20, 30, 10, 20, 3.5]])}, metadata=ultralytics(["face"]))
    with pytest.raises(BundleError, match="logits"):
        imported(model, tmp_path, "yolo")
    assert not (tmp_path / "bundle").exists()


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    model = fixed_answer({"o": columns([[20, 30, 10, 20, np.nan]])}, metadata=ultralytics(["face"]))
    with pytest.raises(BundleError, match="not finite"):
        imported(model, tmp_path, "yolo")


def _random(seed: int) -> dict[str, tuple[str, str, dict[str, Array]]]:
    """For each form the kind, the classes and an answer full of candidates."""
    draw = np.random.default_rng(seed)

    def unit(*shape: int) -> Array:
        return draw.uniform(0, 1, shape).astype(np.float32)

    centred = np.concatenate([unit(1, 2, 60) * 90, unit(1, 2, 60) * 30 + 1], axis=1)
    corners = unit(60, 4) * [40, 30, 40, 30] + [0, 0, 45, 34]
    rows = np.concatenate([corners[None], unit(1, 60, 1), draw.integers(0, 3, (1, 60, 1))], axis=2)
    more = draw.normal(size=(1, 4, 60))
    return {
        "columns": ("yolo", "-,person,face", {"o": np.concatenate([centred, unit(1, 3, 60)], axis=1)}),
        "objectness": (
            "yolo",
            "person,face,plate",
            {"o": np.concatenate([np.tile(centred, (1, 1, 20)), unit(1, 4, 1200)], axis=1).swapaxes(1, 2)},
        ),
        "masks": (
            "yolo-seg",
            "-,person,face",
            {
                "o": np.concatenate([centred, unit(1, 3, 60), more], axis=1),
                "p": draw.normal(size=(1, 4, 16, 24)),
            },
        ),
        "rows": ("yolo", "1=person,2=face", {"o": rows}),
        "queries": ("rtdetr", "1=face", {"o": unit(1, 60, 7)}),
        "logits": ("rtdetr", "1=face,0=plate", {"logits": draw.normal(size=(1, 60, 3)), "pred_boxes": unit(1, 60, 4)}),
        "lists": (
            "boxes",
            "1=face",
            {
                "boxes": corners,
                "labels": draw.integers(0, 3, 60),
                "scores": unit(60),
                "masks": unit(60, 1, 62, 93),
            },
        ),
        "cells": (
            "fastestdet",
            "1=person",
            {"o": np.concatenate([unit(1, 1, 5, 7), draw.normal(size=(1, 4, 5, 7)), unit(1, 3, 5, 7)], axis=1)},
        ),
        "priors": ("ultraface", "face", {"scores": unit(1, 60, 2), "boxes": corners[None] / 96}),
    }


@pytest.mark.parametrize("form", _random(0))
@pytest.mark.parametrize("seed", [0, 1])
def test_every_graph_equals_the_numpy_decoder_on_random_answers(tmp_path: Path, form: str, seed: int) -> None:
    kind, classes, outputs = _random(seed)[form]
    exact = {name: v if v.dtype == np.int64 else v.astype(np.float32) for name, v in outputs.items()}
    parity = imported(fixed_answer(exact), tmp_path, kind, classes).manifest.parity
    assert {result.output for result in parity} >= {"boxes", "scores"}
    assert ("masks" in {result.output for result in parity}) == (form in ("masks", "lists"))
    assert all(result.largest_difference <= result.tolerance for result in parity)


def test_a_graph_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    outputs = {"o": columns([[20, 30, 10, 20, 0.9]])}, {"o": columns([[20, 31, 10, 20, 0.9]])}
    one, other = (
        read_network(save(fixed_answer(answer, metadata=ultralytics(["face"])), tmp_path)) for answer in outputs
    )
    recipe = recognise("yolo", one)
    classes = Classes(("face",), ((0,),))
    assert measure_parity(one, recipe, classes)
    with pytest.raises(BundleError, match="boxes differ"):
        measure_parity(replace(one, model=other.model), recipe, classes)


def test_a_network_that_does_not_run_is_refused(tmp_path: Path) -> None:
    model = fixed_answer({"o": columns([[20, 30, 10, 20, 0.9]])}, metadata=ultralytics(["face"]))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 5, 9), np.float32), "large"))
    model.graph.output[0].name = "p"
    model.graph.node.append(helper.make_node("Add", ["o", "large"], ["p"]))
    with pytest.raises(BundleError, match=r"ONNX Runtime cannot load|fails on a picture"):
        imported(model, tmp_path, "yolo")

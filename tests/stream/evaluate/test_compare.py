from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import UsageError
from engines.store import Store
from stream.evaluate.compare import CompareSettings, Row, compare
from stream.evaluate.methods import CLASSICAL, MethodSettings
from stream.evaluate.synthetic import ANNOTATIONS, IMAGES, MARKET
from stream.networks import NetworkSettings
from stream.regions import Kind
from stream.verify.people import LookSettings
from tests.stream.evaluate.made import map_network, vector_network, write_set, write_store

pytest.importorskip("onnxruntime", reason="networks run in ONNX Runtime")
pytest.importorskip("pycocotools", reason="average precision is pycocotools'")


def shift(real: Any, made: Any) -> float:
    return float(np.square(real.mean(axis=0) - made.mean(axis=0)).sum())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    write_store(folder / "home")
    write_set(folder / "set")
    vector_network(folder / "vector.onnx")
    map_network(folder / "maps.onnx")
    return folder


def settings(home: Path, **changes: Any) -> CompareSettings:
    whole: dict[str, Any] = {
        "presets": ("sg-gan",),
        "classical": tuple(CLASSICAL),
        "methods": MethodSettings(),
        "images": home / "set" / IMAGES,
        "annotations": home / "set" / ANNOTATIONS,
        "market": home / "set" / MARKET,
        "features": NetworkSettings(home / "vector.onnx"),
        "perceptual": NetworkSettings(home / "maps.onnx"),
        "identity": NetworkSettings(home / "vector.onnx"),
        "look": LookSettings(("judge",), (Kind.PERSON,), 0.02),
    }
    return CompareSettings(**(whole | changes))


def run(home: Path, **changes: Any) -> dict[str, Row]:
    store = Store(home / "home", known={}, built_in=home / "none")
    told: list[tuple[str, int, int]] = []
    rows = compare(settings(home, **changes), store, lambda: shift, progress=lambda *what: told.append(what))
    assert told
    assert all(done <= count for _, done, count in told)
    return {row.method: row for row in rows}


def test_every_measure_is_taken_for_every_method(home: Path) -> None:
    rows = run(home)
    assert list(rows) == ["original", *CLASSICAL, "sg-gan"]
    assert set(rows["original"].figures) == {"ap", "ap50", "rank1", "map"}
    everywhere = {"fid", "lpips", "ap", "ap50", "covered", "rank1", "map", "rank1_both", "map_both"}
    for name in CLASSICAL:
        assert set(rows[name].figures) == everywhere
        assert rows[name].generated == 0
    assert set(rows["sg-gan"].figures) == everywhere | {"diversity", "ppl", "ppl_float"}
    assert rows["sg-gan"].generated > 0
    # The judge finds the same everywhere, whatever is shown.
    assert len({row.figures["ap"].value for row in rows.values()}) == 1
    assert rows["blur"].figures["ap"].count == 3
    assert rows["blur"].figures["rank1"].count == 6
    assert rows["mask-out"].figures["map"].value < rows["original"].figures["map"].value


def test_several_presets_are_several_rows_and_the_first_one_serves_the_others(home: Path) -> None:
    rows = run(
        home, presets=("sg-gan", "deepprivacy2"), classical=("blur",), annotations=None, market=None, identity=None,
        perceptual=None, limit=2,
    )  # fmt: skip
    assert list(rows) == ["blur", "sg-gan", "deepprivacy2"]
    assert all(set(rows[name].figures) == {"fid"} for name in ("blur", "sg-gan", "deepprivacy2"))


def test_re_identification_alone_needs_no_pictures(home: Path) -> None:
    rows = run(home, images=None, annotations=None, features=None, perceptual=None, classical=("mask-out",))
    assert set(rows["mask-out"].figures) == {"rank1", "map", "rank1_both", "map_both"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": None, "market": None}, "nothing to measure on"),
        ({"images": None}, "--annotations belong to pictures"),
        ({"images": None, "annotations": None}, "look at people in pictures"),
        ({"identity": None}, "needs both --market"),
        ({"market": None}, "needs both --market"),
        ({"annotations": None, "features": None, "perceptual": None}, "--images needs what to measure"),
        ({"presets": ("sg-gan", "sg-gan")}, "given twice"),
        ({"look": LookSettings(("nobody",), (Kind.PERSON,), 0.02)}, "nobody"),
        ({"category": "dog"}, "no category 'dog'"),
        ({"kind": Kind.FACE, "annotations": None}, "no generator for faces"),
    ],
)
def test_what_does_not_go_together_is_said_first(home: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=words) as raised:
        run(home, **changes)
    assert raised.type.__module__ == UsageError.__module__


def test_the_detector_that_judges_is_by_default_one_that_no_preset_has(home: Path) -> None:
    rows = run(
        home, look=LookSettings((), (Kind.PERSON,), 0.02), presets=("deepprivacy2", "sg-gan"), classical=("blur",),
        features=None, perceptual=None, market=None, identity=None,
    )  # fmt: skip
    assert (rows["blur"].figures["ap"].network or "").startswith("judge (sha256 ")

"""A device without memory: fewer persons at a time, then frames are withheld, and the run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engines.store import Store
from stream.anonymizer import Anonymized
from stream.bench.engines import opened_engines
from stream.config import AnonymizerSettings, make_settings
from stream.frame import Frame
from tests.detector_bundles import install_presets
from tests.engines.onnx_fakes import FakeOnnxRuntime
from tests.media import picture

PERSONS = 3


@pytest.fixture
def settings(tmp_path: Path) -> AnonymizerSettings:
    install_presets(tmp_path)
    return make_settings(AnonymizerSettings, {"preset": "deepprivacy2", "device": "cuda", "seed": 1})


def frames() -> Iterator[Frame]:
    for number in range(3):
        yield Frame(picture(128, 96), pts=number)


def anonymized(
    settings: AnonymizerSettings, root: Path, monkeypatch: pytest.MonkeyPatch, most: int | None
) -> tuple[FakeOnnxRuntime, list[Anonymized]]:
    fake = FakeOnnxRuntime(most=most)
    monkeypatch.setattr("engines.runtime_onnx.import_module", lambda name: fake.module)
    with opened_engines(settings, Store(root), persons=PERSONS, aspect=4 / 3) as opened:
        return fake, list(opened.anonymizer.iterate(frames()))


def test_without_memory_for_a_wave_persons_are_replaced_in_parts(
    settings: AnonymizerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plenty, whole = anonymized(settings, tmp_path, monkeypatch, None)
    scarce, parts = anonymized(settings, tmp_path, monkeypatch, 1)
    assert max(plenty.rows) > 1, "no wave of several persons: nothing was tested"
    assert [item.withheld for item in parts] == [None] * 3
    for one, other in zip(whole, parts, strict=True):
        # The CPU that stands in for the GPU adds up in another order in a batch.
        assert np.abs(one.image.astype(int) - other.image).max() <= 1
    assert scarce.rows.count(1) > plenty.rows.count(1)


def test_without_memory_for_anything_every_frame_is_withheld(
    settings: AnonymizerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, items = anonymized(settings, tmp_path, monkeypatch, 0)
    assert len(items) == 3
    for item in items:
        assert item.withheld is not None
        assert "out of memory" in item.withheld
        assert len(np.unique(item.image.reshape(-1, 3), axis=0)) == 1

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from engines.errors import DetectionError
from engines.store import Store
from stream.evaluate.judge import LOWEST, Judge
from stream.regions import Kind
from stream.verify.people import LookSettings
from tests.detector_bundles import PERSONS, write_two_stage
from tests.fakes import noise
from tests.stream.evaluate.made import write_store

pytest.importorskip("onnxruntime", reason="detectors run in ONNX Runtime")
LOOK = LookSettings((), (Kind.PERSON,), LOWEST)


def test_persons_are_found_and_the_judge_is_named_with_its_hash(tmp_path: Path) -> None:
    bundle = write_store(tmp_path).find("judge")
    with contextlib.closing(Judge([bundle], LOOK)) as judge:
        found = judge.find(noise(1, 100, 50)[0])
    assert judge.name == f"judge (sha256 {bundle.digest[:12]})"
    assert np.allclose(sorted(found.boxes[:, 0]), [10, 60], atol=1)


def test_an_answer_that_cannot_be_trusted_is_no_answer(tmp_path: Path) -> None:
    write_two_stage(tmp_path / "bundles" / "broken", "mask-rcnn", PERSONS, name="broken", broken_heads=True)
    bundle = Store(tmp_path, known={}, built_in=tmp_path / "none").find("broken")
    with contextlib.closing(Judge([bundle], LOOK)) as judge, pytest.raises(DetectionError, match="broken"):
        judge.find(noise(1, 160, 120)[0])

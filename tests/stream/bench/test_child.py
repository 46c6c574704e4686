from __future__ import annotations

import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from engines.errors import DeviceMissingError, OutOfMemoryError, RuntimeUnavailableError, StandinError
from stream.bench.child import answer
from stream.bench.measure import Job
from stream.bench.records import Case, Settings
from tests.detector_bundles import install_presets
from tests.fakes import noise, write_lossless


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lossless(tmp_path_factory.mktemp("clip") / "in.mkv", noise(6, 96, 64))


def job(clip: Path, folder: Path, device: str) -> Job:
    return Job(
        case=Case.model_validate({"preset": "faces", "device": device, "precision": "fp32"}),
        video=clip,
        answer=folder / "answer.json",
        settings=Settings(seconds=0.1, runs=1, encode=False),
        started=time.monotonic(),
        parent=1,
    )


def test_an_answer_has_figures(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_presets(tmp_path)
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path))
    found = answer(job(clip, tmp_path, "cpu"))
    assert found.result.figures is not None
    assert found.result.reason is None
    assert not found.no_device


@pytest.mark.parametrize(
    ("error", "no_device"),
    [
        (DeviceMissingError("no driver"), True),
        (RuntimeUnavailableError("graph 'detector' has no plan for this GPU"), False),
        (OutOfMemoryError("the GPU is out of memory"), False),
    ],
)
def test_only_what_is_missing_for_every_case_marks_the_device(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: StandinError, no_device: bool
) -> None:
    monkeypatch.setattr("stream.bench.child.measure", Mock(side_effect=error))
    found = answer(job(clip, tmp_path, "tensorrt"))
    assert found.result.reason == str(error)
    assert found.no_device is no_device


def test_a_device_that_is_not_there_is_told_from_other_reasons(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path))
    missing = answer(job(clip, tmp_path, "tensorrt"))
    assert "centerface" in (missing.result.reason or "")
    assert not missing.no_device
    install_presets(tmp_path)
    unusable = answer(job(clip, tmp_path, "tensorrt"))
    assert "Tensorrt" in (unusable.result.reason or "")
    assert unusable.no_device

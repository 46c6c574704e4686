"""Presets on TensorRT plans, with fakes that compute what ONNX Runtime does: the stream is the one of the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.cuda import Cuda
from engines.plan_build import PlanBuilder
from engines.store import Store
from stream.anonymizer import Anonymized, Anonymizer
from stream.cli_plans import Wish, build_plans
from stream.config import RunSettings, make_settings
from stream.presets import PRESETS
from tests.detector_bundles import install_presets, write_starter
from tests.fake_cuda import FakeGpu, fake_cudart
from tests.fake_tensorrt import FakeTensorrt
from tests.fakes import frames, noise

WIDTH, HEIGHT = 320, 180


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path / "home"))
    install_presets(tmp_path / "home")
    write_starter(tmp_path / "package")
    return Store(tmp_path / "home", built_in=tmp_path / "package")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> FakeTensorrt:
    """TensorRT, as `--device tensorrt` finds it."""
    gpu = FakeGpu(memory=2**33)
    made = FakeTensorrt(gpu)
    cuda = Cuda(fake_cudart(gpu))
    for module in ("plan_build", "plan_open"):
        monkeypatch.setattr(f"engines.{module}.import_tensorrt", lambda: made.module)
        monkeypatch.setattr(f"engines.{module}.Cuda", lambda: cuda)
    monkeypatch.setattr("engines.tensorrt_policy.installed_version", lambda: made.version)
    return made


def anonymized(store: Store, preset: str, **values: Any) -> list[Anonymized]:
    settings = make_settings(RunSettings, {"preset": preset, "lookahead": 0, "seed": 1, **values})
    with Anonymizer.from_settings(settings, store=store, offline=True) as anonymizer:
        return list(anonymizer.iterate(frames(noise(3, WIDTH, HEIGHT))))


def build(store: Store, preset: str) -> None:
    wanted = PRESETS[preset]
    joining = [name for name in wanted.joins if name in store.available()]
    for name in (*wanted.detectors, *wanted.generators.values(), *joining):
        build_plans(store.open(name), Wish(), PlanBuilder())


@pytest.mark.parametrize("preset", ["deepprivacy2", "sg-gan", "starter"])
def test_a_stream_on_plans_is_the_stream_on_the_cpu(preset: str, store: Store, world: FakeTensorrt) -> None:
    build(store, preset)
    assert world.runs == 0
    planned = anonymized(store, preset, device="tensorrt")
    assert world.runs > 0
    assert world.gpu.launches > 0
    assert world.gpu.used == 0
    for mine, theirs in zip(planned, anonymized(store, preset), strict=True):
        assert (mine.withheld, mine.generated) == (None, theirs.generated)
        np.testing.assert_array_equal(mine.image, theirs.image)


def test_frames_whose_runs_fail_are_withheld(store: Store, world: FakeTensorrt) -> None:
    build(store, "starter")
    world.run_error = "Error Code 1: Cask (no kernel)"
    items = anonymized(store, "starter", device="tensorrt")
    assert [item.withheld is not None for item in items] == [True] * 3
    for item, raw in zip(items, noise(3, WIDTH, HEIGHT), strict=True):
        assert not (item.image == raw).all(axis=2).any()
        assert len(np.unique(item.image)) == 1


def test_a_gpu_that_runs_out_of_memory_withholds_and_goes_on(store: Store, world: FakeTensorrt) -> None:
    build(store, "starter")
    world.run_rows = 1
    items = anonymized(store, "starter", device="tensorrt")
    assert all(item.withheld for item in items)
    world.run_rows = 10**6
    assert not any(item.withheld for item in anonymized(store, "starter", device="tensorrt"))

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines.errors import CheckpointError
from export.starter.detector_data import PLAIN, Augmentation, PackedScenes
from export.starter.detector_training import DetectorOptions, DetectorTask, load_detector, train_detector
from export.starter.training import Budget, load_checkpoint, save_checkpoint, train
from tests.export.starter.tiny_people import SIZE, SPEC, canonical, make_scenes, packed, template

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = DetectorOptions(
    spec=SPEC, size=SIZE, batch=2, anchors=10, augmentation=Augmentation(zoom=(0.8, 1.5)), mixed=False
)


def run(scenes: PackedScenes, folder: Path, steps: int, options: DetectorOptions = OPTIONS, **more: Any) -> Path:
    return train_detector(scenes, template(), folder, Budget(steps=steps), options, **more)


@pytest.fixture
def scenes(tmp_path: Path) -> PackedScenes:
    return packed(tmp_path, make_scenes(6))


class KilledError(Exception):
    """As if the process had been ended."""


def killed_after(steps: int, scenes: PackedScenes, folder: Path, budget: int) -> None:
    """A run that ends in the middle of its budget, after the checkpoint of each step."""

    class Killed(DetectorTask):
        def step(self, draw: np.random.Generator, done: float) -> dict[str, float]:
            if self._step == steps:
                raise KilledError
            return super().step(draw, done)

    task = Killed(scenes, template(), OPTIONS, 0)
    with pytest.raises(KilledError):
        train(task, folder, Budget(steps=budget), seed=0, save_every=1)


def test_a_resumed_training_gives_the_weights_of_an_uninterrupted_one(scenes: PackedScenes, tmp_path: Path) -> None:
    whole = load_checkpoint(run(scenes, tmp_path / "whole", 4))
    killed_after(2, scenes, tmp_path / "killed", 4)
    part = load_checkpoint(tmp_path / "killed" / "checkpoint.pt")
    resumed = load_checkpoint(run(scenes, tmp_path / "killed", 4, resume=True))
    assert (part["step"], resumed["step"], whole["step"]) == (2, 4, 4)
    for kind in ("learnt", "average"):
        for name, values in whole["task"][kind].items():
            assert torch.equal(values, resumed["task"][kind][name]), name
    assert any(
        not torch.equal(part["task"]["learnt"][name], values) for name, values in whole["task"]["learnt"].items()
    )


def test_training_makes_every_loss_smaller(scenes: PackedScenes, tmp_path: Path) -> None:
    said: list[str] = []
    options = replace(OPTIONS, batch=6, augmentation=PLAIN, rate=1e-2, average=0.9, warm_up=5)
    run(scenes, tmp_path / "run", 40, options, log_every=20, progress=said.append)
    with (tmp_path / "run" / "log.csv").open(newline="") as stream:
        first, last = list(csv.DictReader(stream))
    assert said[0].startswith("step 20, ")
    for name in ("total", "heat", "edges", "body", "dice", "way", "surface"):
        assert float(last[name]) < float(first[name]), name


def test_half_precision_trains_too(scenes: PackedScenes, tmp_path: Path) -> None:
    state = load_checkpoint(run(scenes, tmp_path / "run", 2, replace(OPTIONS, mixed=True)))
    assert state["task"]["learnt"]["0.stem.conv.weight"].dtype == torch.float32


@pytest.mark.filterwarnings("ignore")  # of the compiler about itself
def test_a_compiled_network_learns_the_same(
    scenes: PackedScenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Traced as it will be, but run by torch itself: to wait for a C++ compiler would take a minute.
    compile_it = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_it(module, backend="eager"))
    plain, compiled = (
        load_checkpoint(run(scenes, tmp_path / name, 2, replace(OPTIONS, compiled=compiled)))["task"]["learnt"]
        for name, compiled in (("plain", False), ("compiled", True))
    )
    assert plain.keys() == compiled.keys()
    for name, values in plain.items():
        assert torch.allclose(values.float(), compiled[name].float(), atol=1e-4), name


def test_another_training_may_begin_with_the_averaged_weights(scenes: PackedScenes, tmp_path: Path) -> None:
    first = run(scenes, tmp_path / "first", 2)
    second = run(scenes, tmp_path / "second", 0, replace(OPTIONS, size=(32, 64)), weights=first, seed=1)
    started, before = (load_checkpoint(path)["task"] for path in (second, first))
    for name, values in before["average"].items():
        assert torch.equal(started["learnt"][name], values), name
    with pytest.raises(CheckpointError, match="no weights for this detector"):
        run(scenes, tmp_path / "third", 0, replace(OPTIONS, anchors=7), weights=first)


def test_the_surface_stays_as_it_is_unless_it_is_to_be_learnt(scenes: PackedScenes, tmp_path: Path) -> None:
    kept, again, learnt = (
        load_checkpoint(run(scenes, tmp_path / name, 2, replace(OPTIONS, learn_surface=learns), seed=seed))["task"]
        for name, learns, seed in (("kept", False, 0), ("again", False, 1), ("learnt", True, 0))
    )
    assert torch.equal(kept["average"]["1.table"], again["average"]["1.table"])
    assert not torch.equal(learnt["average"]["1.table"], kept["average"]["1.table"])
    assert not torch.equal(kept["learnt"]["0.stem.conv.weight"], again["learnt"]["0.stem.conv.weight"])


def test_another_network_is_not_resumed(scenes: PackedScenes, tmp_path: Path) -> None:
    run(scenes, tmp_path / "run", 1)
    with pytest.raises(CheckpointError, match="not of this training"):
        run(scenes, tmp_path / "run", 2, replace(OPTIONS, spec=replace(SPEC, fine=8)), resume=True)


def test_a_checkpoint_gives_the_averaged_network_and_the_surface(scenes: PackedScenes, tmp_path: Path) -> None:
    path = run(scenes, tmp_path / "run", 2)
    trained = load_detector(path)
    average = load_checkpoint(path)["task"]["average"]
    for name, values in trained.network.state_dict().items():
        assert torch.equal(values, average[f"0.{name}"]), name
    assert not trained.network.training
    assert (trained.size, trained.steps, trained.seed) == (SIZE, 2, 0)
    assert trained.embeddings.shape == (len(canonical()), 16)
    np.testing.assert_allclose(np.linalg.norm(trained.embeddings, axis=1), 1, rtol=1e-5)


def test_what_is_no_detector_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", {"task": {"what": "generator"}, "step": 1})
    with pytest.raises(CheckpointError, match="is not a detector's"):
        load_detector(tmp_path / "a.pt")

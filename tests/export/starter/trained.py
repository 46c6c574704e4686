"""A detector of tiny people, trained and exported once for all workers of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.bundle import Bundle, open_bundle
from export.starter.detector_data import PLAIN, normalised
from export.starter.detector_export import BundleOptions, export_starter_detector
from export.starter.detector_training import DetectorOptions, train_detector
from export.starter.training import Budget
from tests.export.shared import made_once
from tests.export.starter.tiny_people import SIZE, SPEC, make_scene, make_scenes, packed, template

SCENE = make_scene([(6, 6, 30, 58), (58, 10, 82, 60)], seed=99)
#: Of the body's surface.
ANCHORS = 12


def trained_once(factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of one that has learnt the tiny people well enough to find them; not to be written to."""
    options = DetectorOptions(
        spec=SPEC,
        size=SIZE,
        batch=8,
        anchors=ANCHORS,
        augmentation=PLAIN,
        mixed=False,
        rate=1e-2,
        average=0.9,
        warm_up=10,
    )
    with made_once(factory, "starter-checkpoint") as folder:
        made = folder / "trained.pt"
        if not made.exists():
            scenes = packed(folder, make_scenes(48))
            train_detector(scenes, template(), folder / "run", Budget(steps=250), options).rename(made)
    return made


def bundle_once(factory: pytest.TempPathFactory) -> Bundle:
    """Its bundle; not to be written to."""
    pictures: dict[str, NDArray[Any]] = {
        "image": np.stack([normalised(SCENE.image), normalised(make_scenes(3)[2].image)]),
        "image_size": np.array([SIZE, SIZE], np.int64),
    }
    options = BundleOptions(name="tiny", threshold=0.2, view=SIZE, near=0)
    checkpoint = trained_once(factory)
    with made_once(factory, "starter-bundle") as folder:
        made = folder / "bundle"
        return (
            open_bundle(made)
            if made.exists()
            else export_starter_detector(checkpoint, made, options, pictures=pictures)
        )

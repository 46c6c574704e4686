"""A tiny generator and its bundle, to be made narrower or sharper; made once for all workers of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.bundle import Bundle, open_bundle
from export.starter.generator_export import export_starter
from export.starter.generator_training import GENERATOR_NAME, train_generator
from export.starter.training import Budget
from tests.export.shared import made_once
from tests.export.starter.made_people import CONFIG, crops, surface


def trained_generator(factory: pytest.TempPathFactory) -> Path:
    """Its checkpoint, after a few steps: its biases are not 0, and z shows. Not to be written to."""
    with made_once(factory, "starter-generator-checkpoint") as folder:
        made = folder / "run" / GENERATOR_NAME
        if made.exists():
            return made
        return train_generator(CONFIG, crops(folder / "crops", 4), surface(), folder / "run", Budget(steps=6))


def trained_bundle(factory: pytest.TempPathFactory) -> Bundle:
    """Its bundle; not to be written to."""
    checkpoint = trained_generator(factory)
    with made_once(factory, "starter-generator-bundle") as folder:
        made = folder / "bundle"
        return open_bundle(made) if made.exists() else export_starter(checkpoint, surface().embeddings, made)

"""A tiny generator's bundle, to be made narrower."""

from __future__ import annotations

from pathlib import Path

from engines.bundle import Bundle
from export.starter.generator_export import export_starter
from export.starter.generator_training import train_generator
from export.starter.training import Budget
from tests.export.starter.made_people import CONFIG, crops, surface


def trained_bundle(folder: Path) -> Bundle:
    """Trained for a few steps: its biases are not 0, and z shows."""
    trained = train_generator(CONFIG, crops(folder / "crops", 4), surface(), folder / "run", Budget(steps=6))
    return export_starter(trained, surface().embeddings, folder / "bundle")

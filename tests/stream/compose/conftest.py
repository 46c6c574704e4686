"""Small parity generators, exported once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engines.bundle import Bundle
from engines.runtime import Device
from export.generators import export_generator
from tests.compose import Bundles
from tests.export.helpers import config_of, weights


@pytest.fixture(scope="session")
def generators_on() -> Device:
    """Where generators run; `tests/gpu` has another."""
    return "cpu"


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Exports the small parity generators, each when it is first asked for."""
    made: dict[str, Bundle] = {}
    folder: Path = tmp_path_factory.mktemp("generators")

    def bundle(name: str) -> Bundle:
        if name not in made:
            checkpoint = folder / f"{name}.ckpt"
            torch.save({"EMA_generator": weights(name)}, checkpoint)
            made[name] = export_generator(name, checkpoint, folder / name, config=config_of(name), precision="fp32")
        return made[name]

    return bundle

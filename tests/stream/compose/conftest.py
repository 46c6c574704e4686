"""Small parity generators, exported once."""

from __future__ import annotations

from functools import partial

import pytest

from engines.runtime import Device
from tests.compose import Bundles
from tests.export.shared import exported_once


@pytest.fixture(scope="session")
def generators_on() -> Device:
    """Where generators run; `tests/gpu` has another."""
    return "cpu"


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """The small parity generators, each exported when it is first asked for."""
    return partial(exported_once, tmp_path_factory)

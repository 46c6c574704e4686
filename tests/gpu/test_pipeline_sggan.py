"""SG-GAN from detections to pixels, with generators on a GPU in float32, against the published code."""

from __future__ import annotations

import pytest

from engines.runtime import Device
from tests.stream.compose.conftest import bundles
from tests.stream.compose.test_composer_sggan import case, painters, regions, test_pixels_are_the_published_ones

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(900)]

__all__ = ["bundles", "case", "painters", "regions", "test_pixels_are_the_published_ones"]


@pytest.fixture(scope="session")
def generators_on(device: Device) -> Device:
    return device

"""The feature pyramid against the published code."""

from __future__ import annotations

import pytest
import torch

from export.models.fpn import FeaturePyramid
from export.models.resnet import ResNet
from tests.export.detector_cases import all_cases, assert_close, lattice, loaded
from tests.parity import ParityCase


@pytest.mark.parametrize("case", all_cases("out/p2_lattice4"), ids=lambda case: case.name)
def test_every_level_is_the_published_one(case: ParityCase) -> None:
    made = loaded(case)
    for level, values in enumerate(made.features, 2):
        published = made.arrays[f"out/p{level}_lattice4"]
        assert_close(lattice(values, published, 4), published)


def test_each_level_halves_the_size_and_odd_ones_round_up() -> None:
    network = FeaturePyramid(ResNet((1, 1, 1, 1), stem_channels=4, res2_channels=8, width_per_group=4), 8).eval()
    levels = network(torch.zeros(2, 3, 96, 160))
    assert [tuple(values.shape) for values in levels] == [
        (2, 8, 24, 40),
        (2, 8, 12, 20),
        (2, 8, 6, 10),
        (2, 8, 3, 5),
        (2, 8, 2, 3),
    ]


def test_coarser_levels_reach_finer_ones_and_not_the_other_way() -> None:
    torch.manual_seed(0)
    network = FeaturePyramid(ResNet((1, 1, 1, 1), stem_channels=4, res2_channels=8, width_per_group=4), 8).eval()
    image = torch.randn(1, 3, 64, 64)
    before = network(image)
    with torch.no_grad():
        network.get_submodule("fpn_lateral5").weight.mul_(2)  # type: ignore[operator]
    after = network(image)
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    with torch.no_grad():
        network.get_submodule("fpn_lateral2").weight.mul_(2)  # type: ignore[operator]
    last = network(image)
    assert not torch.equal(after[0], last[0])
    assert all(torch.equal(a, b) for a, b in zip(after[1:], last[1:], strict=True))

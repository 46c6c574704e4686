from __future__ import annotations

import pytest
import torch

from export.starter.detector import DetectorSpec, PersonNetwork, boxes_of, edges, fold, parameters, ways
from tests.export.starter.tiny_people import SPEC


def randomised(network: PersonNetwork) -> PersonNetwork:
    """With statistics as after a training: fresh ones would hide what folding gets wrong."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            torch.nn.init.normal_(module.bias, 0, 0.1, generator=generator)
    return network.eval()


def test_the_network_is_of_the_intended_size() -> None:
    assert 1.5e6 < parameters(PersonNetwork(DetectorSpec())) < 4e6


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_outputs_have_the_declared_shapes(size: tuple[int, int]) -> None:
    coarse, fine = PersonNetwork(SPEC).eval()(torch.zeros(2, 3, *size))
    assert coarse.shape == (2, 10, size[0] // 8, size[1] // 8)
    assert fine.shape == (2, 3 + 16, size[0] // 4, size[1] // 4)


def test_before_training_few_places_are_centres() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        coarse, _ = PersonNetwork(DetectorSpec())(torch.randn(2, 3, 64, 64))
    assert 0.001 < float(torch.sigmoid(coarse[:, ::5]).mean()) < 0.1


def test_folding_changes_nothing_but_the_layers() -> None:
    network = randomised(PersonNetwork(SPEC))
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = network(image)
        after = fold(network)(image)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


def test_a_box_lies_round_its_places_middle() -> None:
    coarse = torch.zeros(1, 2, 5, 2, 3)
    coarse[0, 1, 1:, 1, 2] = torch.log(torch.tensor([8.0, 4.0, 20.0, 12.0]) / 40)
    torch.testing.assert_close(edges(coarse)[0, 1, :, 1, 2], torch.tensor([8.0, 4.0, 20.0, 12.0]))
    # The last of two rows and three columns has its middle at (20, 12).
    torch.testing.assert_close(boxes_of(coarse)[0, 6 + 5], torch.tensor([12.0, 8.0, 40.0, 24.0]))


def test_ways_are_in_pixels() -> None:
    fine = torch.zeros(1, 19, 1, 1)
    fine[0, 1:3, 0, 0] = torch.tensor([0.5, -1.0])
    assert ways(fine)[0, :, 0, 0].tolist() == [16, -32]


def test_a_spec_goes_into_a_checkpoint_and_comes_back() -> None:
    assert DetectorSpec.of(SPEC.state()) == SPEC

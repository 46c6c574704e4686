"""ResNet with detectron2's names; what it computes is compared in test_fpn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from export.models.resnet import Bottleneck, FrozenBatchNorm, NormedConv, ResNet, fold_norms


def drawn(network: nn.Module) -> nn.Module:
    """With statistics that are no identity."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm):
            for name, low, high in (
                ("weight", 0.5, 1.5),
                ("bias", -1, 1),
                ("running_mean", -1, 1),
                ("running_var", 0.5, 2),
            ):
                module.get_buffer(name).uniform_(low, high)
    return network.eval().requires_grad_(requires_grad=False)


def test_frozen_statistics_are_those_of_batch_normalisation() -> None:
    frozen = FrozenBatchNorm(5)
    drawn(frozen)
    published = nn.BatchNorm2d(5).eval()
    published.load_state_dict(frozen.state_dict(), strict=False)
    x = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(frozen(x), published(x))


@pytest.mark.parametrize(("stride_in_1x1", "first", "second"), [(True, 2, 1), (False, 1, 2)])
def test_the_stride_is_where_the_weights_were_trained_with_it(stride_in_1x1: bool, first: int, second: int) -> None:
    block = Bottleneck(8, 4, 16, stride=2, groups=1, stride_in_1x1=stride_in_1x1)
    assert block.conv1.stride == (first, first)
    assert block.conv2.stride == (second, second)
    assert block(torch.zeros(1, 8, 6, 10)).shape == (1, 16, 3, 5)


def test_only_a_block_that_changes_the_channels_has_a_shortcut_with_weights() -> None:
    assert Bottleneck(8, 4, 8, stride=1, groups=1, stride_in_1x1=True).shortcut is None
    assert Bottleneck(8, 4, 16, stride=1, groups=1, stride_in_1x1=True).shortcut is not None


@pytest.mark.parametrize("groups", [1, 4])
def test_folding_keeps_the_features_and_leaves_no_statistics(groups: int) -> None:
    network = drawn(
        ResNet((1, 2, 1, 1), stem_channels=8, res2_channels=16, groups=groups, width_per_group=4, stride_in_1x1=False)
    )
    x = torch.randn(1, 3, 64, 96)
    before = network(x)
    fold_norms(network)
    assert not any(isinstance(module, (FrozenBatchNorm, NormedConv)) for module in network.modules())
    for a, b in zip(before, network(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_group_normalisation_depends_on_the_input_and_is_not_folded() -> None:
    layer = nn.Sequential(NormedConv(3, 8, 3, nn.GroupNorm(2, 8)))
    fold_norms(layer)
    assert isinstance(layer[0], NormedConv)


def test_resnext_has_the_published_shapes() -> None:
    with torch.device("meta"):
        network = ResNet((3, 4, 23, 3), groups=32, width_per_group=8, stride_in_1x1=False)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes["res2.0.conv2.weight"] == (256, 8, 3, 3)
    assert shapes["res5.2.conv2.weight"] == (2048, 64, 3, 3)
    assert shapes["res5.2.conv3.weight"] == (2048, 2048, 1, 1)
    assert "res4.22.conv1.norm.running_var" in shapes
    assert "res4.23.conv1.weight" not in shapes

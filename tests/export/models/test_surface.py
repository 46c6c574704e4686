from __future__ import annotations

import copy
import re
from functools import cached_property

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from export.models.folded import FoldedConv, fold
from export.models.surface import SurfaceUnet, downsampled
from tests.export.networks import (
    IMAGE,
    TRUNCATED_IMAGE,
    W_PER_VERTEX,
    Published,
    assert_near,
    inputs_of,
    noise,
    published,
    run_surface,
    see_under_the_mask,
    surface_of,
)
from tests.parity import SURFACE_UNET, ParityCase, parity_case, parity_cases

SMALL = "sggan_small"


class Loaded:
    """A case's network in the published way, loaded once for all tests of the case."""

    def __init__(self, case: ParityCase) -> None:
        self.case = case
        self.inputs = inputs_of(case)
        self.network = surface_of(case)
        self.average = self.network.style_net.E_map.w_avg

    @cached_property
    def w(self) -> Tensor:
        """(N, K, w_channels), not truncated."""
        return torch.stack([self.network.style_net.E_map(z[None]) for z in self.inputs.z])

    def gammas(self, w: Tensor) -> list[Tensor]:
        inputs = self.inputs
        made: list[Tensor] = self.network.style_net(w, inputs.mask, inputs.border, inputs.vertices)
        return made

    @cached_property
    def plain(self) -> list[Tensor]:
        """Modulation by w that was not truncated."""
        return self.gammas(self.w)

    @cached_property
    def image(self) -> Tensor:
        return run_surface(self.network, self.inputs, self.plain)


@pytest.fixture(scope="module", params=parity_cases(SURFACE_UNET), ids=lambda case: case.name)
def loaded(request: pytest.FixtureRequest) -> Loaded:
    return Loaded(request.param)


@pytest.fixture(scope="module")
def small() -> Loaded:
    return Loaded(parity_case(SMALL))


def kept(image: Tensor, wanted: Published) -> Tensor:
    return image[:, :, :: wanted.step, :: wanted.step]


def test_w_per_vertex_is_the_published_one(loaded: Loaded) -> None:
    for wanted in published(loaded.case, W_PER_VERTEX):
        assert_near(loaded.w[:, :: wanted.step], wanted.values)


def test_modulation_is_the_published_one_on_average(loaded: Loaded) -> None:
    layers = {int(match[1]) for name in loaded.case.arrays if (match := re.fullmatch(r"out/gamma(\d+)_mean", name))}
    assert layers == set(range(len(loaded.plain)))
    for layer, gamma in enumerate(loaded.plain):
        [wanted] = published(loaded.case, f"gamma{layer}_mean")
        assert_near(gamma.mean((2, 3)), wanted.values)


def test_the_image_is_the_published_one(loaded: Loaded) -> None:
    for wanted in published(loaded.case, IMAGE):
        assert_near(kept(loaded.image, wanted), wanted.values)


def test_the_image_of_a_truncated_w_is_the_published_one(loaded: Loaded) -> None:
    for wanted in published(loaded.case, TRUNCATED_IMAGE):
        w = loaded.average + wanted.truncation * (loaded.w - loaded.average)
        image = run_surface(loaded.network, loaded.inputs, loaded.gammas(w))
        assert_near(kept(image, wanted), wanted.values)
        with pytest.raises(AssertionError, match="differs"):  # The comparison sees whether w was truncated.
            assert_near(kept(loaded.image, wanted), wanted.values)


def test_folding_changes_nothing_but_the_rounding(loaded: Loaded) -> None:
    network = fold(copy.deepcopy(loaded.network))
    assert isinstance(network.from_rgb, FoldedConv)
    assert_near(run_surface(network, loaded.inputs, loaded.plain), loaded.image, 1e-4)


def test_known_pixels_leave_as_they_came(loaded: Loaded) -> None:
    known = loaded.inputs.mask.expand_as(loaded.inputs.image) == 1
    assert torch.equal(loaded.image[known], loaded.inputs.image[known])
    assert not torch.isclose(loaded.image[~known], loaded.inputs.image[~known]).all()


def test_what_the_mask_hides_does_not_reach_the_output(loaded: Loaded) -> None:
    other = loaded.inputs.repainted()
    assert not torch.equal(other.image, loaded.inputs.image)
    assert torch.equal(run_surface(loaded.network, other, loaded.plain), loaded.image)


def test_what_the_mask_hides_would_be_seen_without_the_multiplication(small: Loaded) -> None:
    outputs = []
    for inputs in (small.inputs, small.inputs.repainted()):
        network = copy.deepcopy(small.network)
        see_under_the_mask(network, inputs.image)
        outputs.append(run_surface(network, inputs, small.plain))
    assert not torch.allclose(outputs[0], outputs[1])


def test_a_person_looks_the_same_alone_as_in_a_batch(small: Loaded) -> None:
    # Bit by bit only in the exported graphs: torch's CPU kernels depend on the size of the batch.
    persons = len(small.inputs.z)
    assert persons > 1
    for i in range(persons):
        one = small.inputs.person(i)
        gammas = small.network.style_net(small.w[i : i + 1], one.mask, one.border, one.vertices)
        alone = run_surface(small.network, one, gammas)
        assert_near(alone, small.image[i : i + 1], 1e-4)
        # Neither of the others is as near.
        assert (alone - small.image[i - 1 : i or None]).abs().max() > 0.1


def test_vertices_outside_of_the_body_mean_nothing(small: Loaded) -> None:
    inputs = small.inputs
    assert inputs.vertices is not None
    assert inputs.border is not None
    body = (inputs.mask + inputs.border)[:, 0] == 0
    style, last = small.network.style_net, small.network.spec.vertices - 1
    elsewhere = style(small.w, inputs.mask, inputs.border, torch.where(body, inputs.vertices, last))
    assert all(map(torch.equal, elsewhere, small.plain))
    on_it = style(small.w, inputs.mask, inputs.border, torch.where(body, last, inputs.vertices))
    assert not any(map(torch.allclose, on_it, small.plain))


def test_every_vertex_has_its_own_w_and_every_z_its_own(small: Loaded) -> None:
    w = small.w
    assert (w.std(1) > 0.01).any(1).all()
    assert not torch.allclose(w[0], w[1])


def test_truncation_happens_outside_of_the_mapping(small: Loaded) -> None:
    network = copy.deepcopy(small.network)
    network.style_net.E_map.w_avg.add_(1)
    assert torch.equal(network.style_net.E_map(small.inputs.z[:1]), small.w[0])


def test_modulation_comes_at_the_size_of_its_layer(small: Loaded) -> None:
    spec = small.network.spec
    height, width = spec.image_size
    levels = len(spec.decoder)
    for layer, gamma in enumerate(small.plain):
        halvings = levels - 1 - layer // 2
        assert gamma.shape[1:] == (spec.decoder[layer // 2][layer % 2], height >> halvings, width >> halvings)


@settings(deadline=None, max_examples=50)
@given(height=st.integers(8, 40), width=st.integers(8, 40))
def test_scaling_down_keeps_the_corners(height: int, width: int) -> None:
    x = noise(1, 2, height, width)
    pyramid = downsampled(x, 3)
    assert [part.shape[2:] for part in pyramid] == [(height >> i, width >> i) for i in range(3)]
    for part in pyramid:
        # Corner pixels stay in place, however often it is halved.
        assert_near(part[:, :, [0, 0, -1, -1], [0, -1, 0, -1]], x[:, :, [0, 0, -1, -1], [0, -1, 0, -1]], 1e-5)
    assert downsampled(x, 1)[0] is x


def test_a_network_without_middle_blocks_has_none(small: Loaded) -> None:
    assert small.network.spec.middle_blocks
    assert any(name.startswith("middle_blocks.") for name in small.network.state_dict())
    changed = copy.deepcopy(small.network)
    last = changed.get_submodule(f"middle_blocks.{changed.spec.middle_blocks - 1}.conv0")
    last.get_parameter("bias").add_(1)
    assert isinstance(changed, SurfaceUnet)
    assert not torch.allclose(run_surface(changed, small.inputs, small.plain), small.image)

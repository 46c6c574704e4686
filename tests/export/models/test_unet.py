from __future__ import annotations

import copy
from functools import cached_property

import pytest
import torch
from torch import Tensor

from export.models.folded import fold, halve
from export.models.unet import StyleUnet, UnetSpec
from tests.export.networks import (
    IMAGE,
    MODAL_W,
    TRUNCATED_IMAGE,
    TRUNCATED_W,
    Published,
    assert_near,
    assert_near_in_half,
    inputs_of,
    narrow,
    noise,
    published,
    run_unet,
    see_under_the_mask,
    seeded,
    unet_of,
)
from tests.parity import STYLE_UNET, ParityCase, parity_case, parity_cases

SMALL = "dp2_cse_small"


class Loaded:
    """A case's network, both ways, loaded once for all tests of the case."""

    def __init__(self, case: ParityCase) -> None:
        self.case = case
        self.inputs = inputs_of(case)
        network = unet_of(case)
        self.ways = {"published": network, "folded": fold(copy.deepcopy(network))}
        self.average = network.style_net.w_avg

    def w(self, way: str) -> Tensor:
        made: Tensor = self.ways[way].style_net(self.inputs.z)
        return made

    def truncated(self, way: str, wanted: Published) -> Tensor:
        """Interpolation from the average, or from a centre of w, as the published code has it."""
        towards = self.average
        if wanted.centre is not None:
            towards = torch.from_numpy(self.case.arrays["in/w_centers"])[wanted.centre]
        return towards + wanted.truncation * (self.w(way) - towards)

    def image(self, way: str, w: Tensor) -> Tensor:
        return run_unet(self.ways[way], self.inputs, w)

    @cached_property
    def images(self) -> dict[str, Tensor]:
        """Not truncated."""
        return {way: self.image(way, self.w(way)) for way in self.ways}


@pytest.fixture(scope="module", params=parity_cases(STYLE_UNET), ids=lambda case: case.name)
def loaded(request: pytest.FixtureRequest) -> Loaded:
    return Loaded(request.param)


both_ways = pytest.mark.parametrize("way", ["published", "folded"])


@both_ways
def test_w_is_the_published_one(loaded: Loaded, way: str) -> None:
    for wanted in published(loaded.case, "w"):
        assert_near(loaded.w(way), wanted.values)


@both_ways
@pytest.mark.parametrize("outputs", [TRUNCATED_W, MODAL_W], ids=["average", "centre"])
def test_truncated_w_is_the_published_one(loaded: Loaded, way: str, outputs: str) -> None:
    for wanted in published(loaded.case, outputs):
        w = loaded.truncated(way, wanted)
        assert_near(w, wanted.values)
        with pytest.raises(AssertionError, match="differs"):  # The comparison sees whether w was truncated.
            assert_near(loaded.w(way), wanted.values)


@both_ways
def test_the_image_is_the_published_one(loaded: Loaded, way: str) -> None:
    for wanted in published(loaded.case, IMAGE):
        assert_near(loaded.images[way][:, :, :: wanted.step, :: wanted.step], wanted.values)


@both_ways
def test_the_image_of_a_truncated_w_is_the_published_one(loaded: Loaded, way: str) -> None:
    for wanted in published(loaded.case, TRUNCATED_IMAGE):
        image = loaded.image(way, loaded.truncated(way, wanted))
        assert_near(image[:, :, :: wanted.step, :: wanted.step], wanted.values)
        with pytest.raises(AssertionError, match="differs"):
            assert_near(loaded.images[way][:, :, :: wanted.step, :: wanted.step], wanted.values)


def test_folding_changes_nothing_but_the_rounding(loaded: Loaded) -> None:
    assert_near(loaded.w("folded"), loaded.w("published"), 1e-5)
    assert_near(loaded.images["folded"], loaded.images["published"], 1e-4)


@pytest.fixture(scope="module")
def small() -> Loaded:
    return Loaded(parity_case(SMALL))


@pytest.mark.parametrize("case", narrow(parity_cases(STYLE_UNET)), ids=lambda case: case.name)
def test_half_precision_is_near_and_its_output_stays_float32(case: ParityCase) -> None:
    loaded = Loaded(case)
    w = loaded.w("folded")[:1]
    expected = loaded.images["folded"][:1]
    network = halve(loaded.ways["folded"])
    image = run_unet(network, loaded.inputs.person(0), w)
    assert network.from_rgb.weight.dtype == torch.float16
    assert image.dtype == torch.float32
    assert_near_in_half(image, expected)


@both_ways
def test_known_pixels_leave_as_they_came(loaded: Loaded, way: str) -> None:
    known = loaded.inputs.mask.expand_as(loaded.inputs.image) == 1
    assert torch.equal(loaded.images[way][known], loaded.inputs.image[known])
    assert not torch.isclose(loaded.images[way][~known], loaded.inputs.image[~known]).all()


@both_ways
def test_what_the_mask_hides_does_not_reach_the_output(loaded: Loaded, way: str) -> None:
    other = loaded.inputs.repainted()
    assert not torch.equal(other.image, loaded.inputs.image)
    found = run_unet(loaded.ways[way], other, loaded.w(way))
    assert torch.equal(found, loaded.images[way])


def test_what_the_mask_hides_would_be_seen_without_the_multiplication(small: Loaded) -> None:
    other = small.inputs.repainted()
    outputs = []
    for inputs in (small.inputs, other):
        network = copy.deepcopy(small.ways["folded"])
        see_under_the_mask(network, inputs.image)
        outputs.append(run_unet(network, inputs, small.w("folded")))
    assert not torch.allclose(outputs[0], outputs[1])


@both_ways
def test_a_person_looks_the_same_alone_as_in_a_batch(small: Loaded, way: str) -> None:
    # Bit by bit only in the exported graphs: torch's CPU kernels depend on the size of the batch.
    w = small.w(way)
    assert len(w) > 1
    for i in range(len(w)):
        alone = run_unet(small.ways[way], small.inputs.person(i), w[i : i + 1])
        assert_near(alone, small.images[way][i : i + 1], 1e-4)
        # Neither of the others is as near.
        assert (alone - small.images[way][i - 1 : i or None]).abs().max() > 0.1


def test_truncation_happens_outside_of_the_mapping(small: Loaded) -> None:
    network = copy.deepcopy(small.ways["published"])
    network.style_net.w_avg.add_(1)
    assert torch.equal(network.style_net(small.inputs.z), small.w("published"))


@pytest.mark.parametrize("factor", [0.1, 7.0])
def test_only_the_direction_of_z_matters(small: Loaded, factor: float) -> None:
    assert_near(small.ways["published"].style_net(factor * small.inputs.z), small.w("published"), 1e-5)


@pytest.mark.parametrize("channels", [0, 16])
def test_a_surface_needs_its_embedding_and_the_mask_of_it_at_the_input(channels: int) -> None:
    assert tiny(embedding_channels=channels).input_channels == (4 + channels + 1 if channels else 4)


def tiny(*, embedding_channels: int = 0, middle_blocks: int = 0, fix_errors: bool = True) -> UnetSpec:
    return UnetSpec(
        image_size=(12, 20),
        image_channels=3,
        z_channels=6,
        w_channels=8,
        mapping_layers=2,
        embedding_channels=embedding_channels,
        encoder=((4, 6), (6, 8), (8, 8)),
        decoder=((8, 8), (8, 6), (6, 4)),
        middle_blocks=middle_blocks,
        fix_errors=fix_errors,
        conv_clamp=256.0,
    )


@pytest.mark.parametrize("middle_blocks", [0, 2])
@pytest.mark.parametrize("fix_errors", [True, False])
def test_folding_changes_nothing_in_the_variants_that_no_case_has(middle_blocks: int, fix_errors: bool) -> None:
    network = seeded(StyleUnet(tiny(middle_blocks=middle_blocks, fix_errors=fix_errors)))
    image, mask, w = noise(2, 3, 12, 20), (noise(2, 1, 12, 20, seed=6) > 0).float(), noise(2, 8, seed=7)
    expected = network(image, mask, w)
    assert expected.std() > 0.1
    assert_near(fold(copy.deepcopy(network))(image, mask, w), expected, 1e-4)
    if middle_blocks:  # They are not passed by.
        network.middle_blocks[1].conv0.bias.add_(1)  # type: ignore[union-attr, operator]
        assert not torch.allclose(network(image, mask, w), expected)

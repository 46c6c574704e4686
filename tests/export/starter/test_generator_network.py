from dataclasses import replace

import pytest
import torch
from torch import Tensor

from export.models.surface import SurfaceUnet
from export.starter.crop_batches import Batch
from export.starter.generator_network import (
    LARGE,
    NetworkConfig,
    average_w,
    generate,
    modulations,
    needs_bound,
    new_network,
    unbounded,
)
from export.vertex_embeddings import check_surface_agrees
from tests.export.starter.made_people import CHANNELS, NETWORK, SIZE, VERTICES, surface


def network() -> SurfaceUnet:
    torch.manual_seed(0)
    made = new_network(NETWORK, surface().embeddings)
    # As after training: at first the indicators have no say.
    torch.nn.init.normal_(made.style_net.global_mask.weight)
    return made


def pictures() -> Batch:
    draw = torch.Generator().manual_seed(1)
    body = torch.zeros(2, 1, *SIZE)
    body[0, :, 6:25, 4:12], body[1, :, 3:30, 6:10] = 1, 1
    mask = torch.ones(2, 1, *SIZE)
    mask[:, :, 2:31, 2:13] = 0
    return Batch(
        image=torch.rand(2, 3, *SIZE, generator=draw) * 2 - 1,
        mask=mask,
        body=body,
        vertices=torch.randint(VERTICES, (2, *SIZE), generator=draw),
        wanted=1 - mask,
        z=torch.randn(2, NETWORK.z_channels, generator=draw),
    )


def made_by(network: SurfaceUnet, given: Batch) -> tuple[Tensor, Tensor]:
    return generate(network, given.z, given, torch.from_numpy(surface().embeddings))


def test_w_of_shown_vertices_gives_the_published_modulation() -> None:
    made, given = network(), pictures()
    style = made.style_net
    w = torch.stack([style.E_map(z[None]) for z in given.z])
    expected = style(w, given.mask, 1 - given.mask - given.body, given.vertices)
    found = modulations(made, given.z, given.mask, given.body, given.vertices)
    assert len(found) == len(expected) == 6
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_parameter() -> None:
    made = network()
    output, _ = made_by(made, pictures())
    torch.autograd.backward((output * torch.randn(output.shape, generator=torch.manual_seed(3))).sum())
    without = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_vertices_beside_the_body_are_not_looked_at() -> None:
    made, given = network(), pictures()
    first, embedding = made_by(made, given)
    beside = given.body[:, 0] == 0
    second, _ = made_by(made, given._replace(vertices=torch.where(beside, -5, given.vertices)))
    assert torch.equal(first, second)
    assert embedding[beside[:, None].expand_as(embedding)].abs().max() == 0
    assert embedding.shape == (2, CHANNELS, *SIZE)


def test_known_pixels_stay_and_hidden_ones_do_not_matter() -> None:
    made, given = network(), pictures()
    first, _ = made_by(made, given)
    assert torch.equal(first * given.mask, given.image * given.mask)
    repainted = given._replace(image=given.image + 3 * (1 - given.mask))
    assert torch.equal(made_by(made, repainted)[0], first)


def test_pixels_of_a_new_network_are_neither_flat_nor_out_of_range() -> None:
    torch.manual_seed(2)
    given = pictures()
    output, _ = made_by(new_network(NETWORK, surface().embeddings), given)
    made = output[(1 - given.mask).expand_as(output) > 0]
    assert 0.05 < made.std().item() < 5


def test_the_surface_in_the_weights_is_the_given_one_standardised() -> None:
    check_surface_agrees(surface().embeddings, network().style_net.E_map.E.numpy())


def test_the_average_w_is_a_mean_over_draws_of_z() -> None:
    made = network().requires_grad_(False)
    draw = torch.Generator().manual_seed(4)
    drawn = [made.style_net.E_map(torch.randn(1, NETWORK.z_channels, generator=draw)) for _ in range(3)]
    torch.testing.assert_close(average_w(made, 3, seed=4), torch.stack(drawn).mean(dim=0))
    assert average_w(made, 3, seed=4).shape == (VERTICES, NETWORK.w_channels)
    assert not torch.equal(average_w(made, 3, seed=5), average_w(made, 3, seed=4))


@pytest.mark.parametrize("config", [NETWORK, NetworkConfig(), LARGE, replace(NETWORK, widths=(4, 6))])
def test_levels_of_every_config_fit_together(config: NetworkConfig) -> None:
    spec = config.spec(VERTICES, CHANNELS)
    assert spec.decoder == tuple((b, a) for a, b in reversed(spec.encoder))
    assert NetworkConfig.of(config.state()) == config
    declared = config.declared("starter-generator", CHANNELS, bounded=True)
    assert (declared.levels, declared.image_size) == (len(config.widths), config.image_size)


def test_activations_are_bounded_where_it_is_said() -> None:
    bounds = [NETWORK.declared("starter-generator", CHANNELS, bounded=bounded).conv_clamp for bounded in (True, False)]
    assert bounds == [NETWORK.conv_clamp, None]


def test_a_bound_is_needed_where_activations_reach_it() -> None:
    made = network().eval().requires_grad_(False)
    assert not needs_bound(made)
    low = SurfaceUnet(replace(made.spec, conv_clamp=0.5))
    low.load_state_dict(made.state_dict())
    assert needs_bound(low.eval().requires_grad_(False))
    assert not needs_bound(unbounded(low))

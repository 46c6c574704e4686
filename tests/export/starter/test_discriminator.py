import pytest
import torch
from torch import Tensor

from export.starter.discriminator import Discriminator, DiscriminatorConfig, deviation_plane
from export.starter.generator_network import draw_weights

CONFIG = DiscriminatorConfig(widths=(4, 6, 8), pyramid=5)


def discriminator() -> Discriminator:
    torch.manual_seed(0)
    made = Discriminator(CONFIG, (16, 8), 6)
    draw_weights(made)
    return made


def pictures(count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    image = torch.rand(count, 3, 16, 8, generator=draw) * 2 - 1
    mask = (torch.rand(count, 1, 16, 8, generator=draw) < 0.5).float()
    return image, image * mask, mask


def test_it_gives_a_score_and_the_embedding_of_every_pixel() -> None:
    judged = discriminator()(*pictures())
    assert judged.score.shape == (4, 1)
    assert judged.embedding.shape == (4, 6, 16, 8)
    assert judged.embedding.isfinite().all()


def test_the_embedding_depends_on_every_level() -> None:
    network = discriminator()
    network(*pictures()).embedding.square().sum().backward()
    for lateral in network.lateral:
        gradient = lateral.get_parameter("weight").grad
        assert gradient is not None
        assert gradient.abs().sum() > 0


def test_the_embedding_of_a_pixel_depends_on_pixels_there() -> None:
    """The pyramid brings coarse levels back to their place."""
    image, known, mask = pictures(1)
    image = image.requires_grad_()
    discriminator()(image, known, mask).embedding[0, :, 2, 2].sum().backward()
    assert image.grad is not None
    share = image.grad[0].abs().sum(dim=0)
    assert share[2, 2] > share[13, 6]


def test_the_score_knows_which_pixels_are_known() -> None:
    network, (image, known, mask) = discriminator(), pictures()
    first = network(image, known, mask).score
    assert not torch.equal(first, network(image, known, 1 - mask).score)
    assert not torch.equal(first, network(image, known * 0, mask).score)


def test_sizes_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be halved 2 times"):
        Discriminator(CONFIG, (18, 8), 6)


def test_pictures_that_are_alike_have_no_deviation() -> None:
    one = torch.randn(1, 3, 2, 2, generator=torch.manual_seed(3))
    assert deviation_plane(one.repeat(4, 1, 1, 1)).max() < 2e-4
    spread = deviation_plane(torch.cat([one, -one, one, -one]))
    torch.testing.assert_close(spread, one.abs().mean().expand(4, 1, 2, 2))


def test_groups_of_four_do_not_know_each_other() -> None:
    x = torch.randn(8, 3, 2, 2, generator=torch.manual_seed(4))
    other = x.clone()
    other[1] += 5
    changed = (deviation_plane(other) != deviation_plane(x))[:, 0, 0, 0].tolist()
    assert changed == [False, True] * 4


def test_a_batch_that_does_not_divide_is_one_group() -> None:
    x = torch.randn(3, 2, 2, 2, generator=torch.manual_seed(5))
    plane = deviation_plane(x)
    assert plane.min() == plane.max() > 0

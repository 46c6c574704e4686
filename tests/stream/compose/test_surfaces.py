import numpy as np
import torch
from torch.nn import functional

from stream.compose import surfaces
from stream.outline import BodySurface, Box
from tests.compose import posed
from tests.generator_bundles import vertex_embeddings

SIZE = (72, 40)


def surface(box: Box) -> BodySurface:
    return posed(box, vertex_embeddings())


def resized(values: torch.Tensor, size: tuple[int, int], *, antialias: bool) -> torch.Tensor:
    return functional.interpolate(values[None], size, mode="bilinear", align_corners=False, antialias=antialias)[0]


def test_the_grid_is_resized_to_its_place_in_the_crop() -> None:
    found = surface((30, 50, 80, 140))
    embedding, body = surfaces.place_whole(found, (10, 20, 110, 200), SIZE)
    # 100 x 180 pixels of the frame on 40 x 72 of the crop: 0.4.
    expected = resized(torch.from_numpy(found.embedding), (36, 20), antialias=True).permute(1, 2, 0).numpy()
    assert np.allclose(embedding[12:48, 8:28], expected, atol=1e-5)
    assert body[12:48, 8:28].any()
    outside = np.ones(SIZE, np.bool_)
    outside[12:48, 8:28] = False
    assert not embedding[outside].any()
    assert not body[outside].any()


def test_what_lies_outside_the_crop_is_left_out() -> None:
    whole, body = surfaces.place_whole(surface((0, 0, 100, 180)), (0, 0, 100, 180), SIZE)
    part, there = surfaces.place_whole(surface((-50, -90, 50, 90)), (0, 0, 100, 180), SIZE)
    assert np.allclose(part[:36, :20], whole[36:, 20:], atol=1e-5)
    assert (there[:36, :20] == body[36:, 20:]).all()
    assert not part[36:].any()
    nowhere, none = surfaces.place_whole(surface((500, 500, 600, 680)), (0, 0, 100, 180), SIZE)
    assert not nowhere.any()
    assert not none.any()


def test_a_pose_smaller_than_a_pixel_of_the_crop_has_no_body() -> None:
    embedding, body = surfaces.place_whole(surface((50, 50, 51, 51)), (0, 0, 1000, 1800), SIZE)
    assert not embedding.any()
    assert not body.any()


def test_both_matrices_of_an_axis_give_what_the_steps_give() -> None:
    """As published: enlarged to its box, cut and padded to the crop's, and resized."""
    for box, crop in (
        ((30, 50, 180, 340), (10, 20, 210, 380)),
        ((30, 50, 180, 340), (60, 100, 160, 280)),
        ((30, 50, 180, 340), (-40, 100, 60, 280)),
    ):
        found = surface(box)
        frame = torch.zeros((16, 600, 400))
        large = resized(torch.from_numpy(found.embedding), (box[3] - box[1], box[2] - box[0]), antialias=False)
        frame[:, 100 + box[1] : 100 + box[3], 100 + box[0] : 100 + box[2]] = large
        cut = frame[:, 100 + crop[1] : 100 + crop[3], 100 + crop[0] : 100 + crop[2]]
        expected = resized(cut, SIZE, antialias=True).permute(1, 2, 0).numpy()
        assert np.allclose(surfaces.place_in_frame(found, crop, SIZE), expected, atol=1e-4)


def test_a_pose_beside_the_crop_leaves_it_empty() -> None:
    assert not surfaces.place_in_frame(surface((500, 500, 600, 700)), (0, 0, 100, 180), SIZE).any()
    assert not surfaces.place_in_frame(surface((-300, -300, -200, -100)), (0, 0, 100, 180), SIZE).any()

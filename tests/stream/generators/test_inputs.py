"""The inputs that show crops, as the host makes them and as the graph does that runs where the generator runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.manifest import Normalisation
from stream.generators.inputs import HostInputs, RawInputs, crops_graph, shown_by, to_network
from stream.vertex_map import vertex_map
from tests.generator_bundles import (
    HEIGHT,
    VERTICES,
    WIDTH,
    crops,
    inputs_of,
    vertex_embeddings,
    write_surface,
    write_unet,
)

NORMAL = Normalisation(colour="rgb", mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5), multiple=1)
OTHER = Normalisation(colour="rgb", mean=(103.5, 116.25, 123.7), std=(58.4, 57.1, 57.4), multiple=1)
DENSE = ("image", "mask", "embedding", "embedding_mask")
GUIDED = ("image", "mask", "embedding", "vertices")


def test_known_pixels_enter_normalised_and_unknown_ones_blank() -> None:
    crop = crops(1)
    image, mask = to_network(crop, NORMAL)
    known = crop.known[0]
    assert image.dtype == mask.dtype == np.float32
    assert image.flags.c_contiguous
    assert mask.shape == (1, 1, HEIGHT, WIDTH)
    assert np.array_equal(mask[0, 0], known)
    expected = (crop.images[0].transpose(2, 0, 1).astype(np.float64) - 127.5) / 127.5
    assert np.abs(image[0] - expected)[:, known].max() < 1e-6
    assert not image[0][:, ~known].any()
    assert -1 <= image.min() < image.max() <= 1


def test_what_lies_under_the_mask_does_not_enter() -> None:
    crop = crops(1)
    changed = replace(crop, images=np.where(crop.known[..., None], crop.images, 255 - crop.images))
    assert not np.array_equal(changed.images, crop.images)
    assert np.array_equal(to_network(changed, NORMAL)[0], to_network(crop, NORMAL)[0])
    # Control: a known pixel that changes does enter.
    changed.images[0, 0, 0] ^= 255
    assert not np.array_equal(to_network(changed, NORMAL)[0], to_network(crop, NORMAL)[0])


def test_a_generator_says_what_shows_its_crops(tmp_path: Path) -> None:
    plain, dense = write_unet(tmp_path / "a"), write_unet(tmp_path / "b", surface=True)
    assert shown_by(plain.graph("generator")) == ["image", "mask"]
    assert sorted(shown_by(dense.graph("generator"))) == sorted(DENSE)
    assert sorted(shown_by(write_surface(tmp_path / "c").graph("generator"))) == sorted(GUIDED)
    assert (inputs_of(plain).vertices, inputs_of(dense).vertices) == (None, VERTICES)


@pytest.mark.parametrize("names", [DENSE, GUIDED])
def test_a_body_pixel_has_its_vertexs_embedding_and_others_have_none(names: tuple[str, ...]) -> None:
    crop = crops(1, 2)
    made = HostInputs(names, NORMAL, vertex_embeddings()).of(crop)
    assert list(made) == list(names)
    assert crop.body is not None
    assert crop.vertices is not None
    embedding = made["embedding"].transpose(0, 2, 3, 1)
    assert embedding.dtype == np.float32
    assert np.array_equal(embedding[crop.body], vertex_embeddings()[crop.vertices[crop.body]])
    assert not embedding[~crop.body].any()
    if names == DENSE:
        assert np.array_equal(made["embedding_mask"], crop.body[:, None].astype(np.float32))
    else:
        assert np.array_equal(made["vertices"], vertex_map(crop.vertices, crop.known, crop.body, VERTICES))


@pytest.mark.parametrize("normal", [NORMAL, OTHER], ids=["halves", "others"])
@pytest.mark.parametrize("names", [("image", "mask"), DENSE, GUIDED], ids=len)
@pytest.mark.parametrize("count", [1, 3])
def test_the_graph_makes_what_the_host_makes(normal: Normalisation, names: tuple[str, ...], count: int) -> None:
    embeddings = None if len(names) == 2 else vertex_embeddings()
    crop = crops(*range(count), surface=embeddings is not None)
    # Both known and body: it counts as body.
    if crop.body is not None and crop.vertices is not None:
        crop.body[:, 0, 0], crop.vertices[:, 0, 0] = True, 7
    expected = HostInputs(names, normal, embeddings).of(crop)
    raw = RawInputs(None if embeddings is None else VERTICES).of(crop)
    graph = crops_graph(names, (HEIGHT, WIDTH), normal, embeddings)
    with graph.open("cpu") as runtime:
        found: dict[str, Any] = runtime.run(raw)
    assert list(found) == list(names)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_what_lies_under_the_mask_goes_no_further_than_the_graph() -> None:
    crop = crops(1, surface=False)
    changed = replace(crop, images=np.where(crop.known[..., None], crop.images, 255 - crop.images))
    with crops_graph(("image", "mask"), (HEIGHT, WIDTH), NORMAL, None).open("cpu") as runtime:
        before, after = (runtime.run(RawInputs(None).of(one))["image"] for one in (crop, changed))
        # Control: a known pixel that changes does.
        changed.images[0, 0, 0] ^= 255
        other = runtime.run(RawInputs(None).of(changed))["image"]
    assert np.array_equal(before, after)
    assert not np.array_equal(before, other)


def test_what_travels_to_the_graph_is_an_eleventh_of_what_it_makes() -> None:
    crop = crops(1, 2)
    raw = RawInputs(VERTICES).of(crop)
    made = HostInputs(GUIDED, NORMAL, vertex_embeddings()).of(crop)
    assert 11 * sum(array.nbytes for array in raw.values()) == sum(array.nbytes for array in made.values())


def test_crops_without_a_surface_are_nobodys_fault_but_the_callers() -> None:
    for inputs in (HostInputs(DENSE, NORMAL, vertex_embeddings()), RawInputs(VERTICES)):
        with pytest.raises(ValueError, match="no vertices"):
            inputs.of(crops(1, surface=False))

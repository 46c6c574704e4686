"""Dense pose with surface embeddings against the published code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from export.models.cse import DenseHeads, DenseSpec
from tests.export.detector_cases import CSE, assert_close, detector_cases, lattice, loaded
from tests.parity import ParityCase

SMALL = DenseSpec(
    decoder_width=32, decoder_channels=64, layers=2, width=64, vertices=50, features=8, embedding_channels=4
)


@pytest.mark.parametrize("case", detector_cases(CSE, "out/fixed_coarse_segm_lattice2"), ids=lambda case: case.name)
def test_dense_pose_of_given_boxes_is_the_published_one(case: ParityCase) -> None:
    made = loaded(case)
    coarse, embedding = made.heads(*made.features[:4], *made.fixed)
    shapes = made.arrays["out/shapes"].tolist()
    assert [*coarse.shape, *embedding.shape] == shapes
    for values, name, step in ((coarse, "coarse_segm_lattice2", 2), (embedding, "embedding_lattice4", 4)):
        published = made.arrays[f"out/fixed_{name}"]
        assert_close(lattice(values, published, step), published)


@pytest.mark.parametrize("case", detector_cases(CSE, "out/embed_map_every97"), ids=lambda case: case.name)
def test_vertex_embeddings_are_the_published_ones(case: ParityCase) -> None:
    made = loaded(case)
    assert isinstance(made.heads, DenseHeads)
    found = made.heads.vertex_embeddings()
    assert_close(found[::97], made.arrays["out/embed_map_every97"])
    np.testing.assert_allclose(found.norm(dim=1).numpy(), 1, atol=1e-5)


def heads_of(spec: DenseSpec) -> DenseHeads:
    torch.manual_seed(0)
    return DenseHeads(64, spec).eval().requires_grad_(requires_grad=False)


LEVELS = [torch.randn(2, 64, 32 >> i, 48 >> i) for i in range(4)]
BOXES = torch.tensor([[0.0, 0, 100, 60], [10, 10, 90, 120], [3, 4, 8, 9]])
INDEX = torch.tensor([0, 1, 1])


@pytest.mark.parametrize("head", ["v1", "deeplab"])
@pytest.mark.parametrize("decoder", [True, False])
def test_a_box_gets_the_same_whatever_other_boxes_there_are(head: str, decoder: bool) -> None:
    heads = heads_of(replace(SMALL, head=head, decoder=decoder))  # type: ignore[arg-type]
    coarse, embedding = heads(*LEVELS, BOXES, INDEX)
    assert coarse.shape == (3, 2, 112, 112)
    assert embedding.shape == (3, 4, 112, 112)
    alone = heads(*LEVELS, BOXES[1:2], INDEX[1:2])
    torch.testing.assert_close(coarse[1:2], alone[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(embedding[1:2], alone[1], rtol=1e-4, atol=1e-5)


def test_no_box_gives_nothing() -> None:
    coarse, embedding = heads_of(SMALL)(*LEVELS, BOXES[:0], INDEX[:0])
    assert coarse.shape == (0, 2, 112, 112)
    assert embedding.shape == (0, 4, 112, 112)


def test_the_decoder_uses_every_level() -> None:
    heads = heads_of(SMALL)
    before = heads(*LEVELS, BOXES, INDEX)[1]
    for level in range(4):
        changed = [values + 1 if i == level else values for i, values in enumerate(LEVELS)]
        assert not torch.equal(before, heads(*changed, BOXES, INDEX)[1])


def test_embeddings_may_be_learnt_directly() -> None:
    heads = heads_of(replace(SMALL, features=0))
    assert not any(name.endswith("embedder_smpl_27554.features") for name in heads.state_dict())
    heads.load_state_dict({"roi_heads.embedder.embedder_smpl_27554.embeddings": torch.full((50, 4), 3.0)}, strict=False)
    torch.testing.assert_close(heads.vertex_embeddings(), torch.full((50, 4), 0.5))

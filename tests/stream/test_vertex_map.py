"""Each pixel is a vertex, known, or border."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.vertex_map import case_embeddings, pixel_embeddings, vertex_map

COUNT = 40

planes = st.integers(0, 2**12 - 1).map(
    lambda bits: np.array([bits >> i & 1 for i in range(12)], np.bool_).reshape(3, 4)
)


@given(known=planes, body=planes, seed=st.integers(0, 99))
def test_every_pixel_is_one_of_the_cases(known: Any, body: Any, seed: int) -> None:
    vertices = np.random.default_rng(seed).integers(0, COUNT, known.shape)
    # What stands outside the body is not looked at.
    cases = vertex_map(np.where(body, vertices, -999), known, body, COUNT)
    assert cases.dtype == np.int64
    assert np.array_equal(cases[body], vertices[body])
    assert (cases[known & ~body] == COUNT).all()
    assert (cases[~known & ~body] == COUNT + 1).all()
    # Maps that name known and border pixels already stay as they are.
    assert np.array_equal(vertex_map(cases, known, body, COUNT), cases)


def test_a_pixel_has_the_embedding_of_its_vertex_and_others_have_none() -> None:
    embeddings = np.random.default_rng(1).standard_normal((COUNT, 5)).astype(np.float32)
    cases = np.random.default_rng(2).integers(0, COUNT + 2, (3, 4, 6))
    found = pixel_embeddings(np.ascontiguousarray(case_embeddings(embeddings).T), cases)
    assert found.dtype == np.float32
    assert found.shape == (3, 5, 4, 6)
    found = found.transpose(0, 2, 3, 1)
    assert np.array_equal(found[cases < COUNT], embeddings[cases[cases < COUNT]])
    assert not found[cases >= COUNT].any()

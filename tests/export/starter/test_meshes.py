from __future__ import annotations

import numpy as np
import pytest

from export.starter.meshes import MESHES, mesh


@pytest.mark.parametrize("name", MESHES)
def test_meshes_are_triangles_in_a_unit_box_with_outward_normals(name: str) -> None:
    corners = mesh(name)

    assert corners.dtype == np.float32
    assert corners.shape[0] % 3 == 0
    assert corners.shape[1] == 6
    places, normals = corners[:, :3], corners[:, 3:]
    assert np.abs(places).max() <= 1 + 1e-6
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    # No part of these shapes looks at its own axis.
    assert (np.einsum("ka,ka->k", places[:, :2], normals[:, :2]) > -1e-6).all()

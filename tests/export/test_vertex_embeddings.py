from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines.errors import CheckpointError
from export.vertex_embeddings import PERSON_MESH, check_surface_agrees, read_surface, standardise

AT = "roi_heads.embedder.embedder_"


def parts(vertices: int = 40, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((vertices, 256)).astype(np.float32)
    return features, rng.standard_normal((256, 16)).astype(np.float32)


def model(mesh: str = PERSON_MESH, vertices: int = 40, seed: int = 0) -> dict[str, Any]:
    features, embeddings = parts(vertices, seed)
    return {f"{AT}{mesh}.features": features, f"{AT}{mesh}.embeddings": embeddings, "backbone.x": np.ones(2)}


def written(folder: Path, state: dict[str, Any]) -> Path:
    path = folder / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": state, "__author__": "someone"}))
    return path


def refused(path: Path, channels: int = 16) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_surface(path, channels)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_embedding_is_features_times_matrix_with_norm_one(tmp_path: Path) -> None:
    features, embeddings = parts()
    product = features @ embeddings
    surface = read_surface(written(tmp_path, model()))
    assert surface.dtype == np.float32
    assert surface.shape == (40, 16)
    assert np.allclose(surface, product / np.linalg.norm(product, axis=1, keepdims=True), atol=1e-6)
    assert np.allclose(np.linalg.norm(surface, axis=1), 1, atol=1e-6)


def test_torch_files_and_bare_state_dicts_are_read_too(tmp_path: Path) -> None:
    expected = read_surface(written(tmp_path, model()))
    state = {name: torch.from_numpy(values) for name, values in model().items()}
    for content in ({"model": state}, state):
        torch.save(content, tmp_path / "model.pth")
        assert np.array_equal(read_surface(tmp_path / "model.pth"), expected)


def test_embeddings_without_features_are_the_vertices_own(tmp_path: Path) -> None:
    direct = np.random.default_rng(0).standard_normal((30, 16)).astype(np.float32)
    surface = read_surface(written(tmp_path, {f"{AT}{PERSON_MESH}.embeddings": direct}))
    assert np.allclose(surface, direct / np.linalg.norm(direct, axis=1, keepdims=True), atol=1e-6)


def test_of_several_surfaces_the_persons_is_taken(tmp_path: Path) -> None:
    both = model("cat_5001", 20, seed=1) | model()
    assert read_surface(written(tmp_path, both)).shape == (40, 16)
    assert "cat_5001" in refused(written(tmp_path, model("cat_5001")))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({f"{AT}{PERSON_MESH}.features": np.zeros((40, 256), np.float32)}, "40 embeddings that are 0"),
        ({f"{AT}{PERSON_MESH}.features": np.full((40, 256), np.nan, np.float32)}, "not finite"),
        ({f"{AT}{PERSON_MESH}.embeddings": np.full((256, 16), np.inf, np.float32)}, "not finite"),
        ({f"{AT}{PERSON_MESH}.features": np.ones((40, 9), np.float32)}, "no product"),
        ({f"{AT}{PERSON_MESH}.features": np.ones(40, np.float32)}, "expected two dimensions"),
        ({f"{AT}{PERSON_MESH}.embeddings": np.ones((256, 8), np.float32)}, "8 channels a vertex, expected 16"),
    ],
)
def test_embeddings_that_cannot_be_used_are_refused(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    assert expected in refused(written(tmp_path, model() | change))


def test_files_without_a_surface_are_refused(tmp_path: Path) -> None:
    assert "has no vertex embeddings" in refused(written(tmp_path, {"roi_heads.mask_head.x": np.ones(2)}))
    features_only = {f"{AT}{PERSON_MESH}.features": parts()[0]}
    assert "lacks its embeddings" in refused(written(tmp_path, features_only))
    (tmp_path / "text.pkl").write_text("hello")
    assert "no checkpoint" in refused(tmp_path / "text.pkl")


def test_standardised_channels_have_mean_0_and_variance_1(tmp_path: Path) -> None:
    surface = standardise(read_surface(written(tmp_path, model())))
    assert surface.dtype == np.float32
    assert np.allclose(surface.mean(axis=0), 0, atol=1e-6)
    assert np.allclose(surface.var(axis=0), 1, atol=1e-5)


def test_sg_gans_own_map_agrees_with_the_surface_that_it_was_made_from(tmp_path: Path) -> None:
    raw = read_surface(written(tmp_path, model()))
    # As the published code does it, in float32.
    own = torch.from_numpy(raw)
    own = (own - own.mean(dim=0)) * ((own - own.mean(dim=0)).square().mean(dim=0) + 1e-8).rsqrt()
    check_surface_agrees(raw, own.numpy())


def test_another_surface_does_not_agree(tmp_path: Path) -> None:
    raw = read_surface(written(tmp_path, model()))
    other = read_surface(written(tmp_path, model(seed=1)))
    with pytest.raises(CheckpointError, match="not the one in the generator"):
        check_surface_agrees(other, standardise(raw))
    with pytest.raises(CheckpointError, match="not the one in the generator"):
        check_surface_agrees(raw, np.roll(standardise(raw), 1, axis=0))
    with pytest.raises(CheckpointError, match="40 vertices of 16 channels, the generator's own 39"):
        check_surface_agrees(raw, standardise(raw)[:-1])
    with pytest.raises(CheckpointError, match="not the one in the generator"):
        check_surface_agrees(raw, np.full_like(raw, np.nan))

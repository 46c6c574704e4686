from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from engines.errors import SourceError
from export.starter.body import BONE, BONES, PARENTS, along_limbs, coarser, load_body, normals, save_body, skin
from tests.export.starter.bodies import tiny_body

if TYPE_CHECKING:
    from pathlib import Path


def test_every_bone_comes_after_its_parent_and_sides_stay_apart() -> None:
    assert [BONES[bone] for bone, parent in enumerate(PARENTS) if parent < 0] == ["pelvis"]
    for bone, parent in enumerate(PARENTS):
        assert parent < bone
        for side, other in (("_left", "_right"), ("_right", "_left")):
            assert not (BONES[bone].endswith(side) and parent >= 0 and BONES[parent].endswith(other))
    assert BONES[PARENTS[BONE["forearm_left"]]] == "upper_arm_left"


def test_a_saved_body_comes_back_within_half_a_millimetre(tmp_path: Path) -> None:
    body = tiny_body()

    save_body(tmp_path / "body.npz", body)
    back = load_body(tmp_path / "body.npz")

    for field in dataclasses.fields(body):
        np.testing.assert_allclose(getattr(back, field.name), getattr(body, field.name), atol=5e-4)
    np.testing.assert_allclose(back.weights.sum(axis=1), 1, atol=1e-6)


def test_a_file_that_is_no_body_is_an_error_that_names_it(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", canonical=np.zeros((3, 3)))
    with pytest.raises(SourceError, match=r"other\.npz is not the file of a body"):
        load_body(tmp_path / "other.npz")
    with pytest.raises(SourceError, match=r"none\.npz"):
        load_body(tmp_path / "none.npz")


def test_a_body_refuses_arrays_of_other_shapes() -> None:
    body = tiny_body()
    with pytest.raises(ValueError, match="weights has shape"):
        dataclasses.replace(body, weights=body.weights[:, :3])


def test_a_mode_makes_the_whole_body_taller_with_its_joints() -> None:
    body = tiny_body()
    vertices, joints = body.at_rest(np.array([1, 0], np.float32))

    np.testing.assert_allclose(vertices[:, 2], body.canonical[:, 2] * 1.05, atol=1e-5)
    np.testing.assert_allclose(joints[:, 2], body.joints[:, 2] * 1.05, atol=1e-5)


def test_drawn_shapes_lie_between_the_examples() -> None:
    body = tiny_body()
    rng = np.random.default_rng(3)
    shapes = np.array([body.draw_shape(rng) for _ in range(50)])

    assert (shapes >= body.examples.min(axis=0) - 1e-6).all()
    assert (shapes <= body.examples.max(axis=0) + 1e-6).all()
    assert shapes.std(axis=0).min() > 0.1


def test_skinning_moves_a_vertex_by_its_own_bone_alone() -> None:
    body = tiny_body()
    transforms = np.tile(np.eye(4, dtype=np.float32), (len(BONES), 1, 1))
    transforms[BONE["hand_left"], :3, 3] = (0.5, -0.25, 1)

    moved = skin(body.canonical, body.weights, transforms)

    of_hand = body.weights[:, BONE["hand_left"]] == 1
    assert of_hand.sum() == 8
    np.testing.assert_allclose(moved[of_hand] - body.canonical[of_hand], [(0.5, -0.25, 1)] * 8, atol=1e-6)
    np.testing.assert_array_equal(moved[~of_hand], body.canonical[~of_hand])


def test_normals_point_out_of_a_closed_block() -> None:
    body = tiny_body()
    found = normals(body.canonical, body.faces)
    of_head = body.weights[:, BONE["head"]] == 1
    head = of_head & (body.parts == body.parts[np.flatnonzero(of_head)[0]])

    outwards = body.canonical[head] - body.canonical[head].mean(axis=0)
    assert (np.einsum("ka,ka->k", found[head], outwards) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_fewer_triangles_keep_the_parts_and_the_extent_of_the_body() -> None:
    body = tiny_body()

    same, few = coarser(body, 1e-3), coarser(body, 0.15)

    assert len(same) == len(body.faces)
    assert 0 < len(few) < len(body.faces)
    for faces in (same, few):
        assert len(np.unique(body.parts[faces].astype(int).min(axis=1))) > 4
        assert (body.parts[faces] == body.parts[faces][:, :1]).all()
        assert np.ptp(body.canonical[faces.ravel(), 2]) > 0.8 * np.ptp(body.canonical[:, 2])


def test_places_along_the_limbs_run_from_shoulder_to_wrist_and_hip_to_ankle() -> None:
    body = tiny_body()
    along = along_limbs(body.joints, body.joints)

    np.testing.assert_allclose(along[[BONE["upper_arm_left"], BONE["hand_right"]], 0], (0, 1), atol=1e-5)
    np.testing.assert_allclose(along[[BONE["thigh_right"], BONE["foot_left"]], 1], (0, 1), atol=1e-5)

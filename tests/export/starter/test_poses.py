from __future__ import annotations

import math

import numpy as np
import pytest

from export.starter.body import BONE, BONES, Part, skin
from export.starter.poses import POSTURES, draw_pose, forward, rotation, turning
from tests.export.starter.bodies import tiny_body


def test_no_rotation_leaves_the_body_at_rest() -> None:
    body = tiny_body()
    transforms = forward(np.tile(np.eye(3), (len(BONES), 1, 1)), body.joints)

    np.testing.assert_allclose(skin(body.canonical, body.weights, transforms), body.canonical, atol=1e-6)


def test_a_bent_elbow_takes_the_hand_along_and_keeps_the_lengths() -> None:
    body = tiny_body()
    rotations = np.tile(np.eye(3), (len(BONES), 1, 1))
    rotations[BONE["forearm_left"]] = rotation(np.array([1.0, 0, 0]), -math.pi / 2)

    transforms = forward(rotations, body.joints)
    places = np.einsum("jab,jb->ja", transforms[:, :3, :3], body.joints) + transforms[:, :3, 3]

    elbow, wrist = BONE["forearm_left"], BONE["hand_left"]
    np.testing.assert_allclose(places[elbow], body.joints[elbow], atol=1e-6)
    assert np.linalg.norm(places[wrist] - places[elbow]) == pytest.approx(
        np.linalg.norm(body.joints[wrist] - body.joints[elbow]), abs=1e-5
    )
    assert places[wrist, 1] < body.joints[wrist, 1] - 0.1  # forwards is -y
    np.testing.assert_allclose(places[BONE["hand_right"]], body.joints[BONE["hand_right"]], atol=1e-6)


@pytest.mark.parametrize("end", [(0, 0, 1), (0, 0, -1), (1, 2, -3)])
def test_turning_takes_one_direction_to_the_other(end: tuple[float, float, float]) -> None:
    start, goal = np.array([0.0, 0, 2.0]), np.array(end, np.float64)
    turned = turning(start, goal) @ (start / 2)
    np.testing.assert_allclose(turned, goal / np.linalg.norm(goal), atol=1e-9)


@pytest.mark.parametrize("posture", POSTURES)
def test_drawn_poses_are_rotations_of_every_bone(posture: str) -> None:
    body = tiny_body()
    rotations, name = draw_pose(np.random.default_rng(4), body.joints, posture)

    assert name == posture
    identities = rotations @ rotations.transpose(0, 2, 1)
    np.testing.assert_allclose(identities, np.tile(np.eye(3), (len(BONES), 1, 1)), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-9)


def test_people_stand_on_their_feet_and_lie_low() -> None:
    body = tiny_body()
    for posture, lowest_parts, most in (("stand", {Part.FOOT}, 2.0), ("lie", None, 1.0)):
        for seed in range(5):
            rotations, _ = draw_pose(np.random.default_rng(seed), body.joints, posture)
            posed = skin(body.canonical, body.weights, forward(rotations, body.joints))
            lowest = Part(body.parts[posed[:, 2].argmin()])
            assert lowest_parts is None or lowest in lowest_parts
            assert np.ptp(posed[:, 2]) < most


def test_poses_are_drawn_from_the_generator_alone() -> None:
    body = tiny_body()
    first, second, other = (draw_pose(np.random.default_rng(seed), body.joints)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)

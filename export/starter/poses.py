"""Poses of the body: a rotation for every bone, drawn from everyday postures, and what they make of the skeleton."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from export.starter.body import BONE, BONES, PARENTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

POSTURES = ("stand", "walk", "run", "sit", "crouch", "reach", "lie")
_POSTURE_SHARES = (0.37, 0.27, 0.05, 0.16, 0.05, 0.08, 0.02)
_ARMS = ("hang", "before", "face", "akimbo", "crossed", "carry", "free")
_ARM_SHARES = (0.36, 0.22, 0.08, 0.06, 0.08, 0.08, 0.12)

_X = np.array([1.0, 0.0, 0.0])
_Y = np.array([0.0, 1.0, 0.0])
_Z = np.array([0.0, 0.0, 1.0])


def rotation(axis: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """The rotation, (3, 3), by ``angle`` in radians about ``axis`` (of any length)."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross)


def turning(start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shortest rotation, (3, 3), from the direction ``start`` to the direction ``end``."""
    start, end = start / np.linalg.norm(start), end / np.linalg.norm(end)
    axis = np.cross(start, end)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-6:
        return np.eye(3) if start @ end > 0 else rotation(np.cross(start, _X + 0.5 * _Y), math.pi)
    return rotation(axis, math.atan2(sine, float(start @ end)))


def forward(rotations: NDArray[np.float64], joints: NDArray[np.float32]) -> NDArray[np.float32]:
    """Forward kinematics: what each bone does to a vertex at rest.

    Args:
        rotations: (J, 3, 3), of each bone relative to its parent, about its own joint, in the body's axes at rest.
        joints: (J, 3), where each bone starts at rest.

    Returns:
        Transforms, (J, 4, 4), for ``body.skin``.
    """
    transforms = np.tile(np.eye(4), (len(joints), 1, 1))
    transforms[:, :3, :3] = rotations
    transforms[:, :3, 3] = joints - np.einsum("jab,jb->ja", rotations, joints)
    for bone, parent in enumerate(PARENTS):
        if parent >= 0:
            transforms[bone] = transforms[parent] @ transforms[bone]
    return transforms.astype(np.float32)


def draw_pose(
    rng: np.random.Generator, joints: NDArray[np.float32], posture: str | None = None, *, phase: float | None = None
) -> tuple[NDArray[np.float64], str]:
    """Rotations, (J, 3, 3), of a drawn pose of a body with ``joints`` (J, 3), and the posture's name.

    ``phase``, in radians, is where in their steps people who walk are; it is drawn where it is not given.
    """
    if posture is None:
        posture = str(rng.choice(POSTURES, p=_normalised(_POSTURE_SHARES)))
    rotations = np.tile(np.eye(3), (len(BONES), 1, 1))
    _bend_trunk(rng, rotations, posture)
    drawn, stride = rng.uniform(0, 2 * math.pi), rng.uniform(0.15, 0.55) * (1.5 if posture == "run" else 1.0)
    phase = drawn if phase is None else phase
    first = str(rng.choice(_ARMS, p=_normalised(_ARM_SHARES)))
    for side, sign in (("left", 1.0), ("right", -1.0)):
        swing = stride * math.sin(phase + (math.pi if side == "right" else 0.0))
        lift = stride * math.cos(phase + (math.pi if side == "right" else 0.0) + 0.6)
        arm = first if side == "left" or rng.random() < 0.65 else str(rng.choice(_ARMS, p=_normalised(_ARM_SHARES)))
        if posture == "run":
            arm = "carry"
        _place_arm(rng, rotations, joints, side, _arm_directions(rng, arm, posture, sign, -swing))
        _place_leg(rng, rotations, joints, side, _leg_angles(rng, posture, swing, lift), sign)
    if posture == "lie":
        rotations[0] = rotation(_X, rng.choice([-1, 1]) * math.pi / 2 * rng.uniform(0.85, 1.05))
    return rotations, posture


def _normalised(shares: tuple[float, ...]) -> NDArray[np.float64]:
    return np.array(shares) / sum(shares)


def _bend_trunk(rng: np.random.Generator, rotations: NDArray[np.float64], posture: str) -> None:
    lean = rng.normal(0, 0.08) + {"walk": 0.05, "run": 0.2, "sit": 0.05, "crouch": 0.5, "reach": 0.1}.get(posture, 0.0)
    if posture in ("stand", "sit") and rng.random() < 0.15:
        lean += rng.uniform(0, 0.9)  # bent over a table, a bag, a child
    for bone, share in (("spine_low", 0.35), ("spine_mid", 0.35), ("spine_high", 0.3)):
        turn = rotation(_Y, rng.normal(0, 0.05)) @ rotation(_Z, rng.normal(0, 0.07))
        rotations[BONE[bone]] = rotation(_X, lean * share) @ turn
    looks_down = rng.uniform(0, 0.5) if rng.random() < 0.25 else 0.0
    rotations[BONE["neck"]] = rotation(_X, rng.normal(0, 0.1) + looks_down * 0.4) @ rotation(_Z, rng.normal(0, 0.2))
    nod, turn_, tilt = rng.normal(0, 0.12) + looks_down * 0.6, rng.normal(0, 0.28), rng.normal(0, 0.1)
    rotations[BONE["head"]] = rotation(_X, nod) @ rotation(_Z, turn_) @ rotation(_Y, tilt)


def _arm_directions(
    rng: np.random.Generator, arm: str, posture: str, sign: float, swing: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the upper arm and the forearm point, each (3,), in the trunk's axes; ``sign`` is 1 for the left side."""
    outward = sign * _X
    if arm == "hang":
        swing = swing * 0.8 if posture in ("walk", "run") else rng.normal(0, 0.1)
        upper = outward * (0.1 + abs(rng.normal(0, 0.08))) - _Y * math.sin(swing) - _Z
        return upper, upper - outward * 0.08 - _Y * (abs(rng.normal(0, 0.2)) + 0.12)
    if arm == "before":
        upper = outward * rng.uniform(0.05, 0.5) - _Y * rng.uniform(0, 0.6) - _Z
        return upper, -outward * rng.uniform(-0.2, 0.8) - _Y - _Z * rng.uniform(-0.9, 0.6)
    if arm == "face":
        upper = outward * rng.uniform(0.15, 0.7) - _Y * rng.uniform(0.3, 0.9) - _Z * 0.6
        return upper, -outward * rng.uniform(0.1, 0.4) - _Y * rng.uniform(0.0, 0.4) + _Z
    if arm == "akimbo":
        return outward * 0.8 + _Y * 0.25 - _Z * 0.8, -outward * 0.8 - _Y * 0.15 - _Z * 0.5
    if arm == "crossed":
        height = rng.uniform(-0.15, 0.2)
        return outward * 0.15 - _Y * 0.5 - _Z * 0.95, -outward * 1.0 - _Y * 0.45 + _Z * height
    if arm == "carry":
        upper = outward * 0.12 - _Y * (0.1 + math.sin(swing)) - _Z
        return upper, -outward * 0.1 - _Y - _Z * rng.uniform(-0.6, 0.1)
    upper = rng.normal(0, 1, 3)
    upper[0] = sign * abs(upper[0]) * 0.8
    upper[1] = 0.1 - abs(upper[1]) * 0.8
    return upper, upper / np.linalg.norm(upper) + rng.normal(0, 0.5, 3) - outward * 0.2 - _Y * 0.3


def _place_arm(
    rng: np.random.Generator,
    rotations: NDArray[np.float64],
    joints: NDArray[np.float32],
    side: str,
    directions: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    upper, lower = directions
    shoulder, elbow, wrist = (joints[BONE[f"{bone}_{side}"]] for bone in ("upper_arm", "forearm", "hand"))
    at_rest = (elbow - shoulder).astype(np.float64)
    upper_turn = turning(at_rest, upper) @ rotation(at_rest, rng.normal(0, 0.2))
    raised = max(0.0, float(upper[2] / np.linalg.norm(upper)))
    sign = 1.0 if side == "left" else -1.0
    collar = rotation(_Y, -sign * 0.35 * raised)
    rotations[BONE[f"collar_{side}"]] = collar
    rotations[BONE[f"upper_arm_{side}"]] = collar.T @ upper_turn
    rotations[BONE[f"forearm_{side}"]] = turning((wrist - elbow).astype(np.float64), upper_turn.T @ lower)
    rotations[BONE[f"hand_{side}"]] = rotation(rng.normal(0, 1, 3), rng.normal(0, 0.3))


def _leg_angles(rng: np.random.Generator, posture: str, swing: float, lift: float) -> tuple[float, float, float]:
    """Angles in radians: of the thigh forwards, of the knee, of the thigh outwards."""
    if posture in ("walk", "run"):
        return swing, max(0.0, lift * (1.8 if posture == "run" else 1.2)) + 0.05, abs(rng.normal(0, 0.03))
    if posture == "sit":
        return rng.uniform(1.2, 1.65), rng.uniform(1.1, 1.9), 0.05 + abs(rng.normal(0, 0.12))
    if posture == "crouch":
        return rng.uniform(1.2, 1.9), rng.uniform(1.7, 2.3), abs(rng.normal(0.1, 0.1))
    if posture == "reach":
        return rng.uniform(-0.3, 0.9), abs(rng.normal(0, 0.4)), abs(rng.normal(0, 0.1))
    return rng.normal(0, 0.05), abs(rng.normal(0, 0.06)), abs(rng.normal(0, 0.07))


def _place_leg(
    rng: np.random.Generator,
    rotations: NDArray[np.float64],
    joints: NDArray[np.float32],
    side: str,
    angles: tuple[float, float, float],
    sign: float,
) -> None:
    thigh, knee, outward = angles
    hip, middle, ankle = (joints[BONE[f"{bone}_{side}"]] for bone in ("thigh", "shin", "foot"))
    apart = sign * (math.sin(outward) + 0.02)
    upper = np.array([apart, -math.sin(thigh), -math.cos(thigh)])
    lower = np.array([apart * 0.5, -math.sin(thigh - knee), -math.cos(thigh - knee)])
    upper_turn = turning((middle - hip).astype(np.float64), upper)
    lower_turn = turning((ankle - middle).astype(np.float64), upper_turn.T @ lower)
    rotations[BONE[f"thigh_{side}"]] = upper_turn
    rotations[BONE[f"shin_{side}"]] = lower_turn
    # The foot stays level where the leg below it does not hang.
    level = rotation(_X, float(np.clip(thigh - knee, -0.5, 0.5)))
    rotations[BONE[f"foot_{side}"]] = level @ rotation(_Z, sign * rng.uniform(-0.1, 0.35))

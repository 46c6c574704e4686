"""A tiny body made in code: a block for every bone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from export.starter.body import BONE, BONES, Body, Part, along_limbs

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TRUNK: dict[str, tuple[float, float, float]] = {
    "pelvis": (0, 0, 0.95),
    "spine_low": (0, 0, 1.0),
    "spine_mid": (0, 0, 1.12),
    "spine_high": (0, 0, 1.25),
    "neck": (0, 0, 1.45),
    "head": (0, 0, 1.52),
}
_LEFT: dict[str, tuple[float, float, float]] = {
    "thigh": (0.1, 0, 0.9),
    "shin": (0.12, 0, 0.5),
    "foot": (0.13, 0, 0.08),
    "collar": (0.02, 0, 1.4),
    "upper_arm": (0.18, 0, 1.4),
    "forearm": (0.32, 0, 1.18),
    "hand": (0.44, -0.05, 0.98),
}
#: Half sizes of the block around the middle of a bone.
_HALF: dict[str, tuple[float, float, float]] = {
    "pelvis": (0.16, 0.1, 0.06),
    "spine_low": (0.15, 0.1, 0.07),
    "spine_mid": (0.15, 0.1, 0.08),
    "spine_high": (0.17, 0.11, 0.11),
    "neck": (0.06, 0.06, 0.05),
    "head": (0.09, 0.11, 0.12),
    "thigh": (0.08, 0.08, 0.2),
    "shin": (0.06, 0.06, 0.2),
    "foot": (0.05, 0.12, 0.04),
    "collar": (0.08, 0.06, 0.05),
    "upper_arm": (0.07, 0.05, 0.12),
    "forearm": (0.06, 0.04, 0.1),
    "hand": (0.04, 0.04, 0.08),
}
_PART = {"thigh": Part.LEG, "shin": Part.LEG, "foot": Part.FOOT, "neck": Part.HEAD, "head": Part.HEAD} | {
    "upper_arm": Part.ARM,
    "forearm": Part.ARM,
    "hand": Part.HAND,
}
_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
_BOX = np.array(
    [
        *[(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1)],
        *[(2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3)],
    ]
)


def tiny_body() -> Body:
    """A body of 22 blocks (176 vertices), two modes (taller, wider) and three examples."""
    joints = _joints()
    blocks = [_block(bone, joints) for bone in BONES]
    for sign in (1, -1):
        eye = np.array([sign * 0.035, -0.105, 1.62])
        blocks.append((eye + _CORNERS * 0.012, BONE["head"], Part.EYE))
    canonical = np.concatenate([corners for corners, _, _ in blocks])
    canonical[:, 2] -= canonical[:, 2].min()
    bones = np.repeat([bone for _, bone, _ in blocks], 8)
    parts = np.repeat([part for _, _, part in blocks], 8).astype(np.uint8)
    modes = np.stack([canonical * (0, 0, 0.05), canonical * (0.1, 0.1, 0)])
    return Body(
        canonical=canonical.astype(np.float32),
        faces=np.concatenate([_BOX + 8 * index for index in range(len(blocks))]).astype(np.int32),
        modes=modes.astype(np.float32),
        joints=joints.astype(np.float32),
        joint_modes=np.stack([joints * (0, 0, 0.05), joints * (0.1, 0.1, 0)]).astype(np.float32),
        examples=np.array([(0, 0), (1, -1), (-1, 1)], np.float32),
        weights=np.eye(len(BONES), dtype=np.float32)[bones],
        parts=parts,
        along=along_limbs(canonical, joints),
        scalp=(parts == Part.HEAD) & (canonical[:, 2] > 1.55),
    )


def _joints() -> NDArray[np.float64]:
    joints = np.zeros((len(BONES), 3))
    for name, place in _TRUNK.items():
        joints[BONE[name]] = place
    for name, place in _LEFT.items():
        joints[BONE[f"{name}_left"]] = place
        joints[BONE[f"{name}_right"]] = np.array(place) * (-1, 1, 1)
    return joints


def _block(bone: str, joints: NDArray[np.float64]) -> tuple[NDArray[np.float64], int, Part]:
    limb = bone.removesuffix("_left").removesuffix("_right")
    half = np.array(_HALF[limb])
    below = -1.0 if limb in _LEFT and limb != "collar" else 1.0
    centre = joints[BONE[bone]] + np.array([0.0, -0.06 if limb == "foot" else 0.0, below * half[2] * 0.9])
    return centre + _CORNERS * half, BONE[bone], _PART.get(limb, Part.TORSO)

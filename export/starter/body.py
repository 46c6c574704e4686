"""The body: one mesh whose shape varies in a few modes, a skeleton that bends it, and what its parts are."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from engines.errors import SourceError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_SIDED = ("thigh", "shin", "foot", "collar", "upper_arm", "forearm", "hand")
#: Bones, each after its parent. The body is given with z up, facing -y, its own left side at +x, in metres.
BONES = (
    "pelvis",
    "spine_low",
    "spine_mid",
    "spine_high",
    "neck",
    "head",
    *(f"{bone}_left" for bone in _SIDED),
    *(f"{bone}_right" for bone in _SIDED),
)
BONE = {name: index for index, name in enumerate(BONES)}
_PARENT_NAMES = {
    "spine_low": "pelvis",
    "spine_mid": "spine_low",
    "spine_high": "spine_mid",
    "neck": "spine_high",
    "head": "neck",
    "thigh": "pelvis",
    "shin": "thigh",
    "foot": "shin",
    "collar": "spine_high",
    "upper_arm": "collar",
    "forearm": "upper_arm",
    "hand": "forearm",
}


def _parent(name: str) -> int:
    bone, _, side = name.rpartition("_")
    if side not in ("left", "right"):
        return BONE[_PARENT_NAMES[name]] if name in _PARENT_NAMES else -1
    parent = _PARENT_NAMES[bone]
    return BONE[f"{parent}_{side}" if parent in _SIDED else parent]


PARENTS = tuple(_parent(name) for name in BONES)


class Part(IntEnum):
    """What a vertex belongs to."""

    TORSO = 0
    ARM = 1
    HAND = 2
    LEG = 3
    FOOT = 4
    HEAD = 5
    EYE = 6


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A body that can be given a shape and a pose. K vertices, F triangles, M modes of shape, J bones, S examples.

    Attributes:
        canonical: float32, (K, 3); the mean body at rest, in metres, its lowest point at z = 0.
        faces: int32, (F, 3).
        modes: float32, (M, K, 3); what a unit of each mode adds to the vertices.
        joints: float32, (J, 3); where each bone of the mean body starts.
        joint_modes: float32, (M, J, 3); what a unit of each mode adds to the joints.
        examples: float32, (S, M); modes of plausible bodies.
        weights: float32, (K, J); how much each bone moves each vertex, rows sum to 1.
        parts: uint8, (K,); a ``Part`` each.
        along: float32, (K, 2); how far down the nearer arm (0 shoulder, 1 wrist) and leg (0 hip, 1 ankle).
        scalp: bool, (K,); where hair grows.
    """

    canonical: NDArray[np.float32]
    faces: NDArray[np.int32]
    modes: NDArray[np.float32]
    joints: NDArray[np.float32]
    joint_modes: NDArray[np.float32]
    examples: NDArray[np.float32]
    weights: NDArray[np.float32]
    parts: NDArray[np.uint8]
    along: NDArray[np.float32]
    scalp: NDArray[np.bool_]

    def __post_init__(self) -> None:
        vertices, modes, bones = len(self.canonical), len(self.modes), len(BONES)
        expected = {
            "canonical": (vertices, 3),
            "faces": (len(self.faces), 3),
            "modes": (modes, vertices, 3),
            "joints": (bones, 3),
            "joint_modes": (modes, bones, 3),
            "examples": (len(self.examples), modes),
            "weights": (vertices, bones),
            "parts": (vertices,),
            "along": (vertices, 2),
            "scalp": (vertices,),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}; expected {shape}")

    @property
    def vertices(self) -> int:
        """K, the number of vertices."""
        return len(self.canonical)

    @property
    def eye(self) -> NDArray[np.float32]:
        """The middle of the left eye of the mean body, (3,)."""
        left = (self.parts == Part.EYE) & (self.canonical[:, 0] > 0)
        centre: NDArray[np.float32] = self.canonical[left].mean(axis=0)
        return centre

    def draw_shape(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """The modes, (M,), of a body between two of the examples."""
        first, second = self.examples[rng.integers(len(self.examples), size=2)]
        share = rng.uniform(0.0, 0.4)
        drawn: NDArray[np.float32] = (first * (1 - share) + second * share).astype(np.float32)
        return drawn

    def at_rest(self, shape: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vertices (K, 3) and joints (J, 3) of the body with ``shape``, in metres, before any pose."""
        vertices = self.canonical + np.tensordot(shape, self.modes, axes=1)
        joints = self.joints + np.tensordot(shape, self.joint_modes, axes=1)
        return vertices.astype(np.float32), joints.astype(np.float32)


def skin(
    vertices: NDArray[np.float32], weights: NDArray[np.float32], transforms: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Moves ``vertices`` (K, 3) by the bones' ``transforms`` (J, 4, 4), mixed by ``weights`` (K, J)."""
    columns = transforms[:, :3].transpose(2, 0, 1)  # (4, J, 3)
    moved: NDArray[np.float32] = weights @ columns[3]
    for axis in range(3):
        moved += (weights @ columns[axis]) * vertices[:, axis, None]
    return moved


def normals(vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> NDArray[np.float32]:
    """Unit normals, (K, 3), of a mesh's vertices: the mean of their triangles', weighted by area."""
    corners = vertices[faces]
    of_faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    count = len(vertices)
    summed = np.stack(
        [sum(np.bincount(faces[:, corner], of_faces[:, axis], count) for corner in range(3)) for axis in range(3)],
        axis=1,
    )
    length = np.linalg.norm(summed, axis=1, keepdims=True)
    return np.asarray(summed / np.maximum(length, 1e-12), np.float32)


def along_limbs(canonical: NDArray[np.floating], joints: NDArray[np.floating]) -> NDArray[np.float32]:
    """How far down the arm and the leg of its own side each vertex is: (K, 2) from (K, 3) and (J, 3)."""
    mirrored = canonical * np.where(canonical[:, :1] < 0, (-1.0, 1.0, 1.0), 1.0)
    columns = []
    for start, end in (("upper_arm_left", "hand_left"), ("thigh_left", "foot_left")):
        axis = joints[BONE[end]] - joints[BONE[start]]
        columns.append((mirrored - joints[BONE[start]]) @ axis / (axis @ axis))
    return np.stack(columns, axis=1).astype(np.float32)


def coarser(body: Body, size: float) -> NDArray[np.int32]:
    """Fewer triangles, (F', 3), over the same vertices: those within ``size`` metres of each other become one.

    Vertices of different parts, or that different bones move most, stay apart.
    """
    cells = np.floor(body.canonical / size).astype(np.int64)
    keys = np.column_stack([cells, body.weights.argmax(axis=1), body.parts])
    _, first, cluster = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    faces = first[cluster.ravel()][body.faces]
    corners = np.sort(faces, axis=1)
    solid = (corners[:, 0] != corners[:, 1]) & (corners[:, 1] != corners[:, 2])
    _, kept = np.unique(corners[solid], axis=0, return_index=True)
    coarse: NDArray[np.int32] = faces[solid][np.sort(kept)].astype(np.int32)
    return coarse


def save_body(path: Path, body: Body) -> None:
    """Writes ``body`` as one compressed file; modes and weights in half precision (below a millimetre)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {field.name: getattr(body, field.name) for field in fields(body)}
    for name in ("modes", "weights"):
        arrays[name] = arrays[name].astype(np.float16)
    temporary = path.with_suffix(".partial")
    with temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    temporary.replace(path)


def load_body(path: Path) -> Body:
    """Reads a body that ``save_body`` wrote.

    Raises:
        SourceError: the file is missing, damaged or of another kind.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            read = {field.name: arrays[field.name] for field in fields(Body)}
            for name in ("modes", "weights"):
                read[name] = read[name].astype(np.float32)
            read["weights"] /= read["weights"].sum(axis=1, keepdims=True)
            return Body(**read)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path} is not the file of a body: {error}") from error

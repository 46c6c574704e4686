"""Clothes and hair as geometry: how far they stand off the body, and the pieces that hang free of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_array, diags_array, eye_array
from scipy.spatial import cKDTree

from export.starter.body import BONE, BONES, Part, normals
from export.starter.looks import Hair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from export.starter.body import Body
    from export.starter.looks import Look

_RINGS = 16
_AROUND = 40
_SHOE = 0.012
_SMOOTHED = 3


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A mesh that moves with the body: the body itself, the hair, or a skirt. N vertices.

    Attributes:
        name: ``body``, ``hair`` or ``skirt``.
        faces: int32, (F, 3).
        canonical: float32, (N, 3), where the vertices are on the canonical body.
        along: float32, (N, 2), as ``Body.along``.
        parts: uint8, (N,), as ``Body.parts``.
        ids: int32, (N,), the body's nearest vertex.
        weights: float32, (N, J).
    """

    name: str
    faces: NDArray[np.int32]
    canonical: NDArray[np.float32]
    along: NDArray[np.float32]
    parts: NDArray[np.uint8]
    ids: NDArray[np.int32]
    weights: NDArray[np.float32]


class Wardrobe:
    """The pieces of one body and how a look shapes them."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self._normals = normals(body.canonical, body.faces)
        every = np.arange(body.vertices, dtype=np.int32)
        self.pieces = (_piece("body", body, body.faces, every), _hair(body), _skirt(body))
        self._smoothing = _smoothing(self.pieces[1])
        self._inside = np.asarray(self._smoothing @ (~_at_edge(self.pieces[1])).astype(np.float32))
        self.waist = (float(body.joints[BONE["thigh_left"], 2]), float(body.joints[BONE["spine_mid"], 2]))
        self.neckline = (float(body.joints[BONE["neck"], 2]) - 0.05, float(body.joints[BONE["neck"], 2]) + 0.035)

    def waist_of(self, look: Look) -> float:
        """The height of the trousers' upper edge on the canonical body, in metres."""
        return self.waist[0] + (self.waist[1] - self.waist[0]) * (0.35 + 0.65 * look.waist)

    def neckline_of(self, look: Look) -> float:
        """The height of the top's upper edge on the canonical body, in metres."""
        return self.neckline[0] + (self.neckline[1] - self.neckline[0]) * look.neckline

    def dress(self, look: Look, at_rest: NDArray[np.float32]) -> list[tuple[Piece, NDArray[np.float32], int]]:
        """The pieces that ``look`` wears, each with its vertices at rest (N, 3) and how many of its faces show.

        Args:
            look: what is worn.
            at_rest: (K, 3), the body's vertices at rest with its own shape.
        """
        body, hair, skirt = self.pieces
        worn = [(body, at_rest + self._normals * self._cloth(look)[:, None], len(body.faces))]
        if look.hair is not Hair.BALD and len(hair.faces):
            worn.append((hair, self._hang_hair(look, hair, at_rest), len(hair.faces)))
        if look.skirt > 0:
            rings = max(2, round(look.skirt * (_RINGS - 1)))
            worn.append((skirt, _hang_skirt(look, skirt, at_rest, self.body.canonical), rings * _AROUND * 2))
        return worn

    def _cloth(self, look: Look) -> NDArray[np.float32]:
        """How far cloth stands off each vertex of the body, (K,), in metres."""
        body = self.body
        down_arm, down_leg = body.along.T
        height = body.canonical[:, 2]
        lower = (body.parts == Part.LEG) | ((body.parts == Part.TORSO) & (height < self.waist_of(look)))
        top = (body.parts == Part.TORSO) & ~lower & (height < self.neckline_of(look))
        sleeve = (body.parts == Part.ARM) & (down_arm < look.sleeve)
        trousers = lower & (down_leg < look.trousers)
        off = np.where(top, look.loose_top, 0.0)
        off = np.where(sleeve, look.loose_top * (0.5 + 0.5 * np.clip(down_arm, 0, 1)), off)
        off = np.where(trousers, look.loose_bottom * (0.35 + 0.8 * np.clip(down_leg, 0, 1)), off)
        off = np.maximum(off * _folds(body.canonical, look.seed), np.where(body.parts == Part.FOOT, _SHOE, 0.0))
        return off.astype(np.float32)

    def _hang_hair(self, look: Look, piece: Piece, at_rest: NDArray[np.float32]) -> NDArray[np.float32]:
        """The hair's vertices at rest: the scalp, lifted, and its lower edge drawn down by the hair's length."""
        place = piece.canonical
        eye, middle = self.body.eye, float(self.body.joints[BONE["head"], 1])
        # Smoothed, the ears and the jagged hairline are gone.
        hung = np.asarray(self._smoothing @ at_rest[piece.ids])
        outwards = self._smoothing @ self._normals[piece.ids]
        smooth = look.hair in (Hair.CAP, Hair.BEANIE, Hair.SCARF)
        tousled = 1.0 if smooth else 0.55 + 0.9 * _folds(place * 2.5, look.seed)
        # Short hair and every fringe end flat on the skin.
        hanging = 1.0 if look.hair_length else 0.0
        full = np.maximum(self._inside, hanging * np.clip((place[:, 1] - middle + 0.06) / 0.04, 0, 1))
        hung += outwards * ((0.004 + look.hair_thickness * np.asarray(tousled)) * full)[:, None]
        low = np.clip((eye[2] + 0.06 - place[:, 2]) / 0.12, 0, 1)
        back = np.clip((place[:, 1] - middle + 0.03) / 0.08, 0, 1)
        if look.hair_length:
            hung[:, 2] -= low * look.hair_length * (0.55 + 0.45 * back)
            hung[:, 1] += low * back * 0.1 * look.hair_length
            hung[:, 0] *= 1.0 + low * 0.6 * min(look.hair_length, 0.3)
        if look.hair is Hair.CAP:
            front = np.clip((middle - 0.06 - place[:, 1]) / 0.04, 0, 1) * np.clip(
                (eye[2] + 0.085 - place[:, 2]) / 0.02, 0, 1
            )
            hung[:, 1] -= 0.07 * front
        return np.asarray(hung, np.float32)


def _folds(place: NDArray[np.float32], seed: float) -> NDArray[np.float32]:
    """Smooth noise of mean 1 over places in metres, (N, 3) to (N,): cloth hangs in folds."""
    phases = seed * np.array([1.0, 1.7, 2.3])
    directions = np.array([[9.0, 4.0, 16.0], [-21.0, 15.0, 9.0], [31.0, -19.0, 23.0]])
    waves = np.sin(place @ directions.T + phases)
    return np.asarray(1.0 + waves @ np.array([0.3, 0.22, 0.16]), np.float32)


def _piece(name: str, body: Body, faces: NDArray[np.int32], ids: NDArray[np.int32]) -> Piece:
    """The part of the body's own surface that ``ids`` name, with ``faces`` among them."""
    return Piece(name, faces, body.canonical[ids], body.along[ids], body.parts[ids], ids, body.weights[ids])


def _hair(body: Body) -> Piece:
    faces = body.faces[body.scalp[body.faces].all(axis=1)]
    ids, renumbered = np.unique(faces, return_inverse=True)
    ids = ids.astype(np.int32)
    piece = _piece("hair", body, renumbered.reshape(-1, 3).astype(np.int32), ids)
    # Long hair must not bend with the neck alone: it all moves with the head.
    piece.weights[:] = 0.0
    piece.weights[:, BONE["head"]] = 1.0
    return piece


def _at_edge(piece: Piece) -> NDArray[np.bool_]:
    """Whether each vertex of ``piece`` is where the mesh ends, (N,)."""
    edges = np.sort(np.concatenate([piece.faces[:, [0, 1]], piece.faces[:, [1, 2]], piece.faces[:, [2, 0]]]), axis=1)
    pairs, counts = np.unique(edges, axis=0, return_counts=True)
    at_edge = np.zeros(len(piece.canonical), np.bool_)
    at_edge[pairs[counts == 1]] = True
    return at_edge


def _smoothing(piece: Piece) -> Any:
    """The sparse matrix, (N, N), that moves each vertex of ``piece`` to the mean of those around it, repeatedly."""
    count = len(piece.canonical)
    if not count:
        return eye_array(0)
    start = piece.faces.ravel()
    end = np.roll(piece.faces, 1, axis=1).ravel()
    edges = coo_array((np.ones(2 * len(start)), (np.append(start, end), np.append(end, start))), (count, count))
    joined = (edges.tocsr() > 0).astype(np.float64) + eye_array(count)
    mean = diags_array(1.0 / joined.sum(axis=1)) @ joined
    repeated = mean
    for _ in range(_SMOOTHED - 1):
        repeated = mean @ repeated
    return repeated.astype(np.float32)


def _skirt(body: Body) -> Piece:
    """A tube from the waist to the ankles, around both legs, wider downwards."""
    lower = np.isin(body.parts, (Part.TORSO, Part.LEG))
    surface = body.canonical[lower]
    top, bottom = float(body.joints[BONE["spine_low"], 2]) + 0.06, float(body.joints[BONE["foot_left"], 2])
    middle = float(body.joints[BONE["pelvis"], 1])
    angles = np.arange(_AROUND) * (2 * np.pi / _AROUND)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    radius = np.zeros(_AROUND)
    rings = []
    for ring in range(_RINGS):
        down = ring / (_RINGS - 1)
        height = top + (bottom - top) * down
        near = surface[np.abs(surface[:, 2] - height) < 0.05, :2] - (0.0, middle)
        reach = (near @ directions.T).max(axis=0) if len(near) else radius
        radius = np.maximum(radius, np.clip(reach, 0.08, 0.3)) + (0.004 if ring else 0.0)
        circle = directions * (radius + 0.015)[:, None] + (0.0, middle)
        rings.append(np.column_stack([circle, np.full(_AROUND, height)]))
    canonical = np.concatenate(rings).astype(np.float32)
    _, nearest = cKDTree(surface).query(canonical)
    ids = np.flatnonzero(lower)[nearest].astype(np.int32)
    return Piece(
        "skirt",
        _tube_faces(),
        canonical,
        body.along[ids],
        np.full(len(canonical), Part.LEG, np.uint8),
        ids,
        _skirt_weights(canonical),
    )


def _tube_faces() -> NDArray[np.int32]:
    """Triangles of ``_RINGS`` rings of ``_AROUND`` vertices, from the first ring on."""
    faces = []
    for ring in range(_RINGS - 1):
        for corner in range(_AROUND):
            here, beside = ring * _AROUND + corner, ring * _AROUND + (corner + 1) % _AROUND
            faces += [(here, here + _AROUND, beside), (beside, here + _AROUND, beside + _AROUND)]
    return np.array(faces, np.int32)


def _skirt_weights(canonical: NDArray[np.float32]) -> NDArray[np.float32]:
    """The upper edge moves with the pelvis, the rest more and more with the thigh of its side."""
    down = np.repeat(np.linspace(0, 1, _RINGS), _AROUND)
    share = np.clip(down * 3.0 - 0.25, 0, 0.97)
    left = np.clip(0.5 + canonical[:, 0] / 0.2, 0, 1)
    weights = np.zeros((len(canonical), len(BONES)), np.float32)
    weights[:, BONE["pelvis"]] = 1 - share
    weights[:, BONE["thigh_left"]] = share * left
    weights[:, BONE["thigh_right"]] = share * (1 - left)
    return weights


def _hang_skirt(
    look: Look, piece: Piece, at_rest: NDArray[np.float32], canonical: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The skirt's vertices at rest on a body of another shape, wider by looseness and in folds."""
    hung = piece.canonical + (at_rest - canonical)[piece.ids]
    down = np.repeat(np.linspace(0, 1, _RINGS), _AROUND)
    wave = _folds(piece.canonical * (1.6, 1.6, 0.1), look.seed)
    wider = 1.0 + down * (4.0 * look.loose_bottom + 0.5 * (wave - 1.0) * look.loose_bottom * 6.0)
    hung[:, :2] *= wider[:, None]
    return np.asarray(hung, np.float32)

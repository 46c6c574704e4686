from __future__ import annotations

import dataclasses

import numpy as np

from export.starter.body import Part
from export.starter.looks import LOOK_SIZE, Hair, Look, look_of
from export.starter.wardrobe import Wardrobe
from tests.export.starter.bodies import tiny_body


def _look(**changes: object) -> Look:
    return dataclasses.replace(look_of(np.zeros(LOOK_SIZE, np.float32)), **changes)  # type: ignore[arg-type]


def test_cloth_stands_off_where_it_is_worn_and_skin_does_not() -> None:
    body = tiny_body()
    look = _look(sleeve=0.3, trousers=2.0, loose_top=0.02, loose_bottom=0.02, hair=Hair.BALD, skirt=0.0)

    ((_, vertices, faces),) = Wardrobe(body).dress(look, body.canonical)

    off = np.linalg.norm(vertices - body.canonical, axis=1)
    assert faces == len(body.faces)
    assert (off[np.isin(body.parts, (Part.HEAD, Part.EYE, Part.HAND))] == 0).all()
    bare = (body.parts == Part.ARM) & (body.along[:, 0] > 0.3)
    assert bare.any()
    assert (off[bare] == 0).all()
    assert (off[(body.parts == Part.ARM) & (body.along[:, 0] < 0.3)] > 0.002).all()
    assert (off[body.parts == Part.LEG] > 0.001).all()


def test_hair_is_worn_unless_bald_and_long_hair_hangs_lower() -> None:
    body = tiny_body()
    wardrobe = Wardrobe(body)
    lowest = {}
    for hair, length in ((Hair.SHORT, 0.0), (Hair.LONG, 0.4)):
        worn = wardrobe.dress(_look(hair=hair, hair_length=length, skirt=0.0), body.canonical)
        assert [piece.name for piece, _, _ in worn] == ["body", "hair"]
        lowest[hair] = worn[1][1][:, 2].min()
    bald = wardrobe.dress(_look(hair=Hair.BALD, skirt=0.0), body.canonical)

    assert [piece.name for piece, _, _ in bald] == ["body"]
    assert lowest[Hair.LONG] <= lowest[Hair.SHORT]


def test_a_longer_skirt_shows_more_of_its_faces() -> None:
    body = tiny_body()
    wardrobe = Wardrobe(body)
    shown = []
    for skirt in (0.3, 0.8):
        piece, vertices, faces = wardrobe.dress(_look(hair=Hair.BALD, skirt=skirt), body.canonical)[-1]
        assert piece.name == "skirt"
        assert faces <= len(piece.faces)
        shown.append(faces)
        hem = vertices[piece.faces[:faces].max()]
        assert hem[2] < body.canonical[:, 2].max() / 2
    assert shown[0] < shown[1]


def test_every_piece_names_the_body_s_vertices_and_moves_with_its_bones() -> None:
    body = tiny_body()
    for piece in Wardrobe(body).pieces:
        assert piece.ids.min() >= 0
        assert piece.ids.max() < body.vertices
        np.testing.assert_allclose(piece.weights.sum(axis=1), 1, atol=1e-6)
        assert piece.faces.max() < len(piece.canonical)

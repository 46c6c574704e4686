"""Things that are no people: furniture, cars, plants, signs, what stands before somebody, and what only looks alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from export.starter.meshes import MESHES
from export.starter.render import Thing
from export.starter.textures import any_colour, muted

if TYPE_CHECKING:
    from numpy.typing import NDArray

Place = tuple[float, float, float]


def draw_furniture(rng: np.random.Generator, x: float, y: float, *, outside: bool = False) -> list[Thing]:
    """Something that stands on the ground at ``x``, ``y``, in metres; cars only ``outside``."""
    makers = (_table, _chair, _cupboard, _car if outside else _plant, _plant, _sign, _bollard, _lookalike, _loose)
    maker = makers[rng.choice(len(makers), p=(0.13, 0.12, 0.12, 0.12, 0.08, 0.08, 0.08, 0.15, 0.12))]
    return maker(rng, x, y)


def draw_occluder(rng: np.random.Generator, x: float, y: float) -> list[Thing]:
    """Something that stands close before a person at ``x``, ``y`` and hides a part: a counter, a desk, a pillar."""
    kind = rng.random()
    turn = rng.normal(0, 0.2)
    if kind < 0.6:
        half = rng.uniform(0.2, 0.6)
        size = (rng.uniform(0.2, 1.3), rng.uniform(0.1, 0.35), half)
        return [_thing(rng, "box", (x + rng.normal(0, 0.3), y, half), size, turn), *_on_top(rng, x, y, 2 * half)]
    if kind < 0.8:
        return [
            _thing(
                rng,
                "cylinder" if rng.random() < 0.5 else "box",
                (x + rng.normal(0, 0.3), y, 1.5),
                (0.12, 0.12, 1.5),
                turn,
            )
        ]
    return draw_furniture(rng, x, y)


def draw_held(rng: np.random.Generator, hand: NDArray[np.float32]) -> list[Thing]:
    """Something in the hand at ``hand`` (3,): a phone, a bag, a box, a bottle."""
    x, y, z = hand.tolist()
    kind = rng.choice(4)
    turn = rng.uniform(0, math.pi)
    if kind == 0:
        return [_thing(rng, "box", (x, y, z), (0.035, 0.006, 0.07), turn)]
    if kind == 1:
        return [_thing(rng, "box", (x, y, z - 0.28), (0.17, 0.06, 0.19), turn)]
    if kind == 2:
        return [_thing(rng, "box", (x, y, z), tuple(rng.uniform(0.08, 0.25, 3)), turn)]
    return [_thing(rng, "bottle", (x, y, z), (0.035, 0.035, 0.11), turn)]


def chair_at(rng: np.random.Generator, x: float, y: float, seat: float, turn: float) -> list[Thing]:
    """A chair whose seat is at ``seat`` metres, its back behind somebody who faces ``turn``."""
    colours = (any_colour(rng), any_colour(rng))
    around = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    back_x, back_y = around @ (0.0, 0.3) + (x, y)
    things = [_thing(rng, "box", (x, y, seat - 0.05), (0.22, 0.24, 0.03), turn, colours)]
    if rng.random() < 0.8:
        high = rng.uniform(0.2, 0.4)
        things.append(_thing(rng, "box", (back_x, back_y, seat + high), (0.22, 0.03, high), turn, colours))
    for dx, dy in ((-0.2, -0.2), (0.2, -0.2), (-0.2, 0.2), (0.2, 0.2)):
        leg_x, leg_y = around @ (dx, dy) + (x, y)
        things.append(
            _thing(rng, "box", (leg_x, leg_y, seat / 2 - 0.04), (0.02, 0.02, max(0.02, seat / 2 - 0.04)), turn, colours)
        )
    return things


def _thing(
    rng: np.random.Generator,
    mesh: str,
    centre: Place,
    half: tuple[float, ...],
    turn: float = 0.0,
    colours: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    tilt: float = 0.0,
) -> Thing:
    """A mesh of half sizes ``half`` around ``centre``, turned about the vertical and then tilted sideways."""
    cosine, sine = math.cos(turn), math.sin(turn)
    about = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    sideways = np.array([[math.cos(tilt), 0, math.sin(tilt)], [0, 1, 0], [-math.sin(tilt), 0, math.cos(tilt)]])
    place = np.eye(4, dtype=np.float32)
    place[:3, :3] = sideways @ about * np.asarray(half)
    place[:3, 3] = centre
    first, second = colours or (any_colour(rng), any_colour(rng))
    pattern = int(rng.choice((0, 0, 0, 0, 1, 3, 4, 5)))
    return Thing(mesh, place, first, second, pattern, float(rng.uniform(3, 25)), float(rng.uniform(0, 9)))


def _on_top(rng: np.random.Generator, x: float, y: float, height: float) -> list[Thing]:
    """A few small things on a table."""
    things = []
    for _ in range(int(rng.integers(0, 4))):
        half = tuple(rng.uniform(0.03, 0.14, 3))
        mesh = str(rng.choice(("box", "box", "bottle", "vase", "cylinder")))
        place = (x + rng.normal(0, 0.3), y + rng.normal(0, 0.1), height + half[2])
        things.append(_thing(rng, mesh, place, half, rng.uniform(0, math.pi)))
    return things


def _table(rng: np.random.Generator, x: float, y: float) -> list[Thing]:
    height, long, wide, turn = (
        rng.uniform(0.45, 1.05),
        rng.uniform(0.3, 1.1),
        rng.uniform(0.25, 0.5),
        rng.normal(0, 0.5),
    )
    colours = (muted(rng), muted(rng))
    things = [_thing(rng, "box", (x, y, height), (long, wide, 0.02), turn, colours)]
    if rng.random() < 0.3:
        return [*things, _thing(rng, "cylinder", (x, y, height / 2), (0.04, 0.04, height / 2), 0, colours)]
    for dx, dy in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
        leg_x = x + 0.9 * (dx * long * math.cos(turn) - dy * wide * math.sin(turn))
        leg_y = y + 0.9 * (dx * long * math.sin(turn) + dy * wide * math.cos(turn))
        things.append(_thing(rng, "box", (leg_x, leg_y, height / 2), (0.025, 0.025, height / 2), turn, colours))
    return things + _on_top(rng, x, y, height)


def _chair(rng: np.random.Generator, x: float, y: float) -> list[Thing]:
    turn, seat = rng.uniform(0, 2 * math.pi), rng.uniform(0.4, 0.5)
    chair = chair_at(rng, x, y, seat, turn)
    if rng.random() < 0.3:  # a jacket over its back
        behind = (x - 0.3 * math.sin(turn), y + 0.3 * math.cos(turn), seat + 0.3)
        chair.append(_thing(rng, "box", behind, (0.24, 0.06, 0.3), turn))
    return chair


def _cupboard(rng: np.random.Generator, x: float, y: float) -> list[Thing]:
    half = (rng.uniform(0.2, 0.9), rng.uniform(0.15, 0.4), rng.uniform(0.3, 1.1))
    cupboard = _thing(rng, "box", (x, y, half[2]), half, rng.normal(0, 0.3))
    return [cupboard, *_on_top(rng, x, y, 2 * half[2])]


def _car(rng: np.random.Generator, x: float, y: float) -> list[Thing]:
    y = max(y, 5.0)
    colours = (any_colour(rng), any_colour(rng))
    turn = rng.choice((0.0, math.pi / 2)) + rng.normal(0, 0.2)
    glass = (np.full(3, 0.08), np.full(3, 0.25))
    along = np.array([math.cos(turn), math.sin(turn)])
    across = np.array([-math.sin(turn), math.cos(turn)])
    things = [
        _thing(rng, "box", (x, y, 0.6), (2.1, 0.85, 0.32), turn, colours),
        _thing(rng, "box", (x, y, 1.1), (1.1, 0.75, 0.26), turn, glass),
        _thing(rng, "box", (x, y, 1.38), (1.0, 0.74, 0.03), turn, colours),
    ]
    for forth in (-1.3, 1.3):
        wheel_x, wheel_y = np.array([x, y]) + along * forth
        things.append(_thing(rng, "box", (wheel_x, wheel_y, 0.3), (0.3, 0.87, 0.3), turn, glass))
        lamp_x, lamp_y = np.array([x, y]) + along * forth * 1.61 + across * rng.choice((-0.6, 0.6))
        things.append(_thing(rng, "sphere", (lamp_x, lamp_y, 0.7), (0.05, 0.1, 0.08), turn))
    return things


def _plant(rng: np.random.Generator, x: float, y: float) -> list[Thing]:
    leaf = np.array([0.16, 0.32, 0.10]) * rng.uniform(0.5, 1.8)
    high = rng.uniform(0.3, 1.4)
    things = [_thing(rng, "vase", (x, y, 0.2), (0.18, 0.18, 0.2))]
    things.append(_thing(rng, "cylinder", (x, y, 0.2 + high / 2), (0.02, 0.02, high / 2), 0, (leaf * 0.6, leaf)))
    for _ in range(int(rng.integers(3, 9))):
        half = rng.uniform(0.05, 0.28, 3)
        where = np.array([x, y, 0.3 + high]) + rng.normal(0, 0.16, 3)
        things.append(_thing(rng, "sphere", tuple(where.tolist()), tuple(half), 0, (leaf, leaf * 1.4)))
    return things


def _sign(rng: np.random.Generator, x: float, y: float) -> list[Thing]:
    high = rng.uniform(1.0, 2.6)
    pole = _thing(rng, "cylinder", (x, y, high / 2), (0.03, 0.03, high / 2), 0, (muted(rng), muted(rng)))
    mesh = str(rng.choice(("box", "sphere")))
    return [
        pole,
        _thing(
            rng, mesh, (x, y - 0.04, high), (rng.uniform(0.15, 0.4), 0.02, rng.uniform(0.12, 0.4)), rng.normal(0, 0.4)
        ),
    ]


def _bollard(rng: np.random.Generator, x: float, y: float) -> list[Thing]:
    high, wide = rng.uniform(0.3, 0.6), rng.uniform(0.05, 0.18)
    return [_thing(rng, str(rng.choice(("cylinder", "cone", "bottle"))), (x, y, high), (wide, wide, high))]


def _lookalike(rng: np.random.Generator, x: float, y: float) -> list[Thing]:
    """As tall and wide as somebody, dressed in two colours, but nobody."""
    high, turn = rng.uniform(0.6, 0.95), rng.uniform(0, math.pi)
    if rng.random() < 0.5:
        return [_thing(rng, "pawn", (x, y, high), (rng.uniform(0.2, 0.32), rng.uniform(0.15, 0.3), high), turn)]
    # A coat on a stand: a pole, a body of cloth, a hat.
    stand = _thing(rng, "cylinder", (x, y, high), (0.025, 0.025, high), 0)
    coat = _thing(
        rng, str(rng.choice(("box", "cylinder", "cone"))), (x, y, high * 1.25), (0.22, 0.14, high * 0.45), turn
    )
    hat = _thing(rng, "sphere", (x, y, high * 2), (0.11, 0.11, rng.uniform(0.05, 0.14)), 0)
    return [stand, coat, hat][: int(rng.integers(2, 4))]


def _loose(rng: np.random.Generator, x: float, y: float) -> list[Thing]:
    """Anything anywhere, also hanging in the air."""
    half = np.exp(rng.uniform(-3, 0, 3))
    height = float(half[2]) + (rng.uniform(0, 2.5) if rng.random() < 0.4 else 0.0)
    place = (x, y, height)
    return [_thing(rng, str(rng.choice(MESHES)), place, tuple(half), rng.uniform(0, math.pi), tilt=rng.normal(0, 0.3))]

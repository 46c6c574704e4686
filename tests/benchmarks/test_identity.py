"""The benchmark of names: its square must be a place where people hide each other, and its counts what they say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks import identity
from benchmarks.identity import HEIGHT, WIDTH, Square, detected, measure, scene
from stream.tracker import Tracker


def test_people_stay_in_the_picture_and_hide_each_other() -> None:
    square = Square(np.random.default_rng(0), 12)
    shares = []
    for _ in range(200):
        square.walk()
        boxes, shown = square.boxes(), square.shown()
        assert (boxes >= 0).all()
        assert (boxes <= [WIDTH, HEIGHT] * 2).all()
        assert ((shown >= 0) & (shown <= 1)).all()
        shares.append(shown)
    everybody = np.array(shares)
    assert 0.3 < (everybody > 0.9).mean() < 0.95
    assert (everybody < 0.1).any(axis=0).mean() > 0.5


def test_who_is_hidden_is_not_detected_and_who_shows_is_nearly_always() -> None:
    rng = np.random.default_rng(1)
    boxes = np.tile([100.0, 100, 200, 400], (3, 1))
    counts = np.zeros(3)
    for _ in range(400):
        found, said = detected(rng, boxes, np.array([0.1, 0.4, 1.0]))
        counts[found] += 1
        assert (said[:, 2:] > said[:, :2]).all()
    assert counts[0] == 0
    assert 120 < counts[1] < 260
    assert 360 < counts[2] < 400


def test_the_same_people_come_every_time_however_many_frames_are_played() -> None:
    first = [said for *_, said in scene(3, 5, 12)]
    again = [said for *_, said in scene(3, 5, 20)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=False))
    assert not np.array_equal(first[0], next(scene(4, 5, 1))[-1])


def side_by_side(seed: int, people: int, frames: int) -> Iterator[Any]:
    """Two who stand still; the second is out of sight for fifteen frames in the middle, and shown in five of these."""
    boxes = np.array([[100.0, 100, 140, 200], [300.0, 100, 340, 200]])
    for frame in range(frames):
        gone = 20 <= frame < 35
        shown = np.array([1.0, 0.0 if gone and frame >= 25 else 1.0])
        found = np.array([0] if gone else [0, 1])
        yield boxes, shown, found, boxes[found]


def test_names_and_changes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "scene", side_by_side)
    forgets = measure(2, 10, 0, scenes=2, frames=60)
    assert (forgets["names_a_person"], forgets["under_the_name_of_another"]) == (1.5, 0)
    # One change in each scene; 60 + 45 detections are 4.2 seconds.
    assert forgets["changes_a_person_and_minute"] == pytest.approx(60 / 4.2, abs=0.01)
    assert forgets["missed"] == 10
    assert forgets["missed_and_covered_wholly"] == 1
    remembers = measure(2, 10, 50, scenes=2, frames=60)
    assert (remembers["names_a_person"], remembers["changes_a_person_and_minute"]) == (1, 0)


def test_one_name_for_all_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class SameForAll(Tracker):
        def _next_id(self) -> int:
            return 0

    monkeypatch.setattr(identity, "scene", side_by_side)
    monkeypatch.setattr(identity, "Tracker", SameForAll)
    found = measure(2, 10, 0, scenes=1, frames=60)
    # Of 105 detections 45 are the second one's.
    assert found["under_the_name_of_another"] == pytest.approx(45 / 105, abs=1e-4)
    assert found["names_a_person"] == 1

"""Identity: how long people keep their names, and so their stand-ins, when others walk before them.

People walk about on a square, before a still camera. Who is hidden by somebody nearer, or by one of two posts, is
detected the less often the more of them is hidden; boxes err by shares of their size. The tracker is told the
detections alone. Nothing here is a network: it is the tracker that is measured, and the same people come every time.

    python benchmarks/identity.py
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import covered_share, save
from stream.regions import Kind, Origin, Regions
from stream.tracker import Tracker

Floats = npt.NDArray[np.float64]

WIDTH, HEIGHT, RATE = 1280, 720, 25
#: Of the camera, in pixels and metres: it looks ahead from a little above people's heads.
FOCAL, UP, HORIZON = 1000.0, 2.2, 260.0
#: The square, in metres from the camera.
NEAR, FAR = 4.0, 18.0
#: What hides whom is found in cells of so many pixels.
CELL: Final = 8
#: A detector's boxes err by this share of their sides (standard deviation).
ERROR: Final = 0.03
#: It always misses whom it sees less of than the first share, and misses one in twenty of those above the second.
SEEN_NEVER, SEEN_MOSTLY = 0.2, 0.6


class Square:
    """People on their ways, and two posts.

    Args:
        rng: of everything in it.
        people: how many.
    """

    def __init__(self, rng: np.random.Generator, people: int) -> None:
        self._rng = rng
        self._away = rng.uniform(NEAR, FAR, people)
        self._side = rng.uniform(-0.6, 0.6, people) * self._away
        self._heading = rng.uniform(0, 2 * np.pi, people)
        self._speed = rng.uniform(0.6, 1.6, people)
        self._tall = rng.uniform(1.55, 1.9, people)
        self._posts = list(zip(rng.uniform(-6, 6, 2), rng.uniform(3, 8, 2), strict=True))

    def walk(self) -> None:
        """A frame later."""
        self._heading += self._rng.normal(0, 0.03, len(self._heading))
        across, on = np.cos(self._heading), np.sin(self._heading)
        self._side += across * self._speed / RATE
        self._away += on * self._speed / RATE
        # Nobody leaves for good: they turn round at the edges.
        leaves = ((self._away < NEAR) & (on < 0)) | ((self._away > FAR) & (on > 0))
        self._heading = np.where(leaves, -self._heading, self._heading)
        leaves = (np.abs(self._side) > 0.6 * self._away) & (across * self._side > 0)
        self._heading = np.where(leaves, np.pi - self._heading, self._heading)

    def boxes(self) -> Floats:
        """Where they are in the picture, (N, 4), no matter who is hidden."""
        middle = WIDTH / 2 + FOCAL * self._side / self._away
        half = FOCAL * 0.25 / self._away
        top, foot = (HORIZON + FOCAL * (UP - tall) / self._away for tall in (self._tall, 0.0))
        return np.clip(np.stack([middle - half, top, middle + half, foot], axis=1), 0, [WIDTH, HEIGHT] * 2)

    def shown(self) -> Floats:
        """Which share of each can be seen, (N,); 0 for those beside the picture."""
        cells = (self.boxes() / CELL).astype(int)
        front = np.full((HEIGHT // CELL, WIDTH // CELL), np.inf)
        for side, away in self._posts:
            left, right = (int((WIDTH / 2 + FOCAL * (side + way) / away) / CELL) for way in (-0.25, 0.25))
            columns = front[:, max(left, 0) : max(right, 0)]
            np.minimum(columns, away, out=columns)
        shares = np.zeros(len(cells))
        for person in np.argsort(self._away):
            x0, y0, x1, y1 = cells[person]
            there = front[y0:y1, x0:x1]
            if there.size:
                shares[person] = (there > self._away[person]).mean()
                np.minimum(there, self._away[person], out=there)
        return shares


def detected(rng: np.random.Generator, boxes: Floats, shown: Floats) -> tuple[npt.NDArray[np.intp], Floats]:
    """Whom a detector finds, and the boxes that it says."""
    likely = 0.95 * np.clip((shown - SEEN_NEVER) / (SEEN_MOSTLY - SEEN_NEVER), 0, 1)
    found = np.flatnonzero(rng.random(len(boxes)) < likely)
    sides = np.tile(boxes[found, 2:] - boxes[found, :2], 2)
    said = boxes[found] + rng.normal(0, ERROR, (len(found), 4)) * sides
    return found, np.concatenate([np.minimum(said[:, :2], said[:, 2:] - 1), said[:, 2:]], axis=1)


def scene(seed: int, people: int, frames: int) -> Iterator[tuple[Floats, Floats, npt.NDArray[np.intp], Floats]]:
    """For each frame everybody's box and share that is shown, who is detected, and the boxes of these."""
    rng = np.random.default_rng([seed, people])
    square = Square(rng, people)
    for _ in range(frames):
        square.walk()
        boxes, shown = square.boxes(), square.shown()
        yield boxes, shown, *detected(rng, boxes, shown)


def measure(people: int, hold: int, remember: int, *, scenes: int, frames: int) -> dict[str, Any]:
    """How a tracker names people, and how much of those who are missed is covered.

    Args:
        people: in each scene.
        hold: of the tracker.
        remember: of the tracker.
        scenes: how many are played.
        frames: of each.
    """
    detections = changes = strangers = 0
    names_each: list[int] = []
    covered: list[float] = []
    for seed in range(scenes):
        tracker = Tracker(hold, remember)
        names: defaultdict[int, Counter[int]] = defaultdict(Counter)
        owners: defaultdict[int, Counter[int]] = defaultdict(Counter)
        last: dict[int, int] = {}
        since: dict[int, int] = {}
        for frame, (boxes, shown, found, said) in enumerate(scene(seed, people, frames)):
            regions = tracker.step(Regions.of(said.astype(np.float32), Kind.PERSON), WIDTH, HEIGHT).regions
            for person, name in zip(found.tolist(), regions.track_ids.tolist(), strict=False):
                changes += last.get(person, name) != name
                last[person], since[person] = name, frame
                names[person][name] += 1
                owners[name][person] += 1
            held = regions.boxes[regions.origins == Origin.HELD]
            # Missed, though most of them shows, and detected not long ago.
            missed = [
                person
                for person in np.flatnonzero(shown > SEEN_MOSTLY).tolist()
                if 0 < frame - since.get(person, -frames) <= hold
            ]
            covered += [covered_share(boxes[person], held) for person in missed]
        detections += sum(sum(own.values()) for own in names.values())
        strangers += sum(sum(own.values()) - max(own.values()) for own in owners.values())
        names_each += [len(own) for own in names.values()]
    return {
        "people": people,
        "hold": hold,
        "remember": remember,
        "detections": detections,
        "names_a_person": round(float(np.mean(names_each)), 2),
        "changes_a_person_and_minute": round(changes / (detections / RATE / 60), 2),
        "under_the_name_of_another": round(strangers / detections, 4),
        "missed": len(covered),
        "missed_and_covered_wholly": round(float(np.mean(np.array(covered) > 0.98)), 4),
        "missed_and_covered_under_half": round(float(np.mean(np.array(covered) < 0.5)), 4),
    }


def main() -> None:
    """Measure and write `results/identity.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--frames", type=int, default=500)
    options = parser.parse_args()
    rows = [
        measure(people, 10, remember, scenes=options.scenes, frames=options.frames)
        for people in (3, 8, 16)
        for remember in (0, 25, 50, 100)
    ]
    for row in rows:
        print(row)
    print(save("identity", {"scenes": options.scenes, "frames": options.frames, "rate": RATE, "rows": rows}))


if __name__ == "__main__":
    main()

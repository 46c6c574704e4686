"""Where tracked boxes are expected: a Kalman filter for each, of constant velocity and constant size.

The state of a box is its centre, the centre's speed and its size. All that is not certain of it grows with its size,
as in the code of Deep SORT (N. Wojke et al., Simple Online and Realtime Tracking with a Deep Association Metric, 2017):
who is near moves faster over the picture, and detectors err by shares of a box. Both axes are alike and independent of
each other, so that three numbers a track hold the covariance of centre and speed, and one that of size.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Standard deviations, as shares of a box's size: what a detector says of its centre and size differs by this much ...
_MEASURED: Final = 0.05
#: ... what a track's speed, unknown at its beginning, is a frame ...
_FIRST_SPEED: Final = 0.05
#: ... and what a speed may change by from one frame to the next, and a size.
_SPEED_CHANGE: Final = 0.005
_SIZE_CHANGE: Final = 0.02


class BoxFilter:
    """The filters of all tracks, in the order in which they were added. Boxes are (N, 4), `xyxy`, in pixels."""

    def __init__(self) -> None:
        self._centre: Floats = np.empty((0, 2))
        self._speed: Floats = np.empty((0, 2))
        self._size: Floats = np.empty((0, 2))
        #: (N, 3): the variance of a centre's coordinate, its covariance with the speed, and the variance of that.
        self._doubt: Floats = np.empty((0, 3))
        #: (N,): the variance of a size.
        self._size_doubt: Floats = np.empty(0)

    def __len__(self) -> int:
        return len(self._size_doubt)

    @property
    def boxes(self) -> Floats:
        """Where they are, as far as is known, (N, 4)."""
        return np.concatenate([self._centre - self._size / 2, self._centre + self._size / 2], axis=1)

    def predict(self) -> None:
        """One frame later: each goes on as it went. Its speed may have changed on the way, evenly."""
        scale = _scale_of(self._size)
        change = (_SPEED_CHANGE * scale) ** 2
        self._centre = self._centre + self._speed
        place, both, speed = self._doubt.T
        self._doubt = np.stack(
            [place + 2 * both + speed + change / 4, both + speed + change / 2, speed + change],
            axis=1,
        )
        self._size_doubt = self._size_doubt + (_SIZE_CHANGE * scale) ** 2

    def correct(self, rows: npt.NDArray[np.intp], boxes: Floats) -> None:
        """Some were detected.

        Args:
            rows: (P,), each once.
            boxes: (P, 4), of these.
        """
        centre, size = _centre_and_size(boxes)
        measured = (_MEASURED * _scale_of(self._size)[rows]) ** 2
        place, both, speed = self._doubt[rows].T
        gain, speed_gain = place / (place + measured), both / (place + measured)
        away = centre - self._centre[rows]
        self._centre[rows] += gain[:, None] * away
        self._speed[rows] += speed_gain[:, None] * away
        self._doubt[rows] = np.stack([(1 - gain) * place, (1 - gain) * both, speed - speed_gain * both], axis=1)
        gain = self._size_doubt[rows] / (self._size_doubt[rows] + measured)
        self._size[rows] += gain[:, None] * (size - self._size[rows])
        self._size_doubt[rows] *= 1 - gain

    def add(self, boxes: Floats) -> None:
        """Begin with boxes (N, 4) that were detected for the first time: they are thought to stand still."""
        centre, size = _centre_and_size(boxes)
        scale = _scale_of(size)
        doubt = np.stack([(_MEASURED * scale) ** 2, np.zeros(len(boxes)), (_FIRST_SPEED * scale) ** 2], axis=1)
        self._centre = np.concatenate([self._centre, centre])
        self._speed = np.concatenate([self._speed, np.zeros((len(boxes), 2))])
        self._size = np.concatenate([self._size, size])
        self._doubt = np.concatenate([self._doubt, doubt])
        self._size_doubt = np.concatenate([self._size_doubt, (_MEASURED * scale) ** 2])

    def keep(self, which: npt.NDArray[np.bool_]) -> None:
        """Forget all but some, (N,)."""
        self._centre, self._speed, self._size = self._centre[which], self._speed[which], self._size[which]
        self._doubt, self._size_doubt = self._doubt[which], self._size_doubt[which]


def _centre_and_size(boxes: Floats) -> tuple[Floats, Floats]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]


def _scale_of(size: Floats) -> Floats:
    """What shares are of, in pixels, (N,): a pixel at least, so that nothing is certain of a box without area."""
    return np.asarray(np.maximum(size.mean(axis=1), 1))

"""Where tracked boxes are expected: a Kalman filter for each, of constant velocity and constant size.

The state of a box is its centre, the centre's speed and its size. Both axes are alike and independent of each other,
and how certain a state is does not depend on what was measured, so that three numbers a track hold the covariance of
centre and speed, and one that of size (R. E. Kalman, A New Approach to Linear Filtering and Prediction Problems, 1960).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Variances, in square pixels of pictures that are `MODEL_WIDTH` wide: of what a detector says of centre and size ...
_MEASURED: Final = 1.0
#: ... of both when a track begins, and of its unknown speed, a frame ...
_FIRST: Final = 1000.0
_FIRST_SPEED: Final = 1.6
#: ... of what a speed may change by from frame to frame, and a size.
_SPEED_CHANGE: Final = 1.792e-4
_SIZE_CHANGE: Final = 10.0

#: Pixels; what is filtered has to be scaled to frames of this longer side.
MODEL_WIDTH: Final = 1000.0


class BoxFilter:
    """The filters of all tracks, in the order in which they were added.

    Boxes are (N, 4), `xyxy`, in pixels of a frame with a longer side of `MODEL_WIDTH`.
    """

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
        self._centre = self._centre + self._speed
        place, both, speed = self._doubt.T
        self._doubt = np.stack(
            [
                place + 2 * both + speed + _SPEED_CHANGE / 4,
                both + speed + _SPEED_CHANGE / 2,
                speed + _SPEED_CHANGE,
            ],
            axis=1,
        )
        self._size_doubt = self._size_doubt + _SIZE_CHANGE

    def correct(self, rows: npt.NDArray[np.intp], boxes: Floats) -> None:
        """Some were detected.

        Args:
            rows: (P,), each once.
            boxes: (P, 4), of these.
        """
        centre, size = _centre_and_size(boxes)
        place, both, speed = self._doubt[rows].T
        gain, speed_gain = place / (place + _MEASURED), both / (place + _MEASURED)
        away = centre - self._centre[rows]
        self._centre[rows] += gain[:, None] * away
        self._speed[rows] += speed_gain[:, None] * away
        self._doubt[rows] = np.stack([(1 - gain) * place, (1 - gain) * both, speed - speed_gain * both], axis=1)
        gain = self._size_doubt[rows] / (self._size_doubt[rows] + _MEASURED)
        self._size[rows] += gain[:, None] * (size - self._size[rows])
        self._size_doubt[rows] *= 1 - gain

    def add(self, boxes: Floats) -> None:
        """Begin with boxes (N, 4) that were detected for the first time: they are thought to stand still."""
        centre, size = _centre_and_size(boxes)
        count = len(boxes)
        self._centre = np.concatenate([self._centre, centre])
        self._speed = np.concatenate([self._speed, np.zeros((count, 2))])
        self._size = np.concatenate([self._size, size])
        self._doubt = np.concatenate([self._doubt, np.tile([_FIRST, 0, _FIRST_SPEED], (count, 1))])
        self._size_doubt = np.concatenate([self._size_doubt, np.full(count, _FIRST)])

    def keep(self, which: npt.NDArray[np.bool_]) -> None:
        """Forget all but some, (N,)."""
        self._centre, self._speed, self._size = self._centre[which], self._speed[which], self._size[which]
        self._doubt, self._size_doubt = self._doubt[which], self._size_doubt[which]


def _centre_and_size(boxes: Floats) -> tuple[Floats, Floats]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]

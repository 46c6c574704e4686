"""What networks of the user's own see in pictures: vectors, maps, and how far apart two pictures are.

Each network has one picture as input, (N, 3, height, width) or with N fixed to 1. A feature or re-identification
network's first output is a vector for each picture, (N, ...). A perceptual network's outputs are maps (N, C, h, w), or
vectors, whose squared differences are summed over channels and averaged over pixels: to be LPIPS, the network itself
scales each pixel's channels to length 1 and multiplies them by the square roots of LPIPS' weights.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engines.errors import BundleError, UsageError
from stream.networks import RESIZE, Floats, NetworkSettings, PictureNetwork, Pictures, fit

Doubles = npt.NDArray[np.float64]


class VectorNetwork:
    """A network that gives a vector for a picture of any size.

    Args:
        settings: which, and what it takes.
        option: by which it was given, for messages.

    Raises:
        UsageError: there is no such file, or its size must be given, or is another one.
        BundleError: it is not an ONNX file of such a network.
    """

    def __init__(self, settings: NetworkSettings, option: str) -> None:
        self._network = PictureNetwork(settings, say_size="size=WxH")
        if self._network.size is None:
            raise UsageError(f"{settings.path} takes pictures of any size; say which: {option} FILE,size=WxH")
        self._size = self._network.size

    @property
    def name(self) -> str:
        """The file's name and the beginning of its hash."""
        return self._network.name

    @property
    def resize(self) -> str:
        """How pictures come to its size."""
        return f"to {self._size[0]}x{self._size[1]}, {RESIZE}"

    def features(self, picture: Pictures) -> Floats:
        """The vector of a picture (height, width, 3), as it comes, (C,).

        Raises:
            BundleError: the network fails, or its answer is not finite.
        """
        found = self._network.first(fit(picture, self._size)[None]).reshape(-1)
        if not np.isfinite(found).all():
            raise BundleError(f"{self._network.settings.path} gives values that are not finite")
        return found

    def identity(self, picture: Pictures) -> Floats:
        """The vector of a picture (height, width, 3), of length 1, (C,).

        Raises:
            BundleError: the network fails, or gives no vector.
        """
        vector: Floats = unit_vectors(self._network, fit(picture, self._size)[None])[0]
        return vector


class PerceptualNetwork:
    """A network whose maps tell how far pictures look apart.

    Args:
        settings: which, and what it takes.

    Raises:
        UsageError: there is no such file, or its pictures have another size than was given.
        BundleError: it is not an ONNX file of such a network.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        self._network = PictureNetwork(settings, say_size="size=WxH")

    @property
    def name(self) -> str:
        """The file's name and the beginning of its hash."""
        return self._network.name

    @property
    def any_size(self) -> bool:
        """Whether it looks at pictures as they are."""
        return self._network.size is None

    @property
    def resize(self) -> str:
        """How pictures come to its size."""
        size = self._network.size
        return "none" if size is None else f"to {size[0]}x{size[1]}, {RESIZE}"

    def maps(self, picture: Pictures) -> list[Floats]:
        """What it sees in a picture (height, width, 3): (C, h, w) or (C,) each.

        Raises:
            BundleError: the network fails.
        """
        return [found[0] for found in self._network.all(fit(picture, self._network.size)[None])]


def perceptual_distance(first: list[Floats], second: list[Floats]) -> float:
    """How far apart two pictures are by their maps: LPIPS' sum, where the network makes its maps.

    https://arxiv.org/abs/1801.03924, equation 1: over layers, the mean over pixels of squared differences.

    Args:
        first: `PerceptualNetwork.maps` of one.
        second: of the other, of the same size.

    Raises:
        BundleError: the maps do not agree in shape, or are not finite.
    """
    total = 0.0
    for one, other in zip(first, second, strict=True):
        if one.shape != other.shape:
            raise BundleError(f"maps of two pictures are {one.shape} and {other.shape}; they must have the same size")
        squares: Doubles = (one.astype(np.float64) - other) ** 2
        total += float(squares.reshape(len(squares), -1).sum(axis=0).mean())
    if not np.isfinite(total):
        raise BundleError("a perceptual network gives values that are not finite")
    return total


def unit_vectors(network: PictureNetwork, pictures: Pictures) -> Floats:
    """What a network makes of pictures, as vectors of length 1, (N, C).

    Args:
        network: whose first output is a vector for each picture.
        pictures: (N, height, width, 3) of its size.

    Raises:
        BundleError: the network fails, or gives no vectors.
    """
    found = network.first(pictures)
    vectors = found.reshape(len(found), -1)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if vectors.shape[1] < 2 or not np.isfinite(lengths).all() or not lengths.all():
        raise BundleError(f"{network.settings.path} gives no vector for a picture, but an array {found.shape}")
    return np.asarray(vectors / lengths, np.float32)

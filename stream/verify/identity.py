"""Identity: whether a network that tells people apart still recognises them in the output.

Every track is embedded a few times, in the original and at the same places of the output. A query is a picture of the
output; the gallery holds the originals of all tracks, the same frame's included, which is the strongest attack. If
people cannot be recognised, rank-1 accuracy and mean average precision are what chance gives. The same with queries
from the original (without the very picture itself) shows what the network can do at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from engines.errors import BundleError, UsageError
from stream.frame import Image
from stream.networks import NetworkSettings, PictureNetwork, Pictures
from stream.regions import Kind

Vectors = npt.NDArray[np.float32]

#: Pictures of a track: when it is seen for the first time, and the second, third, fifth, ninth, and so on.
_MOST: Final = 24
#: A face is cut out as a square of so many times its longer side, as networks for faces expect it.
_FACE: Final = 1.2


@dataclass(frozen=True, slots=True)
class EmbeddingSettings:
    """A network that gives a vector for a picture of a face or a person.

    Attributes:
        path: ONNX file with one picture (N, 3, height, width) as input and the vector as its first output.
        kind: what it is for.
        size: width and height of its pictures, None for those that the file says.
        mean: subtracted from levels of 0 to 255.
        std: by which they are divided then.
        colour: order of the channels.
    """

    path: Path
    kind: Kind = Kind.FACE
    size: tuple[int, int] | None = None
    mean: float = 127.5
    std: float = 127.5
    colour: Literal["rgb", "bgr"] = "rgb"


@dataclass(frozen=True, slots=True)
class IdentityResult:
    """What the network makes of originals and outputs.

    Attributes:
        pictures: how many pairs were embedded.
        tracks: of how many tracks.
        similarity: mean cosine between a picture and its output, -1 to 1.
        others: mean cosine between originals of different tracks, None with one track.
        rank1: share of outputs whose nearest original is of their track; None with one track.
        mean_ap: mean average precision of the same search; None with one track.
        chance: what rank-1 would be by chance; None with one track.
        rank1_original: rank-1 with originals as queries; None with one track.
    """

    pictures: int
    tracks: int
    similarity: float
    others: float | None
    rank1: float | None
    mean_ap: float | None
    chance: float | None
    rank1_original: float | None


class Embedder:
    """A user's network, on the CPU.

    Args:
        settings: which, and what it takes.

    Raises:
        UsageError: there is no such file, or its size must be given, or is another one.
        BundleError: it is not an ONNX file of such a network.
    """

    def __init__(self, settings: EmbeddingSettings) -> None:
        self.settings = settings
        chosen = NetworkSettings(settings.path, settings.size, settings.mean, settings.std, settings.colour)
        self._network = PictureNetwork(chosen, say_size="--embedding-size")
        if self._network.size is None:
            raise UsageError(f"{settings.path} takes pictures of any size; say which with --embedding-size 112x112")
        self._size = self._network.size

    def embed(self, image: Image, box: tuple[float, float, float, float]) -> Vectors:
        """The vector of a region, of length 1.

        Args:
            image: uint8 RGB (height, width, 3).
            box: `xyxy` in its pixels.

        Raises:
            BundleError: the network fails, or gives no vector.
        """
        crop = cv2.resize(_cut(image, box, self.settings.kind), self._size, interpolation=cv2.INTER_AREA)
        vector: Vectors = unit_vectors(self._network, np.asarray(crop, np.uint8)[None])[0]
        return vector


def unit_vectors(network: PictureNetwork, pictures: Pictures) -> Vectors:
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


@dataclass(slots=True)
class Identities:
    """Collects the vectors of one clip's tracks.

    Args:
        embedder: gives them.
    """

    embedder: Embedder
    _seen: dict[int, int] = field(default_factory=dict)
    _tracks: list[int] = field(default_factory=list)
    _before: list[Vectors] = field(default_factory=list)
    _after: list[Vectors] = field(default_factory=list)

    def add(self, track: int, kind: Kind, box: tuple[float, float, float, float], before: Image, after: Image) -> None:
        """Looks at a region, if it is one of those of its track that are embedded.

        Raises:
            BundleError: the network fails.
        """
        if kind is not self.embedder.settings.kind:
            return
        count = self._seen.get(track, 0)
        self._seen[track] = count + 1
        if count & (count - 1) or self._tracks.count(track) >= _MOST:
            return
        self._tracks.append(track)
        self._before.append(self.embedder.embed(before, box))
        self._after.append(self.embedder.embed(after, box))

    def result(self) -> IdentityResult | None:
        """What came out, None where nobody of that kind was seen."""
        if not self._tracks:
            return None
        return compare(np.stack(self._before), np.stack(self._after), np.array(self._tracks))


def compare(before: Vectors, after: Vectors, tracks: npt.NDArray[np.int64]) -> IdentityResult:
    """Similarities, and the search for tracks by their outputs.

    Args:
        before: (N, C), of length 1, of originals.
        after: (N, C), of length 1, of the same places of the output.
        tracks: (N,).
    """
    same = tracks[:, None] == tracks[None]
    similarity = float((before * after).sum(axis=1).mean())
    count = len(np.unique(tracks))
    if count < 2:
        return IdentityResult(len(tracks), count, similarity, None, None, None, None, None)
    among = before @ before.T
    rank1, mean_ap = search(after @ before.T, same)
    itself = np.eye(len(tracks), dtype=np.bool_)
    able = (same & ~itself).any(axis=1)
    rank1_original = None
    if able.any():
        rank1_original = search(np.where(itself, -np.inf, among)[able], (same & ~itself)[able])[0]
    return IdentityResult(
        pictures=len(tracks),
        tracks=count,
        similarity=similarity,
        others=float(among[~same].mean()),
        rank1=rank1,
        mean_ap=mean_ap,
        chance=float(same.mean()),
        rank1_original=rank1_original,
    )


def search(similarity: Vectors, same: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Rank-1 accuracy and mean average precision.

    Args:
        similarity: (queries, gallery).
        same: bool of the same shape, which entries of the gallery show the person of the query; one at least for each.
    """
    order = np.argsort(-similarity, axis=1, kind="stable")
    hits = np.take_along_axis(same, order, axis=1)
    ranks = np.arange(1, hits.shape[1] + 1)
    precision = np.cumsum(hits, axis=1) / ranks
    return float(hits[:, 0].mean()), float(((precision * hits).sum(axis=1) / hits.sum(axis=1)).mean())


def _cut(image: Image, box: tuple[float, float, float, float], kind: Kind) -> Image:
    """The region, with what is outside the frame as its edge is."""
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    if kind is Kind.FACE:
        width = height = _FACE * max(width, height)
    left, top = round((x0 + x1 - width) / 2), round((y0 + y1 - height) / 2)
    wide, high = max(2, round(width)), max(2, round(height))
    rows = np.clip(np.arange(top, top + high), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(left, left + wide), 0, image.shape[1] - 1)
    return np.ascontiguousarray(image[rows[:, None], columns])

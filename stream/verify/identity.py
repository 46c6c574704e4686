"""Identity: whether a network that tells people apart still recognises them in the output.

Every track is embedded a few times, in the original and at the same places of the output. A query is a picture of the
output; the gallery holds the originals of all tracks, the same frame's included, which is the strongest attack. If
people cannot be recognised, rank-1 accuracy and mean average precision are what chance gives. The same with queries
from the original (without the very picture itself) shows what the network can do at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from stream.frame import Image
from stream.networks import Floats, NetworkSettings
from stream.perception import VectorNetwork
from stream.regions import Kind
from stream.verify.crop import cut

#: Pictures of a track: when it is seen for the first time, and the second, third, fifth, ninth, and so on.
_MOST: Final = 24


@dataclass(frozen=True, slots=True)
class EmbeddingSettings:
    """A network that gives a vector for a picture of a face or a person.

    Attributes:
        network: which, and what it takes.
        kind: what it is for.
    """

    network: NetworkSettings
    kind: Kind = Kind.FACE


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
        self._network = VectorNetwork(settings.network, "--embedding")

    @property
    def name(self) -> str:
        """The file's name and the beginning of its hash."""
        return self._network.name

    def embed(self, image: Image, box: tuple[float, float, float, float]) -> Floats:
        """The vector of a region, of length 1.

        Args:
            image: uint8 RGB (height, width, 3).
            box: `xyxy` in its pixels.

        Raises:
            BundleError: the network fails, or gives no vector.
        """
        return self._network.identity(cut(image, box, self.settings.kind))


@dataclass(slots=True)
class Identities:
    """Collects the vectors of one clip's tracks.

    Args:
        embedder: gives them.
    """

    embedder: Embedder
    _seen: dict[int, int] = field(default_factory=dict)
    _tracks: list[int] = field(default_factory=list)
    _before: list[Floats] = field(default_factory=list)
    _after: list[Floats] = field(default_factory=list)

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


def compare(before: Floats, after: Floats, tracks: npt.NDArray[np.int64]) -> IdentityResult:
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


def search(similarity: Floats, same: npt.NDArray[np.bool_]) -> tuple[float, float]:
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

"""The nearest vertex of the body surface for every pixel, from the embedding that a detector regressed.

DensePose's continuous surface embeddings give a body pixel a point near a two-dimensional surface in 16 dimensions.
Replacing it by the nearest vertex's own embedding is what keeps identity from leaking, so it is never skipped. The
published way compares every pixel with every vertex. Here the vertices are split once into small patches; the triangle
inequality says which patches can hold a pixel's nearest vertex, and only those are compared.

What is exact and what is rounded: float32 products only ever decide which patches are looked at, with their rounding
allowed for; which vertex is nearest is decided in float64. Where nearly all patches would have to be looked at (random
queries), a product with all vertices in float32 chooses the patches instead, at the price of plain matrix arithmetic.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from engines.errors import DetectionError, TensorError
from engines.runtime import Runtime
from stream.surface_search import DeviceSearch
from stream.vertex_map import case_embeddings, pixel_embeddings

Embeddings = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

#: Vertices in a patch, about: fewer need more bounds for every query, more need more comparisons.
_PATCH = 108
#: Queries that are worked on together, and in one matrix product; chosen so that what is in use stays in the cache.
_CHUNK = 4096
_TILE = 1024
#: Above this share of patches for a query, comparing it with all vertices is faster.
_DENSE = 0.2
#: Queries, at most and about, that are looked at first to choose the way; every 16th of few.
_PROBE = 128
#: Up to this relative difference of squared norms, queries are brought to the vertices' norm: see `_scaled`.
_EQUAL = 1e-3


class Surface:
    """The vertices of a body surface in embedding space, and the search for the nearest.

    Built once per bundle; never changes afterwards, so several threads may ask it at once.

    Args:
        vertex_embeddings: (K, D) float32, the raw embeddings that the generator was trained with. Unit norm as
            published, but any finite ones are searched exactly.
        sparse: whether the vertices are so far apart that pixels of a crop side by side mostly show the same one.
        runtime: of `surface_search.search_graph`, where the search is to run; None for the way above. It decides in
            float32, so that of vertices that are equally near up to rounding either may be found.

    Raises:
        TensorError: the array is not (K, D) float32 with K, D >= 1, or not finite.
    """

    def __init__(self, vertex_embeddings: Embeddings, *, sparse: bool = False, runtime: Runtime | None = None) -> None:
        self.sparse = sparse
        _check("vertex embeddings", vertex_embeddings, np.float32, 2)
        given = vertex_embeddings
        if not given.size or not np.isfinite(given).all():
            raise TensorError(
                f"vertex embeddings of shape {given.shape} must be finite and not empty: export them again"
            )
        self.count: int = given.shape[0]
        self.channels: int = given.shape[1]
        self._columns = np.ascontiguousarray(case_embeddings(given).T)
        vertices = given.astype(np.float64)
        self._unit = float(np.sqrt(_squares(vertices).max())) or 1.0
        vertices /= self._unit
        self._build(vertices)
        self._search: DeviceSearch | None = None
        if runtime is not None:
            columns = np.concatenate([vertices.T, -self._squares[None] / 2])
            self._search = DeviceSearch(runtime, np.ascontiguousarray(columns, np.float32))

    @property
    def known(self) -> int:
        """The index that stands for known pixels, K."""
        return self.count

    @property
    def border(self) -> int:
        """The index that stands for border pixels, K + 1."""
        return self.count + 1

    @property
    def vertex_embeddings(self) -> Embeddings:
        """A copy of what was given, (K, D) float32."""
        return self._columns[:, : self.count].T.copy()

    def vertices(self, embedding: Embeddings, body: Mask, known: Mask) -> Indices:
        """The vertex map that a generator is fed, for all regions of a frame at once.

        Args:
            embedding: (N, D, H, W) float32 as regressed; only body pixels are read.
            body: (N, H, W) bool.
            known: (N, H, W) bool. A pixel that is both counts as body, never as known.

        Returns:
            (N, H, W) int64: the nearest vertex for body pixels, K for known pixels, K + 1 for the border (neither).

        Raises:
            TensorError: a shape or type is another one.
            DetectionError: an embedding of a body pixel is not finite; its regions must be withheld.
        """
        _check("embedding", embedding, np.float32, 4)
        if embedding.shape[1] != self.channels:
            raise TensorError(
                f"embedding has {embedding.shape[1]} channels, the surface {self.channels}: pair them anew"
            )
        expected = (embedding.shape[0], *embedding.shape[2:])
        for name, mask in (("body", body), ("known", known)):
            _check(name, mask, np.bool_, 3)
            if mask.shape != expected:
                raise TensorError(f"{name} has shape {mask.shape}, expected {expected} to match the embedding")
        found = np.where(known, np.int64(self.known), np.int64(self.border))
        queries = embedding.transpose(0, 2, 3, 1)
        height, width = body.shape[1:]
        if not self.sparse or height % 2 or width % 2:
            found[body] = self.nearest(queries[body])
            return found
        _check_finite(queries[body])
        # 2x2 pixels take the vertex of the first of them that is on the body: a quarter of the search.
        blocks = body.reshape(-1, height // 2, 2, width // 2, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4)
        shown, first = np.asarray(blocks.any(axis=1)), blocks.argmax(axis=1)
        n, row, column = np.unravel_index(np.flatnonzero(shown), (len(body), height // 2, width // 2))
        first = first[shown]
        coarse = np.zeros((len(body), height // 2, width // 2), np.int64)
        coarse[n, row, column] = self.nearest(queries[n, 2 * row + first // 2, 2 * column + first % 2])
        found[body] = coarse.repeat(2, axis=1).repeat(2, axis=2)[body]
        return found

    def embeddings(self, vertices: Indices) -> Embeddings:
        """Every body pixel's vertex embedding, which takes the place of the regressed one.

        Args:
            vertices: (N, H, W) int64 as `vertices` gives them.

        Returns:
            (N, D, H, W) float32, raw (not standardised), 0 outside the body.

        Raises:
            TensorError: not (N, H, W) int64, or an index is outside 0 .. K + 1.
        """
        _check("vertices", vertices, np.int64, 3)
        if vertices.size and (vertices.min() < 0 or vertices.max() > self.border):
            raise TensorError(f"vertices span {vertices.min()} .. {vertices.max()}, expected 0 .. {self.border}")
        return pixel_embeddings(self._columns, vertices)

    def nearest(self, queries: Embeddings) -> Indices:
        """The nearest vertex (Euclidean) of every query; of equally near ones, the lowest where float64 sees the tie.

        Args:
            queries: (Q, D) float32, Q >= 0, any norm.

        Returns:
            (Q,) int64 below K.

        Raises:
            TensorError: not (Q, D) float32.
            DetectionError: a query is not finite.
            RuntimeFailedError: the device could not be asked.
        """
        scaled = self._scaled(queries)
        total = len(scaled)
        # A query without direction is as far from a vertex as the vertex is long.
        found = np.full(total, self._shortest, np.int64)
        directed = np.flatnonzero(scaled[:, :-1].any(axis=1))
        if len(directed) < total:
            scaled = scaled[directed]
        if self._search is not None:
            found[directed] = self._search(scaled)
            return found
        if self._way(scaled) == "product":
            found[directed] = self._in_chunks(scaled, None)
            return found
        near = self._closest_patch(scaled)
        # Queries of the same patch together, wherever they lie in the frame.
        order = np.argsort(near, kind="stable")
        found[directed[order]] = self._in_chunks(scaled[order], near[order])
        return found

    def prepare(self) -> None:
        """Does what a device does at its first run.

        Raises:
            RuntimeFailedError: it does not work.
        """
        if self._search is not None:
            self._search(np.zeros((1, self.channels + 1)))

    def close(self) -> None:
        """Frees what it has on a device; may be called again."""
        if self._search is not None:
            self._search.close()

    def way(self, queries: Embeddings) -> Literal["patches", "product"]:
        """How `nearest` would begin with these queries (Q, D): by patches, or with a product with all vertices.

        Raises:
            TensorError: not (Q, D) float32.
            DetectionError: a query is not finite.
        """
        return self._way(self._scaled(queries))

    def _build(self, vertices: Doubles) -> None:
        """Patches, their bounds and the layouts that the products read; `vertices` (K, D), the longest of norm 1."""
        patches = _split(vertices, max(0, round(np.log2(len(vertices) / _PATCH))))
        size = max(map(len, patches))
        # Patches differ by one vertex at most; the last one is repeated. Sorted, so that the first best is the lowest.
        self._ids = np.stack([np.pad(np.sort(ids), (0, size - len(ids)), mode="edge") for ids in patches])
        self._squares = _squares(vertices)
        self._spread = float(self._squares.max() - self._squares.min())
        self._shortest = int(self._squares.argmin())
        inside = vertices[self._ids]
        centres = inside.mean(axis=1)
        radii = np.sqrt(((inside - centres[:, None]) ** 2).sum(axis=2).max(axis=1))
        self._largest = float(radii.max())
        self._centres = np.concatenate([centres.T, -_squares(centres)[None] / 2]).astype(np.float32)
        # Times (query, radius so far, ...), see `_to_open`.
        self._bounds = np.concatenate(
            [-2 * centres, -2 * radii[:, None], np.ones((len(radii), 1)), (_squares(centres) - radii**2)[:, None]],
            axis=1,
        ).astype(np.float32)
        columns = np.concatenate([inside, -self._squares[self._ids][..., None] / 2], axis=2)
        self._patches = np.ascontiguousarray(columns.transpose(0, 2, 1))
        self._product = np.ascontiguousarray(columns.transpose(1, 2, 0), np.float32)
        # Worst rounding of a float32 sum of D + 3 products, relative to the sum of their sizes, twice over.
        self._rounding = (self.channels + 8) * 2.0**-23

    def _scaled(self, queries: Embeddings) -> Doubles:
        """(Q, D + 1): s times the query in units of the longest vertex, and s.

        The nearest vertex maximises s (q.v - |v|^2 / 2) for any s > 0, so that the result does not depend on s. Where
        all vertices have about the same norm, as published, s brings the query to it: much nearer to the surface, so
        that fewer patches remain. Otherwise s only keeps far queries within float32.
        """
        _check("queries", queries, np.float32, 2)
        if queries.shape[1] != self.channels:
            raise TensorError(f"queries have {queries.shape[1]} channels, the surface {self.channels}: pair them anew")
        _check_finite(queries)
        scaled = np.empty((len(queries), self.channels + 1))
        # Said twice: NumPy would divide float32 by a Python number in float32, whatever it writes to.
        np.divide(queries, self._unit, out=scaled[:, :-1], dtype=np.float64)
        norms = np.sqrt(_squares(scaled[:, :-1]))
        # Very short queries stay: their factor would magnify the rounding of the vertices' norms.
        lowest, target = (1 / 8, 1.0) if self._spread <= _EQUAL else (64.0, 64.0)
        factors = target / np.where(norms > lowest, norms, target)
        scaled[:, :-1] *= factors[:, None]
        scaled[:, -1] = factors
        return scaled

    def _way(self, scaled: Doubles) -> Literal["patches", "product"]:
        """Whether most of a few queries would have to open many patches."""
        if not len(scaled):
            return "patches"
        probe = scaled[:: max(16, len(scaled) // _PROBE)]
        near = self._closest_patch(probe)
        order = np.argsort(near, kind="stable")
        best, found = self._first(probe[order], near[order])
        crowded = self._to_open(probe[order], best, found).mean(axis=0) > _DENSE
        return "product" if crowded.mean() > 0.5 else "patches"

    def _closest_patch(self, scaled: Doubles) -> npt.NDArray[np.integer]:
        """A good patch to begin with, (Q,): the one with the nearest centre."""
        queries = scaled.astype(np.float32)
        queries[:, -1] = 1
        near = np.empty(len(queries), np.min_scalar_type(len(self._ids) - 1))
        for at in range(0, len(queries), _TILE):
            near[at : at + _TILE] = (queries[at : at + _TILE] @ self._centres).argmax(axis=1)
        return near

    def _in_chunks(self, scaled: Doubles, near: npt.NDArray[np.integer] | None) -> Indices:
        """Nearest vertices (Q,) of queries that are sorted by the patch to begin with; without one, by products."""
        found = np.empty(len(scaled), np.int64)
        for at in range(0, len(scaled), _CHUNK):
            part = slice(at, at + _CHUNK)
            found[part] = self._chunk(scaled[part], None if near is None else near[part])
        return found

    def _chunk(self, scaled: Doubles, near: npt.NDArray[np.integer] | None) -> Indices:
        if near is None:
            best, found = np.full(len(scaled), -np.inf), np.zeros(len(scaled), np.int64)
            wanted = self._by_product(scaled)
        else:
            best, found = self._first(scaled, near)
            wanted = self._to_open(scaled, best, found)
            wanted[near, np.arange(len(near))] = False
            heavy = np.flatnonzero(wanted.sum(axis=0, dtype=np.int32) > _DENSE * len(wanted))
            if len(heavy):
                wanted[:, heavy] = self._by_product(scaled[heavy])
        for patch in np.flatnonzero(wanted.any(axis=1)).tolist():
            rows = np.flatnonzero(wanted[patch])
            scores, ids = self._score(scaled[rows], patch)
            held = best[rows]
            better = (scores > held) | ((scores == held) & (ids < found[rows]))
            best[rows[better]] = scores[better]
            found[rows[better]] = ids[better]
        return found

    def _score(self, scaled: Doubles, patch: int) -> tuple[Doubles, Indices]:
        """The best score s (q.v - |v|^2 / 2) in a patch, and its vertex, in float64."""
        scores = scaled @ self._patches[patch]
        at = scores.argmax(axis=1)
        return scores[np.arange(len(at)), at], self._ids[patch][at]

    def _first(self, scaled: Doubles, near: npt.NDArray[np.integer]) -> tuple[Doubles, Indices]:
        """The best score and its vertex in the patch to begin with; `near` is sorted."""
        best, found = np.empty(len(near)), np.empty(len(near), np.int64)
        starts = np.flatnonzero(np.diff(near.astype(np.int64), prepend=-1))
        ends = np.append(starts[1:], len(near))
        for start, end, patch in zip(starts.tolist(), ends.tolist(), near[starts].tolist(), strict=True):
            best[start:end], found[start:end] = self._score(scaled[start:end], patch)
        return best, found

    def _to_open(self, scaled: Doubles, best: Doubles, found: Indices) -> Mask:
        """Which patches may hold a nearer vertex than the best so far, (patches, Q).

        A patch with centre c and radius r holds nothing nearer than b if |q - c| - r >= b. Squared, with |q - c| taken
        apart, that is a sum of products of what belongs to the query and what belongs to the patch: a matrix product.
        """
        queries, factors = scaled[:, :-1], scaled[:, -1]
        squares = _squares(queries)
        # Scaling a query moves vertices of unequal norm against each other by this much at most.
        moved = self._spread * np.abs(1 - factors)
        reach = np.maximum(squares - 2 * best + self._squares[found] * (1 - factors), 0) + moved
        radius = np.sqrt(reach)
        margin = self._rounding * ((np.sqrt(squares) + 1) ** 2 + (radius + self._largest) ** 2)
        rows = np.empty((self.channels + 3, len(scaled)), np.float32)
        rows[:-3] = queries.T
        rows[-3], rows[-2], rows[-1] = radius, squares - reach - margin, 1
        wanted = np.empty((len(self._bounds), len(scaled)), np.bool_)
        for at in range(0, len(scaled), _TILE):
            np.less(self._bounds @ rows[:, at : at + _TILE], 0, out=wanted[:, at : at + _TILE])
        return wanted

    def _by_product(self, scaled: Doubles) -> Mask:
        """Which patches hold the best score of all vertices, or one within rounding of it, (patches, Q)."""
        queries = scaled.astype(np.float32)
        wanted = np.empty((len(self._ids), len(scaled)), np.bool_)
        for at in range(0, len(scaled), _TILE):
            tile = queries[at : at + _TILE]
            highest = tile @ self._product[0]
            scores = np.empty_like(highest)
            # One vertex of every patch at a time: the running maximum stays in the cache.
            for vertices in self._product[1:]:
                np.maximum(highest, np.matmul(tile, vertices, out=scores), out=highest)
            sizes = np.sqrt((tile[:, :-1] ** 2).sum(axis=1)) + tile[:, -1]
            lowest = highest.max(axis=1) - self._rounding * sizes
            wanted[:, at : at + _TILE] = (highest >= lowest[:, None]).T
        return wanted


def _split(vertices: Doubles, depth: int) -> list[Indices]:
    """2 ** depth patches of equal size (+-1), each half of a larger one cut across its longest direction."""
    patches = [np.arange(len(vertices))]
    for _ in range(depth):
        halves: list[Indices] = []
        for ids in patches:
            inside = vertices[ids] - vertices[ids].mean(axis=0)
            along = inside @ np.linalg.eigh(inside.T @ inside)[1][:, -1]
            middle = (len(ids) + 1) // 2
            cut = np.argpartition(along, middle - 1)
            halves += [ids[cut[:middle]], ids[cut[middle:]]]
        patches = halves
    return patches


def _squares(rows: Doubles) -> Doubles:
    """Squared norm of every row, (N,)."""
    return np.asarray(np.einsum("nd,nd->n", rows, rows), np.float64)


def _check_finite(queries: Embeddings) -> None:
    if not np.isfinite(queries).all():
        raise DetectionError("an embedding of a body pixel is not finite: the detector's answer cannot be used")


def _check(name: str, array: npt.NDArray[Any], dtype: type[np.generic], dimensions: int) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != dimensions:
        given = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise TensorError(f"{name}: given {given}, expected {np.dtype(dtype).name} in {dimensions} dimensions")

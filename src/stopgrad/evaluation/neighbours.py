"""Nearest neighbours and a 2-D map of an embedding, for pictures that people look at.

Shapes: N images, D embedding width, Q queries, k neighbours, n points of the map.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

PCA_WIDTH = (
    50  # t-SNE's distances are taken in this many leading directions (van der Maaten & Hinton 2008, sec. 4)
)
PERPLEXITY = 30.0
LEAST_FOR_TSNE = 8  # fewer points have no neighbourhoods to keep


@dataclass(frozen=True)
class EmbeddingMap:
    """A 2-D map: which images it shows, where they lie, and by which method.

    Attributes:
        index: (n,) row numbers of the images in the embedding, ascending.
        points: (n, 2) float32 positions; they have no unit.
        method: ``"t-SNE"``, or ``"PCA"`` where t-SNE has nothing to work with.
    """

    index: Ints
    points: Floats
    method: str


def normalised(vectors: Floats) -> Floats:
    """Rows of (N, D) at unit length, float64; a zero row stays zero, one with NaN or inf becomes NaN."""
    rows = np.asarray(vectors, dtype=np.float64)
    rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, np.nan)
    # the largest entry first, so that the squares of huge or tiny rows stay in range
    rows = rows / _nonzero(np.abs(rows).max(axis=1, keepdims=True, initial=0.0))
    return rows / _nonzero(np.linalg.norm(rows, axis=1, keepdims=True))


def _nonzero(scale: Floats) -> Floats:
    return np.where(scale == 0, 1.0, scale)


def nearest_neighbours(vectors: Floats, queries: Ints, k: int) -> tuple[Ints, Floats]:
    """The k rows most alike in cosine to each query row, the query itself left out.

    Rows that are not finite are nobody's neighbour, and equally near rows come in row order. Where fewer
    than k others are finite, k shrinks to their number.

    Args:
        vectors: (N, D).
        queries: (Q,) row numbers of finite rows.
        k: neighbours asked for.

    Returns:
        (Q, k) row numbers, nearest first, and (Q, k) cosine similarities in [-1, 1].
    """
    unit = normalised(vectors)
    similarity = unit[queries] @ unit.T
    similarity = np.where(np.isfinite(similarity), np.clip(similarity, -1.0, 1.0), -np.inf)
    similarity[np.arange(len(queries)), queries] = -np.inf
    k = max(0, min(k, int(np.isfinite(unit).all(axis=1).sum()) - 1))
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return order.astype(np.int64), np.take_along_axis(similarity, order, axis=1)


def spread_queries(vectors: Floats, labels: Ints | None, count: int) -> Ints:
    """At most `count` row numbers to show, taken in turn from every class, or evenly where none is known.

    Only finite rows are taken. With labels (N,), negative ones meaning unknown, the classes differ by at
    most one pick while their images last; the result is ordered by class.
    """
    rows = np.flatnonzero(np.isfinite(vectors).all(axis=1)).astype(np.int64)
    count = min(count, len(rows))
    if count == 0:
        return rows[:0]
    if labels is None:
        return rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]
    own = np.asarray(labels)[rows]
    turn = np.empty(len(rows), dtype=np.int64)  # the how-manieth of its class a row is
    for label in np.unique(own):
        members = np.flatnonzero(own == label)
        turn[members] = np.arange(len(members))
    picked = np.lexsort((own, turn))[:count]
    return rows[picked[np.lexsort((turn[picked], own[picked]))]]


def embedding_map(vectors: Floats, limit: int = 1000, seed: int = 0) -> EmbeddingMap:
    """A map of at most `limit` unit-length rows of (N, D): PCA, then t-SNE, the same for the same seed.

    Rows that are not finite are left out. A map of fewer than eight points, or of points that all
    coincide (a collapsed embedding), is the plain PCA: t-SNE would have nothing to keep.
    """
    unit = normalised(vectors)
    index = np.flatnonzero(np.isfinite(unit).all(axis=1)).astype(np.int64)
    if len(index) > limit:
        index = np.sort(np.random.default_rng(seed).choice(index, limit, replace=False))
    rows = unit[index]
    if len(rows) == 0 or np.ptp(rows, axis=0).max(initial=0.0) < 1e-7:
        return EmbeddingMap(index, np.zeros((len(rows), 2), dtype=np.float32), "PCA")
    width = min(PCA_WIDTH, *rows.shape)
    leading = PCA(width, svd_solver="full").fit_transform(rows)
    if len(rows) < LEAST_FOR_TSNE or width < 2:
        points = np.pad(leading[:, :2], ((0, 0), (0, max(0, 2 - width))))
        return EmbeddingMap(index, points.astype(np.float32), "PCA")
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed, n_jobs=1)
    return EmbeddingMap(index, tsne.fit_transform(leading).astype(np.float32), "t-SNE")

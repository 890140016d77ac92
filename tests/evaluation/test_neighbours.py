import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import NearestNeighbors

from stopgrad.evaluation.neighbours import embedding_map, nearest_neighbours, normalised, spread_queries


def clusters(count=90, width=12, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return (6 * rng.normal(size=(classes, width))[labels] + rng.normal(size=(count, width))), labels


def test_neighbours_equal_scikit_learn():
    vectors = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    queries = np.array([0, 3, 199])
    index, similarity = nearest_neighbours(vectors, queries, 8)
    distance, expected = (
        NearestNeighbors(n_neighbors=9, metric="cosine").fit(vectors).kneighbors(vectors[queries])
    )
    assert np.array_equal(index, expected[:, 1:])  # the first of scikit-learn's is the query
    np.testing.assert_allclose(similarity, 1 - distance[:, 1:], atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, (7, 3), elements=st.floats(-(2.0**100), 2.0**100, width=32)),
    st.integers(0, 6),
    st.integers(1, 9),
)
def test_neighbours_are_the_best_others_whatever_the_vectors(vectors, query, k):
    index, similarity = nearest_neighbours(vectors, np.array([query]), k)
    assert index.shape == similarity.shape == (1, min(k, 6))
    assert query not in index
    unit = normalised(vectors)
    cosines = np.delete(unit @ unit[query], query)
    np.testing.assert_allclose(similarity[0], np.sort(cosines)[::-1][:k], atol=1e-6)
    assert (np.abs(similarity) <= 1).all()


def test_similarity_ignores_the_length_of_vectors():
    vectors = np.random.default_rng(1).normal(size=(20, 4))
    scales = 10.0 ** np.random.default_rng(2).uniform(-250, 250, (20, 1))
    queries = np.arange(20)
    index, similarity = nearest_neighbours(vectors, queries, 5)
    scaled_index, scaled_similarity = nearest_neighbours(vectors * scales, queries, 5)
    assert np.array_equal(index, scaled_index)
    np.testing.assert_allclose(similarity, scaled_similarity)


def test_rows_that_are_not_finite_are_nobodys_neighbour():
    vectors = np.random.default_rng(3).normal(size=(6, 4))
    vectors[1], vectors[4, 0] = np.nan, np.inf
    index, similarity = nearest_neighbours(vectors, np.array([0, 5]), 8)
    assert sorted(index[0]) == [2, 3, 5]
    assert sorted(index[1]) == [0, 2, 3]
    assert np.isfinite(similarity).all()


def test_equally_near_rows_come_in_row_order():
    index, similarity = nearest_neighbours(np.tile(np.eye(3), (100, 1)), np.array([3]), 150)
    alike, others = [i for i in range(0, 300, 3) if i != 3], [i for i in range(300) if i % 3]
    assert index[0].tolist() == (alike + others)[:150]
    assert similarity[0].tolist() == [1.0] * 99 + [0.0] * 51


def test_queries_are_spread_over_classes():
    labels = np.array([0] * 50 + [1] * 3 + [2] * 50)
    picked = spread_queries(np.zeros((103, 2)), labels, 12)
    assert len(set(picked.tolist())) == 12
    assert np.bincount(labels[picked]).tolist() == [5, 3, 4]  # class 1 has no more
    assert (np.diff(labels[picked]) >= 0).all()


def test_queries_without_labels_are_spread_evenly_over_finite_rows():
    vectors = np.zeros((101, 2))
    assert spread_queries(vectors, None, 5).tolist() == [0, 25, 50, 75, 100]
    vectors[0] = np.nan
    assert spread_queries(vectors, None, 5)[0] == 1
    assert len(spread_queries(np.full((4, 2), np.nan), None, 5)) == 0
    assert len(spread_queries(np.zeros((3, 2)), np.arange(3), 12)) == 3


def test_map_is_repeatable_and_keeps_clusters_together():
    vectors, labels = clusters()
    first, second = embedding_map(vectors), embedding_map(vectors)
    assert first.method == "t-SNE"
    assert first.points.shape == (90, 2)
    assert np.array_equal(first.points, second.points)
    _, nearest = NearestNeighbors(n_neighbors=6).fit(first.points).kneighbors(first.points)
    assert (labels[nearest[:, 1:]] == labels[:, None]).mean() > 0.95


def test_map_takes_a_seeded_sample_of_many_rows():
    vectors, _ = clusters(count=300)
    small, again, other = (embedding_map(vectors, limit=40, seed=seed) for seed in (0, 0, 1))
    assert small.points.shape == (40, 2)
    assert len(np.unique(small.index)) == 40
    assert (np.diff(small.index) > 0).all()
    assert np.array_equal(small.index, again.index)
    assert not np.array_equal(small.index, other.index)


def test_map_leaves_out_rows_that_are_not_finite():
    vectors, _ = clusters(count=30)
    vectors[[2, 7]] = np.nan
    drawn = embedding_map(vectors)
    assert drawn.index.tolist() == [i for i in range(30) if i not in (2, 7)]
    assert np.isfinite(drawn.points).all()


@pytest.mark.parametrize(
    ("vectors", "count"),
    [
        (np.ones((20, 5)), 20),
        (np.zeros((20, 5)), 20),
        (np.full((20, 5), np.nan), 0),
        (np.random.default_rng(0).normal(size=(5, 3)), 5),
        (np.random.default_rng(0).normal(size=(1, 3)), 1),
        (np.random.default_rng(0).normal(size=(20, 1)), 20),
    ],
    ids=["collapsed", "zero", "diverged", "few", "one", "one dimension"],
)
def test_map_of_hardly_anything_is_plain_and_finite(vectors, count):
    drawn = embedding_map(vectors)
    assert drawn.method == "PCA"
    assert drawn.points.shape == (count, 2)
    assert np.isfinite(drawn.points).all()

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from stopgrad.errors import UsageError
from stopgrad.evaluation import knn
from stopgrad.evaluation.knn import knn_accuracy, knn_predict


def drawn(seed, queries=40, bank=150, width=8, classes=4):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(queries, width, generator=generator),
        torch.randn(bank, width, generator=generator),
        torch.randint(classes, (bank,), generator=generator),
    )


def by_hand(queries, bank, labels, classes, k, temperature):
    """The definition, one pair at a time."""
    predictions = []
    for query in queries.double():
        pairs = [
            (float(query @ image / (query.norm() * image.norm())), int(label))
            for image, label in zip(bank.double(), labels, strict=True)
        ]
        votes = [0.0] * classes
        for similarity, label in sorted(pairs, reverse=True)[:k]:
            votes[label] += math.exp(similarity / temperature)
        predictions.append(max(range(classes), key=votes.__getitem__))
    return torch.tensor(predictions)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.5), (150, 0.1)])
def test_is_the_definition(k, temperature):
    queries, bank, labels = drawn(0)
    expected = by_hand(queries, bank, labels, 4, k, temperature)
    assert torch.equal(knn_predict(queries, bank, labels, 4, k, temperature), expected)


@pytest.mark.parametrize("k", [1, 7, 20])
def test_without_weights_is_sklearns(k):
    queries, bank, labels = drawn(1)
    peer = KNeighborsClassifier(k, metric="cosine").fit(bank.numpy(), labels.numpy())
    expected = torch.from_numpy(peer.predict(queries.numpy()))
    assert torch.equal(knn_predict(queries, bank, labels, 4, k, math.inf), expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 9), st.integers(0, 2**31))
def test_how_the_work_is_cut_does_not_matter(queries_at_once, bank_at_once, group, seed):
    # whole numbers: many equal similarities, on which cuts and devices like to disagree
    queries, bank, labels = drawn(seed, queries=20, bank=50, width=2)
    queries, bank = queries.round(), bank.round()
    whole = knn_predict(queries, bank, labels, 4, k=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "GROUP", group)
        patch.setattr(knn, "QUERIES_AT_ONCE", queries_at_once)
        patch.setattr(knn, "BANK_AT_ONCE", bank_at_once)
        assert torch.equal(knn_predict(queries, bank, labels, 4, k=7), whole)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**31))
def test_the_candidates_hold_the_nearest_the_first_of_equal_ones(width, group, k, seed):
    similarities = torch.randint(4, (5, width), generator=torch.Generator().manual_seed(seed)) / 4
    k = min(k, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "GROUP", group)
        values, columns = knn._candidates(similarities, k)
    for row, own, places in zip(similarities, values, columns.expand(len(values), -1), strict=True):
        assert torch.equal(row[places], own)
        nearest = sorted(range(width), key=lambda i, row=row: (-row[i], i))[:k]
        assert set(nearest) <= set(places.tolist())


def test_equal_neighbours_count_in_bank_order_and_equal_votes_go_to_the_lowest_class():
    bank = torch.ones(4, 3)
    query = torch.ones(1, 3)
    assert knn_predict(query, bank, torch.tensor([2, 1, 0, 0]), 3, k=1).item() == 2
    assert knn_predict(query, bank, torch.tensor([2, 1, 0, 0]), 3, k=2).item() == 1


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20, unique=True), st.integers(0, 2**31 - 100)
)
def test_keys_order_as_similarities_and_come_back(similarities, first):
    values = torch.tensor([similarities])
    keys = knn._pack(values, torch.arange(first, first + len(similarities)))
    assert torch.equal(keys.argsort(descending=True), values.argsort(descending=True))
    back, index = knn._unpack(keys)
    assert torch.equal(back, values)
    assert index.tolist() == [list(range(first, first + len(similarities)))]


def test_scale_of_vectors_does_not_matter():
    queries, bank, labels = drawn(2)
    scales = 2.0 ** torch.randint(-20, 20, (150, 1))
    expected = knn_predict(queries, bank, labels, 4)
    assert torch.equal(knn_predict(queries * 1024, bank * scales, labels, 4), expected)


def test_a_cold_vote_is_the_nearest_image_and_does_not_overflow():
    queries, bank, labels = drawn(3)
    nearest = knn_predict(queries, bank, labels, 4, k=1)
    assert torch.equal(knn_predict(queries, bank, labels, 4, k=50, temperature=1e-6), nearest)


def test_accuracy_counts_hits():
    _, bank, labels = drawn(4)
    assert knn_accuracy(bank, labels, bank, labels, 4, k=1) == 1.0
    wrong = labels.clone()
    wrong[:30] = (wrong[:30] + 1) % 4
    assert knn_accuracy(bank, wrong, bank, labels, 4, k=1) == pytest.approx(120 / 150)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"k": 151}, r"k = 151 is not in \[1, 150\]"),
        ({"k": 0}, "k = 0"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"labels": None}, "no labels"),
        ({"labels": torch.zeros(149, dtype=torch.int64)}, "expected 150 labels"),
        ({"labels": torch.full((150,), 4)}, "not below the 4 classes"),
        ({"labels": torch.full((150,), -1)}, "negative"),
        ({"bank": torch.zeros(150, 7)}, "8 features, the bank has 7"),
        ({"bank": torch.full((150, 8), math.nan)}, "NaN"),
        ({"queries": torch.zeros(8)}, "shape"),
    ],
)
def test_bad_input_is_named_in_one_line(change, says):
    queries, bank, labels = drawn(5)
    arguments = {"queries": queries, "bank": bank, "labels": labels, "classes": 4, **change}
    with pytest.raises(UsageError, match=says) as error:
        knn_predict(**arguments)
    assert "\n" not in str(error.value)

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stopgrad.data.sources import DataSettings, load_dataset
from stopgrad.errors import UsageError
from stopgrad.evaluation import linear
from stopgrad.evaluation.linear import GRID, few_labels, linear_probe


def clusters(count, distance, seed, classes=4, width=10):
    """Unit Gaussians around fixed class means; features of very different scale."""
    centres = distance * torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    features = centres[labels] + torch.randn(count, width, generator=generator)
    return features * torch.logspace(-2, 2, width) + 5.0, labels


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_separable_data_is_solved(standardise, given):
    validation = clusters(100, 20.0, 2) if given else None
    result = linear_probe(*clusters(200, 20.0, 0), *clusters(200, 20.0, 1), validation, standardise)
    assert result.accuracy == result.validation_accuracy == 1.0


def test_permuted_labels_give_chance():
    """With more features than images any labels can be fitted: only unseen images tell."""
    labels = torch.arange(200) % 4
    shuffled = labels[torch.randperm(200, generator=torch.Generator().manual_seed(3))]
    noise = torch.randn(200, 300, generator=torch.Generator().manual_seed(4))
    fitted = LogisticRegression(C=GRID[-1], max_iter=1000).fit(noise.numpy(), shuffled.numpy())
    assert fitted.score(noise.numpy(), shuffled.numpy()) == 1.0
    unseen = torch.randn(1000, 300, generator=torch.Generator().manual_seed(5)), torch.arange(1000) % 4
    result = linear_probe(noise, shuffled, *unseen)
    assert result.accuracy == pytest.approx(0.25, abs=0.07)
    assert result.validation_accuracy < 0.5


@pytest.mark.parametrize("standardise", [True, False])
def test_the_model_is_plain_sklearns(standardise):
    """C as reported, in a plain pipeline on the features as given, predicts alike."""
    (train, labels), (test, test_labels) = clusters(400, 0.4, 0), clusters(1000, 0.4, 1)
    result = linear_probe(train, labels, test, test_labels, clusters(300, 0.4, 2), standardise)
    plain = LogisticRegression(C=result.c, max_iter=20_000, tol=1e-8)
    peer = make_pipeline(StandardScaler(), plain) if standardise else plain
    peer.fit(train.double().numpy(), labels.numpy())
    expected = peer.score(test.double().numpy(), test_labels.numpy())
    assert 0.4 < result.accuracy < 0.95
    assert result.accuracy == pytest.approx(expected, abs=0.004)


@pytest.fixture(scope="module")
def digits():
    """Random features of the bundled digits: training, validation and test part, with labels."""
    dataset = load_dataset(DataSettings())
    weights = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
    parts = ((dataset.probe, 1000), (dataset.val, 500), (dataset.test, 1024))
    return [
        ((part.images[:count].flatten(1) / 255 - 0.5).matmul(weights).relu(), part.labels[:count])
        for part, count in parts
    ]


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("classes", [10, 2])
def test_float32_in_parts_is_sklearns_model_too(kept, classes, digits, monkeypatch):
    """Within 0.2 points, whether the parts are kept or made anew each time."""
    (train, labels), val, test = ((x, y % classes) for x, y in digits)
    monkeypatch.setattr(linear, "DOUBLE_UP_TO", train.numel() - 1 if kept else 0)
    monkeypatch.setattr(linear, "SCORES_AT_ONCE", 170 * classes)
    monkeypatch.setattr(linear, "GRID", (0.001, 0.01, 0.1))
    result = linear_probe(train, labels, *test, val)
    peer = make_pipeline(StandardScaler(), LogisticRegression(C=result.c, max_iter=500))
    peer.fit(train.double().numpy(), labels.numpy())
    expected = peer.score(test[0].double().numpy(), test[1].numpy())
    assert 1.2 / classes < result.accuracy < 0.98
    assert result.accuracy == pytest.approx(expected, abs=0.002)


def test_the_gradient_in_parts_is_autograds(digits):
    (train, labels), _, _ = digits
    part = linear._Part(train[:50], labels[:50])
    mean, scale = linear._moments(part.features, True)
    rows = linear._Rows(part, mean, scale, 10, torch.device("cpu"), torch.float64)
    weights = torch.randn(10, 65, dtype=torch.float64, requires_grad=True)
    x = (part.features - mean) / scale
    scores = x @ weights[:, :-1].T + weights[:, -1]
    expected = torch.nn.functional.cross_entropy(scores, part.labels, reduction="sum")
    expected.backward()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "SCORES_AT_ONCE", 70)
        loss, gradient = linear._loss(rows, weights.detach())
    assert loss == pytest.approx(float(expected.detach()), rel=1e-12)
    torch.testing.assert_close(gradient, weights.grad, rtol=1e-10, atol=1e-10)


def test_c_is_the_best_on_validation():
    (train, labels), (held, held_labels) = clusters(60, 0.7, 0, width=30), clusters(500, 0.7, 2, width=30)
    result = linear_probe(train, labels, *clusters(50, 0.7, 1, width=30), (held, held_labels))
    scaler = StandardScaler().fit(train.numpy())
    scores = [
        LogisticRegression(C=c, max_iter=5000)
        .fit(scaler.transform(train.numpy()), labels.numpy())
        .score(scaler.transform(held.numpy()), held_labels.numpy())
        for c in GRID
    ]
    assert max(scores) - min(scores) > 0.02  # else any C would do
    assert result.validation_accuracy == pytest.approx(max(scores), abs=0.004)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.booleans())
def test_the_test_part_chooses_nothing(seed, given, standardise):
    train = clusters(80, 0.7, 0)
    validation = clusters(60, 0.7, 1) if given else None
    one = linear_probe(*train, *clusters(30, 0.7, 2), validation, standardise)
    generator = torch.Generator().manual_seed(seed)
    noise = 100 * torch.randn(30, 10, generator=generator), torch.randint(4, (30,), generator=generator)
    other = linear_probe(*train, *noise, validation, standardise)
    assert (one.c, one.validation_accuracy) == (other.c, other.validation_accuracy)


def test_one_common_scale_changes_nothing_but_c():
    (train, labels), (test, test_labels) = clusters(200, 0.7, 0), clusters(200, 0.7, 1)
    one = linear_probe(train, labels, test, test_labels, standardise=False)
    other = linear_probe(train * 1024, labels, test * 1024, test_labels, standardise=False)
    assert other.accuracy == one.accuracy
    assert other.c == pytest.approx(one.c / 1024**2)


def test_constant_features_are_no_obstacle():
    (train, labels), (test, test_labels) = clusters(200, 20.0, 0), clusters(200, 20.0, 1)
    constant = torch.full((200, 3), 0.1)
    result = linear_probe(
        torch.cat([train, constant], 1), labels, torch.cat([test, constant + 1e-6], 1), test_labels
    )
    assert result.accuracy == 1.0
    collapsed = torch.full((200, 5), 0.3)
    result = linear_probe(collapsed, labels, collapsed, test_labels)
    assert result.accuracy == pytest.approx(0.25, abs=0.12)


def test_two_classes_and_a_class_of_one_image():
    train, labels = clusters(100, 20.0, 0, classes=2)
    assert linear_probe(train, labels, *clusters(50, 20.0, 1, classes=2)).accuracy == 1.0
    lonely = torch.cat([labels, torch.tensor([2])])
    result = linear_probe(torch.cat([train, train[:1] * 9]), lonely, *clusters(50, 20.0, 1, classes=2))
    assert result.accuracy > 0.9


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"train_labels": None}, "training part: there are no labels"),
        ({"test_labels": None}, "test part: there are no labels"),
        ({"train_labels": torch.zeros(40, dtype=torch.int64)}, "one class"),
        ({"train_labels": torch.arange(40)}, "one label a class"),
        ({"train": torch.full((40, 10), torch.nan)}, "40 of 40 vectors hold NaN"),
        ({"test": torch.full((40, 10), torch.inf)}, "test part: 40 of 40"),
        ({"test": torch.zeros(40, 9)}, "9 features against 10"),
        ({"validation": (torch.zeros(5, 9), torch.zeros(5, dtype=torch.int64))}, "9 features against 10"),
        ({"validation": (torch.zeros(5, 10), torch.zeros(5))}, "integers"),
    ],
)
def test_bad_input_is_named_in_one_line(change, says):
    features, labels = clusters(40, 1.0, 0)
    arguments = {"train": features, "train_labels": labels, "test": features, "test_labels": labels, **change}
    with pytest.raises(UsageError, match=says) as error:
        linear_probe(**arguments)
    assert "\n" not in str(error.value)


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 12), st.integers(0, 2**31))
def test_few_labels_takes_so_many_of_each_class(labels, per_class, seed):
    known = torch.tensor(labels, dtype=torch.int64)
    chosen = few_labels(known, per_class, seed)
    assert torch.equal(chosen, chosen.unique())
    for label in set(labels):
        assert int((known[chosen] == label).sum()) == min(per_class, labels.count(label))
    assert torch.equal(chosen, few_labels(known, per_class, seed))


def test_few_labels_draws_by_seed_and_evenly():
    labels = torch.arange(10).repeat(10)
    draws = [few_labels(labels, 2, seed) for seed in range(500)]
    times = torch.bincount(torch.cat(draws), minlength=100)
    assert times.float().mean() == 100
    assert times.min() > 60  # binomial, 500 draws of p = 0.2: standard deviation 9
    assert times.max() < 140


def test_few_labels_needs_labels():
    with pytest.raises(UsageError, match="no labels"):
        few_labels(None, 20, 0)
    with pytest.raises(UsageError, match="below 1"):
        few_labels(torch.zeros(3, dtype=torch.int64), 0, 0)

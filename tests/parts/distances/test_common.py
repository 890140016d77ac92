"""What every distance keeps. A row of `ROWS` enrols one, with its value by plain loops.

Legend: q, k rows as lists of floats, row i of both from image i.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from stopgrad.errors import UsageError
from stopgrad.parts.distances import (
    DISTANCES,
    BarlowTwins,
    Cosine,
    CrossEntropy,
    Decorrelation,
    Distance,
    DistanceSettings,
    Euclidean,
    InfoNce,
    NtXent,
    SimpleContrastive,
    SquaredL2,
    StandardisedMse,
    Triplet,
    VicReg,
    WhitenedMse,
)

SETTINGS = TypeAdapter(DistanceSettings)


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def l2(rows):
    return [[x / math.hypot(*row) for x in row] for row in rows]


def columns(rows):
    return [list(column) for column in zip(*rows, strict=True)]


def centred(column):
    return [x - mean(column) for x in column]


def standard(column):
    c = centred(column)
    return [x / math.sqrt(dot(c, c) / len(c) + 1e-5) for x in c]


def cov(rows):
    c = [centred(column) for column in columns(rows)]
    return [[dot(a, b) / (len(rows) - 1) for b in c] for a in c]


def off(matrix):
    return sum(x * x for i, row in enumerate(matrix) for j, x in enumerate(row) if i != j)


def square(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def softmax(row, temperature):
    exponents = [math.exp(x / temperature) for x in row]
    return [e / sum(exponents) for e in exponents]


def pairs(function, q, k):
    return mean(function(a, b) for a, b in zip(q, k, strict=True))


def loop_cosine(q, k):
    return -pairs(dot, l2(q), l2(k))


def loop_infonce(q, k, temperature=0.2):
    q, k = l2(q), l2(k)
    return -mean(math.log(softmax([dot(a, b) for b in k], temperature)[i]) for i, a in enumerate(q))


def loop_nt_xent(q, k, temperature=0.5):
    rows, count, total = l2(q) + l2(k), len(q), 0.0
    for i, anchor in enumerate(rows):
        e = [math.exp(dot(anchor, other) / temperature) for other in rows]
        total -= math.log(e[(i + count) % (2 * count)] / (sum(e) - e[i]))
    return total / (2 * count)


def loop_triplet(q, k):
    q, k = l2(q), l2(k)
    return mean(dot(a, k[(i - 1) % len(k)]) - dot(a, k[i]) for i, a in enumerate(q))


def loop_simple(q, k):
    q, k = l2(q), l2(k)
    return mean(mean(dot(a, n) for j, n in enumerate(k) if j != i) - dot(a, k[i]) for i, a in enumerate(q))


def loop_decorrelation(prepare):
    def loss(q, k):
        return mean(off(cov(prepare(x))) / len(x[0]) for x in (q, k))

    return loss


def loop_barlow(weight):
    def loss(q, k):
        a, b = ([standard(column) for column in columns(x)] for x in (q, k))
        c = [[dot(u, v) / len(q) for v in b] for u in a]
        return sum((1 - c[i][i]) ** 2 for i in range(len(c))) + weight * off(c)

    return loss


def loop_vicreg(invariance, variance, covariance, gamma, eps):
    def hinge(x):
        c = cov(x)
        return mean(max(0.0, gamma - math.sqrt(c[i][i] + eps)) for i in range(len(c)))

    def loss(q, k):
        width = len(q[0])
        return (
            invariance * pairs(square, q, k) / width
            + variance * (hinge(q) + hinge(k)) / 2
            + covariance * (off(cov(q)) + off(cov(k))) / width
        )

    return loss


def whiten(rows, eps):
    c, width = cov(rows), len(rows[0])
    c = [[(1 - eps) * c[i][j] + eps * (i == j) for j in range(width)] for i in range(width)]
    factor = [[0.0] * width for _ in range(width)]
    for i in range(width):
        for j in range(i + 1):
            rest = c[i][j] - dot(factor[i][:j], factor[j][:j])
            factor[i][j] = math.sqrt(rest) if i == j else rest / factor[j][j]
    out = []
    for row in columns([centred(column) for column in columns(rows)]):
        solved = []
        for i in range(width):
            solved.append((row[i] - dot(factor[i][:i], solved)) / factor[i][i])
        out.append(solved)
    return out


def loop_wmse(rows, eps):
    def loss(q, k):
        total = 0.0
        for start in range(0, len(q), rows):
            a, b = (l2(whiten(x[start : start + rows], eps)) for x in (q, k))
            total += sum(square(u, v) for u, v in zip(a, b, strict=True))
        return total / len(q)

    return loss


def loop_standardised(q, k):
    width = len(q[0])
    q, k = ([[x * math.sqrt(width) for x in row] for row in l2(x)] for x in (q, k))
    q, k = (columns([standard(column) for column in columns(x)]) for x in (q, k))
    return pairs(square, q, k) / (2 * width)


def loop_cross_entropy(own, teacher):
    def one(a, b):
        wanted, found = softmax(b, teacher), softmax(a, own)
        return -sum(w * math.log(f) for w, f in zip(wanted, found, strict=True))

    return lambda q, k: pairs(one, q, k)


@dataclass(frozen=True)
class Row:
    """A distance and its value by loops; ``permutes`` whether any order of the images gives the same."""

    distance: Distance
    loop: Callable[[list[list[float]], list[list[float]]], float]
    permutes: bool = True

    def __str__(self) -> str:
        changed = self.distance.model_dump(exclude_defaults=True)
        return " ".join([self.distance.kind, *(f"{name}={value}" for name, value in changed.items())])


ROWS = [
    Row(Cosine(), loop_cosine),
    Row(SquaredL2(), lambda q, k: pairs(square, l2(q), l2(k))),
    Row(Euclidean(), lambda q, k: pairs(square, q, k) / 2),
    Row(CrossEntropy(), loop_cross_entropy(0.1, 0.04)),
    Row(CrossEntropy(temperature=0.7, teacher_temperature=2), loop_cross_entropy(0.7, 2)),
    Row(InfoNce(), loop_infonce),
    Row(InfoNce(temperature=3), lambda q, k: loop_infonce(q, k, 3)),
    Row(NtXent(), loop_nt_xent),
    Row(NtXent(temperature=0.1), lambda q, k: loop_nt_xent(q, k, 0.1)),
    Row(Triplet(), loop_triplet, permutes=False),
    Row(SimpleContrastive(), loop_simple),
    Row(Decorrelation(), loop_decorrelation(lambda x: columns([standard(c) for c in columns(x)]))),
    Row(Decorrelation(normalise="l2"), loop_decorrelation(l2)),
    Row(BarlowTwins(), loop_barlow(5e-3)),
    Row(BarlowTwins(redundancy=0.7), loop_barlow(0.7)),
    Row(VicReg(), loop_vicreg(25, 25, 1, 1, 1e-4)),
    Row(
        VicReg(invariance=2, variance=3, covariance=4, gamma=2.5, eps=0.1), loop_vicreg(2, 3, 4, 2.5, 0.1)
    ),
    Row(WhitenedMse(), loop_wmse(12, 1e-4)),
    Row(WhitenedMse(slice=6, eps=0.3), loop_wmse(6, 0.3), permutes=False),
    Row(StandardisedMse(), loop_standardised),
]  # fmt: skip

every = pytest.mark.parametrize("row", ROWS, ids=str)


def seeds(test):
    return settings(max_examples=15)(given(seed=st.integers(0, 2**31))(test))


def rows_of(seed: int, count: int = 12, width: int = 3, dtype: torch.dtype = torch.float64):
    """A query and a key that agree in part, off the origin."""
    generator = torch.Generator().manual_seed(seed)
    shared, q, k = (torch.randn(count, width, dtype=dtype, generator=generator) for _ in range(3))
    return shared + 0.5 * q + 0.3, shared + 0.5 * k - 0.2


def test_every_kind_is_enrolled():
    assert {row.distance.kind for row in ROWS} == set(DISTANCES)


@every
@seeds
def test_its_value_is_that_of_loops(row, seed):
    q, k = rows_of(seed)
    assert row.distance(q, k).item() == pytest.approx(row.loop(q.tolist(), k.tolist()), rel=1e-9, abs=1e-12)


@every
@pytest.mark.parametrize("seed", [0, 1])
def test_its_gradients_are_finite_differences(row, seed):
    q, k = rows_of(seed)
    assert torch.autograd.gradcheck(row.distance, (q.requires_grad_(), k.requires_grad_()))


@every
def test_settings_make_the_round_trip(row):
    text = SETTINGS.dump_json(row.distance)
    again = SETTINGS.validate_json(text)
    assert again == row.distance
    assert type(again) is type(row.distance)
    assert text.startswith(b'{"kind":')


@pytest.mark.parametrize("kind", DISTANCES)
def test_a_bare_name_is_its_defaults(kind):
    assert SETTINGS.validate_python(kind) == DISTANCES[kind]()


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("infonce", "temperature", 0), ("nt-xent", "temperature", -1), ("decorrelation", "normalise", "rows"),
        ("barlow-twins", "redundancy", -1e-3), ("vicreg", "invariance", -1), ("vicreg", "variance", -1),
        ("vicreg", "covariance", -1), ("vicreg", "gamma", 0), ("vicreg", "eps", 0), ("wmse", "slice", 1),
        ("wmse", "eps", 1), ("wmse", "eps", -1e-3), ("cross-entropy", "temperature", 0),
        ("cross-entropy", "teacher_temperature", float("nan")), ("triplet", "margin", 1),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(kind, field, value):
    with pytest.raises(ValidationError) as error:
        SETTINGS.validate_python({"kind": kind, field: value})
    assert [e["loc"][-1] for e in error.value.errors()] == [field]


def test_formulas_differ_and_are_one_line():
    formulas = [row.distance.formula() for row in ROWS]
    assert len(set(formulas)) == len(formulas)  # with all their constants
    assert all(f.startswith("d(q, k) = ") and "\n" not in f for f in formulas)


@every
@seeds
def test_normalises_says_the_truth(row, seed):
    q, k = rows_of(seed)
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.empty(12, 1, dtype=q.dtype).uniform_(0.1, 9, generator=generator) for _ in range(2))
    same = row.distance(a * q, b * k).item() == pytest.approx(row.distance(q, k).item(), rel=1e-9, abs=1e-12)
    assert same == row.distance.normalises


@every
@seeds
def test_of_batch_says_the_truth(row, seed):
    q, k = rows_of(seed)
    halves = (row.distance(q[:6], k[:6]) + row.distance(q[6:], k[6:])).item() / 2
    is_mean = row.distance(q, k).item() == pytest.approx(halves, rel=1e-9, abs=1e-12)
    if isinstance(row.distance, WhitenedMse) and row.distance.slice == 6:
        assert is_mean  # the halves are its slices
    else:
        assert is_mean != row.distance.of_batch


@pytest.mark.parametrize("row", [row for row in ROWS if row.permutes], ids=str)
@seeds
def test_the_order_of_the_images_is_none_of_its_business(row, seed):
    q, k = rows_of(seed)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    again = row.distance(q[order], k[order]).item()
    assert again == pytest.approx(row.distance(q, k).item(), rel=1e-9, abs=1e-12)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(row, dtype):
    q, k = (40 * x for x in rows_of(0, 24, 3, torch.float32))  # squared norms that overflow float16
    q, k = q.to(dtype).requires_grad_(), k.to(dtype).requires_grad_()
    value = row.distance(q, k)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(row.distance(q.double(), k.double()).item(), rel=1e-4)
    value.backward()
    assert q.grad.isfinite().all()
    assert k.grad.isfinite().all()


@every
def test_autocast_changes_nothing(row):
    q, k = rows_of(0, 24, 3, torch.float32)
    q.requires_grad_()
    value = row.distance(q, k)
    (gradient,) = torch.autograd.grad(value, q)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = row.distance(q, k)
    assert torch.equal(rounded, value)
    assert torch.equal(torch.autograd.grad(rounded, q)[0], gradient)


@every
def test_a_key_that_is_stopped_gets_no_gradient_and_changes_no_other(row):
    q, k = (x.requires_grad_() for x in rows_of(5))
    (both,) = torch.autograd.grad(row.distance(q, k), q)
    (alone,) = torch.autograd.grad(row.distance(q, k.detach()), q)
    assert torch.equal(both, alone)


@every
def test_collapsed_rows_have_a_finite_loss_and_gradient(row):
    q = torch.ones(12, 3, requires_grad=True)
    value = row.distance(q, torch.ones(12, 3))
    value.backward()
    assert value.isfinite()
    assert q.grad.isfinite().all()


@pytest.mark.parametrize("row", [row for row in ROWS if row.distance.of_batch], ids=str)
def test_a_batch_of_one_is_an_error_of_one_line(row):
    with pytest.raises(UsageError, match=rf"^distance: '{row.distance.kind}' [^\n]*$"):
        row.distance(torch.ones(1, 3), torch.ones(1, 3))

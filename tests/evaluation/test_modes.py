"""The predictor's pairs of eigenvalues, from a learner as it trains, against NumPy, autograd and theory."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from stopgrad.data.sources import ArrayPart
from stopgrad.evaluation.measures import Embedder, measure_learner, mode
from stopgrad.evaluation.modes import KEPT, has_modes, last_linear, measure_modes
from stopgrad.theory.flow import Flow
from stopgrad.theory.sgd import learner_of
from stopgrad.theory.statistics import gaussian_views
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.settings import merge, resolve

FACTS = DataFacts(1, (0.0,), (1.0,), None, 64)
LINEAR = {"predictor": {"kind": "linear"}}


def settings(method, **changes):
    small = {"recipe": "digits", "view_size": 8, "projector": {"hidden": [24], "out": 20}}
    return resolve(merge(small, {"method": method, **changes}))


def learner_and_views(method, batch=16, **changes):
    """A learner after one step, its embedder, images and views."""
    own = settings(method, **changes)
    learner = build_learner(own, FACTS)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (64, 1, 8, 8), dtype=torch.uint8, generator=generator)
    part = ArrayPart(images, None, [str(i) for i in range(64)])
    embedder = Embedder(8, torch.device("cpu"), lambda x: x, nullcontext, batch, 0)
    batch = own.make_views()(images, torch.arange(64), seed=3, epoch=0)
    learner.after_step(learner(batch), 0.1)
    return learner, embedder, part, own.make_views()


def seen(learner, embedder, part, views):
    """z of both views and y, as training sees them."""
    taken = []
    handle = last_linear(learner.projector).register_forward_hook(lambda _, given, __: taken.append(given[0]))
    z = ([], [])
    with torch.no_grad(), mode(learner, training=True):
        for rows in torch.arange(64).split(embedder.batch_size):
            for view, images in enumerate(views(part.images[rows], rows, seed=0, epoch=0)):
                z[view].append(learner.embed(images)[1])
    handle.remove()
    y = [torch.cat(taken[view::2]).double().numpy() for view in (0, 1)]
    return *(torch.cat(rows).double().numpy() for rows in z), np.concatenate(y)


@pytest.mark.parametrize(
    ("method", "changes"),
    [("byol-lp", {}), ("byol-slp", {}), ("directpred", {}), ("isoloss", {}), ("optimal-predictor", {}),
     ("simsiam", LINEAR), ("byol-lp", {"predictor": {"bias": True}})],
)  # fmt: skip
def test_pairs_are_those_of_the_matrices(method, changes):
    learner, *rest = learner_and_views(method, **changes)
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in learner.state_dict().items()}
    found = measure_learner(learner, *rest).modes
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in learner.state_dict().items())
    W = learner.predictor.linear.weight.detach().double().numpy()
    z1, z2, _ = seen(learner, *rest)
    F = (z1.T @ z1 + z2.T @ z2) / (2 * len(z1))
    C = (z1.T @ z2 + z2.T @ z1) / (2 * len(z1))
    values, vectors = np.linalg.eigh((W + W.T) / 2)
    order = np.argsort(-values)
    V = vectors[:, order]
    np.testing.assert_allclose(found["p"], values[order][:KEPT], rtol=1e-6, atol=1e-7)
    turned = V.T @ F @ V
    # within equal eigenvalues, as DirectPred's floor makes them, the directions are nobody's
    alone = np.diff(values[order], prepend=np.inf, append=-np.inf)
    kept = np.flatnonzero((np.abs(alone[:-1]) > 1e-4) & (np.abs(alone[1:]) > 1e-4))
    kept = kept[kept < KEPT]
    assert len(kept) > 5
    np.testing.assert_allclose(np.array(found["s"])[kept], np.diag(turned)[kept], rtol=1e-4)
    np.testing.assert_allclose(
        np.array(found["shared"])[kept], (np.diag(V.T @ C @ V) / np.diag(turned))[kept], rtol=1e-3, atol=1e-4
    )
    aligned = np.linalg.norm(np.diag(turned)) / np.linalg.norm(F)
    assert found["alignment"] == pytest.approx(aligned, rel=1e-4)
    assert found["z_square"] == pytest.approx(np.trace(F), rel=1e-5)
    bias = learner.predictor.linear.bias
    p = np.concatenate([z1, z2]) @ W.T + (0 if bias is None else bias.detach().double().numpy())
    assert found["p_square"] == pytest.approx((p**2).sum(axis=1).mean(), rel=1e-4)


@pytest.mark.parametrize(("method", "changes"), [("byol-lp", {}), ("simsiam", LINEAR)])
def test_pace_is_the_squared_gradient_of_a_pair_on_the_last_layer(method, changes):
    learner, *rest = learner_and_views(method, batch=64, **changes)
    found = measure_learner(learner, *rest).modes
    y = torch.from_numpy(seen(learner, *rest)[2])
    layer = last_linear(learner.projector)
    W = layer.weight.detach().double().requires_grad_()
    b = None if layer.bias is None else layer.bias.detach().double().requires_grad_()
    z = y @ W.T if b is None else y @ W.T + b
    if b is None:  # the norm of each view takes out the mean, and what it divides by is a constant here
        parts = [part - part.mean(dim=0) for part in z.split(64)]
        z = torch.cat([part / (part.detach().square().mean(dim=0) + 1e-5).sqrt() for part in parts])
    kept = torch.linalg.eigh((w := learner.predictor.linear.weight.detach().double()) + w.T)[1].flip(1)
    for j in (0, 1, 7):
        own = 0.5 * (z @ kept[:, j]).square().mean()
        gradients = torch.autograd.grad(own, [W] if b is None else [W, b], retain_graph=True)
        squared = sum(float(g.square().sum()) for g in gradients)
        # both views have about the same deviations
        tolerance = 1e-3 if b is not None else 0.05
        assert found["pace"][j] == pytest.approx(squared / float(2 * own.detach()), rel=tolerance)


def test_of_a_linear_network_they_are_the_theorys():
    l_d, noise, w, p = np.diag([1.0, 0.6, 0.3]), np.diag([0.5, 0.3, 0.4]), [0.9, 0.7, 0.5], [0.8, 0.5, 0.2]
    x1, x2 = exact_views(l_d, noise, 400)
    flow = Flow(l_d, noise, W=np.diag(w), W_p=np.diag(p))
    learner = learner_of(flow, lr=1e-3)
    views = [learner.embed(x)[1:] for x in (x1, x2)]
    found = measure_modes(learner, *zip(*views, strict=True), (x1, x2))
    l_s = np.diag(l_d + noise)
    np.testing.assert_allclose(found["p"], p)
    np.testing.assert_allclose(found["s"], l_s * np.square(w), rtol=1e-9)
    np.testing.assert_allclose(found["shared"], np.diag(l_d) / l_s, rtol=1e-9)
    np.testing.assert_allclose(found["pace"], l_s, rtol=1e-9)
    assert found["alignment"] == pytest.approx(1)


def exact_views(X, X_prime, count):
    """Views whose moments are X and X' to rounding."""
    first, second = gaussian_views(X, X_prime, count, seed=0)
    u, v = (first + second) / 2, (first - second) / 2
    n = len(X)
    joint = torch.linalg.qr(torch.cat([u, v], dim=1))[0] * count**0.5
    half = [torch.from_numpy(np.sqrt(np.diag(m))) for m in (X + X_prime / 2, X_prime / 2)]
    u, v = joint[:, :n] * half[0], joint[:, n:] * half[1]
    return u + v, u - v


def test_what_is_no_matrix_has_none():
    for method in ("byol", "byol-np", "directpred-partitions", "supervised"):
        facts = FACTS._replace(classes=("a", "b"))
        assert not has_modes(build_learner(settings(method), facts)), method
    fresh = build_learner(settings("directpred"), FACTS)
    assert not has_modes(fresh)  # its weights are PyTorch's until the first step
    learner, *rest = learner_and_views("byol")
    assert measure_learner(learner, *rest).modes == {}


def test_what_is_not_finite_gives_nothing_and_what_is_zero_no_ratio():
    learner = learner_of(Flow(np.eye(2), np.eye(2), W=np.eye(2), W_p=np.eye(2)), lr=1e-3)
    x = torch.randn(8, 2, dtype=torch.float64)
    assert measure_modes(learner, (x, x), (x, x * torch.inf), (x, x)) == {}
    still = measure_modes(learner, (0 * x, 0 * x), (x, x), (x, x))
    assert still["s"] == [0, 0]
    assert np.isnan(still["shared"]).all()
    assert isinstance(learner.predictor, nn.Module)

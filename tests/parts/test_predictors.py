"""What all predictors keep. A row of `PREDICTORS` enrols one; its own theorems have files of their own."""

import copy
import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from stopgrad.catalog import CATALOG
from stopgrad.parts.predictors import (
    Bias,
    ClosedForm,
    Identity,
    Linear,
    Mlp,
    Optimal,
    Partitioned,
    PredictorSettings,
    Spectral,
    TanhFc,
    TwoFc,
)
from stopgrad.parts.target import Ema, Same
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.optimizer import build_optimizer
from stopgrad.training.settings import resolve

PREDICTORS = [
    Identity(),
    Linear(),
    Linear(bias=True),
    Linear(symmetric=True),
    Linear(init="xavier"),
    Linear(init="identity", bias=True),
    Mlp(hidden=16),
    Mlp(hidden=16, affine=False),
    Mlp(hidden=16, bn=False),
    Mlp(hidden=16, bn=False, bias=False),
    Mlp(hidden=16, symmetric=True),
    Bias(),
    Bias(normalise=False),
    TwoFc(hidden=16),
    TanhFc(),
    TanhFc(reading="reparameterised"),
    Spectral(),
    Spectral(eps_form="text"),
    Spectral(freq=5),
    Spectral(rho="mean"),
    Spectral(exponent=1, eps=0.25),
    Spectral(exponent=0.3),
    Spectral(offset=0.05, eps=0),
    Spectral(offset=-0.05, eps=0),
    Spectral(floor=0.2),
    Spectral(centred=True),
    Spectral(noise=0.1),
    Spectral(eps=0.2, solver="products"),
    Partitioned(partitions=2),
    Partitioned(partitions=2, reading="text"),
    Partitioned(partitions=3, rho="mean", freq=2),
    Optimal(),
    Optimal(form="left"),
    Optimal(form="symmetrised"),
    Optimal(form="lyapunov", freq=2),
    Optimal(ridge=0, rho="mean"),
]
TARGETS = [Same(), Same(stop_gradient=False), Ema(tau=0.9), Ema(tau=0.9, schedule="cosine")]
DIM = 6

every_predictor = pytest.mark.parametrize("settings", PREDICTORS, ids=str)


def views(seed=0, dtype=torch.float32, batch=24):
    """Projections and targets of two views."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(2, batch, DIM, generator=generator).to(dtype)
    return list(z), list(z.flip(0) + 0.5 * torch.randn(z.shape, generator=generator).to(dtype))


def contents(predictor):
    return {key: value.clone() for key, value in predictor.state_dict().items()}


def same(first, second):
    assert first.keys() == second.keys()
    return [key for key in first if not torch.equal(first[key], second[key])] == []


@every_predictor
def test_it_maps_to_its_own_width_and_passes_gradients(settings):
    predictor = settings.build(DIM)
    z = views()[0][0].requires_grad_()
    p = predictor(z)
    assert p.shape == z.shape
    (p * torch.randn_like(p)).sum().backward()
    assert z.grad.abs().max() > 0
    closed = isinstance(predictor, ClosedForm) and predictor.freq == 1
    for weight in predictor.parameters():
        assert weight.requires_grad is not closed
        assert (weight.grad is None) is closed


@every_predictor
def test_settings_come_back_from_text(settings):
    text = json.dumps(settings.model_dump(mode="json"))
    assert TypeAdapter(PredictorSettings).validate_json(text) == settings


def test_equations_tell_predictors_apart():
    equations = {settings.equation() for settings in PREDICTORS}
    assert len(equations) == len(PREDICTORS)
    assert all(text.startswith("p_v = ") and "\n" not in text for text in equations)


@every_predictor
def test_forward_and_evaluation_change_nothing(settings):
    predictor = settings.build(DIM)
    predictor.after_step(*views(0))
    has_bn = any(isinstance(module, nn.BatchNorm1d) for module in predictor.modules())
    before = contents(predictor)
    if not has_bn:  # its running statistics are not the predictor's to keep
        predictor(views(1)[0][0])
    predictor.eval()(views(2)[0][0])
    assert same(before, contents(predictor))


@every_predictor
def test_evaluation_takes_each_vector_alone(settings):
    predictor = settings.build(DIM)
    predictor.after_step(*views(0))
    z = views(1)[0][0]
    alone = torch.cat([predictor.eval()(row) for row in z.split(1)])
    torch.testing.assert_close(alone, predictor(z))


@every_predictor
def test_state_goes_on_from_where_it_was_saved(settings):
    first, second = settings.build(DIM), settings.build(DIM)
    for step in range(3):
        first.after_step(*views(step))
    second.load_state_dict(contents(first))
    copied = copy.deepcopy(first)
    for predictor in (first, second, copied):
        for step in range(3, 8):
            predictor.after_step(*views(step))
    assert same(contents(first), contents(second))
    assert same(contents(first), contents(copied))


@every_predictor
def test_autocast_and_half_precision_leave_float32(settings):
    torch.manual_seed(0)
    outside = settings.build(DIM)
    inside, half, single = (copy.deepcopy(outside) for _ in range(3))
    outside.after_step(*views())
    with torch.autocast("cpu", torch.bfloat16):
        inside.after_step(*views())
        assert copy.deepcopy(inside)(views()[0][0]).shape == (24, DIM)
    assert same(contents(outside), contents(inside))
    rounded = [[x.bfloat16() for x in row] for row in views()]
    half.after_step(*rounded)
    single.after_step(*([x.float() for x in row] for row in rounded))
    assert same(contents(half), contents(single))
    assert all(not x.is_floating_point() or x.dtype == torch.float32 for x in contents(half).values())


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """States of all predictors: on one process by (row, dtype), and of two gloo processes likewise."""
    script, folder = Path(__file__).with_name("two_ranks.py"), tmp_path_factory.mktemp("ranks")
    table = folder / "table.json"
    table.write_text(json.dumps([settings.model_dump(mode="json") for settings in PREDICTORS]))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, table,
        folder,
    ]  # fmt: skip
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    spec = importlib.util.spec_from_file_location("two_ranks", script)
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return lambda row, dtype: (
        alone.state(row.model_dump(mode="json"), alone.JOINT, dtype),
        *(states[dtype == torch.float32][PREDICTORS.index(row)] for states in ranks),
    )


@every_predictor
def test_two_ranks_hold_what_one_holds_on_the_joint_batch(settings, two_ranks):
    alone, first, second = two_ranks(settings, torch.float64)
    assert same(first, second)
    assert alone.keys() == first.keys()
    for key, value in alone.items():
        torch.testing.assert_close(first[key], value, rtol=1e-11, atol=1e-11, msg=key)


@every_predictor
def test_averages_of_two_ranks_in_single_precision(settings, two_ranks):
    alone, first, second = two_ranks(settings, torch.float32)
    assert same(first, second)
    for key, value in alone.items():
        if key.startswith(("moments.", "centre.")):
            torch.testing.assert_close(first[key], value, rtol=1e-6, atol=1e-6, msg=key)


FACTS = DataFacts(1, (0.3,), (0.25,), tuple("abcd"), 64)


@pytest.mark.parametrize("target", TARGETS, ids=str)
@every_predictor
def test_it_goes_with_every_target(settings, target):
    own = resolve(
        {
            "method": "byol",
            "recipe": "digits-smoke",
            "predictor": settings.model_dump(),
            "target": target.model_dump(),
            "projector": {"out": 8},
        }
    )
    assert own.sentence == CATALOG["byol"].method.but(predictor=settings, target=target)
    assert settings.equation() in own.sentence.explain()
    learner = build_learner(own, FACTS)
    optimizer = build_optimizer(own.optimizer, learner)
    for _ in range(2):
        nodes = learner(torch.randn(2, 24, 1, 16, 16))
        optimizer.zero_grad()
        nodes.loss.backward()
        optimizer.step()
        learner.after_step(nodes, 0.5)
        assert math.isfinite(nodes.loss.item())
    assert all(torch.isfinite(weight).all() for weight in learner.parameters())
